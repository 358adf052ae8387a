"""The figures of all adversaries for docs/adversaries.md: hours of many seeds, and a month of each."""

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pool
from multiprocessing.pool import Pool as Workers
from pathlib import Path

from benchmarks.table import put_into
from simulation.adversaries import ATTACKS, DRIP, FULL, MONTH, STALLS, Attack, Result, Size, run_attack, seconds_alone
from simulation.clock import HOUR, MINUTE

BEGIN = "<!-- python -m simulation --adversaries writes from here -->"
END = "<!-- the figures of adversaries end here -->"
_PAGE = Path(__file__).parents[2] / "docs" / "adversaries.md"
_KEY_DAY = replace(MONTH, images=300, hours=24)
Task = tuple[Attack, Size, int, bool]


def write_adversaries(seeds: int) -> None:
    """Run all adversaries, print their figures, and write them into the page."""
    lines = []
    for line in _lines(seeds):
        print(line, flush=True)
        lines.append(line)
    page = _PAGE.read_text(encoding="utf-8")
    _PAGE.write_text(put_into(page, ["", *lines, ""], BEGIN, END), encoding="utf-8")


def _lines(seeds: int) -> Iterator[str]:
    with Pool() as pool:
        yield from _hours(pool, seeds)
        yield ""
        yield from _month(pool)


def _hours(pool: Workers, seeds: int) -> Iterator[str]:
    alone = seconds_alone(FULL.quota)
    runs = f"{seeds} seeds of {FULL.hours:g} hours each, with {FULL.images} images and a quota of {FULL.quota} builds"
    yield f"{runs}. Without an attack, an image takes {alone:.0f} s."
    yield ""
    waited = ("the other namespace's image: p50", "p99", "longest", "longest, against no attack")
    yield _row("adversary", *waited, "builds", "USD", "first alarm")
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for attack in ATTACKS:
        results = pool.map(_run, [(attack, FULL, seed, True) for seed in range(seeds)], chunksize=1)
        waits = sorted(wait for result in results for wait in result.waits)
        lost = [violation for result in results for violation in result.violations]
        assert not lost, lost[:3]
        yield _row(
            attack.name,
            *(_span(waits[min(len(waits) * share // 100, len(waits) - 1)]) for share in (50, 99, 100)),
            f"{waits[-1] / alone:.1f}x",
            f"{max(result.builds for result in results):,}",
            f"{max(result.usd for result in results):.2f}",
            _latest_ring(results),
        )
    yield ""
    for attack, size, what in (
        (STALLS, replace(FULL, images=20, quota=1), "With a quota of 1 and 20"),
        (STALLS, replace(FULL, namespaces=2), "If pods of two namespaces ask for"),
        (DRIP, replace(FULL, namespaces=2), "If pods of two namespaces ask for"),
    ):
        few = pool.map(_run, [(attack, size, seed, True) for seed in range(10)], chunksize=1)
        longest = max(wait for result in few for wait in result.waits)
        yield f"- {what} {attack.name}, the other namespace's image takes {_span(longest)} at most in 10 seeds."


def _month(pool: Workers) -> Iterator[str]:
    yield "A month of each, in which nobody repairs anything:"
    yield ""
    yield "| adversary | one image: builds | USD | 500 images: builds | USD | records | first alarm |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    sizes = (replace(MONTH, images=1), MONTH)
    results = pool.map(_run, [(attack, size, 0, False) for attack in ATTACKS for size in sizes], chunksize=1)
    for attack, one, all_ in zip(ATTACKS, results[::2], results[1::2], strict=True):
        cells = [f"{one.builds:,}", f"{one.usd:.2f}", f"{all_.builds:,}", f"{all_.usd:.2f}", f"{all_.records:,}"]
        yield _row(attack.name, *cells, _latest_ring([one, all_]))
    keys = [attack for attack in ATTACKS if attack.repair]
    yield ""
    for attack, day in zip(keys, pool.map(_run, [(attack, _KEY_DAY, 0, False) for attack in keys]), strict=True):
        cost = f"{day.builds:,} builds, {day.usd:.2f} USD"
        yield f"- A day in which {attack.name} while {_KEY_DAY.images} images wait: {cost}."


def _run(task: Task) -> Result:
    attack, size, seed, repaired = task
    return run_attack(attack, size, seed, repaired=repaired)


def _latest_ring(results: list[Result]) -> str:
    """Return the alarm that rings in each run, with the latest time at which it begins; "-" if there is none."""
    common = set.intersection(*(set(result.rings) for result in results))
    latest = {name: max(result.rings[name] for result in results) for name in common}
    if not latest:
        return "-"
    first = min(latest, key=lambda name: (latest[name], name))
    return f"`{first}`, after {_span(latest[first] * MINUTE)}"


def _span(seconds: float) -> str:
    for unit, size in (("h", HOUR), ("min", MINUTE)):
        if seconds >= 5 * size:
            return f"{seconds / size:.{int(seconds < 10 * size)}f} {unit}"
    return f"{seconds:.0f} s"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
