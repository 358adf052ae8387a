"""The reconciler: the Lambda function that takes each record to its copy.

A trigger only says when to check, and which record. The item in the table says what to do. So triggers can be late,
repeated, out of order or lost, and two invocations can overlap. For each record, one step is done and its result is
written. Records that wait for a build are collected first, because slots.py chooses which of them get one.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, Protocol, TypeVar, assert_never

from aws_lambda_powertools import Logger

from image_mirror.aws import CallLimits, connect
from image_mirror.aws_errors import DelayedError
from image_mirror.codebuild import MOST_BUILDS, Builds
from image_mirror.counts import Counts
from image_mirror.ecr import Repositories
from image_mirror.expiry import Details, has_expired, last_use
from image_mirror.federation import RoleSession
from image_mirror.global_access import GlobalAccount, SecretKey
from image_mirror.lanes import claimed, is_kept, is_overdue, lanes_of, not_started
from image_mirror.lifecycle import (
    POLL,
    Discard,
    NextStep,
    Save,
    Step,
    after_push_event,
    delayed,
    is_due,
    key_refused,
    lookup_failed,
    next_step,
    not_served,
    of_change,
    started,
    unexpected_push,
    verified,
    without_copy,
)
from image_mirror.metrics import Metric
from image_mirror.record import MINUTE, Build, BuildResult, Lane, Record, Status
from image_mirror.reference import source_of
from image_mirror.repair import DAMAGED, REFUSED, latest_due, repaired
from image_mirror.settings import Settings
from image_mirror.slots import (
    FIRST_RUNS,
    MOST_OLDEST,
    Key,
    Slots,
    State,
    Waiting,
    after_builds,
    after_fast_builds,
    after_race,
    build_of,
    choose,
    for_stream,
    limits,
    may_run_early,
    may_try,
    namespace_of,
    refused_again,
    runs_at_once,
    tried,
    waiting,
    with_more_out,
)
from image_mirror.state_item import StateItem
from image_mirror.table import Records, UnusableRecordError

PARALLEL = 8
# Seconds: enough for an exchange of the role, and two calls that time out twice each. What is not reached stays due.
RESERVE = 60.0
_LIMITS = CallLimits(connect=3.0, read=7.0, attempts=2, connections=PARALLEL)
# Each copy waits for the exchange, and one that fails is repeated with the next copy.
_EXCHANGE_LIMITS = CallLimits(connect=3.0, read=6.0, attempts=1)
# A run makes a dozen calls of the table one after another, so each one must survive throttling. The table is near: four
# tries and the pauses between them take no longer than two tries of a call across the Pacific.
_TABLE_LIMITS = CallLimits(connect=1.0, read=2.0, attempts=4, connections=PARALLEL)
_CHUNK = 100
_FOR_STARTS = 20.0  # seconds; many records that are due must not stop the starts
_MOST_RACES = 5
_MOST_STATE_RACES = 2  # few, because the calls of a slow table take long, and the last write needs no race
_BUILDS_DUE_WITHIN = 10 * MINUTE
_AHEAD = POLL + 10_000  # milliseconds; every running build is looked up within this time
_SETTLED = 20_000  # milliseconds; CodeBuild shows a build that has just been started as queued, even with free capacity
# A start without an answer keeps its lane for five minutes, and is tried again each second minute. If the lane that
# tries a key changed each minute, such a record could meet one lane only, for good.
_SAME_LANE = 15 * MINUTE
_logger = Logger(service="reconciler")

Subject = TypeVar("Subject")


class Context(Protocol):
    """The part of Lambda's context that is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how much longer the function may run."""


class Invocation:
    """One invocation: its time limit, its counts, and what it has seen of the builds and of what waits for one.

    `key_refused` says that CodeBuild takes no build now, `full` in which lanes it takes none. `fast_stuck` says that
    a build of the fast lane has not ended in time, or that CodeBuild refuses calls about that lane alone. `builds` has
    each build that CodeBuild was asked of, by ID, None where it did not answer; `out` the namespace of each that has
    not ended, by lane, `queued` and `running` which of these are what. `fast_ended` has the builds of the fast lane
    whose end is being written. `unarrived` has the requests without any copy: their keys, and when they were made.
    `due_at` says when each record that has been read is due.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.kept = 0.0  # seconds that the present work leaves for what follows it
        self.key_refused = False
        self.fast_stuck = False
        self.full: set[Lane] = set()
        self.fast_unanswered: list[Record] = []  # starts in the fast lane that may have succeeded
        self.counts = Counts()
        # Threads add to these, each by one operation that needs no lock.
        self.waiting: dict[Key, Waiting] = {}
        self.unarrived: dict[Key, int] = {}
        self.due_at: dict[Key, int] = {}
        self.builds: dict[str, Build | None] = {}
        self.out: dict[Lane, list[str]] = {lane: [] for lane in Lane}
        self.running: dict[Lane, list[str]] = {lane: [] for lane in Lane}
        self.queued: dict[Lane, list[str]] = {lane: [] for lane in Lane}
        self.fast_ended: list[Build] = []
        self.copied: list[str] = []  # the namespaces of builds that ended with a copy
        self.started: list[tuple[Waiting, Lane, str]] = []  # what waited, its lane and the build's ID
        self.failed: list[Key] = []  # starts that ended in an exception

    @property
    def one_namespace_goes_on(self) -> bool:
        """Whether one namespace alone has copies to make, and some of them have been made since the last look."""
        waiting = {each.namespace for each in self.waiting.values()}
        out = {namespace for names in self.out.values() for namespace in names}
        return len(waiting) == 1 and out <= waiting and not waiting.isdisjoint(self.copied)

    @property
    def over(self) -> bool:
        """Whether the remaining records have to wait for the next invocation."""
        return self._context.get_remaining_time_in_millis() / 1000 < RESERVE + self.kept


class Reconciler:
    """Takes records to their next state. Two can run at once, because a write fails if the record has changed."""

    def __init__(
        self,
        records: Records,
        state: StateItem,
        builds: Builds,
        repositories: Repositories,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        """`clock` returns seconds since the epoch."""
        self._records = records
        self._state = state
        self._builds = builds
        self._repositories = repositories
        self._policy = settings.policy
        self._mirror = settings.mirror
        self._start_role = settings.start_role
        quotas = {Lane.MAIN: settings.build_quota, Lane.FAST: settings.fast_quota}
        self._quotas = {lane: quotas[lane] for lane in builds.lanes}
        self._has_fast = Lane.FAST in self._quotas
        self._clock = clock
        # What waited for a build after the last run of the schedule. Any step changes a record's due_at.
        self._waiting: dict[Key, Waiting] = {}

    def advance(self, keys: Sequence[Key], invocation: Invocation) -> list[Key]:
        """Do one step for each record, but start no build. Return the keys that failed.

        Running builds are looked up together. Records that wait for a build are added to `invocation.waiting`. Those
        for which there is no time stay unchanged and due.
        """
        with ThreadPoolExecutor(PARALLEL) as threads:
            building: list[Record] = []
            failed = _each(threads, lambda key: self._look(key, invocation, building), keys, invocation)
            builds = self._inspect(building, invocation)
            concluded = _each(threads, lambda record: self._conclude(record, builds, invocation), building, invocation)
            return failed + [(record.repo, record.tag) for record in concluded]

    def start_of_stream(self, invocation: Invocation) -> list[Key]:
        """Start builds for what waits after a batch of the stream, in the slots left. Return the keys that failed.

        The others stay due: the schedule starts them.
        """
        failed: list[Key] = []
        races = 0
        while invocation.waiting and races < _MOST_RACES and not (invocation.over or invocation.key_refused):
            now, state = self._now(), self._state.read()
            slots = for_stream(state, self._quotas, now)
            usable = {lane: each for lane, each in slots.items() if lane not in invocation.full}
            chosen, _ = choose(list(invocation.waiting.values()), usable, state.turn if state else 0)
            if not chosen:
                break
            # Before they start: the batches of several shards come at the same time.
            if not self._state.write(with_more_out(state, chosen), state):
                races += 1
                continue
            failed += self._start(chosen, state.repaired_at if state else 0, invocation)
            if not invocation.full:
                break
        if invocation.fast_stuck and not invocation.key_refused and (state := self._state.read()):
            # The next batch need not try the lane. If another run writes meanwhile, the next one that tries it says so.
            self._state.write(after_fast_builds(state, (), self._now(), stuck=True), state)
        return failed

    def run_early(self, invocation: Invocation) -> None:
        """Do what the schedule does, if records wait for the slots that builds have left since its last run."""
        state, now = self._state.read(), self._now()
        # Of several events at once, one writes the time.
        if state and may_run_early(state, now) and self._state.write(replace(state, at=now), state):
            self.run_schedule(invocation)

    def run_schedule(self, invocation: Invocation) -> None:
        """Do one step for each due record, start builds in the free slots, and write the state for the next run."""
        invocation.kept = _FOR_STARTS
        # A record that is due too late was changed by hand. It would not be looked at for as long, so that is first.
        late = islice(self._records.due_after(latest_due(self._now(), self._policy)), _CHUNK)
        self.advance([(repo, tag) for repo, tag, _ in late], invocation)
        now = self._now()
        read = self._state.read()
        due = {(repo, tag): due_at for repo, tag, due_at in self._records.due(now + _AHEAD)}
        invocation.counts.add(Metric.DUE, sum(due_at <= now for due_at in due.values()))
        known = {key: each for key, each in self._waiting.items() if due.get(key) == each.due_at and not each.kept}
        # The latest first: those are the builds that run, whose ends make slots free.
        unknown = [key for key in sorted(due, key=lambda key: due[key], reverse=True) if key not in known]
        complete = True
        for start in range(0, len(unknown), _CHUNK):
            failed = self.advance(unknown[start : start + _CHUNK], invocation)
            unread = unknown[start:] if invocation.over else failed
            # What has been due for longer holds no slot: a build that runs is looked at each minute.
            complete = complete and not any(due[key] > now - _BUILDS_DUE_WITHIN for key in unread)
            if invocation.over:
                break
        invocation.waiting = known | invocation.waiting
        waits = set(invocation.waiting)
        invocation.kept = 0.0
        after, read = self._fill(read, invocation, complete=complete)
        waits -= set(invocation.failed)
        # The index may be older than a record that another run has taken on meanwhile.
        overdue = (invocation.due_at.get(key, due_at) for key, due_at in due.items() if key not in waits)
        oldest = min(overdue, default=now)
        # Also if nothing is due: the alarm needs a value each minute.
        invocation.counts.add(Metric.OLDEST_DUE, max(0, now - oldest) / 1000)
        first = self._oldest(read.oldest if read else (), invocation)
        self._write_state(replace(after, waits=len(invocation.waiting), oldest=first), read)
        self._waiting = invocation.waiting

    def _write_state(self, after: State, read: State | None) -> None:
        """Write the state for the next run. What others have written since it was `read` counts too."""
        for _ in range(_MOST_STATE_RACES):
            if self._state.write(after, read):
                return
            found = self._state.read()
            after, read = after_race(after, read, found), found
        self._state.write(after, read, anyway=True)

    def _fill(self, read: State | None, invocation: Invocation, *, complete: bool) -> tuple[State, State | None]:
        """Start builds in the free slots. Return the state for the next run, and the one that is now in the table.

        The slots are reserved before the builds start: batches of the stream and other runs use them at the same time.
        Without `complete`, not every build that is out has been seen: then those of the last run count too.
        """
        now = self._now()
        before = read or State(at=now)
        refusal = after_builds(before.refusal, invocation.builds, now)
        repaired_at = now if before.refusal is not None and refusal is None else min(before.repaired_at, now)
        after = replace(
            before,
            at=now,
            main=self._slots(Lane.MAIN, before, invocation, complete=complete),
            fast=self._slots(Lane.FAST, before, invocation, complete=complete) if self._has_fast else Slots(),
            refusal=refusal,
            repaired_at=repaired_at,
        )
        if self._has_fast:
            after = after_fast_builds(after, invocation.fast_ended, now, stuck=invocation.fast_stuck)
        races = 0
        while races < _MOST_RACES and not (invocation.over or invocation.key_refused):
            if after.refusal is not None and not may_try(after.refusal, invocation.builds, now):
                break
            chosen, turn = choose(list(invocation.waiting.values()), self._usable(after, invocation, now), after.turn)
            if not chosen:
                break
            written = replace(read or after, main=after.main, fast=after.fast)
            reserved = self._state.write(with_more_out(written, chosen), read)
            if reserved is None:
                found = self._state.read()
                after, read, races = after_race(after, read, found), found, races + 1
                continue
            read = reserved
            invocation.started.clear()
            invocation.failed += self._start(chosen, after.repaired_at, invocation)
            after = with_more_out(replace(after, turn=turn), [(each, lane) for each, lane, _ in invocation.started])
            if after.refusal is not None and invocation.started:
                refusal = tried(after.refusal, invocation.started[0][2], now)
                after = replace(after, refusal=refusal, repaired_at=after.repaired_at if refusal else now)
        if self._has_fast:
            unanswered = len(invocation.fast_unanswered)
            stuck = invocation.fast_stuck and not invocation.key_refused
            after = after_fast_builds(after, (), now, stuck=stuck, unanswered=unanswered)
        if after.fast_is_off(now) and not before.fast_is_off(now):
            _logger.warning("fast lane switched off for an hour", extra={"until": after.fast_off_until})
        if invocation.key_refused:
            after = replace(after, refusal=refused_again(after.refusal, now, in_build=False))
        if after.refusal is not None and invocation.waiting:
            invocation.counts.add(Metric.KEY_REFUSED)
        return after, read

    def _slots(self, lane: Lane, before: State, invocation: Invocation, *, complete: bool) -> Slots:
        """Return the slots of a lane after the builds that are out have been looked up."""
        known, quota = before.of(lane), self._quotas[lane]
        running, queued = len(invocation.running[lane]), len(invocation.queued[lane])
        # A state that a batch of the stream has begun says nothing about the quota.
        runs_before = known.runs or min(quota, FIRST_RUNS)
        runs = runs_at_once(quota, runs_before, running, queued, may_grow=invocation.one_namespace_goes_on)
        most, share = limits(quota, runs)
        out = Counter(invocation.out[lane])
        if not complete:
            out |= Counter(known.out)  # the larger count of each namespace
        return Slots(runs=runs, most=most, share=share, out=out)

    def _usable(self, state: State, invocation: Invocation, now: int) -> dict[Lane, Slots]:
        """Return the slots of the lanes in which builds may start now."""
        off = {*invocation.full, *([Lane.FAST] if state.fast_is_off(now) or invocation.fast_stuck else [])}
        if state.refusal is not None:
            # One record tries the key: about every second time in the fast lane, because the main one may fail, or not
            # answer, before it says anything about the key. What the fast lane accepts proves the key too.
            is_main = (now // _SAME_LANE + state.refusal.times) % 2
            lanes = (Lane.MAIN, Lane.FAST) if is_main else (Lane.FAST, Lane.MAIN)
            # A lane that nothing may use would never be tried.
            usable = self._quotas.keys() & {lane for each in invocation.waiting.values() for lane in each.lanes}
            lane = next((lane for lane in lanes if lane in usable - off), None)
            if lane is None:
                return {}
            one = replace(state.of(lane), most=min(state.of(lane).most, sum(state.of(lane).out.values()) + 1))
            return {lane: one}
        return {lane: state.of(lane) for lane in self._quotas if lane not in off}

    def _oldest(self, before: Sequence[Key], invocation: Invocation) -> tuple[Key, ...]:
        """Return the records that have waited longest for their first copy, and count how long the first has.

        `before` are those of the last run: a record that waits for long is seldom due, and is not looked at until then.
        """
        waits = {each.key: each.requested_at for each in invocation.waiting.values() if not each.arrived}
        waits |= invocation.unarrived
        for key in before:
            if key not in waits and self._mirror.serves(key[0]):
                _attempt(lambda key: self._look_at_oldest(key, waits), key, invocation)
        oldest = sorted(waits, key=lambda key: (waits[key], key))[:MOST_OLDEST]
        seconds = max(0, self._now() - waits[oldest[0]]) / 1000 if oldest else 0
        invocation.counts.add(Metric.OLDEST_FIRST_COPY, seconds)
        return tuple(oldest)

    def _look_at_oldest(self, key: Key, waits: dict[Key, int]) -> None:
        record = self._records.get(*key)
        if record is not None and _is_unarrived(record):
            waits[key] = record.requested_at

    def _start(self, chosen: Sequence[tuple[Waiting, Lane]], repaired_at: int, invocation: Invocation) -> list[Key]:
        """Start a build for each of these records, if that is still its next step. Return the keys that failed."""
        for each, _ in chosen:
            del invocation.waiting[each.key]
        with ThreadPoolExecutor(PARALLEL) as threads:
            failed = _each(threads, lambda each: self._start_one(*each, repaired_at, invocation), chosen, invocation)
        return [each.key for each, _ in failed]

    def _start_one(self, each: Waiting, lane: Lane, repaired_at: int, invocation: Invocation) -> None:
        if lane in invocation.full or invocation.key_refused:
            invocation.waiting[each.key] = each
            return
        # Read again: a record that waits may have been read by an earlier run.
        record = self._records.get(*each.key)
        record = record and self._in_order(record, invocation)
        now = self._now()
        if record is None or next_step(record, None, now, self._policy) is not Step.START:
            return
        if _is_unarrived(record):
            invocation.unarrived[each.key] = record.requested_at
        if lane not in lanes_of(record, now):
            invocation.waiting[each.key] = waiting(record, now)
            return
        wait, claim = Metric.WAITS, record
        try:
            self._repositories.ensure(record)
            # With one lane no other build can be started, so a claim would only cost a write.
            if self._has_fast or record.lane is Lane.FAST:
                claim = claimed(record, lane, self._now())
                if not self._replace(record, claim, invocation):
                    return
            build_id = self._builds.start(claim)
        except DelayedError as error:
            answer = _without_key(error) if claim is not record and lane is Lane.FAST else error
            step, wait = Save(self._not_started(record, claim, answer, invocation)), _wait(answer)
        else:
            invocation.started.append((each, lane, build_id))
            step = Save(started(claim, build_id, self._now(), repaired_at))
        self._write(claim, step, invocation, wait)
        self._go_on(step, invocation)

    def _not_started(self, record: Record, claim: Record, error: DelayedError, invocation: Invocation) -> Record:
        """Return the record after a start that failed; `claim` is `record` itself if it failed before the claim.

        What the fast lane answers says nothing about the image or a key: the record may start in the main lane at once.
        """
        now = self._now()
        # A build that an earlier call may have started is still possible, whatever this call was answered.
        is_certain = claim is not record and not error.uncertain and not is_kept(record, now)
        if claim is not record and claim.lane is Lane.FAST and error.refusal is None:
            if error.uncertain:
                invocation.fast_unanswered.append(claim)
            else:
                _logger.warning("not started in the fast lane", extra={"reason": str(error)})
                invocation.full.add(Lane.FAST)
                invocation.fast_stuck = invocation.fast_stuck or not error.no_capacity
            return not_started(claim, now) if is_certain else delayed(claim, str(error), now, soon=True)
        if error.no_capacity:
            invocation.full |= set(Lane) if claim is record else {claim.lane or Lane.MAIN}
        invocation.key_refused = invocation.key_refused or error.key
        claim = replace(claim, claimed_at=None) if is_certain else claim
        if error.key:
            return key_refused(claim, str(error), now)
        if error.refusal is None:
            return delayed(claim, str(error), now, soon=error.no_capacity or error.uncertain)
        return without_copy(claim, Build(error.refusal, str(error)), now, self._policy)

    def check_pushed(self, repository: str, tag: str, invocation: Invocation) -> None:
        """Look up the tag that an ECR event named, and update its record, if there is one."""
        repo = f"{self._mirror.registry}/{repository}"
        record = self._records.get(repo, tag) if self._mirror.serves(repo) else None
        record = record and self._in_order(record, invocation)
        if record is not None:
            self._write(
                record, after_push_event(record, self._repositories.held(record), self._now(), self._policy), invocation
            )

    def _look(self, key: Key, invocation: Invocation, building: list[Record]) -> None:
        """Do the record's step; if its build must be looked up first, add it to `building`.

        The builds that are not due are looked up too: they hold slots.
        """
        record = self._records.get(*key)
        invocation.due_at[key] = record.due_at if record and record.due_at is not None else self._now()
        if record is None:
            return
        if not self._mirror.serves(record.repo):
            # From before a change of the parameters for the prefix or registry. It is neither used nor deleted.
            if record.due_at is not None and not self._now() < record.due_at <= latest_due(self._now(), self._policy):
                _logger.warning("not served", extra={"copy": record.destination})
                self._write(record, Save(not_served(record, self._now(), self._policy)), invocation)
            return
        record = self._in_order(record, invocation)
        if record is None:
            return
        if _is_unarrived(record):
            invocation.unarrived[key] = record.requested_at
        step = next_step(record, None, self._now(), self._policy)
        if step is Step.START:
            invocation.waiting[key] = waiting(record, self._now())
        elif step is Step.INSPECT or (step is Step.WAIT and build_of(record) is not None):
            building.append(record)
        else:
            self._take(record, step, None, invocation)

    def _in_order(self, record: Record, invocation: Invocation) -> Record | None:
        """Return the record after its repair, if it needs one; None if it has changed meanwhile.

        The repair is written before the step: no build is started for a record whose writes the table refuses.
        """
        source = source_of(record.repo, record.tag, self._mirror.registry, self._mirror.prefix)
        sound = repaired(record, source, self._now(), self._policy)
        if sound is record:
            return record
        if not self._replace(record, sound, invocation):
            return None
        _count_repair(sound, DAMAGED, invocation)
        return sound

    def _replace(self, before: Record, after: Record, invocation: Invocation) -> bool:
        """Return whether `after` was written in place of `before`. Raises UnusableRecordError."""
        found = self._records.replace(before, after)
        if found is after or found != before or (found.raw is None and found == after):
            return found is after
        _count_repair(before, REFUSED, invocation)
        again = self._records.replace(found, after)
        if again is not after and again == before:
            raise UnusableRecordError(f"{before.destination}: {REFUSED}")
        return again is after

    def _remove(self, before: Record, invocation: Invocation) -> bool:
        """Return whether `before` was removed. Raises UnusableRecordError."""
        if self._records.remove(before):
            return True
        found = self._records.get(before.repo, before.tag)
        if found is None or found != before:
            return False
        _count_repair(before, REFUSED, invocation)
        if self._records.remove(found):
            return True
        if self._records.get(before.repo, before.tag) == before:
            raise UnusableRecordError(f"{before.destination}: {REFUSED}")
        return False

    def _inspect(self, building: Sequence[Record], invocation: Invocation) -> dict[str, Build | DelayedError]:
        """Return the state of each build, or the error if CodeBuild does not answer.

        CodeBuild refuses a call as a whole, so each lane's builds are asked for apart. If it refuses only the fast
        lane's, its project or the right to use it is gone, and no key is wrong.
        """
        ids = list(dict.fromkeys(record.build_id for record in building if record.build_id))
        of_lane = {
            lane: [each for each in ids if self._builds.lane_of(each) is lane] for lane in (Lane.MAIN, Lane.FAST)
        }
        main = self._look_up(of_lane[Lane.MAIN], invocation)
        fast = self._look_up(of_lane[Lane.FAST], invocation)
        is_refused = False
        if any(map(_refuses_key, fast.values())):
            answers: list[Build | DelayedError | None] = [*main.values()] or [self._main_answer()]
            is_refused = any(map(_refuses_key, answers))
            # Without any answer about the main lane, the key may be wrong.
            if not is_refused and not all(isinstance(answer, DelayedError) for answer in answers):
                invocation.fast_stuck = True
        return main | {name: _of_fast_lane(each, key_refused=is_refused) for name, each in fast.items()}

    def _look_up(self, ids: Sequence[str], invocation: Invocation) -> dict[str, Build | DelayedError]:
        builds: dict[str, Build | DelayedError] = {}
        for start in range(0, 0 if invocation.over else len(ids), MOST_BUILDS):
            some = ids[start : start + MOST_BUILDS]
            try:
                builds |= self._builds.look_up(some)
            except DelayedError as error:
                _logger.warning("builds not looked up", extra={"reason": str(error)})
                builds |= dict.fromkeys(some, error)
        return builds

    def probe(self) -> dict[str, str | None]:
        """Return with which role CodeBuild is called, "" for the key, and the error, None if it answers; no secret."""
        error = self._main_answer()
        return {"role": self._start_role, "error": None if error is None else str(error)}

    def _main_answer(self) -> DelayedError | None:
        """Return the error of a call about the main lane with the present key; None if CodeBuild answers it."""
        try:
            self._builds.check()
        except DelayedError as error:
            return error
        return None

    def _conclude(self, record: Record, builds: Mapping[str, Build | DelayedError], invocation: Invocation) -> None:
        build_id, now = record.build_id or "", self._now()
        build, lane = builds.get(build_id), self._builds.lane_of(build_id)
        # An older release starts builds in the main lane, whatever the record says; and a lane can be written by hand.
        seen = replace(record, lane=lane) if self._has_fast and Lane.FAST in (record.lane, lane) else record
        is_late = is_overdue(seen, now)
        if isinstance(build, DelayedError):
            invocation.out[lane].append(namespace_of(record))
            invocation.builds[build_id] = None
            if is_late and not build.key:
                invocation.fast_stuck = True
            if is_due(record, now):
                step: NextStep = Save(lookup_failed(seen, str(build), now, self._policy, key=build.key))
                self._write(record, step, invocation, _wait(build))
                self._go_on(step, invocation)
        elif build is not None:
            invocation.builds[build_id] = build
            if build.result is BuildResult.COPIED:
                invocation.copied.append(namespace_of(record))
            if build.result is BuildResult.RUNNING:
                invocation.out[lane].append(namespace_of(record))
                is_queued = build.queued and now - build.started_at >= _SETTLED
                (invocation.queued if is_queued else invocation.running)[lane].append(build_id)
                if is_late:
                    invocation.fast_stuck = True
            elif lane is Lane.FAST and is_due(record, now):
                # Until then the build is looked up again by each run, and would count each time.
                invocation.fast_ended.append(build)
            step = next_step(seen, build, now, self._policy)
            self._take(record, step, build, invocation)
            self._go_on(step, invocation)

    def _go_on(self, step: NextStep, invocation: Invocation) -> None:
        """Let a record that may start again at once, in the main lane, wait for a build in this run."""
        now = self._now()
        if isinstance(step, Save) and next_step(step.record, None, now, self._policy) is Step.START:
            invocation.waiting[step.record.repo, step.record.tag] = waiting(step.record, now)

    def _take(self, record: Record, step: NextStep, build: Build | None, invocation: Invocation) -> None:
        """Do the record's next step, and write the result."""
        looked = step is Step.VERIFY
        if looked:
            image, now = self._repositories.image(record), self._now()
            step = verified(record, image["imageDigest"] if image is not None else None, now, self._policy, build)
            if image is not None and isinstance(step, Save) and has_expired(record, image, now, self._policy):
                self._expire(record, image, now - self._policy.expire, invocation)
                return
        self._write(record, step, invocation, _wait(build))
        if looked:
            # After the write: a refused call must not keep the record due. Each VerifyHours it is made again.
            self._repositories.remove_released_policy(record)

    def _expire(self, record: Record, image: Details, since: int, invocation: Invocation) -> None:
        """Remove the record of a copy that nobody has used since `since`, then the copy.

        In this order no pod is sent to a copy that is known to be gone. After a crash in between, the copy stays in ECR
        without a record: the next pod requests it, and the build finds it there; or `image-mirror prune` shows it.
        """
        if not self._remove(record, invocation):
            return
        invocation.counts.add(Metric.COPIES_EXPIRED)
        unused = f"not used since {datetime.fromtimestamp(last_use(image) / 1000, UTC):%Y-%m-%d}"
        _log_change(record, "expired", unused, record.build_id)
        self._repositories.delete(record, image, since, lambda: not invocation.over)

    def _write(self, record: Record, step: NextStep, invocation: Invocation, wait: Metric = Metric.WAITS) -> None:
        """Write the result of the step, and count it if it was written; `wait` is the metric of a delay."""
        after: Record | None
        match step:
            case Save(record=after):
                if not self._replace(record, after, invocation):
                    return
            case Step.REMOVE | Discard():
                after = None
                if not self._remove(record, invocation):
                    return
            case Step.WAIT | Step.START | Step.INSPECT | Step.VERIFY:
                return
            case _:
                assert_never(step)
        if after is None or not _is_unarrived(after):
            invocation.unarrived.pop((record.repo, record.tag), None)
        for metric, value in of_change(record, after, wait).items():
            invocation.counts.add(metric, value)
        if push := unexpected_push(record, step):
            invocation.counts.add(Metric.UNEXPECTED_PUSHES)
            digests = {"before": push[0], "after": push[1]}
            _logger.warning("unexpected push", extra={"image": record.source, "copy": record.destination, **digests})
        if after is None or after.status is not record.status:
            if after is None:
                _log_change(record, "gone from ECR", None, record.build_id)
            else:
                _log_change(record, str(after.status), after.error, after.build_id)

    def _now(self) -> int:
        return int(self._clock() * 1000)


@cache
def load() -> Reconciler:
    """Make the reconciler from the function's environment, once. Raises SettingsError."""
    settings = Settings.from_env(os.environ)
    dynamodb = connect("dynamodb", _TABLE_LIMITS)
    credentials = _role_session(settings) if settings.start_role else _secret_key(settings)
    account = GlobalAccount(credentials, lambda key: connect("codebuild", _LIMITS, key))
    return Reconciler(
        Records(dynamodb, settings.table),
        StateItem(dynamodb, settings.table),
        Builds(account, settings.project, settings.fast_project),
        Repositories(connect("ecr", _LIMITS), settings),
        settings,
        time.time,
    )


def _secret_key(settings: Settings) -> SecretKey:
    return SecretKey(connect("secretsmanager", _LIMITS), settings.secret, time.monotonic)


def _role_session(settings: Settings) -> RoleSession:
    def connect_sts(**more: Any) -> Any:
        return connect("sts", _EXCHANGE_LIMITS, **more)

    return RoleSession(settings.start_role, settings.start_region, connect_sts, time.monotonic)


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Handle a batch of the table's stream, an ECR event, a probe, or (any other event) the schedule, each minute.

    Returns `batchItemFailures`, by sequence number, for a stream; Lambda reads it. For a probe, an operator's
    `{"probe": "builds"}`, it changes nothing and returns `probe`: with which `role` CodeBuild was called ("" for the
    key), and the `error`, None if it answered.
    """
    reconciler = load()
    if event.get("probe") == "builds":
        return {"probe": reconciler.probe()}
    invocation = Invocation(context)
    try:
        if "Records" in event:
            return read_stream(event, reconciler, invocation)
        if event.get("source") == "aws.ecr":
            detail = event["detail"]
            if detail.get("result") == "SUCCESS" and detail.get("image-tag"):
                reconciler.check_pushed(detail["repository-name"], detail["image-tag"], invocation)
                reconciler.run_early(invocation)
        else:
            reconciler.run_schedule(invocation)
        return {}
    finally:
        invocation.counts.publish()


def read_stream(event: Mapping[str, Any], reconciler: Reconciler, invocation: Invocation) -> dict[str, Any]:
    """Handle each key of a batch once. Return the sequence numbers of the keys that failed."""
    numbers: dict[Key, list[str]] = {}
    for entry in event["Records"]:
        change = entry["dynamodb"]
        if "claimed_at" in change.get("NewImage", {}):
            continue  # a run is starting its build, and has written that itself
        keys = change["Keys"]
        numbers.setdefault((keys["repo"]["S"], keys["tag"]["S"]), []).append(change["SequenceNumber"])
        if _asks(change.get("NewImage", {})):
            invocation.counts.add(Metric.COPIES_REQUESTED)
    failed = reconciler.advance(list(numbers), invocation)
    failed += reconciler.start_of_stream(invocation)
    return {"batchItemFailures": [{"itemIdentifier": number} for key in failed for number in numbers[key]]}


def _asks(item: Mapping[str, Any]) -> bool:
    """Return whether an item in the stream requests a copy. A delay writes REQUESTED too, but later."""
    none = {"N": "0"}
    is_fresh = item.get("requested_at") is not None and item["requested_at"] == item.get("updated_at")
    return is_fresh and item.get("attempts") == none and item.get("waits") == none


def _log_change(before: Record, after: str, reason: str | None, build_id: str | None) -> None:
    fields = {"image": before.source, "copy": before.destination, "before": before.status}
    _logger.info("record changed", extra={**fields, "after": after, "reason": reason, "build": build_id})


def _count_repair(record: Record, reason: str, invocation: Invocation) -> None:
    invocation.counts.add(Metric.RECORDS_REPAIRED)
    _logger.warning("record repaired", extra={"copy": record.destination, "reason": reason})


def _wait(cause: DelayedError | Build | None) -> Metric:
    """Return the metric of a wait with this cause."""
    if cause is not None and (cause.key or (isinstance(cause, Build) and cause.code == "AUTH_FILE")):
        return Metric.KEY_REFUSED
    return Metric.BUSY if isinstance(cause, DelayedError) and cause.no_capacity else Metric.WAITS


def _refuses_key(answer: Build | DelayedError | None) -> bool:
    """Return whether CodeBuild refuses the key of a call."""
    return isinstance(answer, DelayedError) and answer.key


def _of_fast_lane(answer: Build | DelayedError, *, key_refused: bool) -> Build | DelayedError:
    """Return what CodeBuild says of a build of the fast lane: only the main lane says that a key is refused.

    `key_refused` says that it does.
    """
    if isinstance(answer, Build):
        return replace(answer, key=False)
    return answer if key_refused else _without_key(answer)


def _without_key(error: DelayedError) -> DelayedError:
    busy, unknown = error.no_capacity, error.uncertain
    return DelayedError(str(error), no_capacity=busy, uncertain=unknown, refusal=error.refusal)


def _is_unarrived(record: Record) -> bool:
    """Return whether pods wait for the record's first copy."""
    return record.status in (Status.REQUESTED, Status.COPYING) and record.digest is None and record.requested_at > 0


def _each(
    threads: ThreadPoolExecutor,
    function: Callable[[Subject], None],
    subjects: Sequence[Subject],
    invocation: Invocation,
) -> list[Subject]:
    """Call `function` for each subject for which there is time. Return those that failed."""
    errors = threads.map(lambda subject: None if invocation.over else _attempt(function, subject, invocation), subjects)
    return [subject for subject, error in zip(subjects, errors, strict=True) if error is not None]


def _attempt(function: Callable[[Subject], None], subject: Subject, invocation: Invocation) -> Exception | None:
    """Call `function`. The failure of one record must not stop the others."""
    try:
        function(subject)
    except Exception as error:
        invocation.counts.add(Metric.STEP_ERRORS)
        _logger.exception("step failed", extra={"record": str(subject)[:500]})
        return error
    return None
