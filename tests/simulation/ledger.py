"""The copies that pods were sent to and what happened to them: the invariants that must hold at every moment."""

from collections import Counter
from dataclasses import dataclass

from image_mirror.record import Status
from simulation.ecr import Registry
from simulation.expressions import Item
from simulation.table import Key, Table
from simulation.world import World

# A warm cache knows a record for 60 s; the answer then takes 2.5 s at most, and the API server accepts it within 5 s.
WARM = 65.0
# An invocation of the reconciler ends within its timeout, so what it read from ECR is no older than this.
LONGEST_INVOCATION = 125.0


@dataclass(frozen=True, slots=True)
class SentPod:
    """A pod that was sent to the copy `key`: when its creation began, and when it was created.

    `stale` says that a warm cache still had the record after it was removed.
    """

    key: Key
    applied: float
    at: float
    stale: bool


class Ledger:
    """Watches the table, and the answers as they reach the API server."""

    def __init__(self, world: World, table: Table, registry: Registry, *, swap_when: str) -> None:
        self._world = world
        self._table = table
        self._registry = registry
        # With SwapWhen=copied a warm cache may not know yet that the copy exists.
        self._sent_within = WARM if swap_when == "copied" else 0.0
        self._withdrawn: dict[Key, float] = {}
        self._digest_since: dict[Key, float] = {}
        self._asked: dict[Key, float] = {}
        self._by_hand: set[Key] = set()
        self.sent_pods: list[SentPod] = []
        self.deleted: Counter[Key] = Counter()
        self.recorded_builds: set[str] = set()
        self._strangers: set[str] = set()
        self._finished: list[tuple[float, float]] = []

    @property
    def expected_copies(self) -> list[Key]:
        """All copies that pods were sent to, without stale ones, in the order of the first such pod."""
        return list(dict.fromkeys(sent.key for sent in self.sent_pods if not sent.stale))

    @property
    def waiting(self) -> int:
        """How many copies are requested and not yet COPIED."""
        return len(self._asked)

    def seconds_to_copied(self, since: float = 0.0) -> list[float]:
        """Return, sorted, the waiting time of each copy requested after `since`; until now, if it is not yet COPIED."""
        now = self._world.clock.now
        waits = [*self._finished, *((asked, now - asked) for asked in self._asked.values())]
        return sorted(seconds for asked, seconds in waits if asked >= since)

    def changed(self, key: Key, before: Item | None, after: Item | None) -> None:
        """Check one change of the table."""
        now = self._world.clock.now
        old, new = _of(before, "status"), _of(after, "status")
        if after is None or new == Status.FAILED:
            self._withdrawn[key] = now
        if after is None and old in (Status.REQUESTED, Status.COPYING):
            self._world.violated(f"{_name(key)}: removed while it was {old}")
        if build_id := _of(after, "build_id"):
            self.recorded_builds.add(build_id)
        if (noticed := _of(after, "unexpected")) and noticed != _of(before, "unexpected"):
            by_stranger = not self._strangers.isdisjoint(noticed.split())
            self._world.counts[
                "pushes of strangers noticed" if by_stranger else "pushes of builds held against us"
            ] += 1
        if _of(after, "digest") and not _of(before, "digest"):
            self._digest_since[key] = now
            self._by_hand.discard(key)
        elif _of(before, "digest") and not _of(after, "digest"):
            self._digest_since.pop(key, None)
            name = key[0].partition("/")[2], key[1]
            expired = after is None and self._registry.expires(*name)
            if key not in self._by_hand and not expired and not self._registry.absent_within(*name, LONGEST_INVOCATION):
                self._world.violated(f"{_name(key)}: lost its digest while ECR held the copy")
        if new == Status.REQUESTED and (before is None or old in (None, Status.FAILED)):
            self._asked[key] = now
        if new == Status.COPIED and key in self._asked:
            asked = self._asked.pop(key)
            self._finished.append((asked, now - asked))
        if new == Status.FAILED and _of(after, "digest"):
            self._world.violated(f"{_name(key)}: FAILED, though it has a digest")
        if new == Status.COPIED and old in (Status.REQUESTED, Status.COPYING) and _of(after, "error"):
            self._world.counts["refreshes given up"] += 1
        if new is not None and new != Status.FAILED and "due" not in (after or {}):
            self._world.violated(f"{_name(key)}: {new} without being due")

    def changed_by_hand(self, key: Key) -> None:
        """Somebody who is not the product has written the item, so its digest says nothing about ECR."""
        self._digest_since.pop(key, None)
        self._by_hand.add(key)

    def sent(self, key: Key, applied: float) -> None:
        """Check and remember a pod that was sent to a copy, at the moment at which the API server has the answer."""
        now, item = self._world.clock.now, self._table.items.get(key)
        exists = item is not None and _of(item, "status") != Status.FAILED
        if not exists:
            what = "a deletion" if item is None else "a failure"
            self._world.counts[f"pods answered from a warm cache after {what}"] += 1
            if now - self._withdrawn.get(key, 0.0) > WARM:
                self._world.violated(f"{_name(key)}: a pod was sent to it without a record")
        elif _of(item, "status") == Status.COPIED and self._registry.held(key[0].partition("/")[2], key[1]) is None:
            self._world.counts["pods sent to a copy before its deletion was known"] += 1
        self.sent_pods.append(SentPod(key, applied, now, not exists))

    def left_unchanged(self, key: Key, asked_at: float) -> None:
        """Check a pod whose image is left unchanged although the webhook, called at `asked_at`, has answered."""
        if key in self._digest_since and self._digest_since[key] < asked_at - self._sent_within:
            self._world.violated(f"{_name(key)}: has a digest, but a pod was not sent to it")

    def push_as_a_stranger(self, key: Key, digest: str) -> None:
        """Push an image in place of a copy, as a thief of the build's key can."""
        if self._registry.push(key[0].partition("/")[2], key[1], digest):
            self._strangers.add(digest)
            state = _of(self._table.items.get(key), "status") or "no record"
            self._world.counts[f"pushes of strangers: {state}"] += 1

    def delete(self, key: Key) -> None:
        """Delete a copy from ECR behind the product's back."""
        if self._registry.delete(key[0].partition("/")[2], key[1]):
            self._world.counts["deleted behind our back"] += 1
            self.deleted[key] += 1


def _of(item: Item | None, name: str) -> str | None:
    return None if item is None or name not in item else next(iter(item[name].values()))


def _name(key: Key) -> str:
    return f"{key[0].partition('/')[2]}:{key[1]}"
