"""Fuzzing guided by coverage, with atheris: `python -m fuzz [--seconds N] [INPUT ...]`; named inputs are replayed."""

import argparse
import base64
import hashlib
import json
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random
from typing import Any

_REVIEWS = Path(__file__).parents[1] / "reviews"
_LONGEST = 65_536  # bytes of an input; tests/unit/test_bounds.py tests longer ones
_SLOWEST = 30  # seconds; an input that takes longer counts as hanging


def main() -> int:
    """Fuzz or replay, as the command line says; the result is not 0 if a check of the oracle failed."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long to fuzz (20)")
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="files to replay")
    options = parser.parse_args()
    return _replay(options.inputs) if options.inputs else _fuzz(options.seconds)


def _replay(inputs: list[Path]) -> int:
    from fuzz.events import event_of
    from fuzz.oracle import check

    for each in inputs:
        event, scenario = event_of(each.read_bytes())
        print(f"{each}: {scenario}\n{json.dumps(event)[:4000]}")
        print(f"  {check(event, scenario)}")
    return 0


def _fuzz(seconds: int) -> int:
    try:
        import atheris
    except ImportError:
        print(
            "atheris runs on Linux on x86-64 with Python 3.11 to 3.13; tests/unit/tools/test_fuzz.py fuzzes without it"
        )
        return 1
    with atheris.instrument_imports(include=["image_mirror"]):
        from fuzz.events import event_of, joined, split
        from fuzz.mutations import mutated
        from fuzz.oracle import check
        from fuzz.scenarios import SCENARIOS

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seeds = sorted(_REVIEWS.glob("*.json"))
    for seed in seeds:
        # If all first inputs were refused, the fuzzing would prove nothing.
        assert check(*event_of(seed.read_bytes())).status == 200, seed

    def one_input(data: bytes) -> None:
        event, scenario = event_of(data)
        try:
            check(event, scenario)
        except BaseException:
            _report(data, folder)
            raise

    def change(data: bytes, longest: int, seed: int) -> bytes:
        """Mostly mutate the review, if the input contains one; otherwise change bytes."""
        dice = Random(seed)
        body, query, headers, encoding, scenario = split(data)
        try:
            review: Any = json.loads(body)
            if isinstance(review, dict) and dice.random() < 0.7:
                scenario = dice.randrange(len(SCENARIOS)) if dice.random() < 0.2 else scenario
                bent = joined(json.dumps(mutated(review, dice)).encode(), query, headers, encoding, scenario)
                if len(bent) <= longest:
                    return bent
        except (ValueError, RecursionError):
            pass
        return bytes(atheris.Mutate(data, longest))

    inputs = ",".join(map(str, seeds))
    arguments = [
        *(sys.argv[0], f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST}"),
        *(f"-artifact_prefix={folder}/", f"-seed_inputs={inputs}", "-print_final_stats=1", "-verbosity=0"),
    ]
    atheris.Setup(arguments, one_input, custom_mutator=change)
    atheris.Fuzz()
    return 0


def _report(data: bytes, folder: Path) -> None:
    """Print an input that failed a check, and how to send it again, here and on a machine without its file."""
    path = folder / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"  # libFuzzer's own name for it
    path.write_bytes(data)
    traceback.print_exc(file=sys.stdout)
    print(f"\nThis input failed a check: {data[:4000]!r}")
    print(f"Replay: PYTHONPATH=tests .venv/bin/python -m fuzz {path}")
    print(f"Elsewhere: echo {base64.b64encode(data).decode()} | base64 -d > input", flush=True)


if __name__ == "__main__":
    sys.exit(main())
