"""Reads the records every five seconds. A terminal is drawn again; in a pipe each change is a line or a document."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

import typer

from image_mirror.cli.commands.status.estimate import UnderWay, under_way
from image_mirror.cli.commands.status.records import (
    Queued,
    RecordRow,
    by_attention,
    change,
    changed_rows,
    in_order,
    listing,
    record_row,
    summary,
    table,
)
from image_mirror.cli.errors import describe_aws_error
from image_mirror.cli.output import Output, current_time, print_document, say
from image_mirror.cli.terminal import again
from image_mirror.messages import printable
from image_mirror.record import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_EVERY = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """The records, and which of their builds wait in CodeBuild's queue. `note` says why the latter is not known.

    `all_states` is False if only records of some states were asked for: they do not say how far a burst is.
    """

    records: Sequence[Record]
    queued: Queued = field(default_factory=dict)
    note: str | None = None
    all_states: bool = True

    def progress(self, now: int) -> UnderWay | None:
        """Return how far the copies are that are under way; None if there are none, or that is not known."""
        return under_way(self.records, self.queued, now) if self.all_states else None


Readings = Iterator[tuple[Reading, str]]


def watch(read: Callable[[], Reading], output: Output, *, everything: bool) -> NoReturn:
    """Show what `read` returns until Ctrl-C. Raises an error of the first reading; later errors of AWS are shown.

    A terminal shows copies that are in order only with `everything`.
    """
    readings, wide = again(read, _EVERY, describe_aws_error), output is Output.WIDE
    if not output.is_table:
        _print_rows(readings, output)
    elif sys.stdout.isatty():
        from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

        def drawn(one: tuple[Reading, str], console: "Console") -> "Text":
            return frame(*one, current_time(), console, everything=everything, wide=wide)

        drawing.draw_again(readings, drawn)
    else:
        _print_changes(readings, wide=wide)
    raise AssertionError("the readings never end")


def split(records: Sequence[Record], *, everything: bool) -> tuple[list[Record], int]:
    """Return the records that a terminal shows, what needs attention last, and how many it does not show."""
    shown = [record for record in records if everything or not in_order(record)]
    return by_attention(shown)[::-1], len(records) - len(shown)


def not_shown(count: int) -> str:
    """Return the line about the copies that are not shown."""
    return f"{count:,} COPIED not shown (--all)"


def frame(
    reading: Reading, trouble: str, now: int, console: "Console", *, everything: bool = False, wide: bool = False
) -> "Text":
    """Return what fits on the terminal: the counts, and the records that need attention most, these last.

    `trouble` says why the records could not be read again; "" if they were.
    """
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    clock = datetime.fromtimestamp(now / 1000).astimezone().strftime("%H:%M:%S")
    records, rest = split(reading.records, everything=everything)
    head = [Text(f"{clock}  {summary(reading.records)}  (Ctrl-C ends)")]
    head += [Text(str(progress))] if (progress := reading.progress(now)) else []
    head += [Text(not_shown(rest), style="dim")] if rest else []
    head += [Text(printable(unknown_builds(reading.note)), style="dim")] if reading.note else []
    head += [Text(f"the records cannot be read now: {trouble}", style="red")] if trouble else []
    heading, *entries = listing(records, reading.queued, now, console.width, wide=wide)
    head += [Text.from_ansi(line) for line in heading] if entries else []
    room = console.height - 1 - sum(len(line.wrap(console, console.width)) for line in head)
    shown: list[Text] = []
    left = len(entries)
    for entry in reversed(entries):
        lines = [Text.from_ansi(line, overflow="fold") for line in entry]
        room -= sum(len(line.wrap(console, console.width)) for line in lines)
        if room < 1:  # one line is for the number of the others
            break
        shown, left = lines + shown, left - 1
    head += [Text(f"and {left:,} more, which need attention less", style="dim")] if left else []
    return Text("\n", overflow="fold").join([*head, *shown])


def unknown_builds(why: str) -> str:
    """Return the note about builds of which it is not known whether they run."""
    return f"it is not known which builds run and which wait: {why}"


def _print_changes(readings: Readings, *, wide: bool) -> None:
    known: dict[str, Record] | None = None
    noted: set[str] = set()
    told: UnderWay | None = None
    for reading, trouble in readings:
        _note(reading, trouble, noted)
        records, now = reading.records, current_time()
        latest = {record.destination: record for record in records}
        if known is None:
            say(summary(records))
            for line in table(by_attention(records)[::-1], reading.queued, now, wide=wide):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for name in sorted(known.keys() | latest.keys()):
                changed = change(known.get(name), latest.get(name))
                if changed:
                    typer.echo(f"{clock}  {changed}")
        progress = reading.progress(now)
        counts = progress and replace(progress, per_minute=None, minutes_left=None)
        if progress and counts != told:
            say(str(progress))
        known, told = latest, counts


def _print_rows(readings: Readings, output: Output) -> None:
    known: dict[str, RecordRow] = {}
    noted: set[str] = set()
    for reading, trouble in readings:
        _note(reading, trouble, noted)
        latest = {each.destination: record_row(each, reading.queued) for each in by_attention(reading.records)}
        for row in changed_rows(known, latest):
            print_document(row, output)
        known = latest


def _note(reading: Reading, trouble: str, noted: set[str]) -> None:
    """Print why something is not known: the records each time, the builds once."""
    if trouble:
        say(f"Note: the records cannot be read now: {trouble}")
    if reading.note and reading.note not in noted:
        noted.add(reading.note)
        say(f"Note: {unknown_builds(reading.note)}")
