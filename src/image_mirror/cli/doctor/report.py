"""How results are printed: each as an aligned line for a pipe, or as a block on a terminal; then the counts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import typer

from image_mirror.cli.doctor.runner import CheckResult, State
from image_mirror.cli.output import aligned, folded
from image_mirror.messages import printable

PROBLEMS = (State.WARNING, State.FAILED)
_LAST = (State.OK, State.SKIPPED, *PROBLEMS)
_COLOURS = {
    State.OK: typer.colors.GREEN,
    State.WARNING: typer.colors.YELLOW,
    State.FAILED: typer.colors.RED,
    State.SKIPPED: typer.colors.BRIGHT_BLACK,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What is printed of one result, or of several. Its fields are the keys of the JSON output."""

    topic: str
    state: State
    found: str
    remedy: str | None


def rows(results: Iterable[CheckResult]) -> list[Row]:
    """Return a row for each result."""
    return [Row(each.topic, each.state, each.found, each.remedy) for each in results]


def short_rows(results: Sequence[CheckResult]) -> list[Row]:
    """Return the rows for people.

    Checks that were skipped only because the same other one has no answer become one row.
    """
    needs = {each.topic: each.needs for each in results if each.needs}
    missing = [_first(each, needs) for each in results]
    counts = Counter(filter(None, missing))
    found: dict[object, Row] = {}
    for number, (row, root) in enumerate(zip(rows(results), missing, strict=True)):
        if root is None or counts[root] == 1:
            found[number] = row
        else:
            found[root] = Row(f"{counts[root]} checks", State.SKIPPED, f'not asked: they need "{root}"', None)
    return list(found.values())


def _first(result: CheckResult, needs: Mapping[str, str]) -> str | None:
    """Return the topic that is the first cause of a missing answer: what `result` needs may itself need another one."""
    topic, seen = result.needs, {result.topic}
    while topic is not None and topic in needs and topic not in seen:
        seen.add(topic)
        topic = needs[topic]
    return topic


def failures_last(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with those that need attention at the end, nearest to the prompt.

    Rows of one state keep their order, in which faults are fixed.
    """
    return sorted(rows, key=lambda row: _LAST.index(row.state))


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and one line of any length for each row, with its remedy after an arrow."""
    lines = [["STATE", "TOPIC", "FOUND -> REMEDY"]]
    lines += [[each.state, each.topic, " -> ".join(filter(None, (each.found, each.remedy)))] for each in rows]
    yield from aligned(lines)


def listing(rows: Iterable[Row]) -> Iterator[str]:
    """Yield each row in colour, with its remedy below it, for a terminal: as lines that are not wider."""
    indent = " " * 9
    for each in rows:
        state = typer.style(f"{each.state:8}", fg=_COLOURS[each.state], bold=each.state is State.FAILED or None)
        first, *others = folded(f"{each.topic}: {each.found}", indent)
        topic = printable(each.topic)
        if first.startswith(f"{indent}{topic}:"):
            yield f"{state} {typer.style(topic, bold=True)}{first.removeprefix(indent + topic)}"
        else:  # a long word got a line of its own
            yield state.rstrip()
            yield first
        yield from others
        if each.remedy:
            yield from folded(f"-> {each.remedy}", indent)


def summary(results: Sequence[CheckResult], *, problems: bool) -> str:
    """Count the results by their state; with `problems`, those that are not shown are named as such."""
    counted = Counter(each.state for each in results)
    shown = ", ".join(f"{counted[state]} {state}" for state in (PROBLEMS if problems else State))
    hidden = ", ".join(f"{counted[state]} {state}" for state in State if state not in PROBLEMS)
    return f"{shown}; not shown: {hidden}" if problems else shown
