"""How records are printed: as rows for programs, and as a table or as lines for a terminal; what needs attention."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import typer

from image_mirror.cli.image_selection import title
from image_mirror.cli.output import aligned, columns_of, folded, span, utc
from image_mirror.messages import printable
from image_mirror.record import HOUR, MOST_ATTEMPTS, Lane, Record, Status

QUEUED = "QUEUED"
"""What a list says in place of COPYING if the build waits in CodeBuild's queue."""
GONE = "GONE"
"""The state of a record that was removed while it was watched."""
_LONG = 2 * HOUR  # as the alarm "Oldest first copy"
_COLOURS = {
    Status.FAILED: typer.colors.RED,
    Status.REQUESTED: typer.colors.YELLOW,
    Status.COPYING: typer.colors.CYAN,
    Status.COPIED: typer.colors.GREEN,
}
_HEAD = ("STATE", "TRY", "NEXT", "AGE", "IMAGE", "REASON")
_WIDE = ("CHANGED", "LANE", "BUILD", "COPY")
_BELOW = " " * 11

Queued = Mapping[str, bool]
"""Builds by their IDs, and whether each waits in CodeBuild's queue. A build that is not there is not known."""


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
    lane: str | None
    queued: bool | None
    digest: str | None
    signatures: str | None
    reason: str | None
    requested_by: str | None
    unexpected_push: dict[str, str | None] | None


def record_row(record: Record, queued: Queued) -> RecordRow:
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
        lane=lane_of(record),
        queued=queued.get(record.build_id or "") if record.status is Status.COPYING else None,
        digest=record.digest,
        signatures=record.signatures,
        reason=record.error,
        requested_by=record.requested_by,
        unexpected_push=push and {"before": push.before, "after": push.after, "noticed_at": utc(push.noticed_at)},
    )


def lane_of(record: Record) -> Lane | None:
    """Return the lane of the latest build, or of the next one if that is known; None if there is neither."""
    return record.lane or (Lane.MAIN if record.build_id or record.not_fast else None)


def changed_rows(before: Mapping[str, RecordRow], after: Mapping[str, RecordRow]) -> list[RecordRow]:
    """Return the rows, by the copy's name, that are new or changed; a removed one has the state GONE.

    The times of the latest and of the next look do not count, nor does the lane alone: it changes before each build.
    """

    def content(row: RecordRow) -> RecordRow:
        return replace(row, updated_at=None, due_at=None, lane=None)

    changed = [row for name, row in after.items() if name not in before or content(row) != content(before[name])]
    return changed + [replace(row, state=GONE, queued=None) for name, row in before.items() if name not in after]


def by_attention(records: Iterable[Record]) -> list[Record]:
    """Sort: copies with an unexpected push; failed copies; copies that pods wait for, first those that the source has
    refused, the oldest first; refreshes; copies with a reason; the others.
    """

    def key(record: Record) -> tuple[int, int, str]:
        is_running = record.is_under_way
        conditions = (
            record.unexpected_push is not None,
            record.status is Status.FAILED,
            is_running and record.digest is None and record.attempts > 0,
            is_running and record.digest is None,
            is_running,
            record.status is None,
            record.error is not None,
            True,
        )
        rank = conditions.index(True)
        return rank, record.requested_at if rank < len(conditions) - 1 else 0, title(record)

    return sorted(records, key=key)


def in_order(record: Record) -> bool:
    """Return whether a copy is made and nothing is to be said of it."""
    return record.status is Status.COPIED and record.error is None and record.unexpected_push is None


def needs_attention(record: Record, now: int) -> bool:
    """Return whether somebody has to do something, as far as the record says; `--exit-code` is for this."""
    if record.status is Status.FAILED or record.unexpected_push is not None:
        return True
    waits = record.is_under_way and record.digest is None
    return waits and (record.attempts > 0 or now - record.requested_at > _LONG)


def unknown_builds(why: str) -> str:
    """Return the note about builds of which it is not known whether they run."""
    return f"it is not known which builds run and which wait: {why}"


def summary(records: Sequence[Record]) -> str:
    """Count records by state, on one line."""
    pushed = sum(record.unexpected_push is not None for record in records)
    marked = f"; {pushed:,} with an unexpected push" if pushed else ""
    states = Counter(record.status for record in records)
    counts = [f"{states[status]:,} {status}" for status in _COLOURS if states[status]]
    counts += [f"{states[None]:,} of an older deployment"] if states[None] else []
    total = states.total()
    return f"{total:,} record{'' if total == 1 else 's'}" + (f": {', '.join(counts)}" if counts else "") + marked


def table(records: Iterable[Record], queued: Queued, now: int, *, wide: bool) -> Iterator[str]:
    """Yield a heading and an aligned line for each record, of any length: for a pipe."""
    yield from aligned([_HEAD + _WIDE if wide else _HEAD, *(_cells(record, queued, now, wide) for record in records)])


def listing(records: Iterable[Record], queued: Queued, now: int, width: int, *, wide: bool) -> list[list[str]]:
    """Return the heading and then each record as lines for a terminal: the table, if it fits, or else a few lines each.

    No name is cut, so that it can be copied from the terminal.
    """
    shown = list(records)
    lines = list(table(shown, queued, now, wide=wide))
    fits = max(map(columns_of, lines)) <= width
    if not fits:
        cells = [_cells(record, queued, now, wide=True) for record in shown]
        lines = list(aligned([_HEAD[:5], *(each[:5] for each in cells)]))
    heading = [typer.style(lines[0], bold=True)]
    if fits:
        return [heading, *([_coloured(line, record)] for line, record in zip(lines[1:], shown, strict=True))]
    entries = (_entry(*each, width, wide) for each in zip(shown, lines[1:], cells, strict=True))
    return [heading, *entries]


def _entry(record: Record, line: str, cells: Sequence[str], width: int, wide: bool) -> list[str]:
    """Return a record's lines where the table is wider than the terminal."""
    image, reason, changed, lane, build, copy = map(printable, cells[4:])
    below = [reason] if reason != "-" else []
    below += [f"changed {changed}", f"lane {lane}", f"build {build}", f"copy {copy}"] if wide else []
    first = [line]
    if columns_of(line) > width:
        first = [line.removesuffix(image).rstrip(), *folded(image, _BELOW, width)]
    dim = (typer.style(each, dim=True) for text in below for each in folded(text, _BELOW, width))
    return [_coloured(first[0], record), *first[1:], *dim]


def _coloured(line: str, record: Record) -> str:
    """Return a line whose first word, the state, has its colour."""
    state, space, rest = line.partition(" ")
    return (typer.style(state, fg=_COLOURS[record.status]) if record.status else state) + space + rest


def change(before: Record | None, after: Record | None) -> str | None:
    """Return a line about what has changed for people; None if nothing has, as when only `due_at` has changed."""
    record = after or before
    if record is None or (before and after and _visible(before) == _visible(after)):
        return None
    state, reason = (after.status or "-", _reason(after)) if after else (GONE, None)
    return printable("  ".join(filter(None, (f"{state:<9}", title(record), reason))))


def _cells(record: Record, queued: Queued, now: int, wide: bool) -> tuple[str, ...]:
    is_queued = record.status is Status.COPYING and queued.get(record.build_id or "")
    waits = record.status is Status.REQUESTED
    counted = record.is_under_way or record.status is Status.FAILED
    due = record.due_at or 0
    cells = (
        QUEUED if is_queued else record.status or "-",
        f"{min(record.attempts, MOST_ATTEMPTS)}/{MOST_ATTEMPTS}" if counted else "-",
        ("in " + span(due - now) if due > now else "now") if waits else "-",
        span(now - record.requested_at) if record.requested_at else "-",
        title(record),
        _reason(record) or "-",
    )
    changed = span(now - record.updated_at) if record.updated_at else "-"
    return (*cells, changed, lane_of(record) or "-", record.build_id or "-", record.destination) if wide else cells


def _reason(record: Record) -> str | None:
    """Return what a list says under REASON: an unexpected push, the latest reason, or both."""
    push = record.unexpected_push
    marked = f"unexpected push of {push.after}; `image-mirror status IMAGE` says what to do" if push else None
    return "; ".join(filter(None, (marked, record.error))) or None


def _visible(record: Record) -> tuple[object, ...]:
    return record.status, record.attempts, record.build_id, record.digest, record.error, record.unexpected
