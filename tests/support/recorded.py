"""Writes records into the table as they are, and runs commands in the test's process."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner, Result

from image_mirror.cli import app
from image_mirror.record import HOUR, MINUTE, Record, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import to_item
from support.cloud import REGISTRY

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

DIGEST = "sha256:" + "a" * 64
BUILD = "ImagePullProject:c697cf04-b1c0-462e-b45d-be6db350d519"
REASON = "NOT_FOUND: manifest unknown"
_BY_STATUS: dict[Status, dict[str, Any]] = {
    Status.REQUESTED: {},
    Status.COPYING: {"build_id": BUILD},
    Status.COPIED: {"build_id": BUILD, "digest": DIGEST},
    Status.FAILED: {"build_id": BUILD, "attempts": 5, "error": REASON, "due_at": None},
}


def now() -> int:
    return int(time.time() * 1000)


def record(
    image: str,
    status: Status = Status.COPIED,
    *,
    hours: float = 1,
    registry: str = REGISTRY,
    at: int | None = None,
    **changes: Any,
) -> Record:
    """Return the record of an image requested `hours` before `at` (default: now) and written 10 minutes later."""
    source = parse_reference(image)
    at = now() if at is None else at
    asked = at - int(hours * HOUR)
    made = new_record(destination_of(source, registry, "mirror"), source, asked)
    written: dict[str, Any] = {"status": status, "updated_at": asked + 10 * MINUTE, "due_at": at + HOUR}
    return replace(made, **(written | _BY_STATUS[status] | changes))


def write(dynamodb: "DynamoDBClient", records: Iterable[Record], table: str = "ImageListTable") -> None:
    """Put records into the table, 25 in one call."""
    requests = [{"PutRequest": {"Item": to_item(each)}} for each in records]
    for start in range(0, len(requests), 25):
        answer = dynamodb.batch_write_item(RequestItems={table: requests[start : start + 25]})  # type: ignore[dict-item]
        assert not answer["UnprocessedItems"]


def run(*arguments: object) -> Result:
    """Run `image-mirror` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
