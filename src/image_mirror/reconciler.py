"""The reconciler: the Lambda function that makes records come true.

A trigger says when and where to look; the item in the table says what to do. So triggers may come late, twice, out of
order or never, and two runs may overlap.
"""

import os
import time
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Any

from aws_lambda_powertools import Logger

from image_mirror.aws import Patience, connect
from image_mirror.copies import Copies
from image_mirror.global_access import GlobalAccount
from image_mirror.metrics import Metric
from image_mirror.progress import PARALLEL, Key, Progress
from image_mirror.run import Context, Run
from image_mirror.settings import Settings
from image_mirror.table import Records

Logger(service="reconciler")  # configures what the other modules' child loggers write
_PATIENCE = Patience(connect=3.0, read=7.0, attempts=2, connections=PARALLEL)
_CHUNK = 100


@cache
def load() -> tuple[Records, Progress]:
    """Make what the function's environment describes, once. Raises SettingsError."""
    settings = Settings.from_env(os.environ)
    records = Records(connect("dynamodb", _PATIENCE), settings.table)
    account = GlobalAccount(
        connect("secretsmanager", _PATIENCE),
        settings.secret,
        lambda key: connect("codebuild", _PATIENCE, key),
        time.monotonic,
    )
    return records, Progress(records, Copies(connect("ecr", _PATIENCE), account, settings), settings, time.time)


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Handle a batch of the table's stream, an ECR event, or (anything else) the schedule's minute.

    Returns what Lambda reads for a stream alone: `batchItemFailures`, by sequence number.
    """
    records, progress = load()
    run = Run(context)
    try:
        if "Records" in event:
            return read_stream(event, progress, run)
        if event.get("source") == "aws.ecr":
            detail = event["detail"]
            if detail.get("result") == "SUCCESS" and detail.get("image-tag"):
                progress.hint(detail["repository-name"], detail["image-tag"], run)
        else:
            look_at_what_is_due(records, progress, run)
        return {}
    finally:
        run.counts.publish()


def read_stream(event: Mapping[str, Any], progress: Progress, run: Run) -> dict[str, Any]:
    """Handle the keys of one batch, each once, and name the sequence numbers of those that failed."""
    numbers: dict[Key, list[str]] = {}
    for entry in event["Records"]:
        change = entry["dynamodb"]
        keys = change["Keys"]
        numbers.setdefault((keys["repo"]["S"], keys["tag"]["S"]), []).append(change["SequenceNumber"])
        if _asks(change.get("NewImage", {})):
            run.counts.add(Metric.COPIES_REQUESTED)
    failed = progress.advance(list(numbers), run)
    return {"batchItemFailures": [{"itemIdentifier": number} for key in failed for number in numbers[key]]}


def look_at_what_is_due(records: Records, progress: Progress, run: Run) -> None:
    """Take what the index says is due one step on, the oldest first, for as long as the run may go on."""
    now = int(time.time() * 1000)
    due = records.due(now)
    some = list(islice(due, _CHUNK))
    # Also where nothing is due: that it was looked at is what the alarm on the oldest waits to hear.
    run.counts.add(Metric.OLDEST_DUE, max(0, now - some[0][2]) / 1000 if some else 0)
    while True:
        run.counts.add(Metric.DUE, len(some))
        if not some or run.over:
            return
        keys = [(repo, tag) for repo, tag, due_at in some if not progress.may_skip((repo, tag), due_at, run)]
        progress.advance(keys, run)
        some = list(islice(due, _CHUNK))


def _asks(item: Mapping[str, Any]) -> bool:
    """Whether an item in the stream asks for a copy, new or anew: a wait or an attempt writes REQUESTED as well."""
    none = {"N": "0"}
    is_fresh = item.get("requested_at") is not None and item["requested_at"] == item.get("updated_at")
    return is_fresh and item.get("attempts") == none and item.get("waits") == none
