"""Reads the pods again and again. A terminal is drawn again; in a pipe each change is a line."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NoReturn

import typer

from image_mirror.cli.commands.pods.groups import Group, shown, summary
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.output import folded, say
from image_mirror.messages import printable

_EVERY = 10.0  # seconds: a reading runs kubectl four times

Read = Callable[[], tuple[list[Group], list[str]]]
Readings = Iterator[tuple[list[Group], list[str]]]


def watch(read: Read, *, wide: bool, missed: bool) -> NoReturn:
    """Show what `read` returns until Ctrl-C. Raises an error of the first reading; later errors are shown."""
    readings = _readings(read)
    if sys.stdout.isatty():
        _draw(readings, wide=wide, missed=missed)
    else:
        _print_changes(readings, wide=wide)
    raise AssertionError("the readings never end")


def changes(before: Sequence[Group], after: Sequence[Group]) -> list[str]:
    """Return a line for each image and cause that more or fewer pods have. A reason's times do not count."""
    old = {(group.image, group.cause): group for group in before}
    new = {(group.image, group.cause): group for group in after}
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            lines.append(f"{0:>4}  {key[0]}  no longer: {old[key].why}")
        elif key not in old or old[key].count != new[key].count:
            lines.append(f"{new[key].count:>4}  {key[0]}  {new[key].why}")
    return [printable(line) for line in lines]


def _print_changes(readings: Readings, *, wide: bool) -> None:
    known: list[Group] | None = None
    noted: set[str] = set()
    for groups, notes in readings:
        for note in notes:
            if note not in noted:
                say(f"Note: {note}")
        noted.update(notes)
        if known is None:
            for line in shown(groups, None, wide=wide):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for line in changes(known, groups):
                typer.echo(f"{clock}  {line}")
        known = groups


def _draw(readings: Readings, *, wide: bool, missed: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()  # what does not fit is cropped: the rows with the most pods are first
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for groups, notes in readings:
            lines = frame(groups, notes, console.width, wide=wide, missed=missed)
            live.update(Text("\n").join(Text.from_ansi(line) for line in lines), refresh=True)


def frame(groups: Sequence[Group], notes: Sequence[str], width: int, *, wide: bool, missed: bool) -> list[str]:
    """Return the lines that a terminal of this width shows: the time and the counts, the notes, the groups."""
    clock = datetime.now().astimezone().strftime("%H:%M:%S")
    head = [f"{clock}  {summary(groups, missed=missed)}  (Ctrl-C ends)", *(f"Note: {each}" for each in notes)]
    return [line for text in head for line in folded(text)] + (shown(groups, width, wide=wide) if groups else [])


def _readings(read: Read) -> Readings:
    """Yield what was read; where the cluster gives no answer later, what was read before, with a note."""
    groups, notes = read()
    while True:
        yield groups, notes
        time.sleep(_EVERY)
        try:
            groups, notes = read()
        except NoAnswerError as error:
            notes = [f"the pods cannot be read now: {error}"]
