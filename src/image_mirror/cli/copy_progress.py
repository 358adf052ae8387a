"""Copies on their way: asked for until each has arrived or failed, and shown meanwhile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from image_mirror.cli.errors import describe_aws_error
from image_mirror.messages import printable
from image_mirror.record import Record, Status
from image_mirror.reference import Destination
from image_mirror.table import Records

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHORTEST = 5.0  # seconds between two looks
_LOOKS_A_SECOND = 50
_PARALLEL = 8

Standing = Mapping[Destination, Record | None]


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """One copy: `image` is the source, `copy` its name in ECR, `state` the record's, or GONE where there is none.

    `waited` is in seconds. Its fields are the keys of the JSON output.
    """

    image: str
    copy: str
    state: str
    attempts: int
    build: str | None
    reason: str | None
    waited: int

    @property
    def arrived(self) -> bool:
        """Whether pods find the copy, be it while a newer one is on its way."""
        return self.state == Status.COPIED

    @property
    def ended(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.state not in (Status.REQUESTED, Status.COPYING)


def arrival(destination: Destination, source: str, record: Record | None, waited: float) -> CopyProgress:
    """Describe a copy by its record."""
    if record is None:
        reason = "its record is gone: someone forgot it, or ECR lost the copy; run the command again"
        return CopyProgress(source, str(destination), "GONE", 0, None, reason, int(waited))
    state = str(Status.COPIED if record.digest is not None else record.status or Status.REQUESTED)
    told = None if state == Status.COPIED else record.error
    return CopyProgress(source, str(destination), state, record.attempts, record.build_id, told, int(waited))


def followed(
    records: Records,
    standing: Standing,
    describe: Callable[[Standing], list[CopyProgress]],
    sleep: Callable[[float], None],
) -> Iterator[list[CopyProgress]]:
    """Yield how all copies stand, first by `standing` and then by a look at each that has not ended, until all have.

    Where AWS gives no answer the latest records stand; standard error says so when it begins.
    """
    latest = dict(standing)
    told = False
    with ThreadPoolExecutor(_PARALLEL) as threads:
        while True:
            arrivals = describe(latest)
            yield arrivals
            pending = [destination for destination, each in zip(latest, arrivals, strict=True) if not each.ended]
            if not pending:
                return
            sleep(max(_SHORTEST, len(pending) / _LOOKS_A_SECOND))
            looked, trouble = _look(records, pending, threads)
            latest |= looked
            if trouble and not told:
                typer.echo(f"Note: not read anew, and tried again: {trouble}", err=True)
            told = trouble is not None


def _look(
    records: Records, destinations: Sequence[Destination], threads: ThreadPoolExecutor
) -> tuple[Standing, str | None]:
    """Read the records of `destinations`. After the first that cannot be read, which is told, no other is asked for."""
    found: dict[Destination, Record | None] = {}
    troubles: list[str] = []

    def read(destination: Destination) -> None:
        if troubles:
            return
        try:
            found[destination] = records.get(destination.repo, destination.tag)
        except Exception as error:
            trouble = describe_aws_error(error)
            if trouble is None:
                raise
            troubles.append(trouble)

    for _ in threads.map(read, destinations):
        pass
    return found, troubles[0] if troubles else None


class Lines:
    """For a pipe or a log: a line on standard error for each change."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self._shown: dict[str, tuple[str, str | None]] = {}

    def __call__(self, arrivals: list[CopyProgress]) -> None:
        """Print what has changed since the last time."""
        for each in arrivals:
            now = (each.state, each.reason)
            if self._shown.get(each.copy) != now:
                self._shown[each.copy] = now
                reason = f" ({each.reason})" if each.reason else ""
                typer.echo(printable(f"{each.state:<9} {each.image}{reason}"), err=True)


def board(arrivals: list[CopyProgress], width: int, height: int) -> "RenderableType":
    """Return what a terminal of `width` by `height` shows: a bar for all, and a line for each that has not arrived."""
    # Here, for it costs 15 ms, which a pipe need not pay.
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done = sum(each.arrived for each in arrivals)
    failed = sum(each.ended and not each.arrived for each in arrivals)
    head = Table.grid(padding=(0, 1))
    count = f"{done} of {len(arrivals)} copied" + (f", {failed} failed" if failed else "")
    head.add_row(ProgressBar(total=len(arrivals), completed=done, width=30), Text(count))
    waiting = sorted((each for each in arrivals if not each.arrived), key=lambda each: (not each.ended, each.image))
    room = max(1, height - 3)
    lines = []
    for each in waiting[:room]:
        style = "red" if each.ended else "cyan" if each.state == Status.COPYING else "yellow"
        clock = f"{each.waited // 60}:{each.waited % 60:02}"
        stands = f"{each.state:<9}  {clock:>5}  "
        name = _cut(printable(each.image), width - len(stands))
        line = Text.assemble((stands, style), name, no_wrap=True, overflow="ellipsis")
        if each.reason and width - len(line) > len("  ..."):
            line.append(f"  {printable(each.reason)}", style="dim")
        lines.append(line)
    more = [Text(f"and {len(waiting) - room} more", style="dim")] if len(waiting) > room else []
    return Group(head, *lines, *more)


def _cut(name: str, room: int) -> str:
    """Return a name that is no longer than `room`: where it must be cut, in its middle, so that it keeps its tag."""
    if len(name) <= room:
        return name
    end = max(1, room * 2 // 3)
    return f"{name[: max(0, room - end - 1)]}\N{HORIZONTAL ELLIPSIS}{name[-end:]}"
