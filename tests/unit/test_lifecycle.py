"""The copy's state machine, by tables and by random histories."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from image_mirror.lifecycle import (
    BACKOFF,
    NextStep,
    Save,
    Step,
    after_push_event,
    delayed,
    lookup_failed,
    next_step,
    not_served,
    refused,
    started,
    verified,
)
from image_mirror.record import (
    HOUR,
    MINUTE,
    MOST_ATTEMPTS,
    Build,
    BuildResult,
    Policy,
    Record,
    Status,
    asked_again,
    idempotency_token,
    new_record,
    renew,
    retry_pause,
)
from image_mirror.reference import destination_of, parse_reference

REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
POLICY = Policy()
NOW = 1_800_000_000_000
HELD = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def fresh(image: str = "gcr.io/a:1", now: int = NOW) -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, now)


REQUESTED = fresh()
COPYING = started(REQUESTED, "ImagePullProject:1", NOW)
COPIED = replace(COPYING, status=Status.COPIED, digest=HELD, due_at=NOW + 24 * HOUR)
FAILED = replace(REQUESTED, status=Status.FAILED, attempts=5, error="NOT_FOUND: x", due_at=None)
BY_DIGEST = fresh(f"gcr.io/a@{HELD}")
LEGACY = Record(repo=REQUESTED.repo, tag=REQUESTED.tag)


def test_a_request_is_due_at_once_and_says_what_to_copy() -> None:
    assert (
        Record(
            repo=f"{REGISTRY}/mirror/gcr.io/a",
            tag="1",
            source="gcr.io/a:1",
            status=Status.REQUESTED,
            requested_at=NOW,
            updated_at=NOW,
            due_at=NOW,
        )
        == REQUESTED
    )
    assert BY_DIGEST.source == f"gcr.io/a@{HELD}"
    assert BY_DIGEST.tag == "digest-" + HELD.replace(":", "-")


def test_a_tag_beside_a_digest_is_not_asked_of_the_source() -> None:
    assert fresh(f"gcr.io/a:1@{HELD}").source == f"gcr.io/a@{HELD}"


@pytest.mark.parametrize(
    ("record", "pull_always", "age", "renewed"),
    [
        pytest.param(REQUESTED, True, 99 * HOUR, False, id="requested: under way already"),
        pytest.param(COPYING, True, 99 * HOUR, False, id="copying: under way already"),
        pytest.param(COPIED, False, 99 * HOUR, False, id="copied, not pulled always"),
        pytest.param(COPIED, True, 24 * HOUR - 1, False, id="copied, pulled always, young"),
        pytest.param(COPIED, True, 24 * HOUR, True, id="copied, pulled always, old: refreshed"),
        pytest.param(replace(COPIED, source=BY_DIGEST.source), True, 99 * HOUR, True, id="the pod's source counts"),
        pytest.param(FAILED, True, 60 * MINUTE - 1, False, id="failed just now"),
        pytest.param(FAILED, False, 60 * MINUTE, True, id="failed an hour ago: retried"),
        pytest.param(LEGACY, False, 0, True, id="older deployment: adopted"),
    ],
)
def test_a_pod_renews_what_failed_what_is_old_and_what_has_no_status(
    record: Record, pull_always: bool, age: int, renewed: bool
) -> None:
    fresh_record = fresh(now=NOW + age)
    failures = 1 if record.status is Status.FAILED else 0
    expected = replace(fresh_record, digest=record.digest, failures=failures) if renewed else None
    assert renew(record, fresh_record, pull_always=pull_always, policy=POLICY) == expected


def test_a_copy_by_digest_is_never_refreshed() -> None:
    copied = replace(BY_DIGEST, status=Status.COPIED, digest=HELD)
    fresh_record = fresh(f"gcr.io/a@{HELD}", NOW + 99 * HOUR)
    assert renew(copied, fresh_record, pull_always=True, policy=POLICY) is None


def test_zero_refresh_hours_mean_never() -> None:
    fresh_record = fresh(now=NOW + 9999 * HOUR)
    assert renew(COPIED, fresh_record, pull_always=True, policy=Policy(refresh=0)) is None


RUNNING = Build(BuildResult.RUNNING)
SUCCEEDED = Build(BuildResult.COPIED)
REFUSED = Build(BuildResult.REFUSED, "NOT_FOUND: x")
DELAYED = Build(BuildResult.DELAYED, "RATE_LIMITED: x")
LATER = NOW + HOUR
FAILING = replace(COPYING, failing_since=LATER)


@pytest.mark.parametrize(
    ("record", "build", "now", "step"),
    [
        pytest.param(REQUESTED, None, NOW, Step.START, id="requested"),
        pytest.param(REQUESTED, None, NOW - 4_000, Step.START, id="requested by a clock that runs ahead"),
        pytest.param(replace(REQUESTED, due_at=NOW + MINUTE), None, NOW, Step.WAIT, id="backing off"),
        pytest.param(COPYING, None, NOW, Step.WAIT, id="just started"),
        pytest.param(COPYING, None, LATER, Step.INSPECT, id="build due"),
        pytest.param(COPYING, SUCCEEDED, LATER, Step.VERIFY, id="build succeeded"),
        pytest.param(COPYING, REFUSED, LATER, Save(refused(FAILING, "NOT_FOUND: x", LATER)), id="source refused"),
        pytest.param(COPYING, DELAYED, LATER, Save(delayed(FAILING, "RATE_LIMITED: x", LATER)), id="delayed"),
        pytest.param(COPIED, None, NOW, Step.WAIT, id="copied"),
        pytest.param(COPIED, None, NOW + 25 * HOUR, Step.VERIFY, id="verification due"),
        pytest.param(COPIED, REFUSED, NOW + 25 * HOUR, Step.VERIFY, id="an old build's result changes nothing"),
        pytest.param(FAILED, None, NOW + 9999 * HOUR, Step.WAIT, id="failed"),
        pytest.param(LEGACY, None, NOW, Step.WAIT, id="no status: the webhook adopts it"),
    ],
)
def test_each_state_has_its_step(record: Record, build: Build | None, now: int, step: Step) -> None:
    assert next_step(record, build, now, POLICY) == step


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("registry-1.docker.io/library/a:1", "docker.io/library/a:1 now", id="another name of docker.io"),
        pytest.param("gcr.io/a:digest-sha256-1", "reserved", id="reserved tag"),
    ],
)
def test_a_request_of_an_earlier_release_that_builds_refuse_ends_with_the_reason(source: str, reason: str) -> None:
    """A build would cost five attempts and refuse it each time."""
    step = next_step(replace(REQUESTED, source=source), None, NOW, POLICY)
    assert isinstance(step, Save)
    assert (step.record.status, step.record.due_at) == (Status.FAILED, None)
    assert reason in (step.record.error or "")
    refresh = next_step(replace(REQUESTED, source=source, digest=HELD), None, NOW, POLICY)
    assert isinstance(refresh, Save)
    assert (refresh.record.status, refresh.record.digest) == (Status.COPIED, HELD)
    copying = replace(COPYING, source=source)
    assert next_step(copying, SUCCEEDED, LATER, POLICY) is Step.VERIFY, "a build that runs is waited for"
    waiting = replace(REQUESTED, source=source, due_at=NOW + MINUTE)
    assert next_step(waiting, None, NOW, POLICY) is Step.WAIT


def test_a_running_build_is_looked_at_again_within_the_minute() -> None:
    step = next_step(COPYING, RUNNING, LATER, POLICY)
    assert isinstance(step, Save)
    assert step.record.status is Status.COPYING
    assert 0 < (step.record.due_at or 0) - LATER < MINUTE


def test_attempts_back_off_and_the_fifth_ends_in_failed_with_the_reason() -> None:
    record, waits = COPYING, []
    for _ in range(MOST_ATTEMPTS - 1):
        record = refused(record, "DENIED: x", NOW)
        assert record.status is Status.REQUESTED
        waits.append((record.due_at or 0) - NOW)
    assert len(BACKOFF) == MOST_ATTEMPTS - 1
    assert tuple(waits) == BACKOFF == (MINUTE, 5 * MINUTE, 15 * MINUTE, 60 * MINUTE)
    record = refused(record, "DENIED: x", NOW)
    assert (record.status, record.attempts, record.error, record.due_at) == (Status.FAILED, 5, "DENIED: x", None)


def test_a_refresh_that_fails_for_good_leaves_the_old_copy_in_use() -> None:
    record = replace(COPYING, digest=HELD)
    for _ in range(MOST_ATTEMPTS):
        record = refused(record, "NOT_FOUND: x", NOW)
    assert (record.status, record.digest, record.error) == (Status.COPIED, HELD, "NOT_FOUND: x")
    assert record.due_at == NOW, "it is checked at once whether ECR holds the old copy"
    assert renew(record, fresh(now=NOW + HOUR), pull_always=True, policy=POLICY) is None
    assert renew(record, fresh(now=NOW + 24 * HOUR), pull_always=True, policy=POLICY) is not None


def test_waits_cost_no_attempt_are_counted_and_grow_to_six_hours() -> None:
    record, pauses = COPYING, []
    for _ in range(14):
        record = delayed(record, "RATE_LIMITED: x", NOW)
        pauses.append(((record.due_at or 0) - NOW) // MINUTE)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 120, 240, 360, 360]
    assert (record.status, record.attempts, record.waits, record.error) == (Status.REQUESTED, 0, 14, "RATE_LIMITED: x")


def test_a_full_queue_is_tried_again_within_two_minutes_however_often() -> None:
    record = delayed(replace(REQUESTED, waits=50), "busy", NOW, soon=True)
    assert MINUTE <= (record.due_at or 0) - NOW < 2 * MINUTE
    assert record.waits == 50, "a long queue makes no later wait longer"


@pytest.mark.parametrize(
    ("record", "held", "after"),
    [
        pytest.param(COPYING, HELD, (Status.COPIED, HELD), id="first copy arrived"),
        pytest.param(COPYING, None, (Status.REQUESTED, None), id="build succeeded but nothing is there"),
        pytest.param(replace(COPYING, digest=HELD), OTHER, (Status.COPIED, OTHER), id="refreshed"),
        pytest.param(replace(COPYING, digest=HELD), None, (Status.REQUESTED, None), id="refresh gone from ECR"),
        pytest.param(COPIED, HELD, (Status.COPIED, HELD), id="still there"),
        pytest.param(COPIED, OTHER, (Status.COPIED, OTHER), id="pushed again by someone else"),
        pytest.param(COPIED, None, None, id="gone: the record goes too"),
        pytest.param(replace(BY_DIGEST, status=Status.COPYING), OTHER, (Status.REQUESTED, None), id="wrong digest"),
        pytest.param(replace(BY_DIGEST, status=Status.COPYING), HELD, (Status.COPIED, HELD), id="right digest"),
    ],
)
def test_what_ecr_holds_decides(record: Record, held: str | None, after: tuple[Status, str | None] | None) -> None:
    step = verified(record, held, LATER, POLICY)
    assert step == Step.REMOVE if after is None else isinstance(step, Save)
    if isinstance(step, Save):
        assert (step.record.status, step.record.digest) == after
        assert (step.record.due_at or 0) > LATER


def test_copies_made_together_are_verified_at_different_times() -> None:
    dues = set()
    for number in range(100):
        step = verified(replace(COPIED, tag=str(number)), HELD, NOW, POLICY)
        assert isinstance(step, Save)
        dues.add(step.record.due_at)
        assert 0.9 * 24 * HOUR <= (step.record.due_at or 0) - NOW <= 1.1 * 24 * HOUR
    assert len(dues) == 100


@pytest.mark.parametrize(
    ("record", "held", "after"),
    [
        pytest.param(REQUESTED, HELD, (Status.COPIED, HELD), id="pushed before the build began"),
        pytest.param(COPYING, HELD, (Status.COPIED, HELD), id="pushed by the build"),
        pytest.param(FAILED, HELD, (Status.COPIED, HELD), id="pushed by hand after all attempts"),
        pytest.param(COPIED, HELD, None, id="repeated"),
        pytest.param(COPIED, OTHER, (Status.COPIED, OTHER), id="someone else's push"),
        pytest.param(replace(COPYING, digest=HELD), OTHER, None, id="a refresh ends by its own build"),
        pytest.param(replace(COPYING, digest=HELD), None, (Status.COPYING, None), id="deleted during a refresh"),
        pytest.param(REQUESTED, None, None, id="deleted before it came"),
        pytest.param(LEGACY, HELD, None, id="older deployment's item"),
        pytest.param(BY_DIGEST, OTHER, None, id="another image under a digest's tag"),
    ],
)
def test_a_push_event_changes_a_record_to_what_ecr_says(
    record: Record, held: str | None, after: tuple[Status, str | None] | None
) -> None:
    step = after_push_event(record, held, LATER, POLICY)
    assert (after is None and step == Step.WAIT) or isinstance(step, Save)
    if isinstance(step, Save):
        assert (step.record.status, step.record.digest) == after


def test_a_deletion_event_removes_the_record_of_an_image_that_ecr_no_longer_holds() -> None:
    assert after_push_event(COPIED, None, LATER, POLICY) == Step.REMOVE


def test_the_token_changes_with_each_request_attempt_and_ended_build_and_with_nothing_else() -> None:
    token = idempotency_token(REQUESTED)
    assert len(token) == 64
    assert token == idempotency_token(replace(REQUESTED, updated_at=1, due_at=2, waits=3, error="x", digest=HELD))
    changes: list[Record] = [
        replace(REQUESTED, repo=REQUESTED.repo + "b"),
        replace(REQUESTED, tag="2"),
        replace(REQUESTED, requested_at=NOW + 1),
        replace(REQUESTED, attempts=1),
        delayed(COPYING, "RATE_LIMITED: x", NOW),
    ]
    assert len({token, *map(idempotency_token, changes)}) == 6


def after(record: Record, *codes: str, result: BuildResult = BuildResult.DELAYED) -> Record:
    """Return the record after builds that ended with these codes."""
    for number, code in enumerate(codes, start=1):
        copying = replace(record, status=Status.COPYING, build_id=f"b:{number}", due_at=NOW)
        step = next_step(copying, Build(result, f"{code}: reason", code=code), NOW, POLICY)
        assert isinstance(step, Save)
        record = step.record
    return record


@pytest.mark.parametrize(
    ("codes", "status", "attempts", "waits"),
    [
        pytest.param(["STALLED"], Status.REQUESTED, 0, 1, id="stalled once"),
        pytest.param(["STALLED", "STALLED"], Status.FAILED, 1, 1, id="stalled twice"),
        pytest.param(["STALLED", "UNREACHABLE", "STALLED"], Status.REQUESTED, 0, 3, id="stalled, but not in a row"),
        pytest.param(["UNEXPLAINED"] * 3, Status.REQUESTED, 0, 3, id="unexplained three times"),
        pytest.param(["UNEXPLAINED"] * 4, Status.REQUESTED, 1, 3, id="unexplained four times"),
        pytest.param(["UNEXPLAINED"] * 8, Status.FAILED, 5, 3, id="unexplained until the attempts are over"),
        pytest.param(["UNEXPLAINED"] * 3 + ["UNREACHABLE", "UNEXPLAINED"], Status.REQUESTED, 0, 5, id="not in a row"),
        pytest.param(["UNREACHABLE"] * 9, Status.REQUESTED, 0, 9, id="unreachable for long"),
    ],
)
def test_equal_results_in_a_row_cost_more(codes: list[str], status: Status, attempts: int, waits: int) -> None:
    record = after(REQUESTED, *codes)
    assert (record.status, record.attempts, record.waits) == (status, attempts, waits)
    assert record.error == f"{codes[-1]}: reason"


def test_a_result_that_ends_the_request_does_so_at_once() -> None:
    record = after(REQUESTED, "REFUSED", result=BuildResult.ENDED)
    assert (record.status, record.attempts, record.due_at) == (Status.FAILED, 1, None)
    refreshed = after(replace(REQUESTED, digest=HELD), "TOO_LARGE", result=BuildResult.ENDED)
    assert (refreshed.status, refreshed.digest, refreshed.due_at) == (Status.COPIED, HELD, NOW)
    assert refreshed.error == "TOO_LARGE: reason"


@pytest.mark.parametrize(
    ("code", "digest", "status"),
    [
        pytest.param("UNREACHABLE", None, Status.FAILED, id="a first copy fails"),
        pytest.param("RATE_LIMITED", HELD, Status.COPIED, id="a refresh leaves the older copy in use"),
    ],
)
def test_a_copy_that_builds_fail_to_make_for_three_days_ends(code: str, digest: str | None, status: Status) -> None:
    record = replace(after(REQUESTED, code), digest=digest)
    assert record.failing_since == NOW
    almost = built(record, code, NOW + 72 * HOUR - 1)
    assert (almost.status, almost.failing_since) == (Status.REQUESTED, NOW)
    over = built(almost, code, NOW + 72 * HOUR)
    assert (over.status, over.digest, over.error) == (status, digest, f"{code}: reason")


def built(record: Record, code: str, now: int, *, key: bool = False) -> Record:
    """Return the record after one more build that ended with this code."""
    copying = replace(record, status=Status.COPYING, build_id=f"b:{now}", due_at=now)
    return saved(next_step(copying, Build(BuildResult.DELAYED, f"{code}: reason", key, code), now, POLICY))


def test_time_with_a_refused_key_a_full_queue_or_no_answer_ends_nothing() -> None:
    record = delayed(REQUESTED, "busy", NOW, soon=True)
    record = lookup_failed(replace(record, status=Status.COPYING, build_id="b:1"), "no answer", NOW, POLICY)
    assert record.failing_since is None
    failing = built(record, "UNREACHABLE", NOW)
    assert failing.failing_since == NOW
    refused_key = built(failing, "TARGET_LOGIN", NOW + 80 * HOUR, key=True)
    assert (refused_key.status, refused_key.failing_since) == (Status.REQUESTED, None)
    assert built(refused_key, "UNREACHABLE", NOW + 81 * HOUR).status is Status.REQUESTED


def test_a_key_that_was_refused_for_long_makes_no_later_wait_long() -> None:
    record, pauses = REQUESTED, []
    for _ in range(50):
        record = built(record, "TARGET_LOGIN", NOW, key=True)
        pauses.append(((record.due_at or 0) - NOW) // MINUTE)
    assert set(pauses) == {1}, "slots.py decides when a key is tried again"
    later = built(record, "UNREACHABLE", NOW)
    assert (later.due_at or 0) - NOW == MINUTE


def test_what_failed_before_a_key_was_repaired_is_not_counted_as_time_in_which_builds_failed() -> None:
    failing = replace(REQUESTED, failing_since=NOW - 50 * HOUR)
    assert started(failing, "b:1", NOW, repaired_at=NOW - HOUR).failing_since is None
    assert started(failing, "b:1", NOW, repaired_at=NOW - 60 * HOUR).failing_since == NOW - 50 * HOUR
    assert started(failing, "b:1", NOW).failing_since == NOW - 50 * HOUR


def test_a_copy_that_arrives_and_then_fails_again_has_its_three_days_again() -> None:
    failing = replace(after(REQUESTED, "UNREACHABLE"), status=Status.COPYING)
    arrived = saved(verified(failing, HELD, NOW + HOUR, POLICY))
    assert (arrived.failing_since, arrived.failures) == (None, 0)


@pytest.mark.parametrize(
    ("code", "failures", "minutes"),
    [
        pytest.param("NOT_FOUND", 0, 60, id="of an earlier release"),
        pytest.param("NOT_FOUND", 1, 60, id="once"),
        pytest.param("NOT_FOUND", 2, 120, id="twice"),
        pytest.param("NOT_FOUND", 5, 960, id="five times"),
        pytest.param("NOT_FOUND", 6, 24 * 60, id="six times"),
        pytest.param("NOT_FOUND", 10**9, 24 * 60, id="for ever"),
        pytest.param("STALLED", 1, 24 * 60, id="stalled"),
        pytest.param("TOO_LARGE", 3, 4 * 24 * 60, id="too large three times"),
        pytest.param("STALLED", 9, 7 * 24 * 60, id="stalled for ever"),
    ],
)
def test_a_failed_copy_may_be_requested_again_after_a_pause_that_doubles(
    code: str, failures: int, minutes: int
) -> None:
    record = replace(FAILED, failures=failures, same_result=f"{code} 1", updated_at=NOW)
    due = NOW + minutes * MINUTE
    assert renew(record, fresh(now=due - 1), pull_always=False, policy=POLICY) is None
    again = renew(record, fresh(now=due), pull_always=False, policy=POLICY)
    assert again is not None
    assert again.failures == max(failures, 1)


def test_a_longer_retry_of_the_settings_is_kept() -> None:
    policy = Policy(retry_failed=30 * 24 * HOUR)
    assert [retry_pause(replace(FAILED, failures=number), policy) for number in (1, 9)] == [30 * 24 * HOUR] * 2


@pytest.mark.parametrize("code", ["UNREACHABLE", "NOT_FOUND", "UNEXPLAINED"])
def test_a_failed_copy_that_a_pod_requests_again_has_one_build(code: str) -> None:
    again = renew(replace(FAILED, failures=1), fresh(now=NOW + HOUR), pull_always=False, policy=POLICY)
    assert again is not None
    waiting = built(again, "TARGET_LOGIN", NOW + HOUR, key=True)
    assert waiting.status is Status.REQUESTED, "a refused key does not use the build up"
    ended = built(waiting, code, NOW + 2 * HOUR)
    assert (ended.status, ended.failures) == (Status.FAILED, 2)
    retried = asked_again(ended, NOW + 2 * HOUR)
    assert retried is not None
    assert retried.failures == 0
    assert built(retried, "UNREACHABLE", NOW + 2 * HOUR).status is Status.REQUESTED


def test_a_new_request_and_a_retry_count_from_the_start() -> None:
    stalled = after(REQUESTED, "STALLED")
    retried = asked_again(replace(stalled, due_at=NOW + HOUR), NOW)
    assert retried is not None
    assert retried.same_result is None
    assert after(retried, "STALLED").status is Status.REQUESTED
    copied = verified(replace(stalled, status=Status.COPYING), HELD, NOW, POLICY)
    assert isinstance(copied, Save)
    assert copied.record.same_result is None


ARRIVED = after_push_event(COPYING, HELD, NOW, POLICY)
EXPORTED = Build(BuildResult.COPIED, digest=HELD, signatures="2")


def saved(step: NextStep) -> Record:
    assert isinstance(step, Save)
    return step.record


def test_a_copy_that_arrives_before_its_build_ends_is_looked_up_until_the_build_has_ended() -> None:
    record = saved(ARRIVED)
    assert (record.status, record.digest, record.open_build) == (Status.COPIED, HELD, COPYING.build_id)
    assert NOW < (record.due_at or 0) <= NOW + MINUTE
    assert next_step(record, None, NOW + MINUTE, POLICY) is Step.INSPECT
    running = saved(next_step(record, Build(BuildResult.RUNNING), NOW + MINUTE, POLICY))
    assert (running.status, running.open_build) == (Status.COPIED, COPYING.build_id)
    assert NOW + MINUTE < (running.due_at or 0) <= NOW + 2 * MINUTE
    assert next_step(running, EXPORTED, NOW + 2 * MINUTE, POLICY) is Step.VERIFY
    after_all = saved(verified(running, HELD, NOW + 2 * MINUTE, POLICY, EXPORTED))
    assert (after_all.open_build, after_all.pushed, after_all.signatures) == (None, HELD, "2")
    assert (after_all.due_at or 0) > NOW + 20 * HOUR


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(Build(BuildResult.DELAYED, "CodeBuild knows no such build"), id="unknown"),
        pytest.param(Build(BuildResult.REFUSED, "the build ran out of time"), id="out of time"),
        pytest.param(Build(BuildResult.COPIED), id="of an older stack, which exports nothing"),
    ],
)
def test_a_copy_that_arrived_stays_whatever_its_build_comes_to(build: Build) -> None:
    record = saved(ARRIVED)
    assert next_step(record, build, NOW + MINUTE, POLICY) is Step.VERIFY
    after_all = saved(verified(record, HELD, NOW + MINUTE, POLICY, build))
    assert (after_all.status, after_all.attempts, after_all.error) == (Status.COPIED, 0, None)
    assert (after_all.open_build, after_all.pushed, after_all.signatures) == (None, None, None)


def test_the_build_of_a_copy_that_arrived_is_looked_up_again_if_codebuild_does_not_answer() -> None:
    waiting = lookup_failed(saved(ARRIVED), "no answer", NOW + MINUTE, POLICY)
    assert (waiting.open_build, waiting.waits, waiting.error) == (COPYING.build_id, 0, None)
    assert (waiting.due_at or 0) <= NOW + 2 * MINUTE
    refused_key = lookup_failed(saved(ARRIVED), "key refused", NOW + MINUTE, POLICY, key=True)
    assert (refused_key.status, refused_key.open_build) == (Status.COPIED, None)
    assert (refused_key.due_at or 0) > NOW + 20 * HOUR


def test_a_copy_without_a_push_event_gets_the_same_from_its_build() -> None:
    polled = saved(verified(COPYING, HELD, NOW, POLICY, EXPORTED))
    assert (polled.status, polled.open_build, polled.pushed, polled.signatures) == (Status.COPIED, None, HELD, "2")


@pytest.mark.parametrize(
    ("held", "exported", "signatures"),
    [
        pytest.param(HELD, "", "2", id="a refresh without a change copies none again"),
        pytest.param(OTHER, "", None, id="another digest has none yet"),
        pytest.param(OTHER, "1", "1", id="another digest has its own"),
    ],
)
def test_what_is_known_of_signatures_belongs_to_a_digest(held: str, exported: str, signatures: str | None) -> None:
    record = replace(COPYING, digest=HELD, signatures="2")
    build = Build(BuildResult.COPIED, digest=held, signatures=exported)
    assert saved(verified(record, held, NOW, POLICY, build)).signatures == signatures


def test_signatures_of_another_digest_than_ecr_holds_are_not_recorded() -> None:
    pushed = saved(after_push_event(replace(COPIED, signatures="3", pushed=HELD), OTHER, NOW, POLICY))
    assert (pushed.digest, pushed.signatures) == (OTHER, None)
    other_pusher = replace(saved(ARRIVED), signatures=None)
    assert saved(verified(other_pusher, OTHER, NOW, POLICY, EXPORTED)).signatures is None


def test_a_second_push_leaves_the_build_open() -> None:
    again = saved(after_push_event(saved(ARRIVED), OTHER, NOW, POLICY))
    assert (again.digest, again.open_build) == (OTHER, COPYING.build_id)


def test_a_refresh_keeps_what_is_known_of_the_copy_in_use() -> None:
    record = replace(COPIED, pushed=HELD, signatures="2")
    renewed = renew(record, fresh(now=NOW + 25 * HOUR), pull_always=True, policy=POLICY)
    assert renewed is not None
    assert (renewed.digest, renewed.pushed, renewed.signatures) == (HELD, HELD, "2")


texts = st.none() | st.sampled_from([HELD, OTHER, "x"])
records = st.builds(
    Record,
    repo=st.just(REQUESTED.repo),
    tag=st.sampled_from(["1", "digest-sha256-" + "a" * 64]),
    source=st.sampled_from(["", "gcr.io/a:1", f"gcr.io/a@{HELD}"]),
    status=st.none() | st.sampled_from(Status),
    requested_at=st.integers(0, 2 * NOW),
    updated_at=st.integers(0, 2 * NOW),
    attempts=st.integers(0, 99),
    waits=st.integers(0, 10**6),
    build_id=texts,
    digest=texts,
    error=texts,
    due_at=st.none() | st.integers(0, 2 * NOW),
    same_result=st.none() | st.sampled_from(["STALLED 1", "UNEXPLAINED 3", "x", "STALLED -1", "STALLED 9" * 99]),
    open_build=texts,
    pushed=texts,
    unexpected=st.none() | st.sampled_from([f"{OTHER} {HELD} 5", "x"]),
)
codes = st.sampled_from(["", "STALLED", "UNEXPLAINED", "UNREACHABLE"])
builds = st.none() | st.builds(Build, st.sampled_from(BuildResult), st.text(max_size=5), code=codes)


@given(record=records, build=builds, held=texts, now=st.integers(0, 2 * NOW))
def test_every_record_has_an_answer_to_everything(
    record: Record, build: Build | None, held: str | None, now: int
) -> None:
    steps = [
        next_step(record, build, now, POLICY),
        verified(record, held, now, POLICY, build),
        after_push_event(record, held, now, POLICY),
        Save(not_served(record, now, POLICY)),
        Save(lookup_failed(record, "no answer", now, POLICY, key=build is None)),
    ]
    for step in steps:
        if isinstance(step, Save) and step.record.status not in (None, Status.FAILED):
            assert step.record.due_at is not None
            assert (step.record.repo, step.record.tag) == (record.repo, record.tag)


class History(RuleBasedStateMachine):
    """One image's record through pods, builds, events and deletions, with an ECR of one tag."""

    record: Record | None = None
    held: str | None = None
    now = NOW
    image = "gcr.io/a:1"
    last_code = ""
    may_end_at_once = False

    @initialize(image=st.sampled_from(["gcr.io/a:1", f"gcr.io/a@{HELD}"]))
    def choose(self, image: str) -> None:
        self.image = image

    @rule(minutes=st.integers(0, 60 * 30))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule(pull_always=st.booleans())
    def a_pod_comes(self, pull_always: bool) -> None:
        fresh_record = fresh(self.image, self.now)
        if self.record is None:
            self.record = fresh_record
        else:
            self.record = renew(self.record, fresh_record, pull_always=pull_always, policy=POLICY) or self.record

    @precondition(lambda self: self.record is not None)
    @rule(result=st.sampled_from(BuildResult), code=codes, pushed=st.sampled_from([HELD, OTHER]))
    def the_reconciler_looks(self, result: BuildResult, code: str, pushed: str) -> None:
        assert self.record is not None
        step, build = next_step(self.record, None, self.now, POLICY), Build(result, "reason", code=code)
        if step is Step.INSPECT and self.record.status is Status.COPYING:
            if result is BuildResult.COPIED:
                self.held = HELD if self.record.by_digest else pushed
            if result in (BuildResult.ENDED, BuildResult.DELAYED, BuildResult.REFUSED):
                repeated = code == self.last_code == "STALLED"
                self.may_end_at_once = self.may_end_at_once or repeated or result is BuildResult.ENDED
                self.last_code = code
        if step is Step.INSPECT:
            step = next_step(self.record, build, self.now, POLICY)
        if step is Step.START:
            step = Save(started(self.record, f"build:{self.now}", self.now))
        if step is Step.VERIFY:
            step = verified(self.record, self.held, self.now, POLICY, build)
        self.apply(step)

    @precondition(lambda self: self.record is not None)
    @rule()
    def an_event_hints(self) -> None:
        assert self.record is not None
        self.apply(after_push_event(self.record, self.held, self.now, POLICY))

    @rule()
    def someone_deletes_the_copy(self) -> None:
        self.held = None

    def apply(self, step: NextStep) -> None:
        if isinstance(step, Save):
            had_digest = self.record is not None and self.record.digest is not None
            self.record = step.record
            if had_digest and self.held is not None:
                assert self.record.digest is not None, "ECR holds it, so its image is still rewritten"
        elif step is Step.REMOVE:
            assert self.held is None, "only a copy that ECR no longer holds loses its record"
            self.record = None

    @invariant()
    def all_but_failed_are_due(self) -> None:
        if self.record is not None:
            assert (self.record.due_at is None) == (self.record.status is Status.FAILED)

    @invariant()
    def a_record_with_a_digest_is_promised(self) -> None:
        if self.record is not None and self.record.digest is not None:
            assert self.record.is_active

    @invariant()
    def what_failed_says_why_after_five_attempts_or_at_once(self) -> None:
        if self.record is not None and self.record.status is Status.FAILED:
            failing = self.record.updated_at - (self.record.failing_since or self.record.updated_at)
            has_one_build, took_too_long = self.record.failures > 1, failing >= POLICY.give_up
            may_end = self.may_end_at_once or has_one_build or took_too_long
            assert self.record.attempts == MOST_ATTEMPTS or may_end
            assert self.record.error

    def teardown(self) -> None:
        """If the source answers and nothing else happens, every active record becomes COPIED."""
        for _ in range(20):
            if self.record is None or self.record.status in (Status.COPIED, Status.FAILED):
                break
            self.now = max(self.now, self.record.due_at or 0)
            self.the_reconciler_looks(BuildResult.COPIED, "", HELD)
        assert self.record is None or self.record.status in (Status.COPIED, Status.FAILED)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
