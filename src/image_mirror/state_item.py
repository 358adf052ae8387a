"""The one item of the table that is no record: the state that the reconciler's runs hand on (slots.py).

It has neither a status nor `due`, so it is in no index, and the stream's filter drops it. Somebody can write it by hand
too. Then it is read as far as possible, and the next run writes it whole.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.slots import MOST_OLDEST, Key, Refusal, Slots, State
from image_mirror.table import STATE_REPO, Item, whole_number

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_KEY = {"repo": {"S": STATE_REPO}, "tag": {"S": "builds"}}
_OUT = "out "  # what follows is a namespace
_FAST = "fast "  # what follows is as for the main lane; earlier releases do not read it
_LONGEST_KEY = 1024  # bytes, of a range key; DynamoDB refuses each call with a longer one


class StateItem:
    """Reads and writes the state in one table, through one client."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        """Take the client, whose region is the table's, and the table's name."""
        self._client = client
        self._table = table

    def read(self) -> State | None:
        """Read the state of the last run of the schedule, consistently; None if there is none."""
        answer = self._client.get_item(TableName=self._table, Key=_KEY, ConsistentRead=True)
        return to_state(answer["Item"]) if "Item" in answer else None

    def write(self, state: State, read: State | None = None, *, anyway: bool = False) -> State | None:
        """Write the state, if the one in the table is still `read`, None for no state, or `anyway`.

        Return the state as it is in the table then, or None if another run has written one.
        """
        written = replace(state, version=(read.version if read else 0) + 1)
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(repo)"}
        if read is not None:
            same = "#version = :version"
            condition = {
                "ConditionExpression": same if read.version else f"attribute_not_exists(#version) OR {same}",
                "ExpressionAttributeNames": {"#version": "version"},
                "ExpressionAttributeValues": {":version": {"N": str(read.version)}},
            }
        try:
            self._client.put_item(TableName=self._table, Item=state_item(written), **({} if anyway else condition))
        except ClientError as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise
            return None
        return written

    def forget_refusal(self, now: int) -> None:
        """Let the next run start builds although a key was refused: somebody has replaced the key at `now`."""
        self._client.update_item(
            TableName=self._table,
            Key=_KEY,
            # A run that has read the state before must not write the refusal back.
            UpdateExpression="SET #repaired_at = :now REMOVE #refused_at ADD #version :one",
            ExpressionAttributeNames={name: name[1:] for name in ("#repaired_at", "#refused_at", "#version")},
            ExpressionAttributeValues={":now": {"N": str(now)}, ":one": {"N": "1"}},
        )


def state_item(state: State) -> Item:
    """Return the state as typed attributes."""
    refusal, oldest = state.refusal, state.oldest
    values: dict[str, Any] = {
        "at": state.at,
        **_slots_values(state.main, ""),
        **(_slots_values(state.fast, _FAST) if state.fast != Slots() else {}),
        **({"fast_failures": state.fast_failures} if state.fast_failures else {}),
        **({"fast_off_until": state.fast_off_until} if state.fast_off_until else {}),
        "waits": state.waits,
        "turn": state.turn,
        "repaired_at": state.repaired_at,
        "version": state.version,
    }
    if refusal is not None:
        values |= {"refused_at": refusal.at, "refused_times": refusal.times, "refused_in_build": int(refusal.in_build)}
        values |= {"try_build": refusal.build, "try_runs_since": refusal.runs_since}
    if oldest:
        values["oldest"] = json.dumps(oldest)
    item = {name: {"N" if isinstance(value, int) else "S": str(value)} for name, value in values.items() if value != ""}
    return item | _KEY


def _slots_values(slots: Slots, prefix: str) -> dict[str, int]:
    numbers = {"runs": slots.runs, "most": slots.most, "share": slots.share}
    return {
        prefix + name: count for name, count in (numbers | {_OUT + name: n for name, n in slots.out.items()}).items()
    }


def to_state(item: Item) -> State:
    """Read the state from typed attributes. What is missing or has another type is read as 0 or as empty."""

    def number(name: str) -> int:
        return whole_number(item.get(name, {}).get("N", "0")) or 0

    def text(name: str) -> str:
        return str(item.get(name, {}).get("S", ""))

    def slots(prefix: str) -> Slots:
        out = prefix + _OUT
        return Slots(
            runs=number(f"{prefix}runs"),
            most=number(f"{prefix}most"),
            share=number(f"{prefix}share"),
            out={name.removeprefix(out): number(name) for name in item if name.startswith(out)},
        )

    refusal = Refusal(
        at=number("refused_at"),
        times=max(1, number("refused_times")),
        in_build=bool(number("refused_in_build")),
        build=text("try_build"),
        runs_since=number("try_runs_since"),
    )
    return State(
        at=number("at"),
        main=slots(""),
        fast=slots(_FAST),
        fast_failures=number("fast_failures"),
        fast_off_until=number("fast_off_until"),
        waits=number("waits"),
        turn=number("turn"),
        refusal=refusal if "refused_at" in item else None,
        repaired_at=number("repaired_at"),
        oldest=_keys(text("oldest")),
        version=number("version"),
    )


def _keys(text: str) -> tuple[Key, ...]:
    """Read the keys of records from a state; what is no list of such keys was written by hand, and is read as none."""
    try:
        keys = [(str(repo), str(tag)) for repo, tag in json.loads(text or "[]")]
    except (ValueError, TypeError, RecursionError):
        return ()
    usable = [key for key in keys if all(0 < len(part.encode("utf-8", "replace")) <= _LONGEST_KEY for part in key)]
    return tuple(usable[:MOST_OLDEST])
