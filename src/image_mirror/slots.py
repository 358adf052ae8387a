"""Which of the waiting copies get the next builds, and when none may start. Pure.

Builds are bounded, because CodeBuild has a quota and pods have none: a namespace that requests very many copies, or
copies that hang, must leave builds for the others. A build holds a slot from its start until its end has been read.
Several invocations can run at once, so each one reserves slots in the state before it starts builds. Each lane has its
own slots (lanes.py).

What one run of the schedule has to tell the next, and the batches of the stream between them, is `State`: one item in
the table, beside the records. All times are milliseconds since the epoch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from image_mirror.lanes import is_kept, is_unexplained, lanes_of
from image_mirror.record import HOUR, MINUTE, Build, BuildResult, Lane, Record, Status

Key = tuple[str, str]
"""A record's repo and tag."""

_STATE_LASTS = 3 * MINUTE  # the schedule writes it each minute
_BETWEEN_RUNS = 15_000  # when several copies arrive, the first one starts a run
LONGEST_KEY_WAIT = 30 * MINUTE
"""The longest time between two tries of a refused key."""
FIRST_RUNS = 4
"""How many builds CodeBuild is taken to run at once until more have been seen; the quota of many accounts is small."""
MOST_OLDEST = 10
"""How many of the oldest records without a copy the state remembers."""
_LOGIN_WORKED = 10 * MINUTE  # a build has tried to log in by then, for at most five minutes
# Results of a build that only come after its login to ECR.
_AFTER_LOGIN = frozenset(("NOT_FOUND", "DENIED", "RATE_LIMITED", "REFUSED", "TOO_LARGE", "STALLED", "TARGET_DENIED"))
_CLOCK_SKEW = MINUTE  # far above the difference of two clocks; a time that is later was written by hand
_FAST_OFF = HOUR
_MOST_FAST_FAILURES = 3
_LONGEST_NAMESPACE = 63  # characters, in Kubernetes; another value was written by hand


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record that is due and waits for a build.

    `namespace` is that of the pod which requested it; copies that operators or older releases requested have "".
    `repeats` is set if this request has failed before, or the one before it. `arrived` says that ECR holds a copy.
    `lanes` are those that the build may use, the preferred one first; `kept` says that this depends on the time.
    """

    key: Key
    due_at: int
    requested_at: int
    namespace: str
    repeats: bool
    arrived: bool
    lanes: tuple[Lane, ...] = (Lane.MAIN,)
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A key that AWS refuses: `at` is the latest try, and `times` how many tries in a row were refused.

    `in_build` says that a build's login to ECR was refused, and not a call with the global key. Then `build` is the ID
    of the build that tries the key now, and `runs_since` the time at which it was first seen running.
    """

    at: int
    times: int = 1
    in_build: bool = False
    build: str = ""
    runs_since: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The builds of one lane.

    `runs` is how many builds CodeBuild is known to run at once, 0 if that is not known. `most` is how many may be
    out (running or in its queue), and `share` how many of one namespace. `out` is how many are out, by namespace.
    """

    runs: int = 0
    most: int = 0
    share: int = 0
    out: Mapping[str, int] = field(default_factory=dict)

    def with_out(self, out: Mapping[str, int]) -> "Slots":
        """Return the same slots with other builds out."""
        return replace(self, out=out)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a run of the schedule found `at` its time.

    `main` and `fast` are the slots of the two lanes. `fast_failures` counts the builds in a row that the fast lane
    could not explain, and until `fast_off_until` none is started there. `waits` is how many records still waited for a
    build. `turn` counts the first tries that started since the last repeat. `repaired_at` is when a refused key was
    last accepted again. `oldest` are the records that have waited longest for a first copy. `version` grows with each
    write, so that a write can ask for the state that was read.
    """

    at: int
    main: Slots = Slots()
    fast: Slots = Slots()
    fast_failures: int = 0
    fast_off_until: int = 0
    waits: int = 0
    turn: int = 0
    refusal: Refusal | None = None
    repaired_at: int = 0
    oldest: tuple[Key, ...] = ()
    version: int = 0

    def of(self, lane: Lane) -> Slots:
        """Return the slots of a lane."""
        return self.fast if lane is Lane.FAST else self.main

    def fast_is_off(self, now: int) -> bool:
        """Return whether no build is started in the fast lane now."""
        return 0 < self.fast_off_until - now <= _FAST_OFF + _CLOCK_SKEW  # a later time was written by hand


def namespace_of(record: Record) -> str:
    """Return the namespace whose share the record's build counts for; "" if no pod has requested the copy."""
    namespace = (record.requested_by or "").partition("/")[0]
    return namespace if len(namespace) <= _LONGEST_NAMESPACE else ""


def waiting(record: Record, now: int) -> Waiting:
    """Return the entry of a record whose next step is to start a build."""
    return Waiting(
        key=(record.repo, record.tag),
        due_at=record.due_at or 0,
        requested_at=record.requested_at,
        namespace=namespace_of(record),
        repeats=bool(record.attempts or record.waits or record.failures),
        arrived=record.digest is not None,
        lanes=lanes_of(record, now),
        kept=is_kept(record, now),
    )


def build_of(record: Record) -> str | None:
    """Return the ID of the build that holds a slot for the record, as far as the record knows; else None."""
    return record.build_id if record.status is Status.COPYING else record.open_build


def runs_at_once(quota: int, known: int, running: int, queued: int, *, may_grow: bool) -> int:
    """Return how many builds CodeBuild is known to run at once; `known` is what the last run knew.

    `quota` is the setting. If builds queue, the account's real quota is what runs. If more run than were known, and
    none queues, the real quota is at least as large. `may_grow` says that only one namespace has copies to make, which
    uses its share and gets copies made: then a larger share is tried, because nobody else could need the builds. A
    namespace whose copies hang gets no larger share.
    """
    if queued:
        return max(1, min(quota, running))
    return min(quota, max(known, running, known * 5 // 4 + 1 if may_grow else 0))


def limits(quota: int, runs: int) -> tuple[int, int]:
    """Return how many builds may be out, and how many of one namespace, if CodeBuild is known to run `runs` at once.

    Half as many as run may queue, because an empty queue would leave CodeBuild idle until the next minute.
    """
    return min(quota + (quota + 1) // 2, runs * 3 // 2 + 1), max(1, runs * 3 // 4)


def choose(
    candidates: Sequence[Waiting], slots: Mapping[Lane, Slots], turn: int
) -> tuple[list[tuple[Waiting, Lane]], int]:
    """Return the candidates to start now, in this order, each with its lane, and the next `turn`.

    The namespace with the fewest builds out is first, and in it the record that has been due longest. Where first tries
    and repeats both wait, every fourth start is a repeat's. A record takes the first of its lanes with a free slot, or
    else a place in the queue of the first that has one.
    """
    busy = {lane: Counter(each.out) for lane, each in slots.items()}
    out = {lane: each.total() for lane, each in busy.items()}
    of_namespace = sum(busy.values(), Counter[str]())
    # A record that may use one lane only must not keep the records behind it from the other one.
    queues: dict[bool, dict[tuple[str, tuple[Lane, ...]], list[Waiting]]] = {False: {}, True: {}}
    for each in sorted(candidates, key=lambda each: (each.due_at, each.key), reverse=True):
        queues[each.repeats].setdefault((each.namespace, each.lanes), []).append(each)

    def lane_for(namespace: str, lanes: Sequence[Lane]) -> Lane | None:
        usable = [
            lane
            for lane in lanes
            if lane in slots and out[lane] < slots[lane].most and busy[lane][namespace] < slots[lane].share
        ]
        free = (lane for lane in usable if out[lane] < slots[lane].runs)
        return next(free, usable[0] if usable else None)

    def first(repeats: bool) -> Waiting | None:
        nexts = [queue[-1] for name, queue in queues[repeats].items() if queue and lane_for(*name)]
        return min(nexts, key=lambda each: (of_namespace[each.namespace], each.due_at, each.key), default=None)

    chosen: list[tuple[Waiting, Lane]] = []
    while True:
        new, repeat = first(False), first(True)
        if new is not None and repeat is not None:
            turn = (turn + 1) % 4
            new = new if turn else None
        pick = new or repeat
        lane = lane_for(pick.namespace, pick.lanes) if pick else None
        if pick is None or lane is None:
            return chosen, turn
        queues[pick.repeats][pick.namespace, pick.lanes].pop()
        busy[lane][pick.namespace] += 1
        of_namespace[pick.namespace] += 1
        out[lane] += 1
        chosen.append((pick, lane))


def for_stream(state: State | None, quotas: Mapping[Lane, int], now: int) -> dict[Lane, Slots]:
    """Return the slots of each lane for a batch of the table's stream; `quotas` has the setting of each lane.

    A batch knows only what the schedule found, so it uses half of the slots; none if the schedule does not run, or if a
    key is refused. If there is no state at all, nothing has been started.
    """
    if state is None:
        return {lane: _half(first_slots(quota)) for lane, quota in quotas.items()}
    usable = -_CLOCK_SKEW < now - state.at < _STATE_LASTS and state.refusal is None
    return {
        lane: _half(_within(state.of(lane), quota))
        for lane, quota in quotas.items()
        if usable and not (lane is Lane.FAST and state.fast_is_off(now))
    }


def first_slots(quota: int) -> Slots:
    """Return the slots of a lane of which nothing is known but its setting."""
    runs = min(quota, FIRST_RUNS)
    most, share = limits(quota, runs)
    return Slots(runs=runs, most=most, share=share)


def _half(slots: Slots) -> Slots:
    return replace(slots, most=(slots.most + 1) // 2)


def _within(slots: Slots, quota: int) -> Slots:
    """Return slots as they can be with this setting; an item written by hand can have any numbers."""
    runs = min(quota, slots.runs)
    most, share = limits(quota, runs)
    return replace(slots, runs=runs, most=min(most, slots.most), share=min(share, slots.share))


def with_more_out(state: State | None, chosen: Sequence[tuple[Waiting, Lane]]) -> State:
    """Return the state that reserves slots for the chosen records."""
    state = state or State(at=0)
    more = {lane: Counter(each.namespace for each, its in chosen if its is lane) for lane in Lane}
    main = state.main.with_out(Counter(state.main.out) + more[Lane.MAIN])
    return replace(state, main=main, fast=state.fast.with_out(Counter(state.fast.out) + more[Lane.FAST]))


def out_of_both(mine: State, read: State | None, found: State | None, lane: Lane) -> Slots:
    """Return the slots of `mine` after another run has written the state `found` in place of `read`.

    A batch of the stream adds what it reserves, and another run of the schedule has counted too.
    """
    out = Counter(mine.of(lane).out)
    if found is not None and read is not None and found.at == read.at:
        out += Counter(found.of(lane).out) - Counter(read.of(lane).out)
    elif found is not None:
        out |= Counter(found.of(lane).out)
    return mine.of(lane).with_out(out)


def after_race(mine: State, read: State | None, found: State | None) -> State:
    """Return `mine`, the state that a run was about to write, after another has written `found` in place of `read`.

    What the other one has learned of a refused key is later: another run, or an operator who has replaced the key.
    """
    main, fast = (out_of_both(mine, read, found, lane) for lane in (Lane.MAIN, Lane.FAST))
    off_until = max(mine.fast_off_until, found.fast_off_until if found else 0)
    mine = replace(mine, main=main, fast=fast, fast_off_until=off_until)
    if found is None or found.refusal == (read.refusal if read else None):
        return mine
    return replace(mine, refusal=found.refusal, repaired_at=max(mine.repaired_at, found.repaired_at))


def after_fast_builds(state: State, builds: Iterable[Build], now: int, *, stuck: bool, unanswered: int = 0) -> State:
    """Return the state after CodeBuild was asked of these builds of the fast lane.

    `unanswered` is how many starts of builds got no answer. After three of both in a row without an explanation, or if
    one is `stuck`, nothing is started there for an hour. So a lane that fails for good costs at most three builds an
    hour, and those that were out. Of builds whose ends are read together, nobody knows the order: if most of them are
    explained, the others are no three in a row.
    """
    ended = [build for build in builds if build.result is not BuildResult.RUNNING]
    unexplained = sum(map(is_unexplained, ended))
    explained = len(ended) - unexplained
    in_a_row = min(unexplained, _MOST_FAST_FAILURES - 1) if explained > unexplained else unexplained
    failures = unanswered + in_a_row + (0 if explained else state.fast_failures)
    if stuck or failures >= _MOST_FAST_FAILURES:
        return replace(state, fast_failures=0, fast_off_until=now + _FAST_OFF)
    return replace(state, fast_failures=failures)


def may_run_early(state: State | None, now: int) -> bool:
    """Return whether a copy that has arrived is a reason to look for free slots before the schedule's next run.

    If nothing waits, or a key is refused, nothing could start. Otherwise a slot would be free for half a minute on
    average, which is a third of the time of a usual build.
    """
    return state is not None and state.waits > 0 and state.refusal is None and now - state.at >= _BETWEEN_RUNS


def may_try(refusal: Refusal, builds: Mapping[str, Build | None], now: int) -> bool:
    """Return whether one record may try the refused key now: after 1, 2, 4, 8, 16 and then 30 minutes each.

    So a key that stays refused costs at most 51 short builds in its first day. `builds` are those of which CodeBuild
    was asked; None is no answer. As long as the build that tries the key has not ended, there is no other try.
    """
    if refusal.build in builds:
        build = builds[refusal.build]
        if build is None or build.result is BuildResult.RUNNING:
            return False
    pause = min(MINUTE << min(max(refusal.times - 1, 0), 6), LONGEST_KEY_WAIT)
    return not -_CLOCK_SKEW < now - refusal.at < pause


def refused_again(refusal: Refusal | None, now: int, *, in_build: bool) -> Refusal:
    """Return the refusal after a try that AWS refused at `now`."""
    if refusal is None:
        return Refusal(at=now, in_build=in_build)
    return replace(refusal, at=now, times=refusal.times + 1, in_build=in_build or refusal.in_build, build="")


def tried(refusal: Refusal, build_id: str, now: int) -> Refusal | None:
    """Return the refusal after StartBuild has accepted the build that tries the key; None if that proves it."""
    return replace(refusal, at=now, build=build_id, runs_since=0) if refusal.in_build else None


def after_builds(refusal: Refusal | None, builds: Mapping[str, Build | None], now: int) -> Refusal | None:
    """Return the refusal after CodeBuild was asked of these builds, by ID; None if no key is refused.

    A login that was refused while that of another build worked is no refused key. While a key is refused, only the
    build that tries it says whether it is accepted: others started before.
    """
    if refusal is None:
        found = [build for build in builds.values() if build is not None]
        is_refused = any(build.key for build in found) and not any(_logged_in(build) for build in found)
        return refused_again(None, now, in_build=True) if is_refused else None
    build = builds.get(refusal.build)
    if build is None:
        return refusal
    if build.key:
        return refused_again(refusal, now, in_build=True)
    if build.result is BuildResult.RUNNING:
        since = refusal.runs_since or (0 if build.queued else now)
        return None if since and now - since >= _LOGIN_WORKED else replace(refusal, runs_since=since)
    return None if _logged_in(build) else replace(refusal, times=refusal.times + 1, build="")


def _logged_in(build: Build) -> bool:
    """Return whether a build that has ended had logged in to ECR."""
    return build.result is BuildResult.COPIED or build.code in _AFTER_LOGIN
