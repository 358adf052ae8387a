"""The state machine of a copy: from a record to its next step. Pure: others call AWS.

    (nothing) --pod--> REQUESTED --StartBuild--> COPYING --build ended, ECR holds it--> COPIED
                        ^  ^  |                   |                                     |  |
                        |  |  '---- waits <-------' (free: AWS or the network)          |  '-- gone from ECR
                        |  '---- backs off <------' (an attempt: the source's answer)   |
                        |                         '-- 5th attempt --> FAILED            |
                        '--------- pod, later ------------------------'                 |
                        '--------- pod with imagePullPolicy Always (refresh) -----------'

A build of the fast lane can also end with the copy going on in the main lane, free and at once (lanes.py). record.py
says when pods and operators request a copy again; operators also remove records. If a copy is gone from ECR, its record
is removed, so that the next pod requests it again. expiry.py says when a copy expires that nobody uses. A
record with a digest has its copy in ECR: it keeps the digest through a refresh and never becomes FAILED. Every record
except a FAILED one has `due_at`, the time at which it is checked even without an event. All times are milliseconds
since the epoch.
"""

import zlib
from dataclasses import dataclass, replace
from enum import Enum

from image_mirror.lanes import is_overdue, sent_to_main
from image_mirror.metrics import Metric
from image_mirror.record import (
    HOUR,
    MINUTE,
    MOST_ATTEMPTS,
    UNEXPLAINED,
    Build,
    BuildResult,
    Lane,
    Policy,
    Record,
    Status,
)
from image_mirror.reference import no_longer_copied

BACKOFF = (1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 60 * MINUTE)
_SHORT_WAITS = 10
_LONG_WAITS = (2 * HOUR, 4 * HOUR, 6 * HOUR)  # after the tenth wait
POLL = 50_000
"""How long a build runs between two looks: just under the schedule's minute, so that each of its runs finds it due."""
_CLOCK_SKEW = 5_000  # the clocks of two functions; far below the shortest back-off
_JITTER = 0.1
_STILL_RUNNING = Build(BuildResult.RUNNING)
# How many builds in a row with this code end the request, or cost an attempt each.
_ENDS_IN_A_ROW = {"STALLED": 2}
_COSTS_IN_A_ROW = {"UNEXPLAINED": 4}


class Step(Enum):
    """The next step of a record, if it needs no more data. One Enum, because it imports faster than classes."""

    WAIT = "nothing now, and nothing is written"
    START = "ask CodeBuild for a build; then `started` or `delayed` gives the record to write"
    INSPECT = "ask CodeBuild for the state of the record's build; then call `next_step` again with it"
    VERIFY = "ask ECR what it holds under the record's tag; then call `verified` with it"
    REMOVE = "delete the record: the next pod requests the copy again"


@dataclass(frozen=True, slots=True)
class Save:
    """Replace the record that the step was made from with `record`."""

    record: Record


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete the record: under the tag of a digest ECR holds `held`, another one, which no build of ours pushes."""

    held: str


NextStep = Step | Save | Discard


def next_step(record: Record, build: Build | None, now: int, policy: Policy) -> NextStep:
    """Return the next step of `record` at `now`. Every record and every build has one.

    `build` is what CodeBuild says of `record.build_id`, or None if it has not been asked.
    """
    if record.status in (None, Status.FAILED) or not is_due(record, now):
        return Step.WAIT
    if record.status is Status.REQUESTED:
        reason = no_longer_copied(record.source)
        return Save(ended(record, reason, now)) if reason else Step.START
    if record.status is Status.COPIED:
        return Step.VERIFY if record.open_build is None else _of_open_build(record, build, now, policy)
    if record.build_id is None:
        return Save(delayed(replace(record, claimed_at=None), "the build's ID is missing; it is started again", now))
    if build is None:
        return Step.INSPECT
    if goes_on := sent_to_main(record, build, now):
        # The second time, the main lane has not made it either: it must not be tried in both lanes without end.
        again = record.not_fast == goes_on.not_fast == UNEXPLAINED
        return Save(delayed(goes_on, goes_on.error or "", now) if again else goes_on)
    if build.result is BuildResult.RUNNING:
        return Save(replace(record, error=None, updated_at=now, due_at=now + POLL))
    if build.result is BuildResult.COPIED:
        return Step.VERIFY
    return Save(without_copy(record, build, now, policy))


def is_due(record: Record, now: int) -> bool:
    """Return whether the record's next step is due."""
    return now >= (record.due_at or 0) - _CLOCK_SKEW


def _of_open_build(record: Record, build: Build | None, now: int, policy: Policy) -> NextStep:
    """Return the step of a copy that arrived before its build ended: the build is looked up until it ends.

    A fast build that must have ended is not waited for: it would hold its slot for good.
    """
    if build is None:
        return Step.INSPECT
    if build.result is BuildResult.RUNNING:
        if is_overdue(record, now):
            return Save(_without_open_build(record, now, policy))
        return Save(replace(record, updated_at=now, due_at=now + POLL))
    return Step.VERIFY


def without_copy(record: Record, build: Build, now: int, policy: Policy) -> Record:
    """Return the record after a build without a copy: it waits, it has one attempt less, or it ends.

    A refused key ends nothing, because no build could have made the copy. Otherwise a request ends after
    `policy.give_up`, and one that follows a FAILED one ends with its first build.
    """
    last, _, count = (record.same_result or "").partition(" ")
    in_a_row = 1 + (int(count) if build.code and last == build.code and count.isdecimal() else 0)
    record = replace(record, same_result=f"{build.code} {in_a_row}" if build.code else None, claimed_at=None)
    if build.key:
        return key_refused(record, build.reason, now)
    record = replace(record, failing_since=record.failing_since or now)
    if build.result is BuildResult.ENDED or in_a_row >= _ENDS_IN_A_ROW.get(build.code, in_a_row + 1):
        return ended(record, build.reason, now)
    if record.failures or now - (record.failing_since or now) >= policy.give_up:
        return ended(record, build.reason, now)
    if build.result is BuildResult.DELAYED and in_a_row < _COSTS_IN_A_ROW.get(build.code, in_a_row + 1):
        return delayed(record, build.reason, now)
    return refused(record, build.reason, now)


def started(record: Record, build_id: str, now: int, repaired_at: int = 0) -> Record:
    """Return the record of a copy whose build CodeBuild has accepted.

    `repaired_at` is when a refused key was last accepted again: what failed before does not count as time in which
    builds failed, because the record may have waited for the key since then.
    """
    failing_since = record.failing_since if (record.failing_since or 0) > repaired_at else None
    record = replace(record, failing_since=failing_since)
    return replace(record, status=Status.COPYING, build_id=build_id, updated_at=now, due_at=now + POLL)


def delayed(record: Record, reason: str, now: int, *, soon: bool = False) -> Record:
    """Return the record of a copy that has to wait for another reason than its source: this costs no attempt.

    Each wait is twice as long as the one before, from a minute to an hour; after the tenth it is two, four and then six
    hours. With `soon` it is one to two minutes and is not counted: if AWS is only busy, or if a start may have
    succeeded, because CodeBuild remembers its token for only five minutes.
    """
    if soon:
        pause = MINUTE + int(MINUTE * _spread(record))
    elif record.waits < _SHORT_WAITS:
        pause = min(MINUTE << min(record.waits, 6), HOUR)
    else:
        pause = _LONG_WAITS[min(record.waits - _SHORT_WAITS, len(_LONG_WAITS) - 1)]
    waits = record.waits + (not soon)
    return replace(record, status=Status.REQUESTED, waits=waits, error=reason, updated_at=now, due_at=now + pause)


def key_refused(record: Record, reason: str, now: int) -> Record:
    """Return the record of a copy that waits until someone has replaced a key.

    It is due again soon, so that it starts when the key is accepted again. Until then slots.py lets one record at a
    time try the key. This wait does not count as time in which builds failed, and makes no later wait longer.
    """
    record = replace(record, status=Status.REQUESTED, failing_since=None)
    return replace(record, error=reason, updated_at=now, due_at=now + MINUTE)


def refused(record: Record, reason: str, now: int) -> Record:
    """Return the record after an attempt that its source refused; the fifth ends it.

    A copy that is in ECR is used further: it stays COPIED with the reason, and is verified at once.
    """
    attempts = record.attempts + 1
    if attempts < MOST_ATTEMPTS:
        due_at = now + BACKOFF[attempts - 1]
        return replace(record, status=Status.REQUESTED, attempts=attempts, error=reason, updated_at=now, due_at=due_at)
    return ended(record, reason, now)


def ended(record: Record, reason: str, now: int) -> Record:
    """Return the record after its last attempt. A copy that is in ECR stays COPIED and is verified at once."""
    if record.digest is not None:
        return replace(record, status=Status.COPIED, attempts=0, error=reason, updated_at=now, due_at=now)
    attempts, failures = record.attempts + 1, record.failures + 1
    return replace(
        record,
        status=Status.FAILED,
        attempts=attempts,
        failures=failures,
        error=reason,
        updated_at=now,
        due_at=None,
    )


def verified(record: Record, held: str | None, now: int, policy: Policy, build: Build | None = None) -> NextStep:
    """Return the next step of a record whose step was VERIFY.

    `held` is the digest of its tag in ECR, or None; `build` is the build that has ended, if that was the reason.
    """
    arrived = _is_right(record, held)
    if record.status is Status.COPIED:
        if held is None or not arrived:
            return Discard(held) if held else Step.REMOVE
        after = _with_exports(replace(record, open_build=None, claimed_at=None), held, build)
        after = replace(after, unexpected=_unexpected(record, held, now, build) or record.unexpected)
        return Save(replace(after, digest=held, updated_at=now, due_at=_next_check(record, now, policy)))
    if held is not None and arrived:
        after = replace(_with_exports(record, held, build), unexpected=_unexpected(record, held, now, build))
        return Save(_copied(after, held, now, policy))
    lost = Build(BuildResult.REFUSED, "the build succeeded, but ECR does not hold what it pushed")
    return Save(without_copy(replace(record, digest=None, unexpected=None), lost, now, policy))


def after_push_event(record: Record, held: str | None, now: int, policy: Policy) -> NextStep:
    """Return the next step of a record that an ECR event named. The event can be late, repeated, or by another pusher.

    A first copy is made when ECR holds it, even if another client pushed it. A refresh ends only with its own build.
    The build of a first copy may still copy signatures: it is looked up again until it has ended. A push during a
    refresh is noticed here only while no build runs, because a running one may have made it.
    """
    arrived = _is_right(record, held)
    if record.status is None or (arrived and held == record.digest):
        return Step.WAIT
    if arrived and (record.digest is None or record.status is Status.COPIED):
        seen = replace(
            _with_exports(record, held, None), unexpected=_unexpected(record, held, now) or record.unexpected
        )
        copied = _copied(seen, held, now, policy)
        open_build = record.build_id if record.status is Status.COPYING else record.open_build
        if open_build is not None:
            copied = replace(copied, open_build=open_build, claimed_at=record.claimed_at, due_at=now + POLL)
        return Save(copied)
    if not arrived and record.status is Status.COPIED:
        return Discard(held) if held else Step.REMOVE
    if not arrived and record.digest is not None:
        return Save(replace(record, digest=None, unexpected=None, updated_at=now, due_at=record.due_at or now))
    if arrived and record.status is Status.REQUESTED:
        seen = replace(
            _with_exports(record, held, None), unexpected=_unexpected(record, held, now) or record.unexpected
        )
        return Save(replace(seen, digest=held, updated_at=now, due_at=record.due_at or now))
    return Step.WAIT


def lookup_failed(record: Record, reason: str, now: int, policy: Policy, *, key: bool = False) -> Record:
    """Return the record of a copy whose build may still run, because CodeBuild does not answer about it.

    `key` says that it refuses the key. Then the end of a build whose copy has arrived is not waited for. Nor is that of
    a fast build that must have ended: the fast lane's project may have been deleted.
    """
    if record.status is Status.COPYING and (goes_on := sent_to_main(record, _STILL_RUNNING, now)):
        return goes_on
    if record.status is Status.COPIED:
        if key or is_overdue(record, now):
            return _without_open_build(record, now, policy)
        return replace(record, updated_at=now, due_at=now + POLL)
    return replace(record, error=reason, updated_at=now, due_at=now + POLL)


def _without_open_build(record: Record, now: int, policy: Policy) -> Record:
    """Return the record of a copy that has arrived and whose build is not waited for any longer."""
    due_at = _next_check(record, now, policy)
    return replace(record, open_build=None, claimed_at=None, updated_at=now, due_at=due_at)


def not_served(record: Record, now: int, policy: Policy) -> Record:
    """Return the record of a copy whose name this deployment does not serve; it is checked again much later."""
    reason = "its registry or prefix is no longer served"
    return replace(record, error=reason, updated_at=now, due_at=_next_check(record, now, policy))


def unexpected_push(before: Record, step: NextStep) -> tuple[str | None, str] | None:
    """Return the old and the new digest of a push that none of our builds made, if this step notices one.

    Each such push is noticed by one step: the next one finds its digest in the record.
    """
    if isinstance(step, Discard):
        return before.digest, step.held
    if isinstance(step, Save) and step.record.unexpected != before.unexpected and step.record.unexpected_push:
        return step.record.unexpected_push[:2]
    return None


def of_change(before: Record, after: Record | None, wait: Metric) -> dict[Metric, float]:
    """Return what a change of a record that has been written adds to each metric.

    `after` is None for a record that was removed because ECR holds no copy; `wait` is the metric of a delay.
    """
    if after is None:
        return {Metric.COPIES_GONE: 1}
    added: dict[Metric, float] = {}
    became = after.status if after.status is not before.status else None
    became_copying = became is Status.COPYING
    if became_copying:
        added[Metric.BUILDS_STARTED] = 1
        if after.lane is Lane.FAST:
            added[Metric.FAST_BUILDS_STARTED] = 1
    elif became is Status.FAILED:
        added[Metric.COPIES_FAILED] = 1
    elif became is Status.COPIED and after.error is None:
        added[Metric.COPIES_ARRIVED] = 1
        if before.digest is None and before.status is not Status.FAILED and before.requested_at:
            added[Metric.TIME_TO_COPIED] = max(0, after.updated_at - before.requested_at)
    # The last attempt of a refresh leaves the older copy in use, with the reason and no count of attempts.
    if after.attempts > before.attempts or (became is Status.COPIED and after.error is not None):
        added[Metric.ATTEMPTS_REFUSED] = 1
    elif after.status is Status.REQUESTED and before.lane is Lane.FAST and after.lane is None:
        added[Metric.SENT_TO_MAIN] = 1
    elif after.error is not None and after.status in (Status.REQUESTED, Status.COPYING) and not became_copying:
        added[wait] = 1
    return added


def _copied(record: Record, held: str | None, now: int, policy: Policy) -> Record:
    due_at = _next_check(record, now, policy)
    return replace(
        record,
        status=Status.COPIED,
        digest=held,
        claimed_at=None,
        attempts=0,
        waits=0,
        error=None,
        same_result=None,
        failing_since=None,
        failures=0,
        updated_at=now,
        due_at=due_at,
    )


def _with_exports(record: Record, held: str | None, build: Build | None) -> Record:
    """Return the record with what its build exported. What is known of the signatures belongs to one digest."""
    signatures = record.signatures if held == record.digest else None
    if build is None:
        return replace(record, signatures=signatures)
    if build.digest in ("", held):
        signatures = build.signatures or signatures
    return replace(record, pushed=build.digest or None, signatures=signatures)


def _unexpected(record: Record, held: str | None, now: int, build: Build | None = None) -> str | None:
    """Return what `Record.unexpected` is to say of the digest `held`; None if it can be a push of our builds.

    Without `build`, which has ended, only what the record says is known. A build pushes one digest: of two different
    ones during one build, another client has pushed at least one. A build that exports no digest, of an older global
    stack, can have pushed any.
    """
    replaced = None
    if build is None:
        replaced = record.digest if held not in (record.digest, record.pushed) else None
    elif not build.digest:
        pass
    elif record.status is Status.COPIED and held != record.digest:
        replaced = record.digest
    elif held != build.digest and (record.status is not Status.COPIED or record.unexpected is None):
        replaced = build.digest
    return f"{replaced} {held} {now}" if replaced else None


def _is_right(record: Record, held: str | None) -> bool:
    """A tag made from a digest must have that digest. Any other tag has the digest that was pushed last."""
    return held is not None and (not record.by_digest or record.source.endswith("@" + held))


def _next_check(record: Record, now: int, policy: Policy) -> int:
    return now + int(policy.verify * (1 - _JITTER + 2 * _JITTER * _spread(record)))


def _spread(record: Record) -> float:
    """A number in [0, 1) that differs by record and not by call: copies made together are not verified together."""
    return zlib.crc32(record.destination.encode()) / 2**32
