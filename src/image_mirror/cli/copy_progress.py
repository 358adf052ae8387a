"""The progress of copies: read again and again until each has been copied or has failed, and printed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import typer

from image_mirror.cli.errors import describe_aws_error
from image_mirror.messages import printable
from image_mirror.record import Record, Status
from image_mirror.reference import Destination
from image_mirror.table import Records

_SHORTEST = 5.0  # seconds between two rounds of reading
_READS_PER_SECOND = 50
_PARALLEL = 8

CopyRecords = Mapping[Destination, Record | None]


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """One copy: `image` is the source, `copy` its name in ECR, `state` the record's status, or GONE without a record.

    `waited` is in seconds. The fields are the keys of the JSON output.
    """

    image: str
    copy: str
    state: str
    attempts: int
    build: str | None
    reason: str | None
    waited: int

    @property
    def is_copied(self) -> bool:
        """Whether pods find the copy in ECR, also while it is refreshed."""
        return self.state == Status.COPIED

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.state not in (Status.REQUESTED, Status.COPYING)


def progress_of(destination: Destination, source: str, record: Record | None, waited: float) -> CopyProgress:
    """Return the progress of a copy from its record."""
    if record is None:
        reason = "its record was removed, by `image-mirror forget` or because the copy was deleted; run this again"
        return CopyProgress(source, str(destination), "GONE", 0, None, reason, int(waited))
    state = str(Status.COPIED if record.digest is not None else record.status or Status.REQUESTED)
    error = None if state == Status.COPIED else record.error
    return CopyProgress(source, str(destination), state, record.attempts, record.build_id, error, int(waited))


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
                typer.echo(f"Note: the records cannot be read now, trying again: {trouble}", err=True)
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
                typer.echo(printable(f"{each.state:<9} {each.image}{reason}"), err=True)
