"""The records on a terminal, drawn again at each reading. Imported only for a terminal, because rich takes 15 ms."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from image_mirror.cli.commands.status.records import HEADING, by_attention, entry, summary
from image_mirror.cli.output import current_time
from image_mirror.record import Record


def frame(records: Sequence[Record], trouble: str, now: int, console: Console) -> Text:
    """Return what fits on the terminal: the counts, and the records that need attention most.

    `trouble` says why the records could not be read again; "" if they were.
    """
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


def draw(readings: Iterable[tuple[Sequence[Record], str]]) -> None:
    """Draw each reading: the records, and why they could not be read again, or ""."""
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for records, trouble in readings:
            live.update(frame(records, trouble, current_time(), console), refresh=True)
