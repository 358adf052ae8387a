"""What pods were promised and what became of it: the invariants that hold at every moment."""

from collections import Counter
from dataclasses import dataclass

from image_mirror.record import Status
from simulation.ecr import Registry
from simulation.expressions import Item
from simulation.table import Key, Table
from simulation.world import World

# Warm caches know a record for 60 s; the answer is then under way for 2.5 s at most, and the API server takes it in 5.
WARM = 65.0
# An invocation of the reconciler ends within its timeout; what it read of ECR is no older.
LONGEST_RUN = 125.0


@dataclass(frozen=True, slots=True)
class Promise:
    """A pod was sent to the copy under `key`; `stale` where its record had just gone from under a warm cache."""

    key: Key
    at: float
    stale: bool


class Ledger:
    """Watches the table, and the answers as they reach the API server."""

    def __init__(self, world: World, table: Table, registry: Registry, *, swap_when: str) -> None:
        self._world = world
        self._table = table
        self._registry = registry
        # With SwapWhen=copied a warm cache may not know yet that the copy has arrived.
        self._sent_within = WARM if swap_when == "copied" else 0.0
        self._withdrawn: dict[Key, float] = {}
        self._digest_since: dict[Key, float] = {}
        self._asked: dict[Key, float] = {}
        self.promises: list[Promise] = []
        self.deleted: Counter[Key] = Counter()
        self.recorded_builds: set[str] = set()
        self._arrivals: list[tuple[float, float]] = []

    @property
    def is_active(self) -> list[Key]:
        """Every copy that a pod waits for and was promised rightly, in the order of the first promises."""
        return list(dict.fromkeys(promise.key for promise in self.promises if not promise.stale))

    @property
    def waiting(self) -> int:
        """How many copies have been asked for and are not there."""
        return len(self._asked)

    def seconds_to_copied(self, since: float = 0.0) -> list[float]:
        """Return, sorted, how long each copy asked for after `since` was waited for; so far, where it is not there."""
        now = self._world.clock.now
        waits = [*self._arrivals, *((asked, now - asked) for asked in self._asked.values())]
        return sorted(seconds for asked, seconds in waits if asked >= since)

    def changed(self, key: Key, before: Item | None, after: Item | None) -> None:
        """Follow one change of the table."""
        now = self._world.clock.now
        old, new = _of(before, "status"), _of(after, "status")
        if after is None or new == Status.FAILED:
            self._withdrawn[key] = now
        if after is None and old in (Status.REQUESTED, Status.COPYING):
            self._world.violated(f"{_name(key)}: removed while it was {old}")
        if build_id := _of(after, "build_id"):
            self.recorded_builds.add(build_id)
        if _of(after, "digest") and not _of(before, "digest"):
            self._digest_since[key] = now
        elif _of(before, "digest") and not _of(after, "digest"):
            self._digest_since.pop(key, None)
            if not self._registry.absent_within(key[0].partition("/")[2], key[1], LONGEST_RUN):
                self._world.violated(f"{_name(key)}: lost its digest while ECR held the copy")
        if new == Status.REQUESTED and (before is None or old in (None, Status.FAILED)):
            self._asked[key] = now
        if new == Status.COPIED and key in self._asked:
            asked = self._asked.pop(key)
            self._arrivals.append((asked, now - asked))
        if new == Status.FAILED and _of(after, "digest"):
            self._world.violated(f"{_name(key)}: FAILED, though it has a digest")
        if new == Status.COPIED and old in (Status.REQUESTED, Status.COPYING) and _of(after, "error"):
            self._world.counts["refreshes given up"] += 1
        if new is not None and new != Status.FAILED and "due" not in (after or {}):
            self._world.violated(f"{_name(key)}: {new} without being due")

    def promise(self, key: Key) -> None:
        """Take note of a pod that was sent to a copy, at the moment at which the API server has the answer."""
        now, item = self._world.clock.now, self._table.items.get(key)
        exists = item is not None and _of(item, "status") != Status.FAILED
        if not exists:
            what = "a deletion" if item is None else "a failure"
            self._world.counts[f"pods answered from a warm cache after {what}"] += 1
            if now - self._withdrawn.get(key, 0.0) > WARM:
                self._world.violated(f"{_name(key)}: promised without a record")
        elif _of(item, "status") == Status.COPIED and self._registry.held(key[0].partition("/")[2], key[1]) is None:
            self._world.counts["pods sent to a copy before its deletion was known"] += 1
        self.promises.append(Promise(key, now, not exists))

    def keep(self, key: Key, asked_at: float) -> None:
        """Take note of a pod whose image stays as written, though it was asked for at `asked_at` and answered well."""
        if key in self._digest_since and self._digest_since[key] < asked_at - self._sent_within:
            self._world.violated(f"{_name(key)}: has a digest, but a pod was not sent to it")

    def delete(self, key: Key) -> None:
        """Delete a copy from ECR behind the product's back."""
        if self._registry.delete(key[0].partition("/")[2], key[1]):
            self._world.counts["deleted behind our back"] += 1
            self.deleted[key] += 1


def _of(item: Item | None, name: str) -> str | None:
    return None if item is None or name not in item else next(iter(item[name].values()))


def _name(key: Key) -> str:
    return f"{key[0].partition('/')[2]}:{key[1]}"
