"""Reads the records every five seconds. A terminal is drawn again; in a pipe each change is a line."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

import typer

from image_mirror.cli.commands.status.records import HEADING, by_attention, change, entry, summary, table
from image_mirror.cli.errors import describe_aws_error
from image_mirror.cli.output import current_time
from image_mirror.cli.terminal import again
from image_mirror.record import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_EVERY = 5.0  # seconds

Readings = Iterator[tuple[Sequence[Record], str]]


def watch(read: Callable[[], Sequence[Record]]) -> NoReturn:
    """Show what `read` returns until Ctrl-C. Raises an error of the first reading; later errors of AWS are shown."""
    readings = again(read, _EVERY, describe_aws_error)
    if sys.stdout.isatty():
        from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

        drawing.draw_again(readings, lambda reading, console: frame(*reading, current_time(), console))
    else:
        _print_changes(readings)
    raise AssertionError("the readings never end")


def frame(records: Sequence[Record], trouble: str, now: int, console: "Console") -> "Text":
    """Return what fits on the terminal: the counts, and the records that need attention most.

    `trouble` says why the records could not be read again; "" if they were.
    """
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    clock = datetime.fromtimestamp(now / 1000).astimezone().strftime("%H:%M:%S")
    shown = [Text(f"{clock}  {summary(records)}  (Ctrl-C ends)")]
    shown += [Text(f"the records cannot be read now: {trouble}", style="red")] if trouble else []
    shown += [Text.from_ansi(HEADING)]
    room, rest = console.height - 1 - sum(len(line.wrap(console, console.width)) for line in shown), len(records)
    for record in by_attention(records):
        lines = [Text.from_ansi(line, overflow="fold") for line in entry(record, now)]
        room -= sum(len(line.wrap(console, console.width)) for line in lines)
        if room < 1:  # one line is for the number of the others
            break
        shown, rest = shown + lines, rest - 1
    shown += [Text(f"and {rest:,} more", style="dim")] if rest else []
    return Text("\n", overflow="fold").join(shown)


def _print_changes(readings: Readings) -> None:
    known: dict[str, Record] | None = None
    for records, trouble in readings:
        if trouble:
            typer.echo(f"Note: the records cannot be read now: {trouble}", err=True)
        latest = {record.destination: record for record in records}
        if known is None:
            typer.echo(summary(records), err=True)
            for line in table(by_attention(records), current_time()):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for name in sorted(known.keys() | latest.keys()):
                changed = change(known.get(name), latest.get(name))
                if changed:
                    typer.echo(f"{clock}  {changed}")
        known = latest
