"""DynamoDB Local with its real stream, and a poller that behaves as Lambda's event source mapping does."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from processes import absent, free_port, listening, program, running, wait_for

from templates import ROOT, sam_template

Json = dict[str, Any]
_LIBRARIES = ROOT / ".dynamodb-local"


@contextmanager
def dynamodb_local(folder: Path) -> Iterator[str]:
    """Run DynamoDB Local in memory and yield its URL."""
    java = program("java", "a Java runtime, 17 or later")
    if not list(_LIBRARIES.glob("DynamoDBLocal-*.jar")):
        absent("DynamoDB Local is not here: make .dynamodb-local/.done (Maven fetches it)")
    port = free_port()
    command: list[str | Path] = [
        *(java, f"-Djava.library.path={_LIBRARIES}", "-cp", f"{_LIBRARIES}/*"),
        *("software.amazon.dynamodb.services.local.main.ServerRunner", "-inMemory", "-port", str(port)),
    ]
    with running(command, folder / "dynamodb.log", {**os.environ, "DDB_LOCAL_TELEMETRY": "0"}):
        wait_for(lambda: listening(port), "DynamoDB Local listens", 60)
        yield f"http://localhost:{port}"


def create_table(dynamodb: Any, name: str) -> str:
    """Create the template's table and return its stream's ARN."""
    table = sam_template()["Resources"]["ImageListTable"]["Properties"]
    made = dynamodb.create_table(
        TableName=name,
        StreamSpecification={"StreamEnabled": True, **table["StreamSpecification"]},
        **{key: table[key] for key in ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")},
    )
    arn: str = made["TableDescription"]["LatestStreamArn"]
    return arn


class EventSourceMapping:
    """The template's mapping of the table's stream to a function: batches, filter, partial failures, bisection.

    `dead_letters` has what was given up on.
    """

    def __init__(self, streams: Any, stream_arn: str, function: Callable[[Json], Json]) -> None:
        self._streams = streams
        self._arn = stream_arn
        self._function = function
        events = sam_template()["Resources"]["ReconcilerFunction"]["Properties"]["Events"]
        self._settings: Json = events["Requests"]["Properties"]
        filters = self._settings["FilterCriteria"]["Filters"]
        self._patterns = [json.loads(each["Pattern"]) for each in filters]
        self._positions: dict[str, str] = {}
        self.dead_letters: list[Json] = []

    def poll(self) -> int:
        """Deliver what the stream brings now; return how many records passed the filter."""
        delivered = 0
        shards = self._streams.describe_stream(StreamArn=self._arn)["StreamDescription"]["Shards"]
        for shard in (each["ShardId"] for each in shards):
            position = self._positions.get(shard) or self._start(shard)
            answer = self._streams.get_records(ShardIterator=position, Limit=self._settings["BatchSize"])
            if "NextShardIterator" in answer:
                self._positions[shard] = answer["NextShardIterator"]
            batch = [self._as_event(each) for each in answer["Records"]]
            batch = [each for each in batch if any(matches(pattern, each) for pattern in self._patterns)]
            delivered += len(batch)
            self.deliver(batch)
        return delivered

    def deliver(self, batch: list[Json], tries: int = 0) -> None:
        """Call the function with `batch` until it is done, in halves after an error, or given up on."""
        while batch:
            if tries > self._settings["MaximumRetryAttempts"]:
                self.dead_letters += batch
                return
            try:
                failures = self._function({"Records": batch}).get("batchItemFailures", [])
            except Exception:  # noqa: BLE001 - whatever a function raises, the service goes on
                tries += 1
                if len(batch) > 1 and self._settings["BisectBatchOnFunctionError"]:
                    middle = len(batch) // 2
                    self.deliver(batch[:middle], tries)
                    batch = batch[middle:]
                continue
            failed = {each["itemIdentifier"] for each in failures}
            numbers = [each["dynamodb"]["SequenceNumber"] for each in batch]
            first = min((numbers.index(number) for number in failed), default=len(batch))
            batch, tries = batch[first:], tries + 1  # the lowest failed number is the checkpoint

    def _start(self, shard: str) -> str:
        answer = self._streams.get_shard_iterator(
            StreamArn=self._arn, ShardId=shard, ShardIteratorType=self._settings["StartingPosition"]
        )
        position: str = answer["ShardIterator"]
        return position

    def _as_event(self, record: Json) -> Json:
        change = record["dynamodb"]
        created = change["ApproximateCreationDateTime"].timestamp()
        return {**record, "eventSourceARN": self._arn, "dynamodb": {**change, "ApproximateCreationDateTime": created}}


def matches(pattern: Json, event: Json) -> bool:
    """Say whether an event passes a filter whose leaves are lists of exact values (Lambda's event filtering)."""
    return all(
        matches(wanted, event.get(key, {})) if isinstance(wanted, dict) else event.get(key) in wanted
        for key, wanted in pattern.items()
    )


def streams_client(url: str) -> Any:
    """Return a client of DynamoDB Local's streams."""
    return boto3.client("dynamodbstreams", endpoint_url=url)
