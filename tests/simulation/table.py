"""DynamoDB: one table with its index, which is updated later, and with listeners for its changes."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

from image_mirror.aws import CallLimits
from image_mirror.table import STATE_REPO
from simulation.expressions import ExpressionError, Item, Parsed, Scope, apply_update, parse_condition, parse_update
from simulation.network import Client, refusal
from simulation.world import World

Key = tuple[str, str]
Time = int | Decimal
Listener = Callable[[Key, Item | None, Item | None], None]
_ENTRY = 150  # bytes of an index entry
_LAST_KEY = ("\U0010ffff", "")
_PAGE = 100  # far below DynamoDB's megabyte, so that there are pages to lose


class Table:
    """The items, by repo and tag: those of records, and the others.

    `listeners` are called with each change: its key, the item before and after.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.items: dict[Key, Item] = {}
        self.others: dict[Key, Item] = {}
        self.listeners: list[Listener] = []
        self._index: list[tuple[Time, Key]] = []
        self._indexed: dict[Key, Time] = {}
        self._pending: deque[tuple[float, Key, Time | None]] = deque()

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        key = _key(request["Key"])
        item = self._of(key).get(key)
        self._world.counts["half read units"] += 2  # consistent
        return {} if item is None else {"Item": dict(item)}

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._write("PutItem", _key(request["Item"]), request, lambda _: dict(request["Item"]))

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        changes = parse_update(request["UpdateExpression"])
        key = request["Key"]
        return self._write("UpdateItem", _key(key), request, lambda scope: {**key, **apply_update(changes, scope)})

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._write("DeleteItem", _key(request["Key"]), request, lambda _: None)

    def query(self, request: dict[str, Any], last: Item | None) -> dict[str, Any]:
        """Return the page of items that match the key condition, beginning after the key `last`.

        The condition has a limit that is either the latest due_at (`:now`) or one that due_at exceeds (`:latest`).
        """
        self._let_index_follow()
        condition = _checked(parse_condition(request["KeyConditionExpression"]), request)
        values = request["ExpressionAttributeValues"]
        border = bisect_right(self._index, (int(values.get(":now", values.get(":latest"))["N"]), _LAST_KEY))
        start, until = (0, border) if ":now" in values else (border, len(self._index))
        start = bisect_right(self._index, (_due_at(last) or 0, _key(last))) if last else start
        page = [
            {"due": {"S": "DUE"}, "due_at": {"N": str(due_at)}, "repo": {"S": repo}, "tag": {"S": tag}}
            for due_at, (repo, tag) in self._index[start : min(start + _PAGE, until)]
        ]
        for item in page[:1] + page[-1:]:  # the others lie between them
            if not condition.holds(Scope(item, {}, values)):
                raise ExpressionError("this index serves DUE up to :now or after :latest, and nothing else")
        self._world.counts["half read units"] += max(1, -(-len(page) * _ENTRY // 4096))
        more = start + _PAGE < until
        return {"Items": page, **({"LastEvaluatedKey": page[-1]} if more else {})}

    def put_by_hand(self, item: Item) -> None:
        """Write an item, as somebody does with another client; no listener is called."""
        key = _key(item)
        before, self.items[key] = self.items.get(key), item
        self._follow(key, before, item)

    def indexed(self, key: Key) -> Time | None:
        """Return the item's due_at in the index now."""
        self._let_index_follow()
        return self._indexed.get(key)

    def _of(self, key: Key) -> dict[Key, Item]:
        return self.others if key[0] == STATE_REPO else self.items

    def _write(
        self, operation: str, key: Key, request: dict[str, Any], change: Callable[[Scope], Item | None]
    ) -> dict[str, Any]:
        items = self._of(key)
        before = items.get(key)
        names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
        scope = Scope(before or {}, names, values)
        condition = [parse_condition(request["ConditionExpression"])] if "ConditionExpression" in request else []
        update = [parse_update(request["UpdateExpression"])] if "UpdateExpression" in request else []
        parsed = condition + update
        for each in parsed:
            _checked(each, request, others=parsed)
        self._world.counts["write units"] += 1
        if not all(each.holds(scope) for each in condition):
            error = refusal("ConditionalCheckFailedException", operation)
            if request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and before is not None:
                error.response["Item"] = dict(before)  # type: ignore[typeddict-unknown-key]
            raise error
        after = change(scope)
        if after is None:
            items.pop(key, None)
        else:
            items[key] = after
        if before != after:
            if self._world.keeps_history:
                self._world.note(operation, key[0].partition("/")[2], key[1], _brief(before), "->", _brief(after))
            self._follow(key, before, after)
            for listener in self.listeners:
                listener(key, before, after)
        return {}

    def _follow(self, key: Key, before: Item | None, after: Item | None) -> None:
        """Update the index later, in the order of the writes."""
        old, new = _due_at(before), _due_at(after)
        if old != new:
            self._world.counts["write units"] += (old is not None) + (new is not None)
            lag = self._world.dice.uniform(0, self._world.faults.index_lag)
            latest = self._pending[-1][0] if self._pending else 0.0
            self._pending.append((max(self._world.clock.now + lag, latest), key, new))

    def _let_index_follow(self) -> None:
        while self._pending and self._pending[0][0] <= self._world.clock.now:
            _, key, due_at = self._pending.popleft()
            old = self._indexed.pop(key, None)
            if old is not None:
                del self._index[bisect_right(self._index, (old, key)) - 1]
            if due_at is not None:
                self._indexed[key] = due_at
                insort(self._index, (due_at, key))


class DynamoDB(Client):
    """The client, as far as the product uses it."""

    def __init__(self, world: World, table: Table, limits: CallLimits) -> None:
        super().__init__(world, "DynamoDB", limits, latency=0.005)
        self._table = table

    def get_item(self, **request: Any) -> dict[str, Any]:
        if not request.get("ConsistentRead"):
            raise ExpressionError("only consistent reads are modelled")
        return self.call("GetItem", lambda: self._table.get(request))

    def put_item(self, **request: Any) -> dict[str, Any]:
        return self.call("PutItem", lambda: self._table.put(request))

    def update_item(self, **request: Any) -> dict[str, Any]:
        return self.call("UpdateItem", lambda: self._table.update(request))

    def delete_item(self, **request: Any) -> dict[str, Any]:
        return self.call("DeleteItem", lambda: self._table.delete(request))

    def get_paginator(self, operation: str) -> "DynamoDB":
        if operation != "query":
            raise ExpressionError(f"no paginator of {operation} is modelled")
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages; each is a separate call when it is needed."""
        last = None
        while True:
            page = self.call("Query", partial(self._table.query, request, last))
            yield page
            last = page.get("LastEvaluatedKey")
            if last is None:
                return


def _key(item: Item) -> Key:
    return item["repo"]["S"], item["tag"]["S"]


def _due_at(item: Item | None) -> Time | None:
    """Return an item's place in the index, None if it has none."""
    if not item or item.get("due") != {"S": "DUE"} or "N" not in item.get("due_at", ()):
        return None
    text = item["due_at"]["N"]
    return int(text) if text.isdigit() else Decimal(text)


def _brief(item: Item | None) -> str:
    if item is None:
        return "(none)"
    return " ".join(f"{name}={_short(*item[name].values())}" for name in sorted(item) if name not in ("repo", "tag"))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 48 else text[:45] + "..."


def _checked(parsed: Parsed, request: dict[str, Any], others: "list[Parsed] | None" = None) -> Parsed:
    """Refuse placeholders that are missing or unused, as DynamoDB does."""
    given = {*request.get("ExpressionAttributeNames", ()), *request.get("ExpressionAttributeValues", ())}
    used = {name for each in others or [parsed] for name in each.used if name[0] in "#:"}
    if given != used:
        raise ExpressionError(f"placeholders given {sorted(given)}, used {sorted(used)}")
    return parsed
