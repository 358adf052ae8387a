"""The table of copies (DynamoDB). Each write has the condition that the item is still as it was read."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.record import Record, Status

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

DUE_INDEX = "DueIndex"
_DUE = "DUE"  # the only hash value in the index; a record without it is not in the index
_NUMBERS = frozenset(("requested_at", "updated_at", "attempts", "waits", "due_at", "failing_since", "failures"))
_TYPES = {field.name: "N" if field.name in _NUMBERS else "S" for field in fields(Record)}  # DynamoDB's
_COMPARED = ("status", "requested_at", "updated_at", "attempts", "build_id", "digest")

Item = dict[str, Any]


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

    def replace(self, old: Record, new: Record) -> Record | None:
        """Write `new` if `old` is still there. Return the record in the table: `new` itself, another one, or None.

        Attributes that Record does not have are left unchanged.
        """
        before, after = to_item(old), to_item(new)
        if before == after:
            return new
        condition, names, values = _still(old)
        changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
        assignments = [f"#{name} = :new_{name}" for name in changed if name in after]
        removals = [f"#{name}" for name in changed if name not in after]
        clauses = (("SET", assignments), ("REMOVE", removals))
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_key(old.repo, old.tag),
                UpdateExpression=" ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts),
                ConditionExpression=condition,
                ExpressionAttributeNames=names | {f"#{name}": name for name in changed},
                ExpressionAttributeValues=values | {f":new_{name}": after[name] for name in changed if name in after},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
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
                ExpressionAttributeValues=values,
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
            ProjectionExpression=", ".join(f"#{name}" for name in _TYPES),
            ExpressionAttributeNames={f"#{name}": name for name in _TYPES},  # some are DynamoDB's reserved words
        )
        for page in pages:
            yield [to_record(item) for item in page["Items"]]

    def due(self, now: int) -> Iterator[tuple[str, str, int]]:
        """Yield (repo, tag, due_at) of the records that are due at `now` (milliseconds), the oldest first."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due = :due AND due_at <= :now",
            ExpressionAttributeValues={":due": {"S": _DUE}, ":now": {"N": str(now)}},
        )
        for page in pages:
            for item in page["Items"]:
                # A fraction that someone has written by hand must not hide all other records.
                yield item["repo"]["S"], item["tag"]["S"], int(float(item["due_at"]["N"]))


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
    """Read a record from typed attributes. An attribute of another type, or an unknown status, is read as missing."""
    known: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        text = item.get(name, {}).get(kind)
        if text is not None:
            known[name] = int(float(text)) if kind == "N" else text  # someone may have written a fraction by hand
    status = known.pop("status", "")
    if status in Status.__members__:
        known["status"] = Status(status)
    return Record(**known)


def _still(old: Record) -> tuple[str, dict[str, str], Item]:
    """Return the condition, names and values: nothing has changed in the item that a step depends on."""
    # Without this, an update would create the item again after it was deleted.
    clauses = ["attribute_exists(#repo)"]
    if old.status is None:
        # An item of an older or newer deployment is recognised by its status, which is missing or unknown here.
        statuses = {f":{status.lower()}": {"S": str(status)} for status in Status}
        clauses.append(f"(attribute_not_exists(#status) OR NOT #status IN ({', '.join(statuses)}))")
        return " AND ".join(clauses), {"#repo": "repo", "#status": "status"}, statuses
    item = to_item(old)
    for name in _COMPARED:
        absent = f"attribute_not_exists(#{name})"
        if name not in item:
            clauses.append(absent)
        elif item[name] == {"N": "0"}:
            clauses.append(f"(#{name} = :old_{name} OR {absent})")
        else:
            clauses.append(f"#{name} = :old_{name}")
    names = {f"#{name}": name for name in ("repo", *_COMPARED)}
    return " AND ".join(clauses), names, {f":old_{name}": item[name] for name in _COMPARED if name in item}


def _existing(error: ClientError) -> Record | None:
    """Return the record that made a write fail, from the error; None if there was no record, or for another error."""
    item: Any = error.response.get("Item")
    return to_record(item) if item else None


def _key(repo: str, tag: str) -> Item:
    return {"repo": {"S": repo}, "tag": {"S": tag}}
