"""The table of copies, its index and its stream, and what is due in it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, fail, fetch, fine, now, unless, warn
from image_mirror.cli.doctor.stacks import china_stack
from image_mirror.cli.output import milliseconds, span
from image_mirror.cli.remedies import AGAIN, RESTORE, log_of, new_table
from image_mirror.cli.stacks import Stack, records_of
from image_mirror.record import HOUR, MINUTE, Status
from image_mirror.review import Json
from image_mirror.table import DUE_INDEX

TABLE, DUE = "table", "due records"

_MOST_DUE = 100  # records that are read: as many as one BatchGetItem takes
_DUE_WITHIN = HOUR  # no copy waits longer before it is tried again
_LATE = 15 * MINUTE
_KEYS = (("repo", "HASH"), ("tag", "RANGE"))
_INDEX_KEYS = (("due", "HASH"), ("due_at", "RANGE"))
_VIEWS = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")  # each of them has what the reconciler reads


@fetch(TABLE)
def described_table(context: Context) -> Json | None:
    """Return what DescribeTable says, None if there is no such table."""
    stack = context.answer(china_stack)
    name = stack.output("ImageListTableName")
    return or_none(lambda: stack.account.client("dynamodb").describe_table(TableName=name)["Table"])


def judge_table(table: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge the table by what DescribeTable says."""
    name = china.output("ImageListTableName")
    if table is None:
        remedy = f"restore it under this name from a backup, or {AGAIN} with another TableName"
        return [fail(TABLE, f"{name} does not exist", remedy)]

    def faults() -> Iterator[CheckResult]:
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            yield fail(TABLE, f"{name} is {table['TableStatus']}", "check the table in DynamoDB's console")
        if _keys(table) != _KEYS:
            yield fail(TABLE, f"{name} has other keys than repo and tag", f"{AGAIN} with another TableName")
        index = next((each for each in table.get("GlobalSecondaryIndexes", ()) if each["IndexName"] == DUE_INDEX), None)
        if index is None or _keys(index) != _INDEX_KEYS:
            yield fail(
                TABLE, f"{name} has no index {DUE_INDEX} of due and due_at: waiting copies are not found", RESTORE
            )
        elif index.get("IndexStatus") != "ACTIVE":
            found = f"the index {DUE_INDEX} of {name} is {index.get('IndexStatus')}: waiting copies are not found"
            yield warn(TABLE, found, "wait until DynamoDB has built it")
        stream = table.get("StreamSpecification", {})
        if not stream.get("StreamEnabled") or stream.get("StreamViewType") not in _VIEWS:
            restored = "RestoreSummary" in table
            found = f"{name} {'was restored, and ' if restored else ''}has no stream of new images"
            yield fail(TABLE, f"{found}: copies start a minute late", new_table(china) if restored else RESTORE)

    return unless(faults(), fine(TABLE, f"{name} is {table['TableStatus']}, with its index and its stream"))


Due = tuple[str, str, int]
"""A record that is due: its repo and tag, and the time it is due at, in milliseconds."""


@fetch(DUE)
def due_next(context: Context) -> Sequence[Due]:
    """Return the records that are due next, the oldest first: one page of the index."""
    stack = context.answer(china_stack)
    records = records_of(stack)
    return list(islice(records.due(milliseconds(context.now) + _DUE_WITHIN), _MOST_DUE))


States = Mapping[tuple[str, str], str]
"""The state of each record that is due next, by its repo and tag."""


@fetch(None)
def due_states(context: Context) -> States:
    """Return the states of the records that are due next."""
    return {
        (each["repo"]["S"], each["tag"]["S"]): each.get("status", {}).get("S", "without a state")
        for each in due_items(context, "repo", "tag", "status")
    }


def due_items(context: Context, *attributes: str) -> Sequence[Json]:
    """Return these attributes of the records that are due next, as DynamoDB has them."""
    stack = context.answer(china_stack)
    name = stack.output("ImageListTableName")
    wanted = [{"repo": {"S": repo}, "tag": {"S": tag}} for repo, tag, _ in context.answer(due_next)]
    if not wanted:
        return []
    named = {f"#{attribute}": attribute for attribute in attributes}
    request = {"Keys": wanted, "ProjectionExpression": ", ".join(named), "ExpressionAttributeNames": named}
    answer = stack.account.client("dynamodb").batch_get_item(RequestItems={name: request})
    found: list[Json] = answer["Responses"].get(name, [])
    return found


def judge_due(due: Sequence[Due], china: Stack, now: datetime, states: States | None) -> Sequence[CheckResult]:
    """Judge the records that are due next, the oldest first; `states` are their states, if known.

    What is REQUESTED may wait for a build for long, if many copies do.
    """
    log = log_of(china, "ReconcilerLogGroup")
    if not due:
        return [fine(DUE, "none is due within the hour")]
    count = f"{len(due)} or more" if len(due) == _MOST_DUE else str(len(due))
    by_state = ", ".join(f"{number} {state}" for state, number in sorted(Counter((states or {}).values()).items()))
    text = f"{count} are due within the hour" + (f": {by_state}" if by_state else "")
    late_for_all = milliseconds(now) - due[0][2]
    others = [each for each in due if (states or {}).get(each[:2]) != Status.REQUESTED]
    repo, tag, due_at = others[0] if others else due[0]
    late = milliseconds(now) - due_at
    if others and late > _LATE:
        return [
            warn(
                DUE,
                f"{repo}:{tag} has been due for {span(late)}; {text}",
                f"see the results about the schedule and the reconciler; its log: {log}",
            )
        ]
    return [fine(DUE, text if late_for_all <= 0 else f"{text}; the oldest for {span(late_for_all)}")]


def _keys(described: Json) -> tuple[tuple[str, str], ...]:
    return tuple((each["AttributeName"], each["KeyType"]) for each in described["KeySchema"])


CHECKS = (
    Check(TABLE, judge_table, (described_table, china_stack)),
    Check(DUE, judge_due, (due_next, china_stack, now), helps=(due_states,)),
)
