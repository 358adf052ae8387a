"""Polls a table's stream like Lambda's event source mapping."""

import json
from collections.abc import Callable
from typing import Any

from moto.events.models import EventPattern

from support.templates import sam_template

Json = dict[str, Any]


def passes(pattern: Json, event: Json) -> bool:
    """Return whether an event matches a pattern, in the common language of EventBridge and Lambda's event filtering."""
    return EventPattern(None, pattern).matches_event(event)  # type: ignore[arg-type]


class EventSourceMapping:
    """The template's mapping of the table's stream to a function: batches, filter, partial failures, halving.

    `dead_letters` has the records that were discarded.
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
        """Deliver the stream's new records; return how many passed the filter."""
        delivered = 0
        shards = self._streams.describe_stream(StreamArn=self._arn)["StreamDescription"]["Shards"]
        for shard in (each["ShardId"] for each in shards):
            position = self._positions.get(shard) or self._start(shard)
            answer = self._streams.get_records(ShardIterator=position, Limit=self._settings["BatchSize"])
            if "NextShardIterator" in answer:
                self._positions[shard] = answer["NextShardIterator"]
            batch = [self._as_event(each) for each in answer["Records"]]
            batch = [each for each in batch if any(passes(pattern, each) for pattern in self._patterns)]
            delivered += len(batch)
            self.deliver(batch)
        return delivered

    def deliver(self, batch: list[Json], tries: int = 0) -> None:
        """Call the function with `batch` until it succeeds, with halves after an error, or until it is discarded."""
        while batch:
            if tries > self._settings["MaximumRetryAttempts"]:
                self.dead_letters += batch
                return
            try:
                failures = self._function({"Records": batch}).get("batchItemFailures", [])
            except Exception:  # noqa: BLE001 - the service continues after any error of a function
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
