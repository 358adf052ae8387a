"""Judges the table of copies, its index and its stream, and what is due in it. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from image_mirror.cli.doctor.findings import Finding, fail, fine, unless, warn
from image_mirror.cli.output import span
from image_mirror.cli.remedies import AGAIN, RESTORE
from image_mirror.record import HOUR, MINUTE
from image_mirror.review import Json
from image_mirror.table import DUE_INDEX

TABLE, DUE = "table", "due records"

MOST_DUE = 100
"""How many of the records due next are looked at: as many as one BatchGetItem takes."""
DUE_WITHIN = HOUR
"""How far ahead, in milliseconds: no copy waits longer before it is tried again."""

_LATE = 15 * MINUTE
_KEYS = (("repo", "HASH"), ("tag", "RANGE"))
_INDEX_KEYS = (("due", "HASH"), ("due_at", "RANGE"))
_VIEWS = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")  # either has what the reconciler reads


def judge_table(name: str, table: Json | None) -> Sequence[Finding]:
    """Judge what DescribeTable says, None where there is no such table."""
    if table is None:
        remedy = f"restore it under this name from a backup, or {AGAIN} with another TableName"
        return [fail(TABLE, f"there is no table {name}", remedy)]

    def faults() -> Iterator[Finding]:
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            yield fail(TABLE, f"{name} is {table['TableStatus']}", "see to the table in DynamoDB's console")
        if _keys(table) != _KEYS:
            yield fail(TABLE, f"{name} has other keys than repo and tag", f"{AGAIN} with another TableName")
        index = next((each for each in table.get("GlobalSecondaryIndexes", ()) if each["IndexName"] == DUE_INDEX), None)
        if index is None or _keys(index) != _INDEX_KEYS:
            yield fail(
                TABLE, f"{name} has no index {DUE_INDEX} of due and due_at: nothing that waits is found", RESTORE
            )
        elif index.get("IndexStatus") != "ACTIVE":
            found = f"the index {DUE_INDEX} of {name} is {index.get('IndexStatus')}: nothing that waits is found"
            yield warn(TABLE, found, "wait until DynamoDB has built it")
        stream = table.get("StreamSpecification", {})
        if not stream.get("StreamEnabled") or stream.get("StreamViewType") not in _VIEWS:
            yield fail(TABLE, f"{name} has no stream of new images: copies start a minute late", RESTORE)

    return unless(faults(), fine(TABLE, f"{name} is {table['TableStatus']}, with its index and its stream"))


def judge_due(due: Sequence[tuple[str, int]], statuses: Counter[str] | None, now: int, log: str) -> Sequence[Finding]:
    """Judge the records due next, each by its name and the time it is due at, the oldest first; times in milliseconds.

    `statuses` counts them by state, where that is known; `log` is the command that shows the reconciler's log.
    """
    if not due:
        return [fine(DUE, "none is due within the hour")]
    count = f"{len(due)} or more" if len(due) == MOST_DUE else str(len(due))
    by_state = ", ".join(f"{number} {state}" for state, number in sorted(statuses.items())) if statuses else ""
    told = f"{count} are due within the hour" + (f": {by_state}" if by_state else "")
    name, due_at = due[0]
    late = now - due_at
    if late > _LATE:
        return [
            warn(
                DUE,
                f"{name} has been due for {span(late)}; {told}",
                f"see the findings about the schedule and the reconciler; its log: {log}",
            )
        ]
    return [fine(DUE, told if late <= 0 else f"{told}; the oldest for {span(late)}")]


def _keys(described: Json) -> tuple[tuple[str, str], ...]:
    return tuple((each["AttributeName"], each["KeyType"]) for each in described["KeySchema"])
