"""Reads the records every five seconds. A terminal is drawn again; in a pipe each change is a line or a document."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    unknown_builds,
)
from image_mirror.cli.errors import describe_aws_error
from image_mirror.cli.output import Output, current_time, say
from image_mirror.cli.terminal import again, print_stream, say_new
from image_mirror.messages import printable
from image_mirror.record import Record, Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_EVERY = 5.0  # seconds
_LEAST = 3  # lines of the entry that needs attention most


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
        print_stream(_rows(_remembered(readings)), {}, changed_rows, output)
    elif sys.stdout.isatty():
        from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

        def drawn(one: tuple[Reading, str], console: "Console") -> "Text":
            return frame(*one, current_time(), console, everything=everything, wide=wide)

        drawing.draw_again(readings, drawn)
    else:
        _print_changes(_remembered(readings), wide=wide)
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
    head += [Text(f"the records cannot be read now: {trouble}", style="red")] if trouble else []
    head += [Text(str(progress))] if (progress := reading.progress(now)) else []
    head += [Text(not_shown(rest), style="dim")] if rest else []
    head += [Text(printable(unknown_builds(reading.note)), style="dim")] if reading.note else []
    heading, *entries = listing(records, reading.queued, now, console.width, wide=wide)
    head += [Text.from_ansi(line) for line in heading] if entries else []

    def wrapped(lines: Iterable[Text]) -> list[Text]:
        return [part for line in lines for part in line.wrap(console, console.width)]

    blocks = [wrapped(Text.from_ansi(line, overflow="fold") for line in entry) for entry in entries]
    # One line is for the number of the others. The lines above give way to the entry that needs attention most.
    least = min(_LEAST, len(blocks[-1])) if blocks else 0
    while len(head) > 1 and console.height - 1 - len(wrapped(head)) < least:
        head.pop()
    room = console.height - 1 - len(wrapped(head))
    shown: list[Text] = []
    left = len(blocks)
    for block in reversed(blocks):
        lines = block
        if not shown and len(block) > room >= 1:
            lines = block[:room]
            lines[-1].truncate(console.width - 3)
            lines[-1].append("...")
        if len(lines) > room:
            break
        room -= len(lines)
        shown, left = lines + shown, left - 1
    head += [Text(f"and {left:,} more, which need attention less", style="dim")] if left else []
    return Text("\n", overflow="fold").join([*head, *shown])


def _remembered(readings: Readings) -> Readings:
    """Yield the readings; a build of which it is not known now whether it runs is as it was before."""
    queued: dict[str, bool] = {}
    for reading, trouble in readings:
        copying = {record.build_id for record in reading.records if record.status is Status.COPYING}
        queued = {build: value for build, value in queued.items() if build in copying} | dict(reading.queued)
        yield replace(reading, queued=queued), trouble


def _print_changes(readings: Readings, *, wide: bool) -> None:
    known: dict[str, Record] | None = None
    noted: Sequence[str] = ()
    told: UnderWay | None = None
    for reading, trouble in readings:
        noted = say_new(_notes(reading, trouble), noted)
        records, now = reading.records, current_time()
        latest = {record.destination: record for record in records}
        if known is None:
            say(summary(records))
        # Before the changes: who has read a change finds the counts on standard error.
        progress = reading.progress(now)
        counts = progress and replace(progress, per_minute=None, minutes_left=None)
        if progress and counts != told:
            say(str(progress))
        if known is None:
            for line in table(by_attention(records)[::-1], reading.queued, now, wide=wide):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for name in sorted(known.keys() | latest.keys()):
                changed = change(known.get(name), latest.get(name))
                if changed:
                    typer.echo(f"{clock}  {changed}")
        known, told = latest, counts


def _rows(readings: Readings) -> Iterator[tuple[dict[str, RecordRow], list[str]]]:
    for reading, trouble in readings:
        records = by_attention(reading.records)
        yield {each.destination: record_row(each, reading.queued) for each in records}, _notes(reading, trouble)


def _notes(reading: Reading, trouble: str) -> list[str]:
    """Return why something is not known."""
    notes = [f"the records cannot be read now: {trouble}"] if trouble else []
    return notes + ([unknown_builds(reading.note)] if reading.note else [])
