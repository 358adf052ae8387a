"""The results of a run: one row for each check, as a table for people and as data for programs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from image_mirror.cli.doctor.runner import State
from image_mirror.cli.output import aligned, folded

SECONDS = ("admission", "start", "queue", "provisioning", "copying", "arrival", "total")
"""The phases of a copy, in their order."""
_HEADINGS = ("ADMISSION", "START", "QUEUE", "PROVISION", "COPY", "ARRIVAL", "TOTAL")


@dataclass(frozen=True, slots=True)
class Result:
    """What was checked, in which state it is, what was found, and what to do (None for nothing).

    `seconds` has the measured times by name. The fields are the keys of the JSON output.
    """

    check: str
    state: State
    found: str
    remedy: str | None = None
    lane: str | None = None
    image: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_passed(self) -> bool:
        """Whether nothing is wrong: a warning is about something that works."""
        return self.state in (State.OK, State.WARNING)


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield aligned lines of any length, then the times of the copies."""
    rows = list(results)
    lines = [["STATE", "CHECK", "LANE", "FOUND"]]
    lines += [[each.state, each.check, each.lane or "-", _text(each)] for each in rows]
    yield from aligned(lines)
    yield from _times(_timed(rows))


def listing(results: Iterable[Result]) -> Iterator[str]:
    """Yield a block for each result, for a terminal, then the times of the copies, a column for each: it is narrow."""
    rows = list(results)
    for each in rows:
        lane = f", {each.lane} lane" if each.lane else ""
        yield from folded(f"{each.state:<8} {each.check}{lane}: {_text(each)}")
    timed = _timed(rows)
    if timed:
        yield ""
        columns = [["SECONDS", *_HEADINGS], *([f"{each.check}, {each.lane}", *_seconds(each)] for each in timed)]
        yield from aligned(list(zip(*columns, strict=True)))


def _text(result: Result) -> str:
    return f"{result.found}; {result.remedy}" if result.remedy else result.found


def _timed(results: Sequence[Result]) -> list[Result]:
    return [each for each in results if each.image and each.seconds]


def _times(timed: Sequence[Result]) -> Iterator[str]:
    if timed:
        yield ""
        lines = [[str(each.image), each.lane or "-", *_seconds(each)] for each in timed]
        yield from aligned([["SECONDS", "LANE", *_HEADINGS], *lines])


def _seconds(result: Result) -> list[str]:
    return [f"{result.seconds[name]:.1f}" if name in result.seconds else "-" for name in SECONDS]
