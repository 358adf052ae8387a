"""The rows about one admission: warm, of new images, and compared with a simple webhook."""

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from botocore.session import Session, get_session

from benchmarks.admissions import SIZES, new_admissions, review_text, table_client, warm_admission
from benchmarks.rounds import Row, compare
from benchmarks.timing import cpu, elapsed
from image_mirror.cli.emulation import REGISTRY
from image_mirror.record import new_record
from image_mirror.recorder import KnownRecords
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import to_item

TABLE_DELAY, SECRET_DELAY, START_DELAY = 0.005, 0.010, 0.250  # seconds: DynamoDB nearby, its neighbour, the Pacific

_SOURCE = parse_reference("gcr.io/team/application:1.0")
_RECORD = new_record(destination_of(_SOURCE, REGISTRY, "mirror"), _SOURCE, 1_800_000_000_000)


def warm(rounds: int) -> Iterator[Row]:
    """CPU of one admission whose images are all known."""
    answer = {"response": {"uid": "x", "allowed": True, "patchType": "JSONPatch", "patch": "W10=" * 60}}
    for size in SIZES:
        body = review_text(size)

        def floor(body: str = body) -> object:
            return json.loads(body), json.dumps(answer)

        with warm_admission(size) as admit:
            ratios = compare(partial(cpu, admit, 500), partial(cpu, floor, 2000), rounds)
        yield Row(f"CPU of a warm admission, {size}", "json.loads of the body, json.dumps of an answer", ratios, 5.0)


def new_images(rounds: int) -> Iterator[Row]:
    """Time of one admission of images that are all new."""
    for count in (1, 3, 10):
        with table_client(TABLE_DELAY) as table, new_admissions(table, KnownRecords()) as admit:
            put = partial(_put, table)
            ratios = compare(partial(elapsed, partial(admit, count), 20), partial(elapsed, put, 20), rounds)
        yield Row(_admission(count), "one put_item", ratios, 2.0)


def against_naive(rounds: int) -> Iterator[Row]:
    """The same, compared with a webhook that for each image reads the secret, puts, makes a client, starts a build."""
    for count, reach in ((1, 20.0), (3, 60.0)):
        with table_client(TABLE_DELAY) as table, new_admissions(table, KnownRecords()) as admit:
            naive = partial(_naive, table, get_session(), count)
            ratios = compare(partial(elapsed, naive, 3), partial(elapsed, partial(admit, count), 20), rounds)
        yield Row(f"the naive way, {_images(count)}", _admission(count), ratios, reach, at_most=False)


def _put(table: Any) -> None:
    table.put_item(
        TableName="t",
        Item=to_item(_RECORD),
        ConditionExpression="attribute_not_exists(repo)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )


def _naive(table: Any, session: Session, images: int) -> None:
    """Do four steps for each image, one image after the other: read the secret, put, make a client, start a build."""
    for _ in range(images):
        time.sleep(SECRET_DELAY)
        _put(table)
        session.create_client("codebuild", region_name="us-west-2")
        time.sleep(START_DELAY)


def _admission(images: int) -> str:
    return f"an admission of {_images(images)}"


def _images(count: int) -> str:
    return "1 new image" if count == 1 else f"{count} new images"
