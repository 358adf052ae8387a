"""Records as operators read them: what needs attention first, as data, as a table and as a terminal's lines."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import typer

from image_mirror.cli.image_selection import title
from image_mirror.cli.output import aligned, moment, span, utc
from image_mirror.messages import printable
from image_mirror.record import Record, Status

_COLOURS = {
    Status.FAILED: typer.colors.RED,
    Status.REQUESTED: typer.colors.YELLOW,
    Status.COPYING: typer.colors.CYAN,
    Status.COPIED: typer.colors.GREEN,
}
HEADING = typer.style("STATE      AGE    CHANGED  ATTEMPTS  IMAGE", bold=True)
_BELOW = " " * 11
_HEAD = ("IMAGE", "STATE", "AGE", "CHANGED", "ATTEMPTS", "BUILD", "REASON")


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One record. Its fields are the keys of the JSON output; times are in ISO 8601, in UTC."""

    image: str
    copy: str
    state: str | None
    requested_at: str | None
    updated_at: str | None
    due_at: str | None
    attempts: int
    waits: int
    build: str | None
    digest: str | None
    reason: str | None


def record_row(record: Record) -> RecordRow:
    """Return what a program reads of a record."""
    return RecordRow(
        image=title(record),
        copy=record.destination,
        state=record.status,
        requested_at=utc(record.requested_at),
        updated_at=utc(record.updated_at),
        due_at=utc(record.due_at),
        attempts=record.attempts,
        waits=record.waits,
        build=record.build_id,
        digest=record.digest,
        reason=record.error,
    )


def by_attention(records: Iterable[Record]) -> list[Record]:
    """Sort: what has failed, then what pods wait for, the longest first; refreshes; what has a reason; and the rest."""

    def key(record: Record) -> tuple[int, int, str]:
        waits = record.status in (Status.REQUESTED, Status.COPYING)
        conditions = (
            record.status is Status.FAILED,
            waits and record.digest is None,
            waits,
            record.status is None,
            record.error is not None,
            True,
        )
        rank = conditions.index(True)
        return rank, record.requested_at if rank < len(conditions) - 1 else 0, title(record)

    return sorted(records, key=key)


def summary(records: Iterable[Record]) -> str:
    """Count records by state, on one line."""
    states = Counter(record.status for record in records)
    counts = [f"{states[status]:,} {status}" for status in _COLOURS if states[status]]
    counts += [f"{states[None]:,} of an older deployment"] if states[None] else []
    total = states.total()
    return f"{total:,} record{'' if total == 1 else 's'}" + (f": {', '.join(counts)}" if counts else "")


def table(records: Iterable[Record], now: int) -> Iterator[str]:
    """Yield a heading and an aligned line for each record, however long: for a pipe."""
    yield from aligned([_HEAD, *(_cells(record, now) for record in records)])


def listing(records: Iterable[Record], now: int) -> Iterator[str]:
    """Yield a heading and the lines of each record: for a terminal."""
    yield HEADING
    for record in records:
        yield from entry(record, now)


def entry(record: Record, now: int) -> list[str]:
    """Return a record's lines for a terminal: below the first, the reason and the build of one that is not well.

    The image comes last on its line, and nothing is cut: a name that was cut cannot be copied.
    """
    image, state, age, changed, attempts, build, reason = map(printable, _cells(record, now))
    coloured = typer.style(f"{state:<9}", fg=_COLOURS.get(record.status) if record.status else None)
    below = [f"{_BELOW}{reason}"] if record.error else []
    below += [f"{_BELOW}build {build}"] if record.build_id and record.status is not Status.COPIED else []
    first = f"{coloured}  {age:<5}  {changed:<7}  {attempts:<8}  {image}"
    return [first, *(typer.style(line, dim=True) for line in below)]


def full(record: Record, now: int) -> Iterator[str]:
    """Yield all that a record says, one line each."""
    said = {
        "image": title(record),
        "copy": record.destination,
        "state": record.status or "none: an older deployment wrote it, and the next pod has it copied",
        "requested": moment(record.requested_at, now),
        "changed": moment(record.updated_at, now),
        "next look": moment(record.due_at or 0, now),
        "attempts": f"{record.attempts} that the source refused, {record.waits} put off",
        "build": record.build_id or "-",
        "digest": record.digest or "-",
        "reason": record.error or "-",
    }
    width = max(map(len, said))
    for name, value in said.items():
        yield f"{name:<{width}}  {printable(value)}"


def change(before: Record | None, after: Record | None) -> str | None:
    """Say on one line what has changed for people, or None: that a build was looked at is nothing new."""
    record = after or before
    if record is None or (before and after and _news(before) == _news(after)):
        return None
    state, reason = (after.status or "-", after.error) if after else ("GONE", None)
    return printable("  ".join(filter(None, (f"{state:<9}", title(record), reason))))


def _cells(record: Record, now: int) -> tuple[str, ...]:
    ages = (span(now - then) if then else "-" for then in (record.requested_at, record.updated_at))
    return (
        title(record),
        record.status or "-",
        *ages,
        str(record.attempts),
        record.build_id or "-",
        record.error or "-",
    )


def _news(record: Record) -> tuple[object, ...]:
    return record.status, record.attempts, record.build_id, record.digest, record.error
