"""The reconciler's handler with emulated AWS: stream batches, the schedule, ECR events."""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import time_machine
from botocore.exceptions import ClientError, ReadTimeoutError

from image_mirror import reconciler
from image_mirror.aws_errors import DelayedError, delayed_by
from image_mirror.codebuild import Builds
from image_mirror.reconciler import Reconciler
from image_mirror.record import HOUR, MINUTE, Build, BuildResult, Record, Status, idempotency_token, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.slots import Refusal, Slots, State
from image_mirror.state_item import StateItem
from image_mirror.table import Records, to_item
from support.clock import NOON
from support.cloud import REGISTRY, SECRET_KEY, Cloud
from support.slots import run_twenty_builds, state_in

pytestmark = pytest.mark.usefixtures("noon")
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def fresh_function(cloud: Cloud) -> Iterator[None]:  # noqa: ARG001 - the environment has to be set before
    reconciler.load.cache_clear()
    yield
    reconciler.load.cache_clear()


@pytest.fixture
def records(cloud: Cloud) -> Records:
    return Records(cloud.dynamodb, "ImageListTable")


class Context:
    """Lambda's context, with the remaining time that tests set."""

    def __init__(self, seconds: float = 120) -> None:
        self.milliseconds = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


def now() -> int:
    return int(time.time() * 1000)


def fresh(image: str = "gcr.io/team/app:1", age: int = 0) -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, now() - age)


def create(records: Records, record: Record) -> Record:
    assert records.create(record) is record
    return record


def current(records: Records, record: Record) -> Record:
    found = records.get(record.repo, record.tag)
    assert found is not None
    return found


def stream(*of: Record) -> dict[str, Any]:
    """Return a batch as the event source mapping delivers it."""
    return {
        "Records": [
            {
                "eventID": str(number),
                "eventName": "INSERT",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "cn-northwest-1",
                "dynamodb": {
                    "Keys": {"repo": {"S": record.repo}, "tag": {"S": record.tag}},
                    "NewImage": to_item(record),
                    "SequenceNumber": f"{number:021}",
                    "StreamViewType": "NEW_IMAGE",
                },
            }
            for number, record in enumerate(of, 1)
        ]
    }


SCHEDULE = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


def ecr_event(repository: str = "mirror/gcr.io/team/app", tag: str | None = "1", **detail: str) -> dict[str, Any]:
    found = {
        "action-type": "PUSH",
        "result": "SUCCESS",
        "repository-name": repository,
        "image-digest": DIGEST,
        **detail,
    }
    return {
        "source": "aws.ecr",
        "detail-type": "ECR Image Action",
        "detail": found if tag is None else {**found, "image-tag": tag},
    }


def run(event: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
    return reconciler.handler(event, Context(seconds))


def test_a_request_in_the_stream_starts_its_build_and_ensures_its_repository(cloud: Cloud, records: Records) -> None:
    record = create(records, fresh())
    assert run(stream(record)) == {"batchItemFailures": []}
    after = current(records, record)
    assert after.status is Status.COPYING
    [build] = cloud.codebuild.batch_get_builds(ids=[after.build_id or ""])["builds"]
    assert build["projectName"] == "ImagePullProject"
    assert cloud.ecr.describe_repositories(repositoryNames=["mirror/gcr.io/team/app"])["repositories"]


def test_an_event_says_where_to_look_and_the_item_says_what_to_do(records: Records) -> None:
    record = create(records, replace(fresh(), status=Status.FAILED, error="x", attempts=5, due_at=None))
    run(stream(replace(record, status=Status.REQUESTED)))
    assert current(records, record) == record


def test_an_event_of_a_record_that_is_gone_does_nothing(cloud: Cloud) -> None:
    assert run(stream(fresh())) == {"batchItemFailures": []}
    assert cloud.items() == []


def test_a_batch_that_names_one_record_twice_starts_one_build(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Record] = []

    def start(_self: Builds, record: Record) -> str:
        started.append(record)
        return "ImagePullProject:1"

    monkeypatch.setattr(Builds, "start", start)
    record = create(records, fresh())
    run(stream(record, record))
    assert started == [record]


def test_a_request_that_backs_off_is_left_as_it_is(records: Records) -> None:
    record = create(records, replace(fresh(), due_at=now() + 10 * MINUTE, attempts=1))
    run(stream(record))
    assert current(records, record) == record


def test_a_record_that_fails_is_reported_by_its_sequence_numbers_and_the_others_go_on(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = create(records, fresh("gcr.io/a:1")), create(records, fresh("gcr.io/b:1"))
    original = Records.get

    def get(self: Records, repo: str, tag: str) -> Record | None:
        if repo == bad.repo:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "x"}}, "GetItem")
        return original(self, repo, tag)

    monkeypatch.setattr(Records, "get", get)
    numbers = [f"{number:021}" for number in (1, 3)]
    assert run(stream(bad, good, bad))["batchItemFailures"] == [{"itemIdentifier": number} for number in numbers]
    assert original(records, good.repo, good.tag) != good


def test_the_schedule_advances_a_copy_from_its_request_to_copied(cloud: Cloud, records: Records) -> None:
    record = create(records, fresh(age=HOUR))
    run(SCHEDULE)
    copying = current(records, record)
    assert copying.status is Status.COPYING
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    records.replace(copying, replace(copying, due_at=now()))
    run(SCHEDULE)
    copied = current(records, record)
    assert (copied.status, copied.digest, copied.error) == (Status.COPIED, digest, None)
    assert (copied.due_at or 0) > now() + 20 * HOUR


def test_a_build_that_succeeded_counts_only_if_ecr_holds_the_image(cloud: Cloud, records: Records) -> None:
    record = create(records, fresh(age=HOUR))
    run(SCHEDULE)
    copying = current(records, record)
    records.replace(copying, replace(copying, due_at=now()))
    run(SCHEDULE)
    after = current(records, record)
    assert (after.status, after.attempts) == (Status.REQUESTED, 1)
    assert after.error == "the build succeeded, but ECR does not hold what it pushed"
    assert cloud.items()


@pytest.mark.parametrize(
    ("build", "status", "attempts", "waits"),
    [
        pytest.param(Build(BuildResult.RUNNING), Status.COPYING, 0, 0, id="running"),
        pytest.param(Build(BuildResult.REFUSED, "NOT_FOUND: x"), Status.REQUESTED, 1, 0, id="refused"),
        pytest.param(Build(BuildResult.DELAYED, "RATE_LIMITED: x"), Status.REQUESTED, 0, 1, id="delayed"),
    ],
)
def test_a_build_that_is_due_is_looked_up(
    records: Records, monkeypatch: pytest.MonkeyPatch, build: Build, status: Status, attempts: int, waits: int
) -> None:
    record = create(records, replace(fresh(age=HOUR), status=Status.COPYING, build_id="ImagePullProject:1"))
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, build))
    run(SCHEDULE)
    after = current(records, record)
    assert (after.status, after.attempts, after.waits) == (status, attempts, waits)
    assert (after.due_at or 0) > now()


def test_builds_are_looked_up_a_hundred_at_a_time(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(150):
        create(
            records,
            replace(fresh(f"gcr.io/a:{number}", HOUR), status=Status.COPYING, build_id=f"ImagePullProject:{number}"),
        )
    asked: list[int] = []

    def builds(_self: Builds, ids: list[str]) -> dict[str, Build]:
        asked.append(len(ids))
        return dict.fromkeys(ids, Build(BuildResult.RUNNING))

    monkeypatch.setattr(Builds, "look_up", builds)
    run(SCHEDULE)
    assert asked == [100, 50]


def test_a_key_that_is_refused_leaves_running_copies_as_they_are_and_says_why(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create(records, replace(fresh(age=HOUR), status=Status.COPYING, build_id="ImagePullProject:1"))

    def builds(_self: Builds, _ids: list[str]) -> dict[str, Build]:
        raise DelayedError("BatchGetBuilds: AWS answered UnrecognizedClientException")

    monkeypatch.setattr(Builds, "look_up", builds)
    run(SCHEDULE)
    after = current(records, record)
    assert (after.status, after.build_id, after.attempts, after.waits) == (Status.COPYING, record.build_id, 0, 0)
    assert after.error == "BatchGetBuilds: AWS answered UnrecognizedClientException"
    assert 0 < (after.due_at or 0) - now() <= MINUTE


def test_a_missing_secret_makes_requests_wait_without_an_attempt(cloud: Cloud, records: Records) -> None:
    cloud.secrets.delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
    record = create(records, fresh())
    assert run(stream(record)) == {"batchItemFailures": []}
    after = current(records, record)
    assert (after.status, after.attempts, after.waits) == (Status.REQUESTED, 0, 0)
    assert after.error == "reading the secret GlobalAKSK: AWS answered ResourceNotFoundException: " + (
        "Secrets Manager can't find the specified secret."
    )
    assert MINUTE - 5000 <= (after.due_at or 0) - now() <= MINUTE


@pytest.mark.parametrize(
    ("code", "expected", "counts"),
    [
        pytest.param("LimitExceededException", (Status.REQUESTED, 0, 1), True, id="the quota is full"),
        pytest.param("AccessDeniedException", (Status.REQUESTED, 0, 1), True, id="a policy"),
        pytest.param("KmsException", (Status.REQUESTED, 0, 1), True, id="the key of the repository"),
        pytest.param("InvalidParameterException", (Status.FAILED, 1, 0), True, id="the name"),
        pytest.param("ServerException", (Status.REQUESTED, 0, 1), False, id="AWS is broken"),
        pytest.param("ThrottlingException", (Status.REQUESTED, 0, 0), False, id="AWS is busy"),
    ],
)
def test_a_repository_that_is_refused_counts_like_a_build_without_a_copy(
    cloud: Cloud,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    expected: tuple[Status, int, int],
    counts: bool,
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "x"}}, "CreateRepository")

    client = reconciler.load()._repositories._ecr
    monkeypatch.setattr(client, "create_repository", refuse)
    record = create(records, fresh())
    assert run(stream(record)) == {"batchItemFailures": []}
    after = current(records, record)
    assert cloud.codebuild.list_builds()["ids"] == []
    assert (after.status, after.attempts, after.waits) == expected
    assert (after.failing_since is not None) is counts
    repository = record.repo.partition("/")[2]
    assert (after.error or "").startswith(f"creating the repository {repository}: AWS answered {code}")


def test_a_full_queue_ends_the_starts_of_an_invocation_and_leaves_the_rest_due(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Record] = []

    def start(_self: Builds, record: Record) -> str:
        asked.append(record)
        raise DelayedError("StartBuild: AWS answered AccountLimitExceededException", no_capacity=True)

    monkeypatch.setattr(Builds, "start", start)
    made = [create(records, fresh(f"gcr.io/a:{number}", HOUR)) for number in range(60)]
    run(SCHEDULE)
    assert 1 <= len(asked) <= 8, "no more calls than threads at the same time"
    after = [current(records, record) for record in made]
    assert len([record for record in after if record.error]) == len(asked)
    assert all(MINUTE - 5000 <= (record.due_at or 0) - now() < 2 * MINUTE for record in after if record.error)
    assert [record for record in after if record.error is None] == [r for r in made if r not in asked]


def test_what_is_known_to_wait_for_capacity_is_not_read_again_until_there_is_some(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Builds, _record: Record) -> str:
        raise DelayedError("StartBuild: AWS answered AccountLimitExceededException", no_capacity=True)

    read: list[str] = []
    client = reconciler.load()._records._client
    original = client.get_item

    def get_item(**request: Any) -> Any:
        read.append(request["Key"]["repo"]["S"].rpartition("/")[2])
        return original(**request)

    monkeypatch.setattr(client, "get_item", get_item)
    monkeypatch.setattr(Builds, "start", full)
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, Build(BuildResult.RUNNING)))
    waiting = [create(records, fresh(f"gcr.io/a{number:02}:1", HOUR - number * 1000)) for number in range(60)]
    run(SCHEDULE)
    assert 60 < len(read) <= 69, "the state, each record, and again the eight for which a start was tried at once"
    # Meanwhile another invocation starts one of them; its build is looked up in spite of that.
    elsewhere = replace(waiting[-1], status=Status.COPYING, build_id="ImagePullProject:1", due_at=now() - 1000)
    assert records.replace(waiting[-1], elsewhere) is elsewhere
    read.clear()
    run(SCHEDULE)
    assert len(read) <= 19
    assert "a59" in read
    monkeypatch.setattr(Builds, "start", lambda _self, record: f"ImagePullProject:{record.repo[-2:]}")
    run(SCHEDULE)
    left = [current(records, record) for record in waiting]
    assert Counter(record.status for record in left) == {Status.COPYING: 3, Status.REQUESTED: 57}


def test_a_start_that_may_have_taken_effect_is_repeated_while_its_token_lasts(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it has waited before: after five minutes the same token would start a second build."""

    def start(_self: Builds, _record: Record) -> str:
        raise delayed_by("StartBuild", ReadTimeoutError(endpoint_url="https://codebuild"))

    monkeypatch.setattr(Builds, "start", start)
    record = create(records, replace(fresh(), waits=20))
    run(stream(record))
    after = current(records, record)
    assert MINUTE - 5000 <= (after.due_at or 0) - now() < 2 * MINUTE
    assert idempotency_token(after) == idempotency_token(record)


def test_what_ecr_no_longer_holds_loses_its_record(cloud: Cloud, records: Records) -> None:
    create(records, replace(fresh(age=48 * HOUR), status=Status.COPIED, digest=DIGEST))
    run(SCHEDULE)
    assert cloud.items() == []


def test_what_ecr_holds_is_verified_again_a_day_later(cloud: Cloud, records: Records) -> None:
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    record = create(records, replace(fresh(age=48 * HOUR), status=Status.COPIED, digest=digest))
    run(SCHEDULE)
    after = current(records, record)
    assert (after.status, after.digest) == (Status.COPIED, digest)
    assert 21 * HOUR < (after.due_at or 0) - now() < 27 * HOUR


def test_an_invocation_stops_before_its_time_is_up_and_leaves_the_rest_due(records: Records) -> None:
    record = create(records, fresh(age=HOUR))
    run(SCHEDULE, seconds=44)
    assert run(stream(record), seconds=44) == {"batchItemFailures": []}
    assert current(records, record) == record


def test_a_record_under_another_prefix_stays_and_is_checked_much_later(records: Records) -> None:
    record = create(records, replace(fresh(age=HOUR), repo=f"{REGISTRY}/other/gcr.io/team/app"))
    run(SCHEDULE)
    after = current(records, record)
    assert after.status is Status.REQUESTED
    assert (after.due_at or 0) > now() + 20 * HOUR


def test_a_record_under_another_prefix_is_written_once_however_often_the_stream_delivers_it(records: Records) -> None:
    """The stream delivers each write of a REQUESTED record, so another write for it would never end."""
    record = create(records, replace(fresh(age=HOUR), repo=f"{REGISTRY}/other/gcr.io/team/app"))
    run(stream(record))
    once = current(records, record)
    assert once.error == "its registry or prefix is no longer served"
    with time_machine.travel((NOON + MINUTE) / 1000, tick=False):  # a second write would have another time
        run(stream(once))
    assert current(records, record) == once


@pytest.mark.parametrize("status", ["DONE", None], ids=["unknown status", "no status"])
def test_an_item_of_another_deployment_is_left_by_the_reconciler_and_adopted_by_the_webhook(
    cloud: Cloud, records: Records, status: str | None
) -> None:
    request = fresh()
    item: dict[str, Any] = {"repo": {"S": request.repo}, "tag": {"S": "1"}, "updated_at": {"S": "yesterday"}}
    item |= {"attempts": {"N": "7"}} | ({"status": {"S": status}} if status else {})
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    run(stream(request))
    assert cloud.items() == [item]
    found = records.create(request)
    assert found.status is None
    assert records.replace(found, request) is request
    assert current(records, request) == request


def test_a_record_that_lacks_its_counts_is_advanced_and_written(cloud: Cloud, records: Records) -> None:
    item = {
        name: value for name, value in to_item(fresh()).items() if name not in ("attempts", "waits", "requested_at")
    }
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    run(stream(fresh()))
    assert current(records, fresh()).status is Status.COPYING


def test_a_record_that_lost_its_build_is_started_again(records: Records) -> None:
    record = create(records, replace(fresh(age=HOUR), status=Status.COPYING))
    run(SCHEDULE)
    after = current(records, record)
    assert (after.status, after.attempts, after.waits) == (Status.REQUESTED, 0, 1)


def test_a_build_of_a_changed_project_does_not_prevent_the_lookup_of_others(cloud: Cloud, records: Records) -> None:
    other = create(records, replace(fresh("gcr.io/a:1", HOUR), status=Status.COPYING, build_id="OlderProject:1"))
    own = create(records, fresh("gcr.io/b:1"))
    run(stream(own))
    copying = current(records, own)
    cloud.push("mirror/gcr.io/b", "1")
    records.replace(copying, replace(copying, due_at=now()))
    run(SCHEDULE)
    assert current(records, own).status is Status.COPIED
    assert (current(records, other).status, current(records, other).attempts) == (Status.REQUESTED, 0)


def test_settings_reach_the_records(cloud: Cloud, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERIFY_HOURS", "100")
    monkeypatch.setenv("GLOBAL_AKSK", "OtherName")
    reconciler.load.cache_clear()
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    copied = create(records, replace(fresh(age=48 * HOUR), status=Status.COPIED, digest=digest))
    waiting = create(records, fresh("gcr.io/b:1"))
    run(SCHEDULE)
    assert 90 * HOUR <= (current(records, copied).due_at or 0) - now() <= 110 * HOUR
    assert "the secret OtherName" in (current(records, waiting).error or "")


def test_records_are_read_consistently_by_at_most_eight_at_a_time(
    cloud: Cloud, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index entry or an event may be older than the item, and 1,000 due records must not need 1,000 threads."""
    asked: list[dict[str, Any]] = []
    together = 0
    most = 0
    lock = threading.Lock()
    client = reconciler.load()._records._client
    original = client.get_item

    def get_item(**request: Any) -> Any:
        nonlocal together, most
        with lock:
            asked.append(request)
            together += 1
            most = max(most, together)
        time.sleep(0.01)
        with lock:
            together -= 1
        return original(**request)

    monkeypatch.setattr(client, "get_item", get_item)
    for number in range(40):
        create(records, replace(fresh(f"gcr.io/a:{number}", HOUR), status=Status.COPIED, digest=DIGEST))
    run(SCHEDULE)
    assert len(asked) == 41, "the records, and the state"
    assert all(request["ConsistentRead"] is True for request in asked)
    assert 2 <= most <= 8
    assert cloud.items() == []


def test_an_item_of_an_older_deployment_is_left_to_the_webhook(cloud: Cloud) -> None:
    item = {"repo": {"S": f"{REGISTRY}/mirror/gcr.io/team/app"}, "tag": {"S": "1"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    run(SCHEDULE)
    run(stream(Record(repo=item["repo"]["S"], tag="1")))
    run(ecr_event())
    assert cloud.items() == [item]


def test_a_push_event_marks_the_copy_with_what_ecr_holds_not_what_the_event_says(
    cloud: Cloud, records: Records
) -> None:
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    record = create(records, replace(fresh(), status=Status.COPYING, build_id="x"))
    run(ecr_event())
    assert current(records, record) == record, "ECR holds nothing yet"
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    run(ecr_event())
    after = current(records, record)
    assert (after.status, after.digest) == (Status.COPIED, digest)
    assert digest != DIGEST


def test_a_deletion_event_removes_the_record_only_if_the_copy_is_gone(cloud: Cloud, records: Records) -> None:
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    record = create(records, replace(fresh(), status=Status.COPIED, digest=digest))
    run(ecr_event(**{"action-type": "DELETE"}))
    assert current(records, record) == record
    cloud.ecr.batch_delete_image(repositoryName="mirror/gcr.io/team/app", imageIds=[{"imageTag": "1"}])
    run(ecr_event(**{"action-type": "DELETE"}))
    assert cloud.items() == []


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(ecr_event(result="FAILURE"), id="failed"),
        pytest.param(ecr_event(tag=None), id="without a tag"),
        pytest.param(ecr_event(repository="other/gcr.io/team/app"), id="other prefix"),
        pytest.param(ecr_event(repository="mirrored/gcr.io/team/app"), id="longer prefix"),
        pytest.param(ecr_event(tag="2"), id="nobody asked for it"),
    ],
)
def test_other_events_of_ecr_change_nothing(cloud: Cloud, records: Records, event: dict[str, Any]) -> None:
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    cloud.push("mirror/gcr.io/team/app", "1")
    record = create(records, replace(fresh(), status=Status.COPYING, build_id="x"))
    assert run(event) == {}
    assert current(records, record) == record
    assert len(cloud.items()) == 1


def test_an_invocation_that_finds_nothing_to_do_writes_nothing(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in (Status.REQUESTED, Status.COPYING, Status.COPIED):
        create(records, replace(fresh(f"gcr.io/a:{status.lower()}"), status=status, digest=DIGEST, due_at=now() + HOUR))

    def write(*_: object) -> None:
        raise AssertionError("a write")

    monkeypatch.setattr(Records, "replace", write)
    monkeypatch.setattr(Records, "remove", write)
    for event in (SCHEDULE, stream(*(fresh(f"gcr.io/a:{name}") for name in ("requested", "copying", "copied")))):
        assert run(event) in ({}, {"batchItemFailures": []})


def test_two_invocations_at_once_start_one_build_by_one_token(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SCHEDULE)
    record = create(records, fresh())
    progress = reconciler.load()
    started: list[Record] = []

    def start(_self: Builds, requested: Record) -> str:
        started.append(requested)
        if len(started) == 1:
            run(stream(record))  # the other run comes in between and is done first
        return "ImagePullProject:1"

    monkeypatch.setattr(Builds, "start", start)
    assert isinstance(progress, Reconciler)
    run(stream(record))
    assert started == [record, record], "the same record, so the same token, so one build"
    assert current(records, record).build_id == "ImagePullProject:1"


def test_no_secret_is_logged(cloud: Cloud, records: Records, logged: io.StringIO) -> None:
    record = create(records, fresh())
    run(stream(record))
    cloud.secrets.put_secret_value(SecretId="GlobalAKSK", SecretString=json.dumps({"G_SECRET_KEY": SECRET_KEY}))
    reconciler.load.cache_clear()
    run(stream(create(records, fresh("gcr.io/b:1"))))
    assert "gcr.io/team/app:1" in logged.getvalue()
    assert SECRET_KEY not in logged.getvalue()


# ---- published metrics ----

Published = Callable[[], dict[str, list[float]]]
NOTHING_DUE = {"OldestDue": [0], "Due": [0], "OldestFirstCopy": [0]}


def test_the_metrics_of_a_copy_count_each_step_from_its_request_to_copied(
    cloud: Cloud, records: Records, published: Published
) -> None:
    record = create(records, fresh(age=60_000))
    run(stream(record))
    assert published() == {"CopiesRequested": [1], "BuildsStarted": [1]}
    cloud.push("mirror/gcr.io/team/app", "1")
    run(ecr_event())
    arrived = published()
    assert arrived.keys() == {"CopiesArrived", "TimeToCopied"}
    assert 60_000 <= arrived["TimeToCopied"][0] < 90_000
    run(ecr_event())
    assert published() == {}, "the same event again"


@pytest.mark.parametrize("source", ["gcr.io/team/app:1", f"gcr.io/team/app@{DIGEST}"], ids=["by tag", "by digest"])
@pytest.mark.parametrize("lost", [False, True], ids=["by its event", "at the next look, as the event was lost"])
def test_a_push_in_place_of_a_copy_is_logged_and_counted_once(
    cloud: Cloud, records: Records, published: Published, logged: io.StringIO, source: str, lost: bool
) -> None:
    requested = fresh(source, age=HOUR)
    record = create(records, replace(requested, status=Status.COPIED, digest=DIGEST, pushed=DIGEST, due_at=now() - 1))
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    pushed = cloud.push("mirror/gcr.io/team/app", record.tag)
    for _ in range(2):
        run(SCHEDULE if lost else ecr_event(tag=record.tag))
    lines = [line for line in map(json.loads, logged.getvalue().splitlines()) if line["message"] == "unexpected push"]
    assert [(line["image"], line["copy"], line["before"], line["after"]) for line in lines] == [
        (source, record.destination, DIGEST, pushed)
    ]
    assert published()["UnexpectedPushes"] == [1]
    after = records.get(record.repo, record.tag)
    if "@" in source:
        assert after is None
    else:
        assert after is not None
        assert (after.status, after.digest) == (Status.COPIED, pushed)
        assert after.unexpected == f"{DIGEST} {pushed} {after.updated_at}"


def test_a_write_that_another_invocation_has_made_counts_no_push(
    cloud: Cloud, records: Records, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(records, replace(fresh(age=HOUR), status=Status.COPIED, digest=DIGEST))
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    cloud.push("mirror/gcr.io/team/app", "1")
    monkeypatch.setattr(Records, "replace", lambda _self, old, _new: replace(old, updated_at=now() + 1))
    run(ecr_event())
    assert published() == {}


def test_the_scheduled_run_publishes_how_long_the_oldest_has_been_due(records: Records, published: Published) -> None:
    run(SCHEDULE)
    assert published() == NOTHING_DUE
    for number, age in enumerate((3, 40, 12)):
        create(records, replace(fresh(f"gcr.io/a:{number}", age * MINUTE), status=Status.COPIED, digest=DIGEST))
    create(records, replace(fresh("gcr.io/a:later"), status=Status.COPIED, digest=DIGEST, due_at=now() + HOUR))
    run(SCHEDULE)
    seen = published()
    assert seen["Due"] == [3]
    assert 40 * 60 <= seen["OldestDue"][0] < 41 * 60
    assert seen["CopiesGone"] == [3]


def test_everything_due_is_counted_over_all_rounds_of_an_invocation(records: Records, published: Published) -> None:
    for number in range(150):
        create(records, replace(fresh(f"gcr.io/a:{number}", HOUR), status=Status.COPIED, digest=DIGEST))
    run(SCHEDULE)
    oldest = pytest.approx(3600, abs=60)
    assert published() == {"OldestDue": [oldest], "Due": [150], "CopiesGone": [150], "OldestFirstCopy": [0]}


def test_only_the_scheduled_run_publishes_what_is_due(records: Records, published: Published) -> None:
    create(records, fresh(age=HOUR))
    run(ecr_event())
    run(stream())
    assert published() == {}


def test_a_scheduled_run_that_cannot_read_what_is_due_publishes_no_number_of_it(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm counts missing data as a failure."""

    def due(_self: Records, _now: int) -> Iterator[tuple[str, str, int]]:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "x"}}, "Query")
        yield

    monkeypatch.setattr(Records, "due", due)
    with pytest.raises(ClientError):
        run(SCHEDULE)
    assert published() == {}


def test_counts_are_published_also_if_an_exception_ends_the_invocation(
    records: Records, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(records, fresh(age=HOUR))

    def write(*_: object, **_more: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError", "Message": "x"}}, "PutItem")

    monkeypatch.setattr(StateItem, "write", write)
    with pytest.raises(ClientError):
        run(SCHEDULE)
    assert published() == {"Due": [1]}


@pytest.mark.parametrize(
    ("build", "counted"),
    [
        pytest.param(Build(BuildResult.RUNNING), {}, id="running"),
        pytest.param(Build(BuildResult.REFUSED, "NOT_FOUND: x"), {"AttemptsRefused": [1]}, id="refused"),
        pytest.param(Build(BuildResult.DELAYED, "RATE_LIMITED: x"), {"Waits": [1]}, id="rate limited"),
        pytest.param(
            Build(BuildResult.DELAYED, "TARGET_LOGIN", key=True), {"KeyRefused": [1]}, id="China's key refused"
        ),
        pytest.param(Build(BuildResult.COPIED), {"AttemptsRefused": [1]}, id="ended with nothing in ECR"),
    ],
)
def test_the_result_of_a_build_is_counted(
    cloud: Cloud,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    published: Published,
    build: Build,
    counted: dict[str, list[float]],
) -> None:
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/app")
    create(records, replace(fresh(), status=Status.COPYING, build_id="ImagePullProject:1"))
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, build))
    run(SCHEDULE)
    assert {name: values for name, values in published().items() if name not in NOTHING_DUE} == counted


def test_the_last_attempt_is_counted_as_a_failure(
    records: Records, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    create(records, replace(fresh(), status=Status.COPYING, build_id="ImagePullProject:1", attempts=4))
    refused = Build(BuildResult.REFUSED, "NOT_FOUND: x")
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, refused))
    run(SCHEDULE)
    seen = published()
    assert (seen["CopiesFailed"], seen["AttemptsRefused"]) == ([1], [1])


@pytest.mark.parametrize(
    ("cause", "counted"),
    [
        pytest.param(DelayedError("x", no_capacity=True), "Busy", id="a full queue"),
        pytest.param(DelayedError("x", key=True), "KeyRefused", id="the global key"),
        pytest.param(DelayedError("x", uncertain=True), "Waits", id="the network"),
    ],
)
@pytest.mark.parametrize("status", [Status.REQUESTED, Status.COPYING])
def test_failures_of_calls_are_counted_by_their_kind(
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    published: Published,
    status: Status,
    cause: DelayedError,
    counted: str,
) -> None:
    def fail(*_: object) -> None:
        raise cause

    monkeypatch.setattr(Builds, "start", fail)
    monkeypatch.setattr(Builds, "look_up", fail)
    create(records, replace(fresh(), status=status, build_id="ImagePullProject:1"))
    run(SCHEDULE)
    assert {name: values for name, values in published().items() if name not in NOTHING_DUE} == {counted: [1]}


def test_a_missing_secret_is_counted_as_a_refused_key(cloud: Cloud, records: Records, published: Published) -> None:
    cloud.secrets.delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
    run(stream(create(records, fresh())))
    assert published() == {"CopiesRequested": [1], "KeyRefused": [1]}


def test_a_write_that_lost_its_race_is_not_counted(
    records: Records, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    record = create(records, fresh())

    def start(_self: Builds, requested: Record) -> str:
        records.replace(requested, replace(requested, status=Status.COPIED, digest=DIGEST))
        return "ImagePullProject:1"

    monkeypatch.setattr(Builds, "start", start)
    run(stream(record))
    assert published() == {"CopiesRequested": [1]}


def test_a_step_that_fails_is_counted(records: Records, monkeypatch: pytest.MonkeyPatch, published: Published) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    record = create(records, fresh())
    monkeypatch.setattr(Builds, "start", fail)
    run(stream(record))
    assert published() == {"CopiesRequested": [1], "StepErrors": [1]}


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        pytest.param({}, [1], id="new, or asked for again"),
        pytest.param({"waits": 1, "updated_at": 9}, None, id="delayed"),
        pytest.param({"attempts": 1, "updated_at": 9}, None, id="an attempt refused"),
        pytest.param({"updated_at": 9}, None, id="its older digest lost"),
    ],
)
def test_the_stream_handler_counts_requests_and_not_records_that_still_wait(
    published: Published, changes: dict[str, Any], counted: list[float] | None
) -> None:
    run(stream(replace(fresh(), **changes)))
    assert published().get("CopiesRequested") == counted


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"requested_at": {"N": "1.5"}, "updated_at": {"N": "1.5"}, "attempts": {"S": "x"}}, id="nonsense"),
    ],
)
def test_an_odd_item_in_the_stream_does_not_delay_the_others(
    records: Records, published: Published, image: dict[str, Any]
) -> None:
    record = create(records, fresh())
    batch = stream(record)
    batch["Records"][0]["dynamodb"]["NewImage"] = image
    assert run(batch) == {"batchItemFailures": []}
    assert published() == {"BuildsStarted": [1]}


def test_no_secret_and_no_image_is_in_what_is_published(
    cloud: Cloud, records: Records, published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.secrets.put_secret_value(SecretId="GlobalAKSK", SecretString=json.dumps({"G_SECRET_KEY": SECRET_KEY}))
    run(stream(create(records, fresh())))
    out = capsys.readouterr().out
    assert "KeyRefused" in out
    assert SECRET_KEY not in out
    assert "gcr.io" not in out
    assert published() == {}


# ---- slots ----


def of_namespace(namespace: str | None, number: int, age: int = MINUTE, **changes: Any) -> Record:
    requested_by = f"{namespace}/Deployment/web" if namespace else None
    return replace(fresh(f"gcr.io/{namespace or 'none'}:{number}", age), requested_by=requested_by, **changes)


def build_id(record: Record) -> str:
    return f"ImagePullProject:{record.repo.rpartition('/')[2]}-{record.tag}"


@pytest.fixture
def started(records: Records, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the builds that are started from now on; all of them run. CodeBuild is known to run twenty."""
    builds: list[str] = []
    run_twenty_builds(records)

    def start(_self: Builds, record: Record) -> str:
        builds.append(build_id(record))
        return builds[-1]

    monkeypatch.setattr(Builds, "start", start)
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, Build(BuildResult.RUNNING)))
    return builds


def namespaces(started: list[str]) -> Counter[str]:
    return Counter(each.removeprefix("ImagePullProject:").partition("-")[0] for each in started)


def test_the_schedule_gives_one_namespace_its_share_and_another_its_builds_at_once(
    records: Records, started: list[str]
) -> None:
    for number in range(40):
        create(records, of_namespace("crowd", number, HOUR))
    run(SCHEDULE)
    assert namespaces(started) == {"crowd": 15}, "three quarters of 20"
    create(records, of_namespace("shop", 1, 0))
    create(records, of_namespace(None, 1, 0))
    run(SCHEDULE)
    assert namespaces(started) == {"crowd": 15, "shop": 1, "none": 1}


def test_twenty_builds_run_and_ten_more_queue(records: Records, started: list[str]) -> None:
    for namespace in ("a", "b", "c"):
        for number in range(20):
            create(records, of_namespace(namespace, number))
    run(SCHEDULE)
    run(SCHEDULE)
    assert namespaces(started) == {"a": 10, "b": 10, "c": 10}


def test_a_build_that_runs_holds_its_slot_although_it_is_not_due(records: Records, started: list[str]) -> None:
    for number in range(15):
        copying = {"status": Status.COPYING, "build_id": f"ImagePullProject:{number}", "due_at": now() + 49_000}
        create(records, of_namespace("a", number, HOUR, **copying))
    create(records, of_namespace("a", 99))
    run(SCHEDULE)
    assert started == []
    create(records, of_namespace("b", 99))
    run(SCHEDULE)
    assert namespaces(started) == {"b": 1}


def test_a_copy_that_arrived_holds_the_slot_of_its_build_until_it_ends(records: Records, started: list[str]) -> None:
    for number in range(15):
        arrived = {"status": Status.COPIED, "digest": DIGEST, "due_at": now() + 40_000}
        builds = {"build_id": f"ImagePullProject:{number}", "open_build": f"ImagePullProject:{number}"}
        create(records, of_namespace("a", number, HOUR, **arrived, **builds))
    create(records, of_namespace("a", 99))
    run(SCHEDULE)
    assert started == []


def test_a_slot_is_used_again_in_the_run_that_reads_the_end_of_its_build(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(15):
        copying = {"status": Status.COPYING, "build_id": f"ImagePullProject:{number}"}
        create(records, of_namespace("a", number, HOUR, **copying))
    for number in range(20, 40):
        create(records, of_namespace("a", number))
    ended = Build(BuildResult.REFUSED, "NOT_FOUND: x", code="NOT_FOUND")
    monkeypatch.setattr(
        Builds,
        "look_up",
        lambda _self, ids: {each: ended if each.endswith(":3") else Build(BuildResult.RUNNING) for each in ids},
    )
    run(SCHEDULE)
    assert namespaces(started) == {"a": 1}


def test_a_copy_that_arrives_has_the_free_slots_used_before_the_schedule_runs_again(
    cloud: Cloud, records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        create(records, of_namespace("a", number))
    run(SCHEDULE)
    assert len(started) == 15
    ended = Build(BuildResult.REFUSED, "NOT_FOUND: x", code="NOT_FOUND")
    monkeypatch.setattr(
        Builds,
        "look_up",
        lambda _self, ids: {each: ended if each in started[:3] else Build(BuildResult.RUNNING) for each in ids},
    )
    cloud.push("mirror/gcr.io/a", started[5].rpartition("-")[2])
    event = ecr_event("mirror/gcr.io/a", started[5].rpartition("-")[2])
    with time_machine.travel(NOON / 1000 + 14, tick=False):
        run(event)
    assert len(started) == 15
    with time_machine.travel(NOON / 1000 + 16, tick=False):
        run(event)
    assert len(started) == 18


def test_a_smaller_real_quota_is_found_by_the_queue(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        create(records, of_namespace("a" if number % 2 else "b", number))
    run(SCHEDULE)
    assert len(started) == 30
    running = set(started[:2])

    def look_up(_self: Builds, ids: list[str]) -> dict[str, Build]:
        return {each: Build(BuildResult.RUNNING, queued=each not in running) for each in ids}

    monkeypatch.setattr(Builds, "look_up", look_up)
    with time_machine.travel((NOON + MINUTE) / 1000, tick=False):
        run(SCHEDULE)
        state = state_in(records).read()
    assert state is not None
    assert (state.main.runs, state.main.most, state.main.share) == (2, 4, 1)
    assert len(started) == 30


def test_a_build_that_has_just_been_started_is_not_taken_for_one_that_waits_in_the_queue(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(records, of_namespace("a", 1))
    run(SCHEDULE)
    assert len(started) == 1
    monkeypatch.setattr(
        Builds,
        "look_up",
        lambda _self, ids: dict.fromkeys(ids, Build(BuildResult.RUNNING, queued=True, started_at=now())),
    )
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert state.main.runs == 20


def test_batches_of_the_stream_share_half_of_the_slots_until_the_next_run_of_the_schedule(
    records: Records, started: list[str]
) -> None:
    run(SCHEDULE)
    first = [create(records, of_namespace("a", number)) for number in range(9)]
    second = [create(records, of_namespace("b", number)) for number in range(20)]
    run(stream(*first))
    assert namespaces(started) == {"a": 9}
    run(stream(*second))
    assert namespaces(started) == {"a": 9, "b": 6}, "fifteen of thirty"
    state = state_in(records).read()
    assert state is not None
    assert state.main.out == {"a": 9, "b": 6}
    run(SCHEDULE)
    assert namespaces(started) == {"a": 9, "b": 15}


Put = Callable[..., State | None]


def once_before_a_write(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Let `action` happen between the next read of the state and the write after it."""
    put: Put = StateItem.write
    happened: list[bool] = []

    def write(self: StateItem, *state: State | None, **how: bool) -> State | None:
        if not happened:
            happened.append(True)
            action()
        return put(self, *state, **how)

    monkeypatch.setattr(StateItem, "write", write)


def test_two_batches_of_the_stream_at_once_share_half_of_the_slots(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SCHEDULE)
    first = [create(records, of_namespace("a", number)) for number in range(20)]
    second = [create(records, of_namespace("b", number)) for number in range(9)]
    once_before_a_write(monkeypatch, lambda: run(stream(*second)))
    run(stream(*first))
    assert namespaces(started) == {"a": 6, "b": 9}


def test_a_batch_and_a_run_of_the_schedule_at_once_keep_to_the_slots(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SCHEDULE)
    for number in range(20):
        create(records, of_namespace("a", number))
    meanwhile = [create(records, of_namespace("a", number)) for number in range(20, 30)]
    once_before_a_write(monkeypatch, lambda: run(stream(*meanwhile)))
    run(SCHEDULE)
    assert namespaces(started) == {"a": 15}
    state = state_in(records).read()
    assert state is not None
    assert state.main.out == {"a": 15}


def test_what_a_batch_reserves_while_the_schedule_ends_counts_in_the_next_minute(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SCHEDULE)
    meanwhile = [create(records, of_namespace("a", number, due_at=now() + HOUR)) for number in range(20, 30)]
    due = [replace(record, due_at=now()) for record in meanwhile]

    def batch() -> None:
        for before, after in zip(meanwhile, due, strict=True):
            assert records.replace(before, after) is after
        run(stream(*due))

    once_before_a_write(monkeypatch, batch)
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert (state.main.out, state.main.most) == ({"a": 10}, 30)
    assert namespaces(started) == {"a": 10}


def test_a_state_that_somebody_has_damaged_is_written_again(records: Records, cloud: Cloud) -> None:
    run(SCHEDULE)
    key = {"repo": {"S": "#state"}, "tag": {"S": "builds"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item={**key, "version": {"S": "x"}})
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert (state.at, state.version) == (now(), 1)


@pytest.mark.parametrize(
    ("minutes", "count"), [pytest.param(2, 1, id="two minutes ago"), pytest.param(3, 0, id="three minutes ago")]
)
def test_a_batch_starts_nothing_if_the_schedule_has_not_run_for_three_minutes(
    records: Records, started: list[str], minutes: int, count: int
) -> None:
    run(SCHEDULE)
    record = create(records, of_namespace("a", 1))
    with time_machine.travel((NOON + minutes * MINUTE) / 1000, tick=False):
        run(stream(record))
    assert len(started) == count
    assert current(records, record).due_at is not None, "the schedule starts it"


def test_the_first_batch_of_a_new_table_starts_builds_and_the_next_one_waits_for_the_schedule(
    cloud: Cloud, records: Records, started: list[str]
) -> None:
    cloud.dynamodb.delete_item(TableName="ImageListTable", Key={"repo": {"S": "#state"}, "tag": {"S": "builds"}})
    run(stream(create(records, of_namespace("a", 1))))
    run(stream(create(records, of_namespace("a", 2))))
    assert namespaces(started) == {"a": 1}
    run(SCHEDULE)
    assert namespaces(started) == {"a": 2}


def test_a_run_that_had_no_time_for_all_builds_counts_those_of_the_run_before(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        create(records, of_namespace("a", number))
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert state.main.out == {"a": 15}
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "advance", lambda *_: [])  # nothing is reached
        run(SCHEDULE, seconds=44)
    after = state_in(records).read()
    assert after is not None
    assert after.main.out == {"a": 15}
    run(SCHEDULE)
    assert namespaces(started) == {"a": 15}


def test_only_what_waits_for_a_slot_is_not_counted_as_overdue(
    records: Records, started: list[str], published: Published
) -> None:
    for number in range(20):
        create(records, of_namespace("a", number, HOUR))
    run(SCHEDULE)
    assert published()["OldestDue"] == [0]
    create(records, replace(fresh("gcr.io/b:1", 5 * MINUTE), status=Status.COPIED, digest=DIGEST))
    run(SCHEDULE)
    assert published()["OldestDue"] == [300]
    assert len(started) == 15


@pytest.mark.usefixtures("started")
def test_what_another_run_has_started_meanwhile_is_not_overdue_though_the_index_says_so(
    records: Records, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = {"status": Status.COPYING, "build_id": "ImagePullProject:1", "due_at": now() + 40_000}
    record = create(records, of_namespace("a", 1, HOUR, **copying))
    gone = ("gone", "1", now() - HOUR)
    monkeypatch.setattr(Records, "due", lambda *_: iter([(record.repo, record.tag, now() - HOUR), gone]))
    run(SCHEDULE)
    assert published()["OldestDue"] == [0]


def test_a_start_that_ends_in_an_exception_is_overdue(
    records: Records, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Builds, "start", fail)
    create(records, of_namespace("a", 1, HOUR))
    run(SCHEDULE)
    assert published()["OldestDue"] == [3600]


# ---- the oldest first copy ----


def test_the_oldest_request_without_a_copy_is_remembered_although_it_is_not_due(
    records: Records, started: list[str], published: Published
) -> None:
    old = create(records, of_namespace("a", 1, 3 * HOUR, attempts=4))
    run(SCHEDULE)
    assert published()["OldestFirstCopy"] == [3 * 3600]
    copying = current(records, old)
    waits = replace(copying, status=Status.REQUESTED, due_at=now() + 5 * HOUR)
    assert records.replace(copying, waits) is waits
    create(records, of_namespace("a", 2, HOUR))
    run(SCHEDULE)
    assert published()["OldestFirstCopy"] == [3 * 3600], "it backs off"
    arrived = replace(waits, status=Status.COPIED, digest=DIGEST)
    assert records.replace(waits, arrived) is arrived
    run(SCHEDULE)
    assert published()["OldestFirstCopy"] == [3600], "the next one"
    assert len(started) == 2


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"digest": DIGEST}, id="a refresh: ECR holds the older copy"),
        pytest.param({"status": Status.FAILED, "due_at": None}, id="failed"),
        pytest.param({"status": Status.COPIED, "digest": DIGEST, "due_at": NOON + HOUR}, id="copied"),
    ],
)
def test_what_pods_do_not_wait_for_is_no_oldest_first_copy(
    records: Records, published: Published, changes: dict[str, Any]
) -> None:
    create(records, of_namespace("a", 1, 3 * HOUR, **changes))
    run(SCHEDULE)
    assert published()["OldestFirstCopy"] == [0]


def test_a_record_under_a_prefix_that_is_no_longer_served_is_no_oldest_first_copy(
    records: Records, published: Published
) -> None:
    old = create(records, of_namespace("a", 1, 3 * HOUR, due_at=now() + HOUR))
    other = create(records, replace(old, repo=f"{REGISTRY}/other/gcr.io/a"))
    state_in(records).write(State(at=now(), oldest=((other.repo, other.tag), (old.repo, old.tag))))
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert state.oldest == ((old.repo, old.tag),)
    assert published()["OldestFirstCopy"] == [3 * 3600]


# ---- a refused key ----

LOGIN_REFUSED = Build(BuildResult.DELAYED, "TARGET_LOGIN: refused", key=True, code="TARGET_LOGIN")


def test_a_refused_login_to_ecr_holds_all_copies_back_until_one_build_has_logged_in(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    answers: dict[str, Build] = {}
    monkeypatch.setattr(
        Builds, "look_up", lambda _self, ids: {each: answers.get(each, Build(BuildResult.RUNNING)) for each in ids}
    )
    first = create(records, of_namespace("a", 0, HOUR))
    run(SCHEDULE)
    answers[started[0]] = LOGIN_REFUSED
    for number in range(1, 10):
        create(records, of_namespace("a", number))

    def minutes_later(minutes: float) -> None:
        with time_machine.travel((NOON + minutes * MINUTE) / 1000, tick=False):
            run(SCHEDULE)

    minutes_later(1)
    assert (len(started), current(records, first).status) == (1, Status.REQUESTED)
    published()
    minutes_later(2)
    assert len(started) == 2, "one of the ten tries the key"
    assert published()["KeyRefused"] == [1], "each minute, while others wait"
    answers[started[1]] = LOGIN_REFUSED
    for minute in (3, 4):
        minutes_later(minute)
    assert len(started) == 2
    with time_machine.travel((NOON + 4.5 * MINUTE) / 1000, tick=False):
        assert run(stream(create(records, of_namespace("b", 1)))) == {"batchItemFailures": []}
    assert len(started) == 2, "a batch of the stream does not try it"
    minutes_later(5)
    assert len(started) == 3, "two minutes after the second refusal"
    answers[started[2]] = Build(BuildResult.REFUSED, "NOT_FOUND: x", code="NOT_FOUND")
    minutes_later(6)
    assert len(started) == 3 + 10, "the login worked, so all others start at once"
    state = state_in(records).read()
    assert state is not None
    assert (state.refusal, state.repaired_at) == (None, NOON + 6 * MINUTE)


def test_a_refused_global_key_is_tried_by_one_record_and_its_success_starts_all(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    accepted: list[bool] = []

    def start(_self: Builds, record: Record) -> str:
        asked.append(record.tag)
        if not accepted:
            raise DelayedError("StartBuild: AWS answered AccessDeniedException", key=True)
        return build_id(record)

    monkeypatch.setattr(Builds, "start", start)
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, Build(BuildResult.RUNNING)))
    made = [create(records, of_namespace("a", number, HOUR)) for number in range(12)]
    run(SCHEDULE)
    assert 1 <= len(asked) <= 8, "no more calls than threads at the same time"
    asked.clear()
    for seconds, count in ((30, 0), (60, 1), (120, 1), (180, 2)):
        with time_machine.travel(NOON / 1000 + seconds, tick=False):
            run(SCHEDULE)
        assert len(asked) == count, seconds
    accepted.append(True)
    with time_machine.travel(NOON / 1000 + 420, tick=False):
        run(SCHEDULE)
    assert len([record for record in made if current(records, record).status is Status.COPYING]) == 3, (
        "its share of four"
    )


def test_an_operator_who_has_replaced_a_key_need_not_wait_for_the_next_try(
    records: Records, started: list[str]
) -> None:
    refusal = Refusal(at=now(), times=9, in_build=True)
    assert state_in(records).write(State(at=now(), refusal=refusal, main=Slots(runs=20)), state_in(records).read())
    create(records, of_namespace("a", 1))
    run(SCHEDULE)
    assert started == []
    state_in(records).forget_refusal(now())
    run(SCHEDULE)
    assert len(started) == 1
    state = state_in(records).read()
    assert state is not None
    assert (state.refusal, state.repaired_at) == (None, now())


def test_a_run_does_not_write_back_a_refusal_that_an_operator_has_ended_meanwhile(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Refusal(at=now(), times=9, in_build=True)
    assert state_in(records).write(State(at=now(), refusal=refusal, main=Slots(runs=20)), state_in(records).read())
    create(records, of_namespace("a", 1))
    original = Reconciler.advance

    def meanwhile(self: Reconciler, *arguments: Any) -> Any:
        if arguments[0]:  # the state has been read before
            state_in(records).forget_refusal(now())
        return original(self, *arguments)

    monkeypatch.setattr(Reconciler, "advance", meanwhile)
    run(SCHEDULE)
    state = state_in(records).read()
    assert state is not None
    assert (state.refusal, state.repaired_at) == (None, now())
    monkeypatch.undo()
    assert started == []


def test_many_records_that_are_due_do_not_stop_the_starts(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(120)
    create(records, of_namespace("a", 1, 0))
    for number in range(300):
        create(records, replace(fresh(f"gcr.io/b:{number}", HOUR), status=Status.COPIED, digest=DIGEST))
    original = Reconciler.advance

    def slow(self: Reconciler, *arguments: Any) -> Any:
        result = original(self, *arguments)
        context.milliseconds -= 30_000
        return result

    monkeypatch.setattr(Reconciler, "advance", slow)
    reconciler.handler(SCHEDULE, context)
    assert len(started) == 1


def test_of_several_events_at_once_one_fills_the_slots(
    records: Records, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(records, of_namespace("a", 1))
    assert state_in(records).write(
        State(at=now() - MINUTE, waits=1, main=Slots(runs=20, most=30, share=15)), state_in(records).read()
    )
    runs: list[str] = []
    original = Reconciler.run_schedule

    def run_schedule(self: Reconciler, invocation: Any) -> None:
        runs.append("run")
        if len(runs) == 1:
            run(ecr_event("mirror/gcr.io/other"))  # in the middle of the first run
        original(self, invocation)

    monkeypatch.setattr(Reconciler, "run_schedule", run_schedule)
    run(ecr_event("mirror/gcr.io/other"))
    assert (len(runs), len(started)) == (1, 1)


# ---- the item that is no record ----


def test_the_item_of_the_state_is_no_record_for_any_reader(cloud: Cloud, records: Records, started: list[str]) -> None:
    """The functions of an older release read the table by images' names, its index and the filter of its stream."""
    create(records, of_namespace("a", 1))
    run(SCHEDULE)
    [item] = [
        each for each in cloud.dynamodb.scan(TableName="ImageListTable")["Items"] if each["repo"]["S"] == "#state"
    ]
    assert not item.keys() & {"status", "due", "due_at"}
    assert [record.tag for page in records.pages() for record in page] == ["1"]
    assert len(list(records.due(10**15))) == 1
    assert len(started) == 1


PROBE = {"probe": "builds"}


def test_a_probe_says_that_the_key_works_and_does_nothing_else(
    cloud: Cloud, records: Records, started: list[str]
) -> None:
    record = create(records, fresh())
    before = cloud.items()
    assert run(PROBE) == {"probe": {"role": "", "error": None}}
    assert (cloud.items(), started) == (before, [])
    assert current(records, record).status is Status.REQUESTED


def test_a_probe_says_why_codebuild_does_not_answer_and_no_part_of_the_key(cloud: Cloud) -> None:
    cloud.secrets.put_secret_value(SecretId="GlobalAKSK", SecretString=json.dumps({"G_SECRET_KEY": SECRET_KEY}))
    answer = run(PROBE)
    assert answer == {"probe": {"role": "", "error": "the secret GlobalAKSK lacks G_AWS_REGION, G_ACCESS_KEY"}}
    assert SECRET_KEY not in json.dumps(answer)


def test_a_probe_names_the_role_with_which_codebuild_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    role = "arn:aws:iam::210987654321:role/start"
    monkeypatch.setenv("G_START_ROLE_ARN", role)
    monkeypatch.setenv("G_REGION", "us-west-2")

    def refused(_: Builds) -> None:
        raise DelayedError("federation: no")

    monkeypatch.setattr(Builds, "check", refused)
    assert run(PROBE) == {"probe": {"role": role, "error": "federation: no"}}
    monkeypatch.setattr(Builds, "check", lambda _: None)
    assert run(PROBE) == {"probe": {"role": role, "error": None}}
