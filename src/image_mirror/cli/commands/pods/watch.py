"""Reads the pods again and again. A terminal is drawn again; in a pipe each change is a line."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NoReturn

import typer

from image_mirror.cli.commands.pods.groups import Group, shown, summary
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.output import folded, say
from image_mirror.cli.terminal import again
from image_mirror.messages import printable

_EVERY = 10.0  # seconds: a reading runs kubectl four times

Reading = tuple[list[Group], list[str]]
Readings = Iterator[Reading]


def watch(read: Callable[[], Reading], *, wide: bool, missed: bool) -> NoReturn:
    """Show what `read` returns until Ctrl-C: groups and notes.

    Raises an error of the first reading; a later one, if the cluster gives no answer, is shown as a note.
    """
    readings = ((groups, [trouble] if trouble else notes) for (groups, notes), trouble in again(read, _EVERY, _trouble))
    if sys.stdout.isatty():
        _draw(readings, wide=wide, missed=missed)
    else:
        _print_changes(readings, wide=wide)
    raise AssertionError("the readings never end")


def _trouble(error: Exception) -> str | None:
    return f"the pods cannot be read now: {error}" if isinstance(error, NoAnswerError) else None


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
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    from image_mirror.cli import drawing  # noqa: PLC0415

    # What does not fit is cut off: the rows with the most pods are first.
    drawing.draw_again(
        readings,
        lambda reading, console: Text("\n").join(
            Text.from_ansi(line) for line in frame(*reading, console.width, wide=wide, missed=missed)
        ),
    )


def frame(groups: Sequence[Group], notes: Sequence[str], width: int, *, wide: bool, missed: bool) -> list[str]:
    """Return the lines that a terminal of this width shows: the time and the counts, the notes, the groups."""
    clock = datetime.now().astimezone().strftime("%H:%M:%S")
    head = [f"{clock}  {summary(groups, missed=missed)}  (Ctrl-C ends)", *(f"Note: {each}" for each in notes)]
    return [line for text in head for line in folded(text)] + (shown(groups, width, wide=wide) if groups else [])
