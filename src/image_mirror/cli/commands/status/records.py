"""How records are printed: what needs attention first; as JSON, as a table, and as lines for a terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import typer

from image_mirror.cli.held_copies import Held, InECR
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
    """One record. The fields are the keys of the JSON output; times are in ISO 8601 and UTC."""

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
    signatures: str | None
    reason: str | None
    requested_by: str | None
    unexpected_push: dict[str, str | None] | None


def record_row(record: Record) -> RecordRow:
    """Return a record for the JSON output."""
    push = record.unexpected_push
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
        signatures=record.signatures,
        reason=record.error,
        requested_by=record.requested_by,
        unexpected_push=push and {"before": push.before, "after": push.after, "noticed_at": utc(push.noticed_at)},
    )


def by_attention(records: Iterable[Record]) -> list[Record]:
    """Sort: copies with an unexpected push; failed copies; copies that pods wait for, oldest first; refreshes; copies
    with a reason; the others.
    """

    def key(record: Record) -> tuple[int, int, str]:
        is_running = record.status in (Status.REQUESTED, Status.COPYING)
        conditions = (
            record.unexpected_push is not None,
            record.status is Status.FAILED,
            is_running and record.digest is None,
            is_running,
            record.status is None,
            record.error is not None,
            True,
        )
        rank = conditions.index(True)
        return rank, record.requested_at if rank < len(conditions) - 1 else 0, title(record)

    return sorted(records, key=key)


def summary(records: Sequence[Record]) -> str:
    """Count records by state, on one line."""
    pushed = sum(record.unexpected_push is not None for record in records)
    marked = f"; {pushed:,} with an unexpected push" if pushed else ""
    states = Counter(record.status for record in records)
    counts = [f"{states[status]:,} {status}" for status in _COLOURS if states[status]]
    counts += [f"{states[None]:,} of an older deployment"] if states[None] else []
    total = states.total()
    return f"{total:,} record{'' if total == 1 else 's'}" + (f": {', '.join(counts)}" if counts else "") + marked


def table(records: Iterable[Record], now: int) -> Iterator[str]:
    """Yield a heading and an aligned line for each record, of any length: for a pipe."""
    yield from aligned([_HEAD, *(_cells(record, now) for record in records)])


def listing(records: Iterable[Record], now: int) -> Iterator[str]:
    """Yield a heading and the lines of each record: for a terminal."""
    yield HEADING
    for record in records:
        yield from entry(record, now)


def entry(record: Record, now: int) -> list[str]:
    """Return a record's lines for a terminal. Reason and build follow the first line if the record needs attention.

    The image is the last on its line, and nothing is cut, so that the name can be copied from the terminal.
    """
    image, state, age, changed, attempts, build, reason = map(printable, _cells(record, now))
    coloured = typer.style(f"{state:<9}", fg=_COLOURS.get(record.status) if record.status else None)
    below = [f"{_BELOW}{reason}"] if _reason(record) else []
    below += [f"{_BELOW}build {build}"] if record.build_id and record.status is not Status.COPIED else []
    first = f"{coloured}  {age:<5}  {changed:<7}  {attempts:<8}  {image}"
    return [first, *(typer.style(line, dim=True) for line in below)]


def full(record: Record, held: Held | None, now: int) -> Iterator[str]:
    """Yield all fields of a record, one line each, and what ECR holds; None if that was not asked or is not known."""
    fields = {
        "image": title(record),
        "copy": record.destination,
        "state": record.status or "none: an older deployment wrote the record; the next pod requests the copy",
        "requested": moment(record.requested_at, now),
        "requester": record.requested_by or "not a pod, or a pod of an older release",
        "changed": moment(record.updated_at, now),
        "next look": moment(record.due_at or 0, now),
        "attempts": f"{record.attempts} used, {record.waits} delayed for a reason that costs none",
        "build": record.build_id or "-",
        "digest": record.digest or "-",
        "in ECR": _in_ecr(record, held),
        "signatures": record.signatures or "-",
        "reason": record.error or "-",
    }
    if push := record.unexpected_push:
        fields["unexpected"] = (
            f"{push.after} in place of {push.before}, noticed {moment(push.noticed_at, now)}; none of our builds made "
            "this push. If nobody of yours did: `image-mirror connect --rotate`, then `image-mirror retry`"
        )
    width = max(map(len, fields))
    for name, value in fields.items():
        yield f"{name:<{width}}  {printable(value)}"


def _in_ecr(record: Record, held: Held | None) -> str:
    if held is None:
        return "not known" if record.digest else "-"
    text = f"{held.state}, {held.digest}" if held.state is InECR.OTHER_DIGEST else str(held.state)
    return text + ("; `image-mirror retry` requests it again" if held.lost and record.status is Status.COPIED else "")


def change(before: Record | None, after: Record | None) -> str | None:
    """Return a line about what has changed for people; None if nothing has, as when only `due_at` has changed."""
    record = after or before
    if record is None or (before and after and _visible(before) == _visible(after)):
        return None
    state, reason = (after.status or "-", _reason(after)) if after else ("GONE", None)
    return printable("  ".join(filter(None, (f"{state:<9}", title(record), reason))))


def _cells(record: Record, now: int) -> tuple[str, ...]:
    ages = (span(now - then) if then else "-" for then in (record.requested_at, record.updated_at))
    return (
        title(record),
        record.status or "-",
        *ages,
        str(record.attempts),
        record.build_id or "-",
        _reason(record) or "-",
    )


def _reason(record: Record) -> str | None:
    """Return what a list says under REASON: an unexpected push, the latest reason, or both."""
    push = record.unexpected_push
    marked = f"unexpected push of {push.after}; `image-mirror status IMAGE` says what to do" if push else None
    return "; ".join(filter(None, (marked, record.error))) or None


def _visible(record: Record) -> tuple[object, ...]:
    return record.status, record.attempts, record.build_id, record.digest, record.error, record.unexpected
