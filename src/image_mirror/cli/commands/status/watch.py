"""Records looked at every five seconds: drawn anew on a terminal, told change by change in a pipe."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

import typer

from image_mirror.cli.commands.status.records import HEADING, by_attention, change, entry, summary, table
from image_mirror.cli.errors import describe_aws_error
from image_mirror.record import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_EVERY = 5.0  # seconds

Read = Callable[[], Sequence[Record]]
Readings = Iterator[tuple[Sequence[Record], str]]


def watch(read: Read) -> NoReturn:
    """Show what `read` returns until Ctrl-C. Raises what the first reading raises; what later ones do is shown."""
    readings = _readings(read)
    if sys.stdout.isatty():
        _draw(readings)
    else:
        _tell(readings)
    raise AssertionError("the readings never end")


def frame(records: Sequence[Record], trouble: str, now: int, console: "Console") -> "Text":
    """Return what fits on the terminal: the counts, and the records in the order in which they need attention.

    `trouble` says why these are an older reading's, "" where they are not.
    """
    from rich.text import Text  # here, as in _draw

    clock = datetime.fromtimestamp(now / 1000).astimezone().strftime("%H:%M:%S")
    shown = [Text(f"{clock}  {summary(records)}  (Ctrl-C ends)")]
    shown += [Text(f"not read anew: {trouble}", style="red")] if trouble else []
    shown += [Text.from_ansi(HEADING)]
    room, rest = console.height - 1 - sum(len(line.wrap(console, console.width)) for line in shown), len(records)
    for record in by_attention(records):
        made = [Text.from_ansi(line, overflow="fold") for line in entry(record, now)]
        room -= sum(len(line.wrap(console, console.width)) for line in made)
        if room < 1:  # the last line's
            break
        shown, rest = shown + made, rest - 1
    shown += [Text(f"and {rest:,} more", style="dim")] if rest else []
    return Text("\n", overflow="fold").join(shown)


def _draw(readings: Readings) -> None:
    # Here, for it costs 15 ms, which only a terminal's watcher need pay.
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for records, trouble in readings:
            live.update(frame(records, trouble, _now(), console), refresh=True)


def _tell(readings: Readings) -> None:
    known: dict[str, Record] | None = None
    for records, trouble in readings:
        if trouble:
            typer.echo(f"Note: not read anew: {trouble}", err=True)
        latest = {record.destination: record for record in records}
        if known is None:
            typer.echo(summary(records), err=True)
            for line in table(by_attention(records), _now()):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for name in sorted(known.keys() | latest.keys()):
                changed = change(known.get(name), latest.get(name))
                if changed:
                    typer.echo(f"{clock}  {changed}")
        known = latest


def _readings(read: Read) -> Readings:
    """Yield what is read, every five seconds, and why it is an older reading, or ""."""
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


def _now() -> int:
    return int(time.time() * 1000)
