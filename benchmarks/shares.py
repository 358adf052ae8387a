"""The share of each part in the CPU of a warm admission, by a profile, and the cost of a line of log or metrics."""

import cProfile
import io
import pstats
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aws_lambda_powertools import Logger

import image_mirror
from benchmarks.admissions import SIZES, deployed, warm_admission
from benchmarks.timing import cpu
from image_mirror.counts import Counts
from image_mirror.metrics import Metric

Function = tuple[str, int, str]
"""A function as pstats names it: file, line, name. Those made in C have the file "~", those made by exec "<string>"."""
Stats = dict[Function, tuple[int, int, float, float, Mapping[Function, tuple[int, int, float, float]]]]
_PACKAGE = Path(image_mirror.__file__).parent
_WRITING = frozenset(("dumps", "encode", "iterencode"))
_PROFILES, _TIMES = 20, 200
_LEAST = 0.015  # smaller shares are added up


def profile_table() -> str:
    """Return the shares of each part for each size of review, in Markdown."""
    shares = {size: _measure(size) for size in SIZES}
    names = sorted({name for each in shares.values() for name in each}, key=lambda name: -shares["2.4 kB"].get(name, 0))
    lines = ["| part | " + " | ".join(SIZES) + " |", "| --- |" + " --- |" * len(SIZES)]
    large = [name for name in names if any(each.get(name, 0) >= _LEAST for each in shares.values())]
    found = {name: [shares[size].get(name, 0) for size in SIZES] for name in large}
    found["the rest"] = [1 - sum(each) for each in zip(*found.values(), strict=True)]
    lines += [f"| {name} | " + " | ".join(f"{share:.0%}" for share in each) + " |" for name, each in found.items()]
    return "\n".join(lines)


def prices_table() -> str:
    """Return the cost of a line of log and of one of metrics, relative to a warm admission of 2.4 kB, in Markdown."""
    with warm_admission("2.4 kB") as admit:
        admission = cpu(admit, 2_000)
    lines = ["| line | cost, by an admission's |", "| --- | --- |"]
    lines += [f"| {name} | {cost / admission:.2f}x |" for name, cost in _prices()]
    return "\n".join(lines)


def shares_of(stats: Stats) -> dict[str, float]:
    """Return the share of each part in the time.

    The time of C code and generated code is divided among its callers, in proportion to their calls' time.
    """
    totals: dict[str, float] = defaultdict(float)
    for function, (_, _, own, _, _) in stats.items():
        for part, share in (_parts(function, stats, frozenset()) or {"the benchmark": 1.0}).items():
            totals[part] += own * share
    whole = sum(totals.values())
    return {part: time / whole for part, time in totals.items()}


def _measure(size: str) -> dict[str, float]:
    """Return the share of each part, by the least time of each function in several profiles.

    All profiles have the same calls; an interruption of one profile would count as time of a function.
    """
    profiles: list[Stats] = []
    with warm_admission(size) as admit:
        for _ in range(_PROFILES):
            with cProfile.Profile() as profile:
                for _ in range(_TIMES):
                    admit()
            profiles.append(pstats.Stats(profile).stats)  # type: ignore[attr-defined]
    return shares_of(least(profiles))


def least(profiles: Sequence[Stats]) -> Stats:
    """Return the functions that are in all profiles, each with its least own time, and the same for its callers."""
    found: Stats = {}
    for function, (primitive, calls, _, cumulative, callers) in profiles[0].items():
        others = [profile.get(function) for profile in profiles]
        entries = [entry for entry in others if entry is not None]
        if len(entries) == len(profiles):
            own = min(entry[2] for entry in entries)
            edges = {
                caller: (*costs[:2], min(entry[4][caller][2] for entry in entries if caller in entry[4]), costs[3])
                for caller, costs in callers.items()
            }
            found[function] = (primitive, calls, own, cumulative, edges)
    return found


def _parts(function: Function, stats: Stats, seen: frozenset[Function]) -> dict[str, float]:
    """Return the parts to which a function belongs, with the share of each; the sum is 1, or there is no part.

    Callers in `seen` are not counted: a function that calls itself belongs to its other callers.
    """
    part = _part(function)
    if part is not None:
        return {part: 1.0}
    found: dict[str, float] = defaultdict(float)
    for caller, (_, _, own, _) in stats[function][4].items():
        if caller not in seen:
            for name, share in _parts(caller, stats, seen | {function}).items():
                found[name] += share * own
    whole = sum(found.values())
    return {name: share / whole for name, share in found.items()} if whole else {}


def _part(function: Function) -> str | None:
    """Return the part of a function, or None for one that is divided among its callers."""
    file, _, name = function
    path = Path(file)
    if file in ("~", "<string>"):
        return None
    if path.parent == _PACKAGE:
        return f"`{path.name}`"
    if path.parent.name == "json":
        return "json, writing" if name in _WRITING else "json, reading"
    if path.parent == Path(__file__).parent:
        return "the benchmark"
    return f"Python's {path.parent.name if path.stem == '__init__' else path.stem}"


def _prices() -> Iterator[tuple[str, float]]:
    logger = Logger(service="bench", stream=io.StringIO())
    yield "one line of log, by Powertools", cpu(lambda: logger.info("admitted", extra={"images": 1}), 2_000)
    counts = Counts()

    def count() -> None:
        counts.add(Metric.ADMISSIONS)
        counts.add(Metric.REWRITES)

    def publish() -> None:
        count()
        counts.publish()

    with deployed():
        yield "one line of metrics, by Powertools", cpu(publish, 2_000)
        yield "the same counted, for a line each second", cpu(count, 20_000)
