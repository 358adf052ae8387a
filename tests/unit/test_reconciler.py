"""The reconciler's handler with emulated AWS: stream batches, the schedule, ECR events."""

import io
import json
import threading
import time
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
from image_mirror.table import Records, to_item
from support.clock import NOON
from support.cloud import REGISTRY, SECRET_KEY, Cloud

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
    assert (after.status, after.attempts, after.waits) == (Status.REQUESTED, 0, 1)
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

    client = reconciler.load()[1]._repositories._ecr
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
    client = reconciler.load()[0]._client
    original = client.get_item

    def get_item(**request: Any) -> Any:
        read.append(request["Key"]["repo"]["S"].rpartition("/")[2])
        return original(**request)

    monkeypatch.setattr(client, "get_item", get_item)
    monkeypatch.setattr(reconciler, "_CHUNK", 20)  # so many records are read before a call of CodeBuild
    monkeypatch.setattr(Builds, "start", full)
    monkeypatch.setattr(Builds, "look_up", lambda _self, ids: dict.fromkeys(ids, Build(BuildResult.RUNNING)))
    waiting = [create(records, fresh(f"gcr.io/a{number:02}:1", HOUR - number * 1000)) for number in range(60)]
    run(SCHEDULE)
    assert len(read) == 60
    # Meanwhile another invocation starts one of them; its build is looked up in spite of that.
    elsewhere = replace(waiting[-1], status=Status.COPYING, build_id="ImagePullProject:1", due_at=now() - 1000)
    assert records.replace(waiting[-1], elsewhere) is elsewhere
    read.clear()
    run(SCHEDULE)
    assert 20 <= len(read) <= 29
    assert "a59" in read
    monkeypatch.setattr(Builds, "start", lambda _self, record: f"ImagePullProject:{record.repo[-2:]}")
    run(SCHEDULE)
    left = [current(records, record) for record in waiting]
    assert {record.status for record in left if record.error is None} == {Status.COPYING}


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
    client = reconciler.load()[0]._client
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
    assert len(asked) == 40
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
    record = create(records, fresh())
    progress = reconciler.load()[1]
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
NOTHING_DUE = {"OldestDue": [0], "Due": [0]}


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


def test_the_scheduled_run_publishes_how_long_the_oldest_has_been_due(records: Records, published: Published) -> None:
    run(SCHEDULE)
    assert published() == NOTHING_DUE
    for number, age in enumerate((3, 40, 12)):
        create(records, fresh(f"gcr.io/a:{number}", age * MINUTE))
    create(records, replace(fresh("gcr.io/a:later"), due_at=now() + HOUR))
    run(SCHEDULE)
    seen = published()
    assert seen["Due"] == [3]
    assert 40 * 60 <= seen["OldestDue"][0] < 41 * 60
    assert seen["BuildsStarted"] == [3]


def test_everything_due_is_counted_over_all_rounds_of_an_invocation(records: Records, published: Published) -> None:
    for number in range(150):
        create(records, replace(fresh(f"gcr.io/a:{number}", HOUR), status=Status.COPIED, digest=DIGEST))
    run(SCHEDULE)
    assert published() == {"OldestDue": [pytest.approx(3600, abs=60)], "Due": [150], "CopiesGone": [150]}


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
    record = create(records, fresh(age=HOUR))

    def due(_self: Records, _now: int) -> Iterator[tuple[str, str, int]]:
        yield record.repo, record.tag, now()
        for number in range(99):  # gone meanwhile, each of them
            yield record.repo, f"gone-{number}", now()
        raise ClientError({"Error": {"Code": "InternalServerError", "Message": "x"}}, "Query")

    monkeypatch.setattr(Records, "due", due)
    with pytest.raises(ClientError):
        run(SCHEDULE)
    seen = published()
    assert (seen["Due"], seen["BuildsStarted"]) == ([100], [1])


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
