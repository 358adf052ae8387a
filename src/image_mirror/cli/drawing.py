"""What is drawn on a terminal: bars, spinners, the progress of copies, what a command watches.

It takes 20 ms to import, and a pipe does not need it. So this module is imported when something is drawn.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from image_mirror.cli.copy_progress import CopyProgress
from image_mirror.messages import printable
from image_mirror.record import Status

Reading = TypeVar("Reading")


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error; yield a function that takes the number just done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Draw a spinner and a text on standard error while the context lasts."""
    with Console(stderr=True).status(Text(text)):
        yield


@contextmanager
def live_copies() -> Iterator[Callable[[list[CopyProgress]], None]]:
    """Draw the progress of copies on standard error; yield a function that takes their latest progress."""
    console = Console(stderr=True)
    with Live(console=console, transient=True) as live:
        yield lambda copies: live.update(screen(copies, *console.size), refresh=True)


def draw_again(readings: Iterable[Reading], frame: Callable[[Reading, Console], Text]) -> None:
    """Draw each reading in the place of the one before. What does not fit on the terminal is cut off."""
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for reading in readings:
            live.update(frame(reading, console), refresh=True)


def screen(copies: list[CopyProgress], width: int, height: int) -> RenderableType:
    """Return what a terminal of `width` by `height` shows: a progress bar, and a line for each copy that is missing."""
    done = sum(each.is_copied for each in copies)
    failed = sum(each.ended and not each.is_copied for each in copies)
    head = Table.grid(padding=(0, 1))
    count = f"{done} of {len(copies)} copied" + (f", {failed} failed" if failed else "")
    head.add_row(ProgressBar(total=len(copies), completed=done, width=30), Text(count))
    missing = sorted((each for each in copies if not each.is_copied), key=lambda each: (not each.ended, each.image))
    room = max(1, height - 3)
    lines = []
    for each in missing[:room]:
        style = "red" if each.ended else "cyan" if each.state == Status.COPYING else "yellow"
        clock = f"{each.waited // 60}:{each.waited % 60:02}"
        state = f"{each.state:<9}  {clock:>5}  "
        name = _cut(printable(each.image), width - len(state))
        line = Text.assemble((state, style), name, no_wrap=True, overflow="ellipsis")
        if each.reason and width - len(line) > len("  ..."):
            line.append(f"  {printable(each.reason)}", style="dim")
        lines.append(line)
    more = [Text(f"and {len(missing) - room} more", style="dim")] if len(missing) > room else []
    return Group(head, *lines, *more)


def _cut(name: str, room: int) -> str:
    """Return a name that is not longer than `room`. It is cut in its middle, so that it keeps its tag."""
    if len(name) <= room:
        return name
    end = max(1, room * 2 // 3)
    return f"{name[: max(0, room - end - 1)]}\N{HORIZONTAL ELLIPSIS}{name[-end:]}"
