"""The two lanes of a copy, by tables and by random histories of one record and its builds."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from image_mirror.lanes import LONGEST_FAST, claimed, is_kept, lanes_of, not_started, sent_to_main
from image_mirror.lifecycle import Save, Step, delayed, lookup_failed, next_step, started, verified
from image_mirror.record import (
    DAY,
    HOUR,
    MINUTE,
    NOT_FAST,
    Build,
    BuildResult,
    Lane,
    Policy,
    Record,
    Status,
    asked_again,
    idempotency_token,
    new_record,
    renew,
)
from image_mirror.reference import destination_of, parse_reference
from support.clock import NOON as NOW
from support.cloud import REGISTRY

POLICY = Policy()
HELD = "sha256:" + "a" * 64
SOURCE = parse_reference("gcr.io/team/app:1")
REQUESTED = new_record(destination_of(SOURCE, REGISTRY, "mirror"), SOURCE, NOW)
FAST, MAIN = (started(claimed(REQUESTED, lane, NOW), f"{lane}:1", NOW) for lane in (Lane.FAST, Lane.MAIN))
RUNNING = Build(BuildResult.RUNNING)


@pytest.mark.parametrize(
    ("changes", "lanes"),
    [
        pytest.param({}, "fast main", id="a first copy, for which pods wait"),
        pytest.param({"digest": HELD}, "main fast", id="a refresh, for which none waits"),
        pytest.param({"not_fast": "TOO_LARGE"}, "main", id="too large for the fast lane"),
        pytest.param({"lane": Lane.FAST, "build_id": "fast:1"}, "fast main", id="an earlier build ran there"),
        pytest.param({"lane": Lane.FAST, "error": "UNREACHABLE: x"}, "main fast", id="the latest build there failed"),
        pytest.param(
            {"lane": Lane.MAIN, "error": "UNREACHABLE: x"}, "fast main", id="the same of the main lane, again"
        ),
        pytest.param({"lane": Lane.FAST, "claimed_at": NOW - 5 * MINUTE + 1}, "fast", id="its token is known"),
        pytest.param({"lane": Lane.MAIN, "claimed_at": NOW - 1}, "main", id="a start in the main lane may have worked"),
        pytest.param({"lane": Lane.FAST, "claimed_at": NOW + 59_000}, "fast", id="the clock of another run is ahead"),
        pytest.param({"lane": Lane.MAIN, "claimed_at": NOW + 61_000}, "fast main", id="claimed by hand"),
        pytest.param({"lane": Lane.FAST, "claimed_at": NOW - 5 * MINUTE}, "main fast", id="no answer for five minutes"),
        pytest.param({"lane": Lane.MAIN, "claimed_at": NOW - 5 * MINUTE}, "fast main", id="the same of the main lane"),
        pytest.param(
            {"lane": Lane.FAST, "claimed_at": NOW - 1, "not_fast": "TOO_LARGE"},
            "fast",
            id="a known token goes first",
        ),
    ],
)
def test_a_record_may_use_these_lanes_the_preferred_one_first(changes: dict[str, object], lanes: str) -> None:
    assert " ".join(lanes_of(replace(REQUESTED, **changes), NOW)) == lanes  # type: ignore[arg-type]


def test_a_claim_is_not_due_for_a_minute_and_is_written_under_the_condition_that_nobody_else_has_claimed() -> None:
    claim = claimed(REQUESTED, Lane.FAST, NOW + 5)
    assert (claim.lane, claim.claimed_at, claim.updated_at, claim.due_at) == (
        Lane.FAST, NOW + 5, NOW + 5, NOW + 5 + MINUTE,
    )  # fmt: skip
    assert next_step(claim, None, NOW + 30_000, POLICY) is Step.WAIT
    assert next_step(claim, None, NOW + MINUTE, POLICY) is Step.START, "after a crash"


def test_repeated_claims_count_from_the_first_one_for_five_minutes() -> None:
    claim = REQUESTED
    for minutes in range(6):
        claim = claimed(claim, Lane.FAST, NOW + minutes * MINUTE)
    assert claim.claimed_at == NOW + 5 * MINUTE
    assert is_kept(claim, NOW + 9 * MINUTE)


def test_a_token_differs_by_lane_and_that_of_the_main_lane_is_as_before() -> None:
    before = idempotency_token(REQUESTED)
    assert idempotency_token(claimed(REQUESTED, Lane.MAIN, NOW)) == before
    assert idempotency_token(claimed(REQUESTED, Lane.FAST, NOW)) != before


def ended(code: str, result: BuildResult = BuildResult.DELAYED) -> Build:
    return Build(result, f"{code}: x", code=code)


@pytest.mark.parametrize(
    ("build", "remembered"),
    [
        pytest.param(ended("OUT_OF_TIME", BuildResult.REFUSED), "OUT_OF_TIME", id="the copy's own limit"),
        pytest.param(ended("TOO_LARGE", BuildResult.ENDED), "TOO_LARGE", id="too large"),
        pytest.param(ended("UNEXPLAINED"), "UNEXPLAINED", id="killed"),
        pytest.param(ended("TIMED_OUT", BuildResult.REFUSED), "UNEXPLAINED", id="stopped by CodeBuild at its limit"),
        pytest.param(ended(""), "UNEXPLAINED", id="CodeBuild failed"),
        pytest.param(ended("TARGET_LOGIN"), "UNEXPLAINED", id="the login: the main lane says whether a key is refused"),
    ],
)
def test_what_may_be_the_fault_of_the_fast_lane_goes_on_in_the_main_lane_at_once_and_free(
    build: Build, remembered: str
) -> None:
    now = NOW + MINUTE
    step = next_step(FAST, build, now, POLICY)
    assert isinstance(step, Save)
    after = step.record
    expected = replace(FAST, status=Status.REQUESTED, lane=None, claimed_at=None, not_fast=remembered, updated_at=now)
    assert after == replace(expected, due_at=now, error=f"fast lane: {build.reason}")
    assert next_step(after, None, now, POLICY) is Step.START
    assert lanes_of(after, now) == (Lane.MAIN,)
    assert idempotency_token(after) != idempotency_token(REQUESTED), "a new build, and not the one that has ended"
    in_main = next_step(MAIN, build, now, POLICY)
    assert isinstance(in_main, Save)
    assert (in_main.record.not_fast, in_main.record.claimed_at) == (None, None)
    assert in_main.record.due_at is None or in_main.record.due_at > now


def test_the_second_failure_without_a_reason_waits_like_one_of_the_main_lane() -> None:
    step = next_step(replace(FAST, not_fast="UNEXPLAINED"), ended("UNEXPLAINED"), NOW + MINUTE, POLICY)
    assert isinstance(step, Save)
    assert (step.record.waits, step.record.attempts, step.record.due_at) == (1, 0, NOW + 2 * MINUTE)
    assert lanes_of(step.record, NOW + 2 * MINUTE) == (Lane.MAIN,)


def test_an_operator_s_retry_leaves_a_record_alone_whose_build_is_being_started() -> None:
    claim = claimed(replace(REQUESTED, attempts=2), Lane.FAST, NOW)
    assert asked_again(claim, NOW + 1000) is None
    waits = delayed(claim, "no answer", NOW, soon=True)
    assert asked_again(waits, NOW + 1000) is None, "its token would be another one"
    later = replace(waits, due_at=NOW + HOUR)
    assert asked_again(later, NOW + 5 * MINUTE) is not None


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(ended("NOT_FOUND", BuildResult.REFUSED), id="the source has no such image"),
        pytest.param(ended("RATE_LIMITED"), id="rate limit"),
        pytest.param(ended("REFUSED", BuildResult.ENDED), id="refused for good"),
        pytest.param(ended("STALLED"), id="the source sends nothing"),
        pytest.param(Build(BuildResult.REFUSED, "the build was stopped by hand"), id="stopped by hand"),
    ],
)
def test_what_the_source_says_is_the_same_in_either_lane(build: Build) -> None:
    of_fast, of_main = (next_step(each, build, NOW + MINUTE, POLICY) for each in (FAST, MAIN))
    assert isinstance(of_fast, Save)
    assert isinstance(of_main, Save)
    assert replace(of_fast.record, lane=None, build_id=None) == replace(of_main.record, lane=None, build_id=None)


def test_a_fast_build_that_has_not_ended_after_half_an_hour_is_not_waited_for() -> None:
    before, after = (next_step(FAST, RUNNING, NOW + LONGEST_FAST + each, POLICY) for each in (-1, 0))
    assert isinstance(before, Save)
    assert before.record.status is Status.COPYING
    assert isinstance(after, Save)
    assert (after.record.status, after.record.lane, after.record.not_fast) == (Status.REQUESTED, None, None)
    main = next_step(MAIN, RUNNING, NOW + DAY, POLICY)
    assert isinstance(main, Save)
    assert main.record.status is Status.COPYING


def test_the_claim_of_a_build_is_forgotten_with_its_end() -> None:
    open_build = replace(FAST, status=Status.COPIED, digest=HELD, open_build=FAST.build_id)
    step = verified(open_build, HELD, NOW + MINUTE, POLICY, Build(BuildResult.COPIED, digest=HELD))
    assert isinstance(step, Save)
    assert (step.record.open_build, step.record.claimed_at) == (None, None)


def test_nor_is_one_that_codebuild_refuses_to_speak_of() -> None:
    before, after = (lookup_failed(FAST, "AccessDenied", NOW + LONGEST_FAST + each, POLICY) for each in (-1, 0))
    assert (before.status, after.status) == (Status.COPYING, Status.REQUESTED)
    assert lookup_failed(MAIN, "AccessDenied", NOW + DAY, POLICY).status is Status.COPYING


@pytest.mark.parametrize(("reason", "kept"), [(each, None if each == "UNEXPLAINED" else each) for each in NOT_FAST])
def test_a_new_request_keeps_what_is_known_of_the_image_and_forgets_what_may_have_been_the_lane(
    reason: str, kept: str | None
) -> None:
    failed = replace(REQUESTED, status=Status.FAILED, lane=Lane.MAIN, not_fast=reason, failures=1, due_at=None)
    fresh = replace(REQUESTED, requested_at=NOW + DAY, updated_at=NOW + DAY)
    for again in (renew(failed, fresh, pull_always=False, policy=POLICY), asked_again(failed, NOW + DAY)):
        assert again is not None
        assert (again.lane, again.not_fast, again.claimed_at) == (Lane.MAIN, kept, None)


records = st.builds(
    Record,
    repo=st.just(REQUESTED.repo),
    tag=st.just(REQUESTED.tag),
    source=st.just(REQUESTED.source),
    status=st.none() | st.sampled_from(Status),
    build_id=st.none() | st.just("x"),
    digest=st.none() | st.just(HELD),
    due_at=st.none() | st.integers(0, 2 * NOW),
    lane=st.none() | st.sampled_from(Lane),
    claimed_at=st.none() | st.integers(0, 2 * NOW),
    not_fast=st.none() | st.sampled_from([*NOT_FAST, "x"]),
)
all_builds = st.builds(
    Build, st.sampled_from(BuildResult), st.text(max_size=5), code=st.sampled_from(["", *NOT_FAST, "NOT_FOUND"])
)


@given(records, all_builds, st.integers(0, 2 * NOW))
def test_every_record_has_a_lane_and_an_answer_to_every_build(record: Record, build: Build, now: int) -> None:
    lanes = lanes_of(record, now)
    assert lanes
    assert len(set(lanes)) == len(lanes)
    goes_on = sent_to_main(record, build, now)
    if goes_on is not None:
        assert record.lane is Lane.FAST
        assert (goes_on.attempts, goes_on.waits, goes_on.claimed_at) == (record.attempts, record.waits, None)
        assert goes_on.error
    assert lanes_of(claimed(record, lanes[0], now), now) == (lanes[0],)


@dataclass
class OneBuild:
    """A build of the model, and when its start was claimed first: `result` is None while it runs."""

    token: str
    started_at: int
    claimed_at: int
    result: Build | None = None


class TwoLanes(RuleBasedStateMachine):
    """One record whose builds start in either lane, with a CodeBuild that remembers tokens for five minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.record = REQUESTED
        self.builds: list[OneBuild] = []
        self.held: str | None = None

    def step(self) -> object:
        return next_step(self.record, None, self.now, POLICY)

    @rule(seconds=st.sampled_from([1, 20, 60, 90, 200, 299, 1300]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule(
        place=st.integers(0, 1),
        outcome=st.sampled_from(["accepted", "answer lost", "crash after", "crash before", "refused", "throttled"]),
    )
    def a_build_starts(self, place: int, outcome: str) -> None:
        if self.step() is not Step.START:
            return
        before, lanes = self.record, lanes_of(self.record, self.now)
        lane = lanes[place % len(lanes)]
        self.record = claim = claimed(before, lane, self.now)
        if outcome in ("accepted", "answer lost", "crash after"):
            number = self.accept(idempotency_token(claim), claim.claimed_at or 0)
            if outcome == "accepted":
                self.record = started(claim, str(number), self.now)
            elif outcome == "answer lost":
                self.record = delayed(claim, "no answer", self.now, soon=True)
        elif outcome in ("refused", "throttled"):
            is_certain = not is_kept(before, self.now)
            if lane is Lane.FAST and is_certain:
                self.record = not_started(claim, self.now)
            else:
                kept = claim if not is_certain else replace(claim, claimed_at=None)
                self.record = delayed(kept, "busy", self.now, soon=True)

    def accept(self, token: str, claimed_at: int) -> int:
        for number, build in enumerate(self.builds):
            if build.token == token and self.now - build.started_at < 5 * MINUTE:
                return number
        still = [build for build in self.builds if build.result is None]
        # A try counts from the first claim: if only a later one took effect, and was not answered, there can be two.
        assert all(self.now - build.claimed_at >= 5 * MINUTE for build in still), "two builds at once"
        self.builds.append(OneBuild(token, self.now, claimed_at))
        return len(self.builds) - 1

    @rule(result=st.sampled_from(BuildResult), code=st.sampled_from(["", *NOT_FAST, "NOT_FOUND"]))
    def a_build_ends(self, result: BuildResult, code: str) -> None:
        running = [build for build in self.builds if build.result is None]
        if running and result is not BuildResult.RUNNING:
            running[0].result = Build(result, "x", code="" if result is BuildResult.COPIED else code)
            self.held = HELD if result is BuildResult.COPIED else self.held

    @rule()
    def the_reconciler_looks(self) -> None:
        before, step, build = self.record, self.step(), None
        if step is Step.INSPECT:
            build = self.builds[int(self.record.build_id or 0)].result or RUNNING
            step = next_step(self.record, build, self.now, POLICY)
        if step is Step.VERIFY:
            step = verified(self.record, self.held, self.now, POLICY, build)
        if isinstance(step, Save):
            self.record = step.record
        if before.lane is Lane.FAST and self.record.lane is None:
            assert (self.record.attempts, self.record.waits) == (before.attempts, before.waits)
            assert self.step() is Step.START, "at once"

    @invariant()
    def a_claim_lasts_as_long_as_a_build_may_run(self) -> None:
        if self.record.status in (Status.COPIED, Status.FAILED):
            assert self.record.claimed_at is None
        if self.record.status is Status.COPYING:
            assert self.record.claimed_at is not None

    def teardown(self) -> None:
        """However the fast lane fails, a main lane that works makes the copy."""
        for _ in range(20):
            if self.record.status in (Status.COPIED, Status.FAILED):
                break
            self.now = max(self.now + 1000, self.record.due_at or 0)
            lanes = lanes_of(self.record, self.now)
            place = lanes.index(Lane.MAIN) if Lane.MAIN in lanes else 0
            self.a_build_starts(place, "accepted" if lanes[place] is Lane.MAIN else "refused")
            self.now += MINUTE
            self.a_build_ends(BuildResult.COPIED, "")
            self.the_reconciler_looks()
        assert self.record.status in (Status.COPIED, Status.FAILED)


TestTwoLanes = TwoLanes.TestCase
TestTwoLanes.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
