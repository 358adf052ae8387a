"""The table of copies (DynamoDB). Each write has the condition that the item is still as it was read.

Somebody can write an item by hand, so an attribute can have any type and any value. Reading makes the best of it, and
the record keeps the item itself (`Record.raw`). A condition always compares what was read, never what was made of it. A
write leaves only what this release writes.

One item is no record: state_item.py has it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.record import Lane, Record, Status

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

DUE_INDEX = "DueIndex"
_DUE = "DUE"  # the only hash value in the index; a record without it is not in the index
_NUMBERS = frozenset(
    ("requested_at", "updated_at", "attempts", "waits", "due_at", "failing_since", "failures", "claimed_at")
)
# DynamoDB's types.
_TYPES = {field.name: "N" if field.name in _NUMBERS else "S" for field in fields(Record) if field.init}
_OURS = (*_TYPES, "due")
_COMPARED = ("status", "requested_at", "updated_at", "attempts", "build_id", "digest", "claimed_at")
_LANES = frozenset(Lane)
_MOST = 10**15  # above all numbers that a record can have: as milliseconds the year 33658
STATE_REPO = "#state"
"""The hash key of the item that is no record. No image's copy has such a name."""
_BATCH = 100  # BatchGetItem's limit of keys
_MOST_FOREIGN = 100_000  # characters; an item has at most 400 kB, and a record needs room to grow

Item = dict[str, Any]


class UnusableRecordError(Exception):
    """The table refuses each write of one item, so its record can be neither used nor repaired."""


class Records:
    """Reads and writes records in one table, through one client."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        """Take the client, whose region is the table's, and the table's name."""
        self._client = client
        self._table = table

    def create(self, record: Record) -> Record:
        """Write a record if there is none. Return the record in the table: `record`, or the one that was there."""
        try:
            self._client.put_item(
                TableName=self._table,
                Item=to_item(record),
                # Each item has its hash key, so this condition means "no such item".
                ConditionExpression="attribute_not_exists(repo)",
                # If there is an item, no second request is needed: the error contains it.
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            existing = _existing(error)
            if existing is None:
                raise
            return existing
        return record

    def get(self, repo: str, tag: str) -> Record | None:
        """Read one record, consistently: an event or an index entry may be older than the item."""
        answer = self._client.get_item(TableName=self._table, Key=_key(repo, tag), ConsistentRead=True)
        return to_record(answer["Item"]) if "Item" in answer else None

    def get_all(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Record]:
        """Read the records with these repos and tags, consistently and 100 in a call; those that exist are returned."""
        wanted, found = list(dict.fromkeys(keys)), dict[tuple[str, str], Record]()
        for start in range(0, len(wanted), _BATCH):
            asked = [_key(*key) for key in wanted[start : start + _BATCH]]
            answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": asked, "ConsistentRead": True}})
            records = [to_record(item) for item in answer["Responses"].get(self._table, ())]
            # What a throttled table has left out is read one by one: the client then waits between its tries.
            left_out: Any = answer["UnprocessedKeys"].get(self._table)
            for key in left_out["Keys"] if left_out else ():
                record = self.get(key["repo"]["S"], key["tag"]["S"])
                records += [record] if record else []
            found |= {(record.repo, record.tag): record for record in records}
        return found

    def replace(self, old: Record, new: Record) -> Record | None:
        """Write `new` if `old` is still there. Return the record in the table: `new` itself, another one, or None.

        If a record equal to `old` is returned, its item has changed only in what a record does not keep, or the
        condition is wrong: the caller writes again, from the record that was returned.

        Attributes that Record does not have are left unchanged, unless they take the room that the record needs.
        Raises UnusableRecordError.
        """
        before, after = _as_read(old), to_item(new)
        changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
        if not changed:
            return new
        condition, names, values = _still(old)
        # Numbered, because a name that somebody has written by hand can contain any character.
        numbered = {name: f"new_{number}" for number, name in enumerate(changed)}
        names |= {f"#{number}": name for name, number in numbered.items()}
        values |= {f":{number}": after[name] for name, number in numbered.items() if name in after}
        assignments = [f"#{number} = :{number}" for name, number in numbered.items() if name in after]
        removals = [f"#{number}" for name, number in numbered.items() if name not in after]
        clauses = (("SET", assignments), ("REMOVE", removals))
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(old.repo, old.tag),
                UpdateExpression=" ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts),
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **_given(values),
            )
        except ClientError as error:
            if code_of(error) == "ValidationException":
                raise UnusableRecordError(f"{old.destination}: {error}") from error
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return _existing(error)
        return new

    def remove(self, old: Record) -> bool:
        """Delete the record if `old` is still there. Return whether it was deleted."""
        condition, names, values = _still(old)
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=_key(old.repo, old.tag),
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                **_given(values),
            )
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def pages(self) -> Iterator[list[Record]]:
        """Yield all records in no order, in pages of at most 1 MB; the latest writes may be missing."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ProjectionExpression=", ".join(f"#{name}" for name in _OURS),
            ExpressionAttributeNames={f"#{name}": name for name in _OURS},  # some are DynamoDB's reserved words
        )
        for page in pages:
            yield [to_record(item) for item in page["Items"] if item["repo"]["S"] != STATE_REPO]

    def has_any(self, repo: str) -> bool:
        """Return whether there is a record with this repo and any tag."""
        found = self._client.query(
            TableName=self._table,
            KeyConditionExpression="repo = :repo",
            ExpressionAttributeValues={":repo": {"S": repo}},
            ConsistentRead=True,
            Limit=1,
        )
        return bool(found["Items"])

    def due(self, now: int) -> Iterator[tuple[str, str, int]]:
        """Yield (repo, tag, due_at) of the records that are due at `now` (milliseconds), the oldest first."""
        return self._indexed("due_at <= :now", ":now", now)

    def due_after(self, latest: int) -> Iterator[tuple[str, str, int]]:
        """Yield (repo, tag, due_at) of the records that are due only after `latest` (milliseconds)."""
        return self._indexed("due_at > :latest", ":latest", latest)

    def _indexed(self, condition: str, name: str, value: int) -> Iterator[tuple[str, str, int]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=DUE_INDEX,
            KeyConditionExpression=f"due = :due AND {condition}",
            ExpressionAttributeValues={":due": {"S": _DUE}, name: {"N": str(value)}},
        )
        for page in pages:
            for item in page["Items"]:
                # The index has numbers only, but a number written by hand must not hide all other records.
                yield item["repo"]["S"], item["tag"]["S"], whole_number(item["due_at"]["N"]) or 0


def to_item(record: Record) -> Item:
    """Return `record` as DynamoDB's typed attributes, without those that are None or empty, as in an older item."""
    item: Item = {
        name: {kind: str(value)}
        for name, kind in _TYPES.items()
        if (value := getattr(record, name)) is not None and value != "" and not (kind == "N" and record.status is None)
    }
    if "due_at" in item:
        item["due"] = {"S": _DUE}
    return item


def to_record(item: Item) -> Record:
    """Read a record from typed attributes. Another type, an unknown status or lane is read as missing, a number as the
    nearest one that a record can have.

    If the record would be written with other values than the item has, the record keeps the item in `raw`.
    """
    known: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        value = item.get(name, {}).get(kind)
        if value is not None and kind == "N":
            value = whole_number(value)
        if value is not None:
            known[name] = value
    status = known.pop("status", "")
    if status in Status.__members__:
        known["status"] = Status(status)
    lane = known.pop("lane", "")
    if lane in _LANES:
        known["lane"] = Lane(lane)
    record = Record(**known)
    written = to_item(record)
    ours = {name: item[name] for name in _OURS if name in item}
    # An attribute that the item lacks is no damage: an older release did not write it. But `due` makes the index.
    damaged = any(value != written.get(name) for name, value in ours.items()) or written.get("due") != ours.get("due")
    crowded = len(item) > len(ours) and sum(len(str(item[name])) for name in item.keys() - ours) > _MOST_FOREIGN
    if damaged or crowded:
        object.__setattr__(record, "raw", item if crowded else ours)  # the dataclass is frozen
    return record


def whole_number(text: str) -> int | None:
    """Return the whole part of a number, at least 0 and at most _MOST; None for a text that is no number."""
    try:
        return int(min(max(float(text), 0), _MOST))
    except ValueError:  # of int for NaN, which DynamoDB does not store but an emulation may
        return None


def _as_read(record: Record) -> Mapping[str, Any]:
    """Return the attributes that `record` has in the table and that a write of it may change."""
    return to_item(record) if record.raw is None else record.raw


def _still(old: Record) -> tuple[str, dict[str, str], Item]:
    """Return the condition, names and values: nothing has changed in the item that a step depends on."""
    item = _as_read(old)
    # Without this, an update would create the item again after it was deleted.
    clauses = ["attribute_exists(#repo)"]
    for name in _COMPARED:
        absent = f"attribute_not_exists(#{name})"
        if name not in item:
            clauses.append(absent)
        elif item[name] == {"N": "0"}:
            clauses.append(f"(#{name} = :old_{name} OR {absent})")  # an older release may not have written it
        else:
            clauses.append(f"#{name} = :old_{name}")
    names = {f"#{name}": name for name in ("repo", *_COMPARED)}
    return " AND ".join(clauses), names, {f":old_{name}": item[name] for name in _COMPARED if name in item}


def _given(values: Item) -> dict[str, Any]:
    """Return the argument with an expression's values. DynamoDB refuses one without values."""
    return {"ExpressionAttributeValues": values} if values else {}


def _existing(error: ClientError) -> Record | None:
    """Return the record that made a write fail, from the error; None if there was no record, or for another error."""
    item: Any = error.response.get("Item")
    return to_record(item) if item else None


def _key(repo: str, tag: str) -> Item:
    return {"repo": {"S": repo}, "tag": {"S": tag}}
