"""Reads the records every five seconds. A terminal is drawn again; in a pipe each change is a line."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NoReturn

import typer

from image_mirror.cli.commands.status.records import by_attention, change, summary, table
from image_mirror.cli.errors import describe_aws_error
from image_mirror.cli.output import current_time
from image_mirror.record import Record

_EVERY = 5.0  # seconds

Read = Callable[[], Sequence[Record]]
Readings = Iterator[tuple[Sequence[Record], str]]


def watch(read: Read) -> NoReturn:
    """Show what `read` returns until Ctrl-C. Raises an error of the first reading; later errors of AWS are shown."""
    readings = _readings(read)
    if sys.stdout.isatty():
        from image_mirror.cli.commands.status import screen  # noqa: PLC0415 - only for a terminal

        screen.draw(readings)
    else:
        _print_changes(readings)
    raise AssertionError("the readings never end")


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


def _readings(read: Read) -> Readings:
    """Yield the records every five seconds, and why they could not be read again, or ""."""
    records, trouble = read(), ""
    while True:
        yield records, trouble
        time.sleep(_EVERY)
        try:
            records, trouble = read(), ""
        except Exception as error:
            trouble = describe_aws_error(error) or ""
            if not trouble:
                raise
