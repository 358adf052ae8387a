"""How results are printed: an aligned line each for a pipe, a block each on a terminal, and a line that counts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import typer

from image_mirror.cli.doctor.runner import CheckResult, State
from image_mirror.cli.output import aligned
from image_mirror.messages import printable

_COLOURS = {
    State.OK: typer.colors.GREEN,
    State.WARNING: typer.colors.YELLOW,
    State.FAILED: typer.colors.RED,
    State.SKIPPED: typer.colors.BRIGHT_BLACK,
}


def table(results: Iterable[CheckResult]) -> Iterator[str]:
    """Yield a heading and one line for each result, its remedy after an arrow, however long."""
    lines = [["STATE", "TOPIC", "FOUND -> REMEDY"]]
    lines += [[each.state, each.topic, " -> ".join(filter(None, (each.found, each.remedy)))] for each in results]
    yield from aligned(lines)


def listing(results: Iterable[CheckResult]) -> Iterator[str]:
    """Yield each result in colour, its remedy below it: for a terminal, which wraps long lines."""
    for each in results:
        state = typer.style(f"{each.state:8}", fg=_COLOURS[each.state], bold=each.state is State.FAILED or None)
        yield f"{state} {typer.style(printable(each.topic), bold=True)}: {printable(each.found)}"
        if each.remedy:
            yield f"         -> {printable(each.remedy)}"


def summary(results: Sequence[CheckResult]) -> str:
    """Count the results by their state."""
    counted = Counter(each.state for each in results)
    return ", ".join(f"{counted[state]} {state}" for state in State)
