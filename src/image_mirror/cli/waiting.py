"""Waits for copies, and shows their progress meanwhile: their records are read again and again until all have ended."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from image_mirror.cli.copy_progress import CopyProgress
from image_mirror.cli.errors import describe_aws_error
from image_mirror.cli.output import say
from image_mirror.record import Record
from image_mirror.reference import Destination
from image_mirror.table import Records

_SHORTEST = 5.0  # seconds between two rounds of reading
_READS_PER_SECOND = 50
_PARALLEL = 8

CopyRecords = Mapping[Destination, Record | None]
LONGEST_WAIT = 240
"""Minutes; a source that refuses is tried five times in an hour and a half."""
Describe = Callable[[Destination, Record | None, float], CopyProgress]
"""Returns the progress of one copy from its latest record; the number is how many seconds were waited."""


def wait_for(records: Records, existing: CopyRecords, describe: Describe, minutes: int) -> list[CopyProgress]:
    """Show the copies until all have ended or the time is over, and return their progress.

    After Ctrl-C it says that the copies continue, and raises KeyboardInterrupt.
    """
    started = time.monotonic()

    def described(latest: CopyRecords) -> list[CopyProgress]:
        waited = time.monotonic() - started
        return [describe(destination, record, waited) for destination, record in latest.items()]

    copies: list[CopyProgress] = []
    try:
        with display() as draw:
            for copies in follow(records, existing, described, time.sleep):
                draw(copies)
                if time.monotonic() - started > minutes * 60:
                    break
    except KeyboardInterrupt:
        say("Stopped waiting. The requested copies continue; run the command again to watch them.")
        raise
    return copies


@contextmanager
def display() -> Iterator[Callable[[list[CopyProgress]], None]]:
    """Yield a function that shows the latest progress on standard error: drawn on a terminal, else as lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from image_mirror.cli.drawing import live_copies  # noqa: PLC0415 - only for a terminal

    with live_copies() as draw:
        yield draw


def follow(
    records: Records,
    existing: CopyRecords,
    describe: Callable[[CopyRecords], list[CopyProgress]],
    sleep: Callable[[float], None],
) -> Iterator[list[CopyProgress]]:
    """Yield the progress of all copies, first from the `existing` records, then again and again until all have ended.

    Only copies that have not ended are read again. If AWS does not answer, the latest records are used, and a note is
    printed on standard error once.
    """
    latest = dict(existing)
    has_trouble = False
    with ThreadPoolExecutor(_PARALLEL) as threads:
        while True:
            copies = describe(latest)
            yield copies
            pending = [destination for destination, each in zip(latest, copies, strict=True) if not each.ended]
            if not pending:
                return
            sleep(max(_SHORTEST, len(pending) / _READS_PER_SECOND))
            found, trouble = _read(records, pending, threads)
            latest |= found
            if trouble and not has_trouble:
                say(f"Note: the records cannot be read now, trying again: {trouble}")
            has_trouble = trouble is not None


def _read(
    records: Records, destinations: Sequence[Destination], threads: ThreadPoolExecutor
) -> tuple[CopyRecords, str | None]:
    """Read the records of `destinations`. At the first error of AWS, return what was read so far and the error."""
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
    """Prints a line on standard error for each change: for a pipe or a log."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[str, str | None]] = {}

    def __call__(self, copies: list[CopyProgress]) -> None:
        """Print what has changed since the last call."""
        for each in copies:
            now = (each.state, each.reason)
            if self._printed.get(each.copy) != now:
                self._printed[each.copy] = now
                reason = f" ({each.reason})" if each.reason else ""
                say(f"{each.state:<9} {each.image}{reason}")
