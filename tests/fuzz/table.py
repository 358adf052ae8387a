"""The table in memory: DynamoDB's conditional writes, items that exist before the first call, and refused calls."""

import threading
import zlib
from dataclasses import replace
from typing import Any, Literal

from botocore.exceptions import ClientError

from fuzz.reading import REGISTRY
from image_mirror.record import HOUR, Record, Status
from image_mirror.table import to_item, to_record
from simulation.expressions import Item, Scope, apply_update, parse_condition, parse_update

NOW = 1_800_000_000_000
State = Literal[
    "absent", "requested", "copied", "copied long ago", "failed", "failed long ago", "legacy", "damaged", "refused"
]
Key = tuple[str, str]


class Table:
    """One table with the methods of the client. Each key has one of the states `before` at the beginning.

    `written` has the record after each write, `asked` the key of each call, in the order of the calls.
    """

    def __init__(self, before: tuple[State, ...]) -> None:
        self._before = before
        self._items: dict[Key, Item | None] = {}
        self._lock = threading.Lock()
        self.written: list[Record] = []
        self.asked: list[Key] = []

    def has_active_record(self, key: Key) -> bool:
        """Return whether there is a record of a copy that exists or will exist."""
        item = self._item(key)
        return item is not None and to_record(item).is_active

    def has_copy(self, key: Key) -> bool:
        """Return whether there is a record of a copy that exists."""
        item = self._item(key)
        return item is not None and to_record(item).digest is not None

    def get_item(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            item = self._asked(request["Key"], "GetItem")
            return {"Item": dict(item)} if item else {}

    def put_item(self, **request: Any) -> dict[str, Any]:
        return self._write(request, request["Item"], "PutItem", lambda _: dict(request["Item"]))

    def update_item(self, **request: Any) -> dict[str, Any]:
        changes, key = parse_update(request["UpdateExpression"]), request["Key"]
        return self._write(request, key, "UpdateItem", lambda scope: {**key, **apply_update(changes, scope)})

    def _write(self, request: Any, key: Item, operation: str, change: Any) -> dict[str, Any]:
        with self._lock:
            item = self._asked(key, operation)
            scope = Scope(
                item or {},
                request.get("ExpressionAttributeNames", {}),
                request.get("ExpressionAttributeValues", {}),
            )
            if not parse_condition(request["ConditionExpression"]).holds(scope):
                error = _error("ConditionalCheckFailedException", operation)
                error.response["Item"] = dict(item or {})  # type: ignore[typeddict-unknown-key]
                raise error
            after = change(scope)
            self._items[_key(key)] = after
            self.written.append(to_record(after))
            return {}

    def _asked(self, item: Item, operation: str) -> Item | None:
        key = _key(item)
        self.asked.append(key)
        if self._state(key) == "refused":
            raise _error("ProvisionedThroughputExceededException", operation)
        return self._item(key)

    def _item(self, key: Key) -> Item | None:
        if key not in self._items:
            self._items[key] = _item_in(key, self._state(key))
        return self._items[key]

    def _state(self, key: Key) -> State:
        return self._before[zlib.crc32(":".join(key).encode()) % len(self._before)]


def _item_in(key: Key, state: State) -> Item | None:
    repo, tag = key
    if state in ("absent", "refused"):
        return None
    if state == "legacy":
        return {"repo": {"S": repo}, "tag": {"S": tag}, "created": {"S": "long ago"}}
    then = NOW - (30 * 24 * HOUR if state.endswith("long ago") else 1)
    if state == "damaged":
        changed = {"status": {"N": "1"}, "attempts": {"N": "1.5"}, "due": {"S": "DUE"}, "due_at": {"N": "-1E+125"}}
        return {"repo": {"S": repo}, "tag": {"S": tag}, **changed}
    host, _, path = repo.removeprefix(f"{REGISTRY}/mirror/").partition("/")
    version = f":{tag}".replace(":digest-sha256-", "@sha256:")
    record = Record(
        repo=repo,
        tag=tag,
        source=f"{host.replace('_', ':')}/{path}{version}",
        requested_at=then,
        updated_at=then,
        due_at=None if state.startswith("failed") else NOW,
        status=Status.REQUESTED,
    )
    if state.startswith("copied"):
        record = replace(record, status=Status.COPIED, digest="sha256:" + "0" * 64)
    if state.startswith("failed"):
        record = replace(record, status=Status.FAILED, attempts=5, error="NOT_FOUND:\n\x1b[31m manifest \ud800unknown")
    return to_item(record)


def _error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "of the fuzz"}}, operation)


def _key(item: Item) -> Key:
    return item["repo"]["S"], item["tag"]["S"]
