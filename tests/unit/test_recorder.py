"""Copies are recorded before pods are sent to them: one round trip if new, none if known, no write in a dry run."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.admission import CopyRequest
from image_mirror.decisions import Copy
from image_mirror.record import DAY, HOUR, MINUTE, Missing, Policy, Record, Status, new_record
from image_mirror.recorder import KnownRecords, NotRecordedError, Recorder
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import Records, to_record
from support.cloud import REGISTRY, Cloud

NOW = 1_800_000_000_000
DIGEST = "sha256:" + "a" * 64


class CountingRecords(Records):
    """Counts the round trips; tests can make them slow or make them fail."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud.dynamodb, "ImageListTable")
        self.calls: list[str] = []
        self.tags: dict[str, list[str]] = {"create": [], "get": [], "replace": []}
        self.gate: threading.Event | None = None
        self.error: Exception | None = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.gate is not None:
            self.gate.wait(60)
        if self.error is not None:
            raise self.error

    def create(self, record: Record) -> Record:
        self.tags["create"].append(record.tag)
        self._call("create")
        return super().create(record)

    def get(self, repo: str, tag: str) -> Record | None:
        self.tags["get"].append(tag)
        self._call("get")
        return super().get(repo, tag)

    def replace(self, old: Record, new: Record) -> Record | None:
        self.tags["replace"].append(new.tag)
        self._call("replace")
        return super().replace(old, new)


@pytest.fixture
def records(cloud: Cloud) -> CountingRecords:
    return CountingRecords(cloud)


@pytest.fixture
def recorder(records: CountingRecords) -> Recorder:
    return Recorder(records, Policy(), KnownRecords(), 50)


def copy_request(image: str = "gcr.io/a:1", *, pull_always: bool = False) -> CopyRequest:
    source = parse_reference(image)
    return CopyRequest(Copy(source.pinned, destination_of(source, REGISTRY, "mirror")), pull_always)


def record_all(
    recorder: Recorder, *copy_requests: CopyRequest, now: int = NOW, seconds: float = 60, **more: Any
) -> list[Record]:
    existing = recorder.record(copy_requests, now=now, seconds=seconds, **{"dry_run": False} | more)
    found = [existing[request.copy.destination] for request in copy_requests]
    sound = [record for record in found if isinstance(record, Record)]
    assert len(sound) == len(found)
    return sound


def put_record(cloud: Cloud, **changes: Any) -> Record:
    """Put the record of gcr.io/a:1 into the table, with `changes`."""
    request = copy_request()
    record = replace(new_record(request.copy.destination, request.copy.source, NOW), **changes)
    return Records(cloud.dynamodb, "ImageListTable").create(record)


def test_a_new_image_costs_one_round_trip_and_is_recorded(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    [record] = record_all(recorder, copy_request())
    assert record.status is Status.REQUESTED
    assert [to_record(item) for item in cloud.items()] == [record]
    assert records.calls == ["create"]


def test_a_record_keeps_who_made_its_present_request(cloud: Cloud, recorder: Recorder) -> None:
    first, second, third = (f"shop/Pod/{name}" for name in ("first", "second", "third"))
    assert record_all(recorder, copy_request(), requested_by=first)[0].requested_by == first
    [record] = record_all(recorder, copy_request(), requested_by=second)
    assert record.requested_by == first, "a pod that finds the request has not made it"
    Records(cloud.dynamodb, "ImageListTable").replace(record, replace(record, status=Status.FAILED, due_at=None))
    [renewed] = record_all(recorder, copy_request(), now=NOW + HOUR, requested_by=third)
    assert renewed.requested_by == third
    assert [to_record(item) for item in cloud.items()] == [renewed]


def test_a_request_that_no_pod_makes_has_no_requester(cloud: Cloud, recorder: Recorder) -> None:
    put_record(cloud, status=Status.FAILED, error="x", due_at=None, requested_by="shop/Pod/p")
    [record] = record_all(recorder, copy_request(), now=NOW + HOUR)
    assert (record.status, record.requested_by) == (Status.REQUESTED, None)
    assert "requested_by" not in cloud.items()[0]


def test_many_images_are_recorded_at_the_same_time(records: CountingRecords, recorder: Recorder) -> None:
    together = threading.Barrier(10, timeout=60)
    records._call = lambda _name: together.wait()  # type: ignore[assignment,method-assign]
    assert len(record_all(recorder, *(copy_request(f"gcr.io/a:{number}") for number in range(10)))) == 10


def test_a_known_image_costs_no_round_trip_for_sixty_seconds(records: CountingRecords, recorder: Recorder) -> None:
    record_all(recorder, copy_request())
    assert record_all(recorder, copy_request(), now=NOW + 59_999)[0].status is Status.REQUESTED
    assert records.calls == ["create"]
    record_all(recorder, copy_request(), now=NOW + 60_000)
    assert records.calls == ["create", "create"]


def test_a_removed_record_is_believed_for_less_than_a_minute_after_it_was_read_and_then_written_again(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    copied = put_record(cloud, status=Status.COPIED, digest=DIGEST)
    assert record_all(recorder, copy_request()) == [copied]
    assert records.remove(copied), "ECR no longer holds the copy"
    assert record_all(recorder, copy_request(), now=NOW + 59_999) == [copied], "this pod waits for a copy nobody makes"
    assert cloud.items() == []
    [requested] = record_all(recorder, copy_request(), now=NOW + 60_000)
    assert (requested.status, requested.digest) == (Status.REQUESTED, None)
    assert [to_record(item) for item in cloud.items()] == [requested]


def test_a_failed_image_is_never_remembered(cloud: Cloud, records: CountingRecords, recorder: Recorder) -> None:
    put_record(cloud, status=Status.FAILED, error="x", due_at=None)
    for _ in range(2):
        assert record_all(recorder, copy_request())[0].status is Status.FAILED
    assert records.calls == ["create", "create"]


def test_a_copy_that_failed_an_hour_ago_is_asked_for_again(cloud: Cloud, recorder: Recorder) -> None:
    put_record(cloud, status=Status.FAILED, attempts=5, error="x", due_at=None)
    [record] = record_all(recorder, copy_request(), now=NOW + HOUR)
    assert (record.status, record.attempts, record.error, record.due_at) == (Status.REQUESTED, 0, None, NOW + HOUR)
    assert [to_record(item) for item in cloud.items()] == [record]


def test_a_copy_pulled_always_is_refreshed_by_one_more_write_and_stays_in_use(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    put_record(cloud, status=Status.COPIED, digest=DIGEST)
    [record] = record_all(recorder, copy_request(pull_always=True), now=NOW + 24 * HOUR)
    assert (record.status, record.digest, record.requested_at) == (Status.REQUESTED, DIGEST, NOW + 24 * HOUR)
    assert records.calls == ["create", "replace"]
    assert [to_record(item) for item in cloud.items()] == [record]


def test_a_refresh_falls_due_even_while_the_record_is_known(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    put_record(cloud, status=Status.COPIED, digest=DIGEST)
    record_all(recorder, copy_request(pull_always=True), now=NOW + 24 * HOUR - 1000)
    [record] = record_all(recorder, copy_request(pull_always=True), now=NOW + 24 * HOUR)
    assert record.status is Status.REQUESTED
    assert records.calls == ["create", "replace"]


def test_an_item_without_a_status_is_adopted(cloud: Cloud, recorder: Recorder) -> None:
    destination = copy_request().copy.destination
    key = {"repo": {"S": destination.repo}, "tag": {"S": destination.tag}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=key)
    [record] = record_all(recorder, copy_request())
    assert (record.status, record.source) == (Status.REQUESTED, "gcr.io/a:1")
    assert [to_record(item) for item in cloud.items()] == [record]


def test_a_record_removed_while_it_is_renewed_is_created_again(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    existing = put_record(cloud, status=Status.FAILED, error="x", due_at=None)
    original = records.replace

    def gone(old: Record, new: Record) -> Record | None:
        Records(cloud.dynamodb, "ImageListTable").remove(existing)
        return original(old, new)

    records.replace = gone  # type: ignore[method-assign]
    [record] = record_all(recorder, copy_request(), now=NOW + HOUR)
    assert record.status is Status.REQUESTED
    assert [to_record(item) for item in cloud.items()] == [record]


# ---- a pause ----


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": Status.COPIED, "digest": DIGEST}, id="copied"),
        pytest.param({"status": Status.COPIED, "digest": DIGEST, "requested_at": NOW - 9 * DAY}, id="refresh-due"),
        pytest.param({"status": Status.FAILED, "updated_at": NOW - 9 * DAY, "due_at": None}, id="retry-due"),
    ],
)
def test_a_pause_returns_the_record_as_it_is_and_renews_nothing(
    cloud: Cloud, records: CountingRecords, recorder: Recorder, changes: dict[str, Any]
) -> None:
    record = put_record(cloud, **changes)
    before, request = cloud.items(), copy_request(pull_always=True)
    assert recorder.existing([request], now=NOW, seconds=60) == {request.copy.destination: record}
    assert (records.calls, cloud.items()) == (["get"], before)


def test_a_pause_creates_no_record(cloud: Cloud, records: CountingRecords, recorder: Recorder) -> None:
    request = copy_request()
    assert recorder.existing([request], now=NOW, seconds=60) == {request.copy.destination: Missing.ABSENT}
    assert (records.calls, cloud.items()) == (["get"], [])
    assert record_all(recorder, request)[0].status is Status.REQUESTED, "the end of the pause has it requested"


def test_a_pause_uses_a_damaged_record_as_its_repair_would_leave_it_and_does_not_write_it(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    request = copy_request(pull_always=True)
    put_record(cloud, status=Status.COPIED, digest=DIGEST, due_at=None)
    before = cloud.items()
    for _ in range(2):
        [found] = recorder.existing([request], now=NOW, seconds=60).values()
        assert isinstance(found, Record)
        assert (found.digest, found.due_at) == (DIGEST, NOW)
    assert (records.calls, cloud.items()) == (["get", "get"], before), "it is not remembered, so that it is repaired"
    record_all(recorder, request)
    assert "due_at" in cloud.items()[0]


def test_a_pause_reads_a_known_record_once_a_minute(cloud: Cloud, records: CountingRecords, recorder: Recorder) -> None:
    request, record = copy_request(), put_record(cloud, status=Status.COPIED, digest=DIGEST)
    for now in (NOW, NOW + 59_999):
        assert recorder.existing([request], now=now, seconds=60) == {request.copy.destination: record}
    assert records.calls == ["get"]
    recorder.existing([request], now=NOW + 60_000, seconds=60)
    assert records.calls == ["get", "get"]
    assert record_all(recorder, request, now=NOW + 60_000) == [record]


def test_a_pause_reads_as_many_records_as_an_admission_writes_and_reads(records: CountingRecords) -> None:
    requests = [copy_request(f"gcr.io/a:{number}") for number in range(300)]
    found = Recorder(records, Policy(), KnownRecords(), 50).existing(requests, now=NOW, seconds=60)
    assert list(found) == [each.copy.destination for each in requests[:250]]
    assert records.calls == ["get"] * 250


def test_a_pause_whose_table_does_not_answer_is_no_pause_without_records(
    records: CountingRecords, recorder: Recorder
) -> None:
    records.error = ClientError({"Error": {"Code": "InternalServerError"}}, "GetItem")
    with pytest.raises(NotRecordedError):
        recorder.existing([copy_request()], now=NOW, seconds=60)


# ---- a dry run ----


def test_a_dry_run_returns_what_would_be_recorded_and_writes_nothing(
    cloud: Cloud, records: CountingRecords, recorder: Recorder
) -> None:
    assert record_all(recorder, copy_request(), dry_run=True)[0].status is Status.REQUESTED
    assert cloud.items() == []
    failed = put_record(cloud, status=Status.FAILED, error="x", due_at=None)
    assert record_all(recorder, copy_request(), dry_run=True) == [failed]
    assert record_all(recorder, copy_request(), now=NOW + HOUR, dry_run=True)[0].status is Status.REQUESTED
    assert [to_record(item) for item in cloud.items()] == [failed]
    assert set(records.calls) == {"get"}


def test_a_dry_run_leaves_nothing_known(records: CountingRecords, recorder: Recorder) -> None:
    record_all(recorder, copy_request(), dry_run=True)
    record_all(recorder, copy_request())
    assert records.calls == ["get", "create"]


def test_a_table_that_refuses_means_not_recorded_and_the_error_has_the_cause(
    records: CountingRecords, recorder: Recorder
) -> None:
    records.error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "PutItem")
    with pytest.raises(NotRecordedError, match=r"ClientError.*ThrottlingException.*slow down"):
        record_all(recorder, copy_request())


def test_a_bug_is_no_refusal_of_the_table(records: CountingRecords, recorder: Recorder) -> None:
    records.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        record_all(recorder, copy_request())


def test_a_dry_run_believes_what_is_known(records: CountingRecords, recorder: Recorder) -> None:
    record_all(recorder, copy_request())
    assert record_all(recorder, copy_request(), dry_run=True)[0].status is Status.REQUESTED
    later = record_all(recorder, copy_request(), now=NOW + 24 * HOUR, dry_run=True)
    assert later[0].status is Status.REQUESTED
    assert records.calls == ["create", "get"]


def test_a_table_that_hangs_means_not_recorded_in_time(records: CountingRecords, recorder: Recorder) -> None:
    records.gate = threading.Event()
    with pytest.raises(NotRecordedError, match=r"1 of 1 records were not written or read within 0\.05 s"):
        record_all(recorder, copy_request(), seconds=0.05)
    records.gate.set()


def test_no_time_left_means_no_round_trip(records: CountingRecords, recorder: Recorder) -> None:
    with pytest.raises(NotRecordedError, match=r"1 of 1 records were not written"):
        record_all(recorder, copy_request(), seconds=0)
    assert records.calls == []


def test_known_images_are_answered_even_with_no_time_left(recorder: Recorder) -> None:
    record_all(recorder, copy_request())
    assert record_all(recorder, copy_request(), seconds=-1)


def test_what_was_recorded_in_time_is_known_to_the_next_attempt(records: CountingRecords, recorder: Recorder) -> None:
    original, blocked = records.create, threading.Event()

    def create(record: Record) -> Record:
        if record.tag == "slow":
            blocked.wait(60)
        return original(record)

    records.create = create  # type: ignore[method-assign]
    with pytest.raises(NotRecordedError):
        record_all(recorder, copy_request("gcr.io/a:fast"), copy_request("gcr.io/a:slow"), seconds=0.5)
    assert record_all(recorder, copy_request("gcr.io/a:fast"), seconds=-1)
    blocked.set()


def test_memory_is_bounded_and_the_oldest_leave_first() -> None:
    known = KnownRecords(size=3)
    requests = [copy_request(f"gcr.io/a:{number}") for number in range(5)]
    for request in requests:
        known.put(request.copy.destination, new_record(request.copy.destination, request.copy.source, NOW), NOW)
    assert len(known) == 3
    destinations = [request.copy.destination for request in requests]
    assert [known.get(destination, NOW) is not None for destination in destinations] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_ten_thousand_records_are_known_at_most() -> None:
    known = KnownRecords()
    for number in range(10_010):
        request = copy_request(f"gcr.io/a:{number}")
        known.put(request.copy.destination, new_record(request.copy.destination, request.copy.source, NOW), NOW)
    assert len(known) == 10_000


def test_a_record_that_failed_meanwhile_is_forgotten() -> None:
    known = KnownRecords()
    request = copy_request()
    record = new_record(request.copy.destination, request.copy.source, NOW)
    known.put(request.copy.destination, record, NOW)
    known.put(request.copy.destination, replace(record, status=Status.FAILED), NOW + MINUTE)
    assert known.get(request.copy.destination, NOW) is None


def test_calls_after_the_deadline_are_not_begun(
    records: CountingRecords, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A review of very many images: passing them all to threads may take longer than the time that is left.
    times = iter([0.0, 0.1, 0.2, 5.0, 5.0, 5.0])
    monkeypatch.setattr("image_mirror.recorder.monotonic", lambda: next(times))
    with pytest.raises(NotRecordedError, match=r"[234] of 4 records were not written or read within 1\.00 s"):
        record_all(recorder, *(copy_request(f"gcr.io/a:{number}") for number in range(4)), seconds=1)
    assert len(records.calls) <= 2


# ---- pods that name many images ----


def many(*numbers: int, pull_always: bool = False) -> list[CopyRequest]:
    return [copy_request(f"gcr.io/a:{number}", pull_always=pull_always) for number in numbers]


def used(recorder: Recorder, wanted: Sequence[CopyRequest], **more: Any) -> list[str]:
    """Record the copies of a pod, and return the tags of those that it can use, in its order."""
    existing = recorder.record(wanted, **{"now": NOW, "seconds": 60.0, "dry_run": False} | more)
    return [request.copy.destination.tag for request in wanted if request.copy.destination in existing]


def tags(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


@pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry-run"])
def test_the_first_new_images_are_put_the_next_200_are_read_and_no_call_is_made_for_the_rest(
    cloud: Cloud, records: CountingRecords, recorder: Recorder, dry_run: bool
) -> None:
    assert used(recorder, many(*range(300, 0, -1)), dry_run=dry_run) == tags(*range(300, 250, -1))
    if dry_run:
        assert (records.tags["create"], cloud.items()) == ([], [])
        assert sorted(records.tags["get"]) == sorted(tags(*range(300, 50, -1)))
    else:
        assert sorted(records.tags["create"]) == sorted(tags(*range(300, 250, -1)))
        assert sorted(records.tags["get"]) == sorted(tags(*range(250, 50, -1)))
        assert len(cloud.items()) == 50


def test_records_are_read_at_the_same_time_as_others_are_written(records: CountingRecords) -> None:
    together = threading.Barrier(10, timeout=60)
    records._call = lambda _name: together.wait()  # type: ignore[assignment,method-assign]
    assert used(Recorder(records, Policy(), KnownRecords(), 4), many(*range(10))) == tags(*range(4))


@pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry-run"])
@pytest.mark.parametrize(
    ("changes", "pull_always", "is_used"),
    [
        pytest.param({}, False, True, id="requested"),
        pytest.param({"status": Status.COPYING}, False, True, id="copying"),
        pytest.param({"status": Status.COPIED, "digest": DIGEST}, False, True, id="copied"),
        pytest.param({"status": Status.COPIED, "digest": DIGEST}, True, True, id="a-refresh-is-due"),
        pytest.param(
            {"status": Status.FAILED, "updated_at": NOW + DAY, "due_at": None}, False, True, id="failed-a-moment-ago"
        ),
        pytest.param({"status": Status.FAILED, "due_at": None}, False, False, id="failed-long-ago"),
        pytest.param({"status": Status.COPIED, "digest": "x"}, False, False, id="damaged"),
        pytest.param({"status": None}, False, False, id="of-an-older-deployment"),
    ],
)
def test_a_record_that_is_read_is_used_as_it_is_unless_only_a_new_request_would_help(
    cloud: Cloud, records: CountingRecords, changes: dict[str, Any], pull_always: bool, is_used: bool, dry_run: bool
) -> None:
    put_record(cloud, **changes)
    before = cloud.items()
    recorder = Recorder(records, Policy(), KnownRecords(), 1)
    wanted = [copy_request("gcr.io/a:first"), copy_request(pull_always=pull_always)]
    assert used(recorder, wanted, now=NOW + DAY, dry_run=dry_run) == ["first", "1"][: 1 + is_used]
    assert records.tags["replace"] == []
    assert [item for item in cloud.items() if item["tag"] != {"S": "first"}] == before


def test_a_record_that_was_read_is_known_unless_nothing_was_found(cloud: Cloud, records: CountingRecords) -> None:
    put_record(cloud)
    recorder = Recorder(records, Policy(), KnownRecords(), 1)
    for _ in range(2):
        assert used(recorder, many(0, 1, 2)) == tags(0, 1)
    assert records.tags == {"create": ["0"], "get": ["1", "2", "2"], "replace": []}


def test_known_images_do_not_count(cloud: Cloud, records: CountingRecords) -> None:
    recorder = Recorder(records, Policy(), KnownRecords(), 2)
    for first in (0, 2, 4):
        used(recorder, many(first, first + 1), requested_by=f"shop/Pod/{first}")
    assert used(recorder, many(*range(9)), requested_by="shop/Pod/p") == tags(*range(8))
    assert (len(cloud.items()), records.tags["get"]) == (8, ["8"])


def test_a_pod_that_the_api_server_sends_again_gets_no_more_records(cloud: Cloud, records: CountingRecords) -> None:
    recorder = Recorder(records, Policy(), KnownRecords(), 2)
    for seconds in (0, 1, 59):
        assert used(recorder, many(*range(9)), now=NOW + seconds * 1000, requested_by="shop/Pod/p") == tags(0, 1)
    assert len(cloud.items()) == 2
    assert used(recorder, many(*range(9)), requested_by="shop/Pod/q") == tags(0, 1, 2, 3)


def test_what_the_same_controller_requested_more_than_a_minute_ago_does_not_count(cloud: Cloud) -> None:
    recorder = Recorder(Records(cloud.dynamodb, "ImageListTable"), Policy(), KnownRecords(), 2)
    for seconds, numbers in ((0, 2), (61, 2), (62, 4)):
        later = NOW + seconds * 1000
        assert used(recorder, many(*range(numbers)), now=later, requested_by="shop/ReplicaSet/r") == tags(
            *range(numbers)
        )
    assert len(cloud.items()) == 4


def test_copies_that_the_pod_names_already_count(records: CountingRecords, recorder: Recorder) -> None:
    assert used(recorder, many(1, 2, 3), placed=48) == tags(1, 2)
    assert used(recorder, many(4, 5), placed=1000) == []
    assert records.tags["get"] == tags(3, 4, 5)


def test_a_known_copy_whose_refresh_has_no_room_is_used_without_a_call(cloud: Cloud, records: CountingRecords) -> None:
    put_record(cloud, status=Status.COPIED, digest=DIGEST)
    recorder = Recorder(records, Policy(), KnownRecords(), 1)
    used(recorder, many(1), now=NOW + DAY)
    assert used(recorder, many(0, 1, pull_always=True), now=NOW + DAY) == tags(0, 1)
    assert records.calls == ["create", "create"]


def test_a_read_that_hangs_means_not_recorded_in_time(records: CountingRecords) -> None:
    records.gate = threading.Event()
    recorder = Recorder(records, Policy(), KnownRecords(), 1)
    with pytest.raises(NotRecordedError, match=r"3 of 3 records were not written or read within 0\.05 s"):
        used(recorder, many(1, 2, 3), seconds=0.05)
    records.gate.set()


def test_a_read_that_the_table_refuses_means_not_recorded(
    records: CountingRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "GetItem")
    monkeypatch.setattr(records, "get", mock.Mock(side_effect=error))
    with pytest.raises(NotRecordedError, match="ThrottlingException"):
        used(Recorder(records, Policy(), KnownRecords(), 1), many(1, 2))


class MemoryRecords(Records):
    """A table in memory with a record of each status; it remembers which were written and read."""

    def __init__(self, statuses: Sequence[Status | str | None]) -> None:
        self.items = {
            request.copy.destination.tag: replace(
                new_record(request.copy.destination, request.copy.source, NOW - DAY),
                status=status,
                digest=DIGEST if status is Status.COPIED else None,
            )
            for request, status in zip(many(*range(len(statuses))), statuses, strict=True)
            if not isinstance(status, str) or isinstance(status, Status)
        }
        self.written: set[str] = set()
        self.read: set[str] = set()

    def create(self, record: Record) -> Record:
        self.written.add(record.tag)
        return self.items.setdefault(record.tag, record)

    def get(self, repo: str, tag: str) -> Record | None:
        del repo
        self.read.add(tag)
        return self.items.get(tag)

    def replace(self, old: Record, new: Record) -> Record | None:
        assert self.items[old.tag] == old
        self.written.add(new.tag)
        self.items[new.tag] = new
        return new


statuses = st.lists(st.sampled_from([*Status, None, "absent"]), max_size=20)


@given(statuses, st.integers(1, 8), st.integers(0, 4), st.integers(0, 8), st.booleans())
def test_a_pod_writes_no_more_than_its_bound_and_a_repetition_writes_nothing(
    before: list[Any], max_new: int, most_read: int, placed: int, pull_always: bool
) -> None:
    room, wanted = max(0, max_new - placed), many(*range(len(before)), pull_always=pull_always)
    dry, real = MemoryRecords(before), MemoryRecords(before)
    options: dict[str, Any] = {"placed": placed, "requested_by": "shop/Pod/p"}
    with mock.patch("image_mirror.recorder._MOST_READ", most_read):
        promised = used(Recorder(dry, Policy(), KnownRecords(), max_new), wanted, dry_run=True, **options)
        recorder = Recorder(real, Policy(), KnownRecords(), max_new)
        assert used(recorder, wanted, **options) == promised, "a dry run says what the real call does"
    assert dry.written == set()
    assert dry.read == real.written | real.read
    assert real.written == set(tags(*range(min(room, len(before)))))
    assert real.read == set(tags(*range(room, min(room + most_read, len(before)))))
    assert real.written <= set(promised) <= real.written | real.read
    for tag in promised:
        assert real.items[tag].status is not None, "nobody copies it"
    items = dict(real.items)
    with mock.patch("image_mirror.recorder._MOST_READ", most_read):
        # Another instance of the function knows nothing.
        again = Recorder(real, Policy(), KnownRecords(), max_new)
        assert used(again, wanted, **options) == promised
    assert real.items == items
