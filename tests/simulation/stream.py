"""The table's stream and its event source mapping, with the template's settings: ordered shards, batches, retries."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from simulation.expressions import Item
from simulation.monitoring import QUEUE
from simulation.patterns import matches
from simulation.table import Key
from simulation.world import World

_SHARDS = 4
Invoke = Callable[[dict[str, Any], Callable[[Any], None]], None]


class Shard:
    """The entries of some keys, in order; the first `limit` of them are the next batch."""

    def __init__(self, limit: int) -> None:
        self.entries: deque[dict[str, Any]] = deque()
        self.limit = limit
        self.failures = 0
        self.polled = False


class Stream:
    """Passes the changes of the table to the reconciler: in order in a shard, in any order across shards."""

    def __init__(self, world: World, mapping: Mapping[str, Any], invoke: Invoke) -> None:
        self._world = world
        self._invoke = invoke
        self._patterns = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
        self._batch = int(mapping["BatchSize"])
        self._retries = int(mapping["MaximumRetryAttempts"])
        self._shards = [Shard(self._batch) for _ in range(_SHARDS)]
        self._number = 0
        self.dead_letters = 0

    @property
    def idle(self) -> bool:
        """Whether there is no change to pass on."""
        return not any(shard.entries for shard in self._shards)

    def changed(self, key: Key, before: Item | None, after: Item | None) -> None:
        """Add one change of the table."""
        self._number += 1
        entry = {
            "eventName": "REMOVE" if after is None else "INSERT" if before is None else "MODIFY",
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "Keys": {"repo": {"S": key[0]}, "tag": {"S": key[1]}},
                "SequenceNumber": f"{self._number:021}",
                **({} if after is None else {"NewImage": after}),
            },
        }
        if not any(matches(pattern, entry) for pattern in self._patterns):
            return
        if self._world.happens(self._world.faults.event_lost):
            self._world.note("event lost", "stream", *key)
            self._world.counts["stream entries never"] += 1
            return
        shard = self._shards[crc32("/".join(key).encode()) % _SHARDS]
        shard.entries.append(entry)
        self._poll(shard, 0.2)

    def _poll(self, shard: Shard, delay: float) -> None:
        if not shard.polled:
            shard.polled = True
            late = self._world.dice.uniform(10, 300) if self._world.happens(self._world.faults.event_late) else 0.0
            self._world.counts["stream batches late"] += late > 0
            self._world.clock.after(delay + late, lambda: self._deliver(shard))

    def _deliver(self, shard: Shard) -> None:
        batch = [shard.entries[place] for place in range(min(shard.limit, len(shard.entries)))]
        self._invoke({"Records": batch}, lambda answer: self._advance(shard, batch, answer))

    def _advance(self, shard: Shard, batch: list[dict[str, Any]], answer: Any) -> None:
        """Move the checkpoint: after the batch, or to the lowest number that failed; a crashed batch is halved."""
        shard.polled = False
        done = len(batch)
        if answer is None:
            done = 0
            shard.limit = max(1, len(batch) // 2)
        elif answer["batchItemFailures"]:
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            done = min(place for place, each in enumerate(batch) if each["dynamodb"]["SequenceNumber"] in failed)
        elif self._world.happens(self._world.faults.event_twice):
            self._world.counts["stream batches twice"] += 1
            self._poll(shard, 0.2)
            return
        shard.failures = 0 if done else shard.failures + 1
        if shard.failures > self._retries:
            self._world.note("dead", "letters:", len(batch))
            self.dead_letters += len(batch)
            self._world.metrics.add((QUEUE, "ApproximateNumberOfMessagesVisible"), 1)
            done, shard.failures = len(batch), 0
        for _ in range(done):
            shard.entries.popleft()
        if done:
            shard.limit = self._batch
        if shard.entries:
            self._poll(shard, min(2.0**shard.failures, 60))
