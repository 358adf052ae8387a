"""The reconciler with a fast and a main lane: which builds start where, and what happens if either lane fails."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import time_machine
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from image_mirror import reconciler
from image_mirror.aws_errors import DelayedError
from image_mirror.build_result import UNKNOWN
from image_mirror.codebuild import Builds
from image_mirror.ecr import Repositories
from image_mirror.federation import failed_exchange
from image_mirror.record import HOUR, MINUTE, Build, BuildResult, Lane, Record, Status, idempotency_token, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.slots import Slots, State
from image_mirror.table import Records, to_item
from support.clock import NOON
from support.cloud import REGISTRY, Cloud
from support.slots import state_in

pytestmark = pytest.mark.usefixtures("noon")
DIGEST = "sha256:" + "a" * 64
PROJECTS = {Lane.MAIN: "ImagePullProject", Lane.FAST: "ImagePullProjectFast"}
SCHEDULE = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
RUNNING, COPIED = Build(BuildResult.RUNNING), Build(BuildResult.COPIED, digest=DIGEST)
UNEXPLAINED = Build(BuildResult.DELAYED, "UNEXPLAINED: killed", code="UNEXPLAINED")
BUSY = DelayedError("StartBuild: AWS answered AccountLimitExceededException", no_capacity=True)
DENIED = DelayedError("StartBuild: AWS answered AccessDeniedException", key=True)
NO_ANSWER = DelayedError("StartBuild: ReadTimeoutError", uncertain=True)


class TwoProjects:
    """What replaces CodeBuild: it starts each build, unless `start_fails` has an error for the lane.

    Builds run, unless `results` has their result, or `look_up_fails` an error for the lane.
    """

    def __init__(self) -> None:
        self.started: list[tuple[Lane, str]] = []
        self.tokens: dict[str, str] = {}
        self.calls: list[str] = []
        self.start_fails: dict[Lane, DelayedError] = {}
        self.look_up_fails: dict[Lane, DelayedError] = {}
        self.results: dict[str, Build] = {}

    def start(self, record: Record) -> str:
        lane, token = record.lane or Lane.MAIN, idempotency_token(record)
        self.calls.append(f"start {lane}")
        error = self.start_fails.get(lane)
        if token not in self.tokens and (error is None or error.uncertain):
            self.tokens[token] = f"{PROJECTS[lane]}:{len(self.tokens)}"
            self.started.append((lane, record.source))
        if error is not None:
            raise error
        return self.tokens[token]

    def look_up(self, ids: list[str]) -> dict[str, Build]:
        [project] = {each.partition(":")[0] for each in ids}
        lane = Lane.FAST if project == PROJECTS[Lane.FAST] else Lane.MAIN
        self.calls.append(f"look up {lane}")
        if lane in self.look_up_fails:
            raise self.look_up_fails[lane]
        return {each: self.results.get(each, RUNNING) for each in ids}

    def check(self) -> None:
        self.calls.append("check main")
        if Lane.MAIN in self.look_up_fails:
            raise self.look_up_fails[Lane.MAIN]

    def in_lanes(self) -> str:
        """Return the lanes of the builds, sorted: threads start them."""
        return " ".join(sorted(lane for lane, _ in self.started))


@pytest.fixture
def records(cloud: Cloud) -> Records:
    return Records(cloud.dynamodb, "ImageListTable")


@pytest.fixture
def codebuild(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoProjects]:  # noqa: ARG001 - sets the environment
    made = TwoProjects()
    monkeypatch.setenv("G_FAST_PROJECT_NAME", PROJECTS[Lane.FAST])
    monkeypatch.setenv("FAST_BUILD_QUOTA", "2")
    monkeypatch.setenv("BUILD_QUOTA", "2")
    monkeypatch.setattr(Builds, "start", lambda _self, record: made.start(record))
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: made.look_up(ids))
    monkeypatch.setattr(Builds, "check", lambda _self: made.check())
    reconciler.load.cache_clear()
    yield made
    reconciler.load.cache_clear()


class Context:
    """Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return 120_000


def pushed(record: Record) -> dict[str, object]:
    """Return ECR's event of a push."""
    name = record.repo.partition("/")[2]
    return {
        "source": "aws.ecr",
        "detail": {"result": "SUCCESS", "repository-name": name, "image-tag": record.tag},
    }


def run() -> None:
    reconciler.handler(SCHEDULE, Context())


def stream(*of: Record) -> None:
    changes = [
        {"dynamodb": {"Keys": {"repo": {"S": each.repo}, "tag": {"S": each.tag}}, "SequenceNumber": str(number)}}
        for number, each in enumerate(of)
    ]
    answer = reconciler.handler({"Records": changes}, Context())
    assert answer == {"batchItemFailures": []}


def now() -> int:
    return int(time.time() * 1000)


def request(records: Records, name: str, **changes: object) -> Record:
    """Create the record of an image of the namespace in its name: shop/web is of the namespace shop."""
    source = parse_reference(f"gcr.io/{name}:1")
    namespace = f"{name.partition('/')[0]}/Deployment/web"
    made = new_record(destination_of(source, REGISTRY, "mirror"), source, now() - MINUTE, namespace)
    made = replace(made, **changes)  # type: ignore[arg-type]
    assert records.create(made) is made
    return made


def found(records: Records, record: Record) -> Record:
    again = records.get(record.repo, record.tag)
    assert again is not None
    return again


def state(records: Records) -> State:
    read = state_in(records).read()
    assert read is not None
    return read


def later(minutes: float) -> time_machine.travel:
    return time_machine.travel(NOON / 1000 + minutes * 60, tick=False)


def test_first_copies_take_the_fast_lane_until_it_is_full_and_then_the_main_one(
    records: Records, codebuild: TwoProjects
) -> None:
    made = [request(records, f"{namespace}/{number}") for number in range(4) for namespace in "abc"]
    run()
    # Two run in each lane; two more wait in each queue; a namespace has one build in each lane.
    assert codebuild.in_lanes() == "fast fast fast main main main"
    assert state(records).fast == Slots(runs=2, most=3, share=1, out={"a": 1, "b": 1, "c": 1})
    assert state(records).main.out == {"a": 1, "b": 1, "c": 1}
    lanes = [found(records, each).lane for each in made if found(records, each).status is Status.COPYING]
    assert sorted(map(str, lanes)) == ["fast"] * 3 + ["main"] * 3


def test_a_batch_of_the_stream_uses_both_lanes_too(records: Records, codebuild: TwoProjects) -> None:
    stream(*(request(records, f"{name}/1") for name in "abcdefg"))
    assert codebuild.in_lanes() == "fast fast main main", "half of three slots, rounded up, in each"


def test_a_refresh_leaves_the_fast_lane_to_copies_that_pods_wait_for(records: Records, codebuild: TwoProjects) -> None:
    request(records, "a/refreshed", digest=DIGEST)
    run()
    assert codebuild.in_lanes() == "main"


def test_what_may_use_the_main_lane_only_keeps_nothing_from_the_fast_one(
    records: Records, codebuild: TwoProjects
) -> None:
    for number in range(5):
        request(records, f"a{number}/large", not_fast="TOO_LARGE", due_at=now() - HOUR)
    request(records, "a0/small")
    run()
    assert codebuild.in_lanes() == "fast main main main"


def test_the_lane_is_in_the_record_before_the_build_starts(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = request(records, "a/1")
    seen: list[Record] = []

    def start(given: Record) -> str:
        seen.append(found(records, record))
        assert given == seen[0]
        raise MemoryError

    monkeypatch.setattr(codebuild, "start", start)
    run()
    [claim] = seen
    assert (claim.status, claim.lane, claim.claimed_at) == (Status.REQUESTED, Lane.FAST, now())
    assert claim.due_at == now() + MINUTE, "no other run starts it meanwhile"
    assert found(records, record) == claim


def test_a_record_that_another_run_has_claimed_meanwhile_is_not_started(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = request(records, "a/1")
    replaced: Callable[[Records, Record, Record], Record | None] = Records.replace

    def lose(self: Records, old: Record, new: Record) -> Record | None:
        if old.claimed_at is None and new.claimed_at is not None:
            replaced(self, old, replace(new, lane=Lane.MAIN, updated_at=now() + 1))
        return replaced(self, old, new)

    monkeypatch.setattr(Records, "replace", lose)
    run()
    assert codebuild.calls == []
    assert found(records, record).lane is Lane.MAIN


@pytest.mark.parametrize("error", [BUSY, DENIED, DelayedError("ResourceNotFoundException")], ids=str)
def test_a_copy_that_the_fast_lane_does_not_take_starts_in_the_main_lane_in_the_same_run(
    records: Records, codebuild: TwoProjects, error: DelayedError
) -> None:
    codebuild.start_fails[Lane.FAST] = error
    record = request(records, "a/1")
    run()
    assert codebuild.calls == ["start fast", "start main"]
    after = found(records, record)
    assert (after.status, after.lane, after.error, after.waits, after.not_fast) == (
        Status.COPYING, Lane.MAIN, None, 0, None,
    )  # fmt: skip
    # Throttling says nothing: the next run tries the lane again. Another answer says that it will not change soon.
    assert state(records).fast_off_until == (0 if error is BUSY else now() + HOUR)
    assert state(records).refusal is None, "only the main lane says that a key is refused"


def test_the_same_from_the_stream(records: Records, codebuild: TwoProjects) -> None:
    run()
    codebuild.start_fails[Lane.FAST] = BUSY
    stream(request(records, "a/1"), request(records, "b/1"))
    assert codebuild.in_lanes() == "main main"
    assert state(records).fast_off_until == 0


def test_a_batch_of_the_stream_switches_a_lane_off_that_refuses_builds(
    records: Records, codebuild: TwoProjects, logged: io.StringIO, published: Callable[[], dict[str, list[float]]]
) -> None:
    run()
    published()
    codebuild.start_fails[Lane.FAST] = DENIED
    stream(request(records, "a/1", error="an older reason"))
    assert state(records).fast_is_off(now())
    stream(request(records, "b/1"))
    assert codebuild.calls == ["start fast", "start main", "start main"]
    assert published() == {"SentToMain": [1], "BuildsStarted": [1, 1]}, "no key is refused"
    assert "AccessDenied" in logged.getvalue()


def test_a_full_main_lane_does_not_stop_the_fast_one(records: Records, codebuild: TwoProjects) -> None:
    codebuild.start_fails[Lane.MAIN] = BUSY
    waits = request(records, "a/large", not_fast="TOO_LARGE", due_at=now() - HOUR)
    request(records, "b/1")
    run()
    assert codebuild.in_lanes() == "fast"
    assert found(records, waits).error == str(BUSY)


@pytest.mark.parametrize("minutes", [2, 4])
def test_after_a_start_without_an_answer_the_same_lane_and_token_are_tried(
    records: Records, codebuild: TwoProjects, minutes: int
) -> None:
    record = request(records, "a/1")
    codebuild.start_fails[Lane.FAST] = NO_ANSWER
    run()
    assert found(records, record).status is Status.REQUESTED
    codebuild.start_fails = {Lane.FAST: BUSY} if minutes == 2 else {}
    with later(minutes):
        run()
        assert found(records, record).status is (Status.REQUESTED if minutes == 2 else Status.COPYING)
    assert codebuild.in_lanes() == "fast", "one build, whatever the answers"


def test_five_minutes_after_a_start_without_an_answer_the_main_lane_is_tried(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1")
    codebuild.start_fails[Lane.FAST] = NO_ANSWER
    for minutes in range(8):
        with later(minutes):
            run()
    assert found(records, record).lane is Lane.MAIN
    assert codebuild.in_lanes() == "fast main"
    assert state(records).fast_off_until > now(), "three starts without an answer"


def test_a_copy_waits_for_a_lane_that_is_off_only_as_long_as_its_build_may_have_started_there(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1", lane=Lane.FAST, claimed_at=now() - 4 * MINUTE)
    state_in(records).write(State(at=now(), fast_off_until=now() + HOUR))
    run()
    assert codebuild.calls == []
    with later(2):
        run()
    assert found(records, record).lane is Lane.MAIN


def test_a_fast_build_that_fails_without_a_reason_goes_on_in_the_main_lane_in_the_same_run(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1")
    run()
    codebuild.results = {found(records, record).build_id or "": UNEXPLAINED}
    with later(1):
        run()
    after = found(records, record)
    assert (after.status, after.lane, after.not_fast) == (Status.COPYING, Lane.MAIN, "UNEXPLAINED")
    assert (after.attempts, after.waits, after.same_result, after.failing_since) == (0, 0, None, None)
    assert codebuild.in_lanes() == "fast main"


def test_after_three_such_builds_in_a_row_the_fast_lane_is_off_for_an_hour(
    records: Records, codebuild: TwoProjects, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        request(records, f"n{number}/1")
        with later(number):
            run()
        codebuild.results |= dict.fromkeys(codebuild.tokens.values(), UNEXPLAINED)
        codebuild.results |= {
            each: COPIED for each in codebuild.tokens.values() if each.startswith("ImagePullProject:")
        }
    assert codebuild.in_lanes().count("fast") == 3
    with later(4):
        assert state(records).fast_is_off(now())
    assert "fast lane switched off for an hour" in caplog.text
    after_the_hour = request(records, "z/1")
    with later(70):
        run()
    assert found(records, after_the_hour).lane is Lane.FAST


def test_one_fast_copy_among_the_failures_keeps_the_lane_on(records: Records, codebuild: TwoProjects) -> None:
    for number, result in enumerate((UNEXPLAINED, UNEXPLAINED, COPIED, UNEXPLAINED, UNEXPLAINED)):
        record = request(records, f"n{number}/1")
        with later(number * 2):
            run()
            codebuild.results[found(records, record).build_id or ""] = result
        with later(number * 2 + 1):
            run()
    assert state(records).fast_off_until == 0
    assert state(records).fast_failures == 2


def test_a_refusal_of_the_fast_project_alone_switches_the_lane_off_and_no_key_is_refused(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1")
    run()
    codebuild.calls.clear()
    codebuild.look_up_fails[Lane.FAST] = DENIED
    for minutes in (1, 2, 29):
        with later(minutes):
            run()
    assert codebuild.calls[:2] == ["look up fast", "check main"], "the main project is asked for the key's sake"
    assert state(records).refusal is None
    assert found(records, record).status is Status.COPYING, "it may still run"
    other = request(records, "b/1")
    with later(30):
        assert state(records).fast_is_off(now())
        run()
    assert found(records, other).lane is Lane.MAIN
    assert (found(records, record).status, found(records, record).lane) == (Status.COPYING, Lane.MAIN)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(EndpointConnectionError(endpoint_url="https://sts.us-west-2.amazonaws.com"), id="no answer"),
        pytest.param(
            ClientError({"Error": {"Code": "IDPCommunicationError"}}, "AssumeRoleWithWebIdentity"), id="its issuer"
        ),
        pytest.param(ClientError({"Error": {"Code": "InternalFailure"}}, "GetWebIdentityToken"), id="STS fails"),
    ],
)
def test_an_sts_that_does_not_answer_switches_no_lane_off_and_the_copy_starts_soon_after_it_answers_again(
    records: Records, codebuild: TwoProjects, error: ClientError | BotoCoreError
) -> None:
    failure = failed_exchange(error, "arn:aws:iam::210987654321:role/start", "us-west-2")
    codebuild.start_fails = dict.fromkeys(Lane, failure)
    record = request(records, "shop/web")
    for minute in range(10):
        with later(minute):
            run()
    assert (found(records, record).error, found(records, record).waits) == (str(failure), 0)
    codebuild.start_fails.clear()
    with later(12):
        run()
        assert codebuild.in_lanes() == "fast"
        assert state(records).fast_off_until == 0


def test_a_refusal_of_both_projects_is_a_refused_key(records: Records, codebuild: TwoProjects) -> None:
    request(records, "a/1")
    run()
    codebuild.look_up_fails = dict.fromkeys(Lane, DENIED)
    codebuild.start_fails = dict.fromkeys(Lane, DENIED)
    request(records, "b/1")
    with later(1):
        run()
    assert state(records).refusal is not None
    assert state(records).fast_off_until == 0


def test_a_refused_key_is_tried_in_the_main_lane_and_in_the_fast_one_by_turns(
    records: Records, codebuild: TwoProjects
) -> None:
    codebuild.start_fails = dict.fromkeys(Lane, DENIED)
    request(records, "a/1")
    run()
    assert state(records).refusal is not None
    tries = []
    for minutes in (10, 12):
        codebuild.calls.clear()
        with later(minutes):
            run()
        tries.append(list(codebuild.calls))
    assert tries == [["start fast", "start main"], ["start main"]], "the fast lane's refusal says nothing"
    codebuild.start_fails = {}
    with later(70):
        run()
    assert state(records).refusal is None


def test_a_refused_key_is_tried_although_no_copy_that_waits_may_use_the_fast_lane(
    records: Records, codebuild: TwoProjects
) -> None:
    codebuild.start_fails = dict.fromkeys(Lane, DENIED)
    record = request(records, "a/large", not_fast="TOO_LARGE")
    for minutes in (0, 1):
        with later(minutes):
            run()
    refusal = state(records).refusal
    assert refusal is not None
    assert refusal.times == 2, "the next try is that of the fast lane"
    codebuild.start_fails = {}
    with later(10):
        run()
    assert found(records, record).lane is Lane.MAIN
    assert state(records).refusal is None


def test_a_main_lane_that_fails_for_good_leaves_all_copies_to_the_fast_one(
    records: Records, codebuild: TwoProjects
) -> None:
    first = request(records, "a/1", not_fast="UNEXPLAINED")
    refresh = request(records, "b/1", digest=DIGEST)
    run()
    assert codebuild.in_lanes() == "main main"
    broken = Build(BuildResult.DELAYED, "CodeBuild failed: no message")
    codebuild.results = dict.fromkeys(codebuild.tokens.values(), broken)
    with later(1):
        run()
    with later(3):
        run()
    assert [found(records, each).lane for each in (first, refresh)] == [Lane.FAST, Lane.FAST]


def test_a_build_that_waits_for_half_an_hour_goes_on_in_the_main_lane_and_the_lane_is_off(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1")
    run()
    codebuild.results = {found(records, record).build_id or "": replace(RUNNING, queued=True, started_at=NOON)}
    for minutes in range(1, 31):
        with later(minutes):
            run()
    after = found(records, record)
    assert (after.lane, after.not_fast, after.attempts) == (Lane.MAIN, None, 0)
    with later(30):
        assert state(records).fast_is_off(now())


def test_a_deployment_that_goes_back_to_one_lane_goes_on_with_what_was_in_the_fast_one(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, claimed = request(records, "a/1"), request(records, "b/1")
    codebuild.start_fails[Lane.FAST] = NO_ANSWER
    run()
    codebuild.start_fails = {}
    assert records.replace(
        found(records, running),
        replace(found(records, running), status=Status.COPYING, build_id="ImagePullProjectFast:0", due_at=now()),
    )
    monkeypatch.setenv("G_FAST_PROJECT_NAME", "")
    reconciler.load.cache_clear()

    def unknown(ids: list[str]) -> dict[str, Build]:
        return {each: RUNNING if each.startswith("ImagePullProject:") else UNKNOWN for each in ids}

    monkeypatch.setattr(codebuild, "look_up", unknown)
    with later(1):
        run()
    assert (found(records, running).status, found(records, running).lane) == (Status.COPYING, None)
    with later(6):
        run()
    assert (found(records, claimed).status, found(records, claimed).lane) == (Status.COPYING, Lane.MAIN)


def test_with_one_lane_no_record_is_claimed(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G_FAST_PROJECT_NAME", "")
    reconciler.load.cache_clear()
    record = request(records, "a/1")
    token = idempotency_token(record)
    run()
    after = found(records, record)
    assert (after.status, after.lane, after.claimed_at) == (Status.COPYING, None, None)
    assert list(codebuild.tokens) == [token]


@pytest.mark.parametrize("answer", [DENIED, NO_ANSWER], ids=["refused", "no-answer"])
def test_a_copy_that_has_arrived_does_not_wait_for_a_fast_build_that_must_have_ended(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch, answer: DelayedError
) -> None:
    record = request(records, "a/1")
    run()
    monkeypatch.setattr(Repositories, "held", lambda *_: DIGEST)
    reconciler.handler(pushed(record), Context())
    assert found(records, record).open_build == "ImagePullProjectFast:0"
    codebuild.look_up_fails[Lane.FAST] = answer
    with later(29):
        run()
    assert found(records, record).open_build is not None
    with later(31):
        run()
        after = found(records, record)
        assert (after.status, after.open_build, after.claimed_at) == (Status.COPIED, None, None)
        assert (after.due_at or 0) > now() + HOUR
        run()
        assert state(records).fast.out == {}, "its slot is free"


def test_a_build_that_failed_before_its_record_is_due_counts_once(records: Records, codebuild: TwoProjects) -> None:
    record = request(records, "a/1")
    run()
    codebuild.results[found(records, record).build_id or ""] = UNEXPLAINED
    for minutes in (0.2, 0.4, 0.6):
        with later(minutes):
            run()
    assert state(records).fast_off_until == 0
    with later(1):
        run()
    assert state(records).fast_failures == 1


def test_a_lane_whose_builds_cannot_be_looked_up_is_off_when_one_must_have_ended(
    records: Records, codebuild: TwoProjects
) -> None:
    record = request(records, "a/1")
    run()
    codebuild.look_up_fails[Lane.FAST] = NO_ANSWER
    for minutes in range(1, 31):
        with later(minutes):
            run()
    assert found(records, record).lane is Lane.MAIN
    assert codebuild.in_lanes() == "fast main"
    with later(30):
        assert state(records).fast_is_off(now())


def test_a_key_that_both_projects_refuse_for_long_does_not_switch_the_fast_lane_off(
    records: Records, codebuild: TwoProjects, published: Callable[[], dict[str, list[float]]]
) -> None:
    request(records, "a/1")
    run()
    published()
    codebuild.look_up_fails = codebuild.start_fails = dict.fromkeys(Lane, DENIED)
    for minutes in (1, 10, 29, 31):
        with later(minutes):
            run()
    assert state(records).fast_off_until == 0
    assert state(records).refusal is not None
    assert "Waits" not in published(), "they wait for a key"


@pytest.mark.parametrize(
    "result",
    [
        Build(BuildResult.DELAYED, "UNREACHABLE: no route", code="UNREACHABLE"),
        Build(BuildResult.REFUSED, "DENIED: no login", code="DENIED"),
    ],
    ids=lambda build: build.code,
)
def test_a_copy_that_the_fast_lane_cannot_make_is_tried_in_the_main_one_next(
    records: Records, codebuild: TwoProjects, result: Build
) -> None:
    record = request(records, "a/1")
    run()
    codebuild.results[found(records, record).build_id or ""] = result
    for minutes in (1, 2, 3):
        with later(minutes):
            run()
    assert codebuild.in_lanes() == "fast main"


def test_a_copy_that_only_the_fast_lane_is_forbidden_is_made_in_the_main_one(
    records: Records, codebuild: TwoProjects
) -> None:
    codebuild.start_fails[Lane.FAST] = DelayedError("StartBuild: explicit deny", refusal=BuildResult.DELAYED)
    record = request(records, "a/1")
    for minutes in (0, 1):
        with later(minutes):
            run()
    assert codebuild.calls == ["start fast", "start main"]
    assert found(records, record).lane is Lane.MAIN
    assert state(records).fast_off_until == 0, "one image says nothing about others"


def test_a_build_of_the_main_project_is_none_of_the_fast_lane_whatever_its_record_says(
    records: Records, codebuild: TwoProjects
) -> None:
    # An older release has started it: that one leaves the attribute as it is.
    record = request(records, "a/1", status=Status.COPYING, lane=Lane.FAST, build_id="ImagePullProject:0")
    run()
    after = found(records, record)
    assert (after.status, after.build_id, after.lane) == (Status.COPYING, record.build_id, Lane.MAIN)
    assert codebuild.calls == ["look up main"]
    assert state(records).fast_off_until == 0


def test_a_copy_that_neither_lane_can_explain_is_tried_less_and_less_often(
    records: Records, codebuild: TwoProjects
) -> None:
    """The main lane takes no build, so the fast one is tried again."""
    record = request(records, "a/1", not_fast="UNEXPLAINED", lane=Lane.MAIN, error=str(BUSY))
    codebuild.start_fails[Lane.MAIN] = BUSY
    for minutes in range(180):
        codebuild.results |= dict.fromkeys(codebuild.tokens.values(), UNEXPLAINED)
        with later(minutes):
            run()
    assert 3 < len(codebuild.started) < 12
    assert found(records, record).waits > 3
    assert found(records, record).attempts == 0


def test_builds_of_one_project_that_both_lanes_name_hold_their_slots(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G_FAST_PROJECT_NAME", PROJECTS[Lane.MAIN])
    reconciler.load.cache_clear()
    for number in range(20):
        request(records, f"n{number}/1")
    for minutes in range(5):
        with later(minutes):
            run()
    assert len(codebuild.started) == 3, "two run, and one waits in the queue"


def test_a_refusal_of_the_fast_project_says_nothing_while_the_main_one_does_not_answer(
    records: Records, codebuild: TwoProjects
) -> None:
    for lane in Lane:
        build_id = f"{PROJECTS[lane]}:9"
        request(records, f"{lane}/1", status=Status.COPYING, lane=lane, claimed_at=now(), build_id=build_id)
    codebuild.look_up_fails = {Lane.FAST: DENIED, Lane.MAIN: NO_ANSWER}
    run()
    assert state(records).fast_off_until == 0
    codebuild.look_up_fails = {Lane.FAST: DENIED}
    with later(1):
        run()
        assert state(records).fast_is_off(now())


@pytest.mark.parametrize("lane", [None, Lane.MAIN], ids=str)
def test_a_fast_build_that_does_not_end_is_not_waited_for_whatever_lane_its_record_has(
    records: Records, codebuild: TwoProjects, lane: Lane | None
) -> None:
    changes = {"status": Status.COPYING, "build_id": f"{PROJECTS[Lane.FAST]}:9", "claimed_at": now()}
    record = request(records, "a/1", lane=lane, **changes)
    codebuild.look_up_fails[Lane.FAST] = DENIED
    with later(29):
        run()
    assert found(records, record).status is Status.COPYING
    with later(30):
        run()
    assert (found(records, record).status, codebuild.in_lanes()) == (Status.COPYING, "main")


def test_a_fast_build_that_goes_on_for_ever_after_its_copy_has_arrived_frees_its_slot(
    records: Records, codebuild: TwoProjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = request(records, "a/1")
    run()
    monkeypatch.setattr(Repositories, "held", lambda *_: DIGEST)
    reconciler.handler(pushed(record), Context())
    with later(29):
        run()
    assert found(records, record).open_build is not None
    with later(31):
        run()
        after = found(records, record)
        assert (after.status, after.open_build) == (Status.COPIED, None)
        assert state(records).fast_is_off(now()), "CodeBuild may still count that build"
        run()
        assert state(records).fast.out == {}
    assert codebuild.in_lanes() == "fast"


def test_the_stream_s_event_of_a_claim_causes_no_call(records: Records, codebuild: TwoProjects) -> None:
    record = request(records, "a/1")
    stream(record)
    assert codebuild.calls == ["start fast"]
    claim = replace(record, lane=Lane.FAST, claimed_at=now())
    keys = {"repo": {"S": record.repo}, "tag": {"S": record.tag}}
    change = {"Keys": keys, "SequenceNumber": "1", "NewImage": to_item(claim)}
    answer = reconciler.handler({"Records": [{"dynamodb": change}]}, Context())
    assert answer == {"batchItemFailures": []}
    assert codebuild.calls == ["start fast"]
