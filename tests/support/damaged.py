"""Items of the table that somebody has changed by hand."""

from functools import partial
from typing import Any

from image_mirror.record import DAY, HOUR, MINUTE, Record, Status
from image_mirror.table import Item, to_item

YEAR = 365 * DAY
DIGEST = "sha256:" + "a" * 64
DUE = {"S": "DUE"}
REQUESTED, COPYING, COPIED, FAILED = Status


def changed_item(repo: str, source: str, now: int, state: Status, /, **changes: Any) -> Item:
    """Return the item of a record that is in order and of the tag 1, with `changes`; None takes an attribute away."""
    record = Record(
        repo=repo,
        tag="1",
        source=source,
        status=state,
        requested_at=now - 2 * MINUTE,
        updated_at=now - 2 * MINUTE,
        build_id=None if state is Status.REQUESTED else "ImagePullProject:1",
        digest=DIGEST if state is Status.COPIED else None,
        error="NOT_FOUND: x" if state is Status.FAILED else None,
        due_at=None if state is Status.FAILED else now,
    )
    changed = {**to_item(record), **changes}
    return {name: value for name, value in changed.items() if value is not None}


def number(value: object) -> dict[str, str]:
    return {"N": str(value)}


def damaged_items(repo: str, source: str, now: int, *, another: str) -> dict[str, Item]:
    """Return each kind of damage to the record of `source`, by its name. `another` is the source of another image."""
    item = partial(changed_item, repo, source, now)
    other = {"S": another}
    return {
        "a count with a fraction": item(REQUESTED, attempts=number("1.5")),
        "a count below zero": item(COPIED, attempts=number(-3)),
        "a huge count": item(REQUESTED, waits=number("1E+125")),
        "a tiny count": item(COPYING, attempts=number("1E-130")),
        "a count as text": item(REQUESTED, attempts={"S": "NaN"}),
        "a count that is a list": item(COPYING, waits={"L": [{"N": "1"}]}),
        "a time above 2**53 with a fraction": item(COPYING, requested_at=number("9007199254740993.5")),
        "a huge time": item(COPYING, updated_at=number("1E+125")),
        "a time below zero": item(COPIED, requested_at=number(-1)),
        "a time as text": item(REQUESTED, requested_at={"S": "yesterday"}),
        "a time that is null": item(COPYING, updated_at={"NULL": True}),
        "a time far ahead": item(COPIED, requested_at=number(now + 50 * YEAR)),
        "failing since a time far ahead": item(REQUESTED, failing_since=number(now + 50 * YEAR), failures=number(-1)),
        "a failure far ahead": item(FAILED, updated_at=number(now + 50 * YEAR)),
        "due at a fraction": item(REQUESTED, due_at=number(f"{now - 1}.5")),
        "due at a huge number below zero": item(REQUESTED, due_at=number("-1E+125")),
        "due at a huge number": item(REQUESTED, due_at=number("1E+125")),
        "requested and due in a year": item(REQUESTED, due_at=number(now + YEAR)),
        "copying and due in a year": item(COPYING, due_at=number(now + YEAR)),
        "copied and due in fifty years": item(COPIED, due_at=number(now + 50 * YEAR)),
        "due without a time": item(REQUESTED, due_at=None),
        "a time without due": item(COPYING, due=None),
        "due as another text": item(COPYING, due={"S": "LATER"}),
        "copying and never due": item(COPYING, due=None, due_at=None),
        "copied and never due": item(COPIED, due=None, due_at=None),
        "failed and due": item(FAILED, due=DUE, due_at=number(now)),
        "an unknown status, due": item(COPYING, status={"S": "PAUSED"}),
        "an unknown status, not due": item(COPIED, status={"S": "copied"}, due=None, due_at=None),
        "a status that is a number, due": item(REQUESTED, status=number(1)),
        "a status that is a set, due": item(COPIED, status={"SS": ["COPIED", "FAILED"]}),
        "an unknown status, due at a huge number": item(COPYING, status={"S": "PAUSED"}, due_at=number("1E+125")),
        "no status, due": item(REQUESTED, status=None),
        "a build that is a number": item(COPYING, build_id=number(1)),
        "a build that is no ID": item(COPYING, build_id={"S": "ImagePullProject:a b\n"}),
        "an open build without its ID": item(COPIED, build_id=number(1), open_build={"S": "ImagePullProject:1"}),
        "an unexpected push without digests": item(COPIED, unexpected={"S": "yesterday"}),
        "a digest that is a boolean": item(COPIED, digest={"BOOL": True}),
        "a digest that is none": item(COPIED, digest={"S": "latest"}),
        "copied without a digest": item(COPIED, digest=None, due_at=number(now + HOUR)),
        "no source": item(REQUESTED, source=None),
        "an empty source": item(COPYING, source={"S": ""}),
        "a source that is a number": item(COPIED, source=number(1)),
        "a source that is no image": item(REQUESTED, source={"S": "::"}),
        "copying another image's source": item(COPYING, source=other),
        "copied from another image's source": item(COPIED, source=other),
        "failed with another image's source": item(FAILED, source=other),
        "a reason that is a map": item(COPYING, error={"M": {"a": {"B": b"\0"}}}),
        "a reason of 300 kB": item(FAILED, error={"S": "x" * 300_000}),
        "a result with a count of 5,000 digits": item(COPYING, same_result={"S": "STALLED " + "9" * 5_000}),
        "an attribute of 380 kB": item(REQUESTED, **{"a note. of mine": {"S": "x" * 380_000}}),
    }
