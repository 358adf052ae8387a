"""Which of the waiting copies get the next builds, and when none may start. Pure.

Builds are bounded, because CodeBuild has a quota and pods have none: a namespace that requests very many copies, or
copies that hang, must leave builds for the others. A build holds a slot from its start until its end has been read.
Several invocations can run at once, so each one reserves slots in the state before it starts builds.

What one run of the schedule has to tell the next, and the batches of the stream between them, is `State`: one item in
the table, beside the records. All times are milliseconds since the epoch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from image_mirror.record import MINUTE, Build, BuildResult, Record, Status

Key = tuple[str, str]
"""A record's repo and tag."""

_STATE_LASTS = 3 * MINUTE  # the schedule writes it each minute
_BETWEEN_RUNS = 15_000  # when several copies arrive, the first one starts a run
LONGEST_KEY_WAIT = 30 * MINUTE
"""The longest time between two tries of a refused key."""
_LOGIN_WORKED = 5 * MINUTE  # a build whose login is refused ends far earlier
_LONGEST_NAMESPACE = 63  # characters, in Kubernetes; another value was written by hand


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record that is due and waits for a build.

    `namespace` is that of the pod which requested it; copies that operators or older releases requested have "".
    `repeats` is set if this request has failed before, or the one before it. `arrived` says that ECR holds a copy.
    """

    key: Key
    due_at: int
    requested_at: int
    namespace: str
    repeats: bool
    arrived: bool


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
class State:
    """What a run of the schedule found `at` its time.

    `runs` is how many builds CodeBuild is expected to run at once, 0 if that is not known. `most` is how many may be
    out (running or in its queue), and `share` how many of one namespace. `out` is how many are out, by namespace.
    `waits` is how many records still waited for a build. `turn` counts the first tries that started since the last
    repeat. `repaired_at` is when a refused key was last accepted again. `oldest` is the record that has waited longest
    for a first copy. `version` grows with each write, so that a write can ask for the state that was read.
    """

    at: int
    runs: int = 0
    most: int = 0
    share: int = 0
    out: Mapping[str, int] = field(default_factory=dict)
    waits: int = 0
    turn: int = 0
    refusal: Refusal | None = None
    repaired_at: int = 0
    oldest: Key | None = None
    version: int = 0


def namespace_of(record: Record) -> str:
    """Return the namespace whose share the record's build counts for; "" if no pod has requested the copy."""
    namespace = (record.requested_by or "").partition("/")[0]
    return namespace if len(namespace) <= _LONGEST_NAMESPACE else ""


def waiting(record: Record) -> Waiting:
    """Return the entry of a record whose next step is to start a build."""
    return Waiting(
        key=(record.repo, record.tag),
        due_at=record.due_at or 0,
        requested_at=record.requested_at,
        namespace=namespace_of(record),
        repeats=bool(record.attempts or record.waits or record.failures),
        arrived=record.digest is not None,
    )


def build_of(record: Record) -> str | None:
    """Return the ID of the build that holds a slot for the record, as far as the record knows; else None."""
    return record.build_id if record.status is Status.COPYING else record.open_build


def runs_at_once(quota: int, known: int, running: int, queued: int) -> int:
    """Return how many builds CodeBuild is expected to run at once; `known` is what the last run expected.

    `quota` is the setting. If builds queue, the account's real quota is what runs. Otherwise the expectation grows
    while any build runs, so that a quota that has been raised is found within minutes.
    """
    if queued:
        return max(1, min(quota, running))
    return min(quota, known * 3 // 2 + 1 if running else known)


def limits(quota: int, runs: int) -> tuple[int, int]:
    """Return how many builds may be out, and how many of one namespace, if CodeBuild runs `runs` at once.

    Half as many as run may queue, because an empty queue would leave CodeBuild idle until the next minute.
    """
    return min(quota + (quota + 1) // 2, runs * 3 // 2 + 1), max(1, runs * 3 // 4)


def choose(
    candidates: Sequence[Waiting], out: Mapping[str, int], most: int, share: int, turn: int
) -> tuple[list[Waiting], int]:
    """Return the candidates to start now, in this order, and the next `turn`.

    The namespace with the fewest builds out is first, and in it the record that has been due longest. Where first tries
    and repeats both wait, every fourth start is a repeat's.
    """
    busy = Counter(out)
    queues: dict[bool, dict[str, list[Waiting]]] = {False: {}, True: {}}
    for each in sorted(candidates, key=lambda each: (each.due_at, each.key), reverse=True):
        queues[each.repeats].setdefault(each.namespace, []).append(each)

    def first(repeats: bool) -> Waiting | None:
        nexts = [queue[-1] for name, queue in queues[repeats].items() if queue and busy[name] < share]
        return min(nexts, key=lambda each: (busy[each.namespace], each.due_at, each.key), default=None)

    chosen: list[Waiting] = []
    for _ in range(most - busy.total()):
        new, repeat = first(False), first(True)
        if new is not None and repeat is not None:
            turn = (turn + 1) % 4
            new = new if turn else None
        pick = new or repeat
        if pick is None:
            break
        queues[pick.repeats][pick.namespace].pop()
        busy[pick.namespace] += 1
        chosen.append(pick)
    return chosen, turn


def for_stream(state: State | None, quota: int, now: int) -> tuple[Mapping[str, int], int, int]:
    """Return what is out, how many builds may be, and the share of a namespace, for a batch of the table's stream.

    A batch knows only what the schedule found, so it uses half of the slots; none if the schedule does not run, or if a
    key is refused. If there is no state at all, nothing has been started.
    """
    if state is None:
        most, share = limits(quota, quota)
        return {}, most // 2, share
    usable = 0 <= now - state.at < _STATE_LASTS and state.refusal is None
    return state.out, (state.most + 1) // 2 if usable else 0, state.share


def with_more_out(state: State | None, chosen: Sequence[Waiting]) -> State:
    """Return the state that reserves slots for the chosen records."""
    state = state or State(at=0)
    return replace(state, out=Counter(state.out) + Counter(each.namespace for each in chosen))


def out_of_both(out: Mapping[str, int], read: State | None, found: State | None) -> Counter[str]:
    """Return how many builds are out after another run has written the state `found` in place of `read`.

    `out` is what this run has counted since. A batch of the stream adds what it reserves, and another run of the
    schedule has counted too.
    """
    if found is None:
        return Counter(out)
    if read is not None and found.at == read.at:
        return Counter(out) + (Counter(found.out) - Counter(read.out))
    return Counter(out) | Counter(found.out)


def may_run_early(state: State | None, now: int) -> bool:
    """Return whether a copy that has arrived is a reason to look for free slots before the schedule's next run.

    If nothing waits, or a key is refused, nothing could start. Otherwise a slot would be free for half a minute on
    average, which is a third of the time of a usual build.
    """
    return state is not None and state.waits > 0 and state.refusal is None and now - state.at >= _BETWEEN_RUNS


def may_try(refusal: Refusal, now: int) -> bool:
    """Return whether one record may try the refused key now: after 1, 2, 4, 8, 16 and then 30 minutes each.

    So a key that stays refused costs at most 51 short builds in its first day.
    """
    return now - refusal.at >= min(MINUTE << min(refusal.times - 1, 6), LONGEST_KEY_WAIT)


def refused_again(refusal: Refusal | None, now: int, *, in_build: bool) -> Refusal:
    """Return the refusal after a try that AWS refused at `now`."""
    if refusal is None:
        return Refusal(at=now, in_build=in_build)
    return replace(refusal, at=now, times=refusal.times + 1, in_build=in_build or refusal.in_build, build="")


def tried(refusal: Refusal, build_id: str, now: int) -> Refusal | None:
    """Return the refusal after StartBuild has accepted the build that tries the key; None if that proves it."""
    return replace(refusal, at=now, build=build_id, runs_since=0) if refusal.in_build else None


def after_builds(refusal: Refusal | None, builds: Mapping[str, Build], now: int) -> Refusal | None:
    """Return the refusal after these builds were looked up, by ID; None if no key is refused.

    While a key is refused, only the build that tries it says whether it is accepted: others started before.
    """
    if refusal is None:
        return refused_again(None, now, in_build=True) if any(build.key for build in builds.values()) else None
    build = builds.get(refusal.build)
    if build is None:
        return refusal
    if build.key:
        return refused_again(refusal, now, in_build=True)
    if build.result is BuildResult.RUNNING:
        since = refusal.runs_since or (0 if build.queued else now)
        return None if since and now - since >= _LOGIN_WORKED else replace(refusal, runs_since=since)
    proves = build.result is BuildResult.COPIED or build.code not in ("", "UNEXPLAINED")
    return None if proves else replace(refusal, build="")
