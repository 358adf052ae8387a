"""The table: each write succeeds only if the item has not changed since it was read."""

from dataclasses import fields, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from image_mirror import table
from image_mirror.record import Lane, Record, Status
from image_mirror.slots import Refusal, Slots, State
from image_mirror.state_item import state_item
from image_mirror.table import Item, Records, UnusableRecordError, to_item, to_record
from support.cloud import REGISTRY, Cloud

REPO = f"{REGISTRY}/mirror/gcr.io/a"
FULL = Record(
    repo=REPO,
    tag="1",
    source="gcr.io/a:1",
    status=Status.COPYING,
    requested_at=1000,
    updated_at=2000,
    attempts=2,
    waits=3,
    build_id="ImagePullProject:1",
    digest="sha256:" + "a" * 64,
    error="NOT_FOUND: manifest unknown",
    due_at=3000,
    same_result="UNREACHABLE 2",
    open_build="ImagePullProject:2",
    pushed="sha256:" + "c" * 64,
    signatures="1 of 2: UNREACHABLE",
    requested_by="shop/ReplicaSet/web-5d9c",
    failing_since=1_800_000_000_789,
    failures=2,
    unexpected=f"sha256:{'c' * 64} sha256:{'a' * 64} 2000",
    lane=Lane.FAST,
    claimed_at=1900,
    not_fast="OUT_OF_TIME",
)


@pytest.fixture
def records(cloud: Cloud) -> Records:
    return Records(cloud.dynamodb, "ImageListTable")


def test_an_item_says_all_that_a_record_says() -> None:
    assert all(getattr(FULL, field.name) for field in fields(FULL) if field.init), "a new field needs a value here"
    assert to_record(to_item(FULL)) == FULL


def test_an_older_release_leaves_what_it_does_not_know(
    cloud: Cloud, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.create(FULL)
    with monkeypatch.context() as older:
        older.delitem(table._TYPES, "unexpected")
        older.setattr(table, "_OURS", tuple(name for name in table._OURS if name != "unexpected"))
        found = records.get(REPO, "1")
        assert found == replace(FULL, unexpected=None)
        assert found.raw is None
        records.replace(found, replace(found, status=Status.COPIED, updated_at=9))
    assert [to_record(item) for item in cloud.items()] == [replace(FULL, status=Status.COPIED, updated_at=9)]


def test_only_what_is_due_has_the_keys_of_the_index() -> None:
    assert to_item(FULL)["due"] == {"S": "DUE"}
    assert {"due", "due_at"}.isdisjoint(to_item(replace(FULL, due_at=None)))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({}, Record(repo=REPO, tag="1"), id="older deployment"),
        pytest.param({"status": {"S": "LOST"}}, Record(repo=REPO, tag="1"), id="unknown status"),
        pytest.param({"status": {"N": "1"}, "digest": {"BOOL": True}}, Record(repo=REPO, tag="1"), id="other types"),
        pytest.param({"owner": {"S": "me"}}, Record(repo=REPO, tag="1"), id="unknown attribute"),
    ],
)
def test_an_item_of_another_shape_reads_as_far_as_it_can_be_read(
    attributes: dict[str, dict[str, object]], expected: Record
) -> None:
    assert to_record({"repo": {"S": REPO}, "tag": {"S": "1"}, **attributes}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("3", 3, id="whole"),
        pytest.param("1.5", 1, id="a fraction"),
        pytest.param("1E-130", 0, id="tiny"),
        pytest.param("-3", 0, id="below zero"),
        pytest.param("-1E+125", 0, id="huge and below zero"),
        pytest.param("9007199254740993.5", 10**15, id="above 2**53"),
        pytest.param("1E+125", 10**15, id="huge"),
        pytest.param("NaN", 0, id="no number"),
        pytest.param("Infinity", 10**15, id="without end"),
        pytest.param("many", 0, id="a word"),
    ],
)
def test_a_number_reads_as_the_nearest_one_that_a_record_can_have(text: str, expected: int) -> None:
    record = to_record({**to_item(FULL), "attempts": {"N": text}})
    assert record.attempts == expected
    assert (record.raw is None) == (text == "3")


@pytest.mark.parametrize(
    ("changes", "damaged"),
    [
        pytest.param({}, False, id="in order"),
        pytest.param({"attempts": None, "waits": None, "digest": None}, False, id="from an older release"),
        pytest.param({"owner": {"S": "me"}}, False, id="an attribute of another owner"),
        pytest.param({"owner": {"S": "x" * 200_000}}, True, id="an attribute that leaves too little room"),
        pytest.param({"digest": {"N": "1"}}, True, id="another type"),
        pytest.param({"error": {"S": ""}}, True, id="an empty text"),
        pytest.param({"due": None}, True, id="not in the index"),
        pytest.param({"due_at": None}, True, id="in the index without a time"),
        pytest.param({"due": {"S": "LATER"}}, True, id="elsewhere in the index"),
        pytest.param({"status": {"S": "LOST"}}, True, id="unknown status"),
    ],
)
def test_a_record_keeps_an_item_that_it_would_not_be_written_as(changes: Item, damaged: bool) -> None:
    found = {name: value for name, value in {**to_item(FULL), **changes}.items() if value is not None}
    record = to_record(found)
    assert (record.raw is not None) == damaged
    assert replace(record).raw is None, "it belongs to what was read"
    assert "raw" not in repr(record)


def test_the_first_to_create_a_record_wins_and_the_second_gets_the_existing_one(cloud: Cloud, records: Records) -> None:
    first, second = FULL, replace(FULL, requested_at=5000)
    assert records.create(first) is first
    assert records.create(second) == first
    assert [to_record(item) for item in cloud.items()] == [first]


def test_an_error_of_the_table_is_not_taken_for_a_lost_race(records: Records) -> None:
    with pytest.raises(ClientError, match="ResourceNotFound"):
        Records(records._client, "NoSuchTable").create(FULL)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        Records(records._client, "NoSuchTable").replace(FULL, replace(FULL, updated_at=9))
    with pytest.raises(ClientError, match="ResourceNotFound"):
        Records(records._client, "NoSuchTable").remove(FULL)


def test_a_record_is_replaced_if_it_has_not_changed(records: Records) -> None:
    records.create(FULL)
    new = replace(FULL, status=Status.FAILED, updated_at=4000, digest=None, due_at=None)
    assert records.replace(FULL, new) is new
    assert records.get(REPO, "1") == new


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": Status.COPIED}, id="status"),
        pytest.param({"requested_at": 1001}, id="requested_at"),
        pytest.param({"updated_at": 2001}, id="updated_at"),
        pytest.param({"attempts": 3}, id="attempts"),
        pytest.param({"build_id": "ImagePullProject:2"}, id="another build"),
        pytest.param({"build_id": None}, id="no build"),
        pytest.param({"digest": "sha256:" + "b" * 64}, id="another digest"),
        pytest.param({"digest": None}, id="no digest"),
        pytest.param({"claimed_at": 1901}, id="claimed by another run in the same millisecond"),
        pytest.param({"claimed_at": None}, id="no longer claimed"),
    ],
)
def test_a_write_fails_if_anything_changed_in_between(records: Records, change: dict[str, object]) -> None:
    current = replace(FULL, **change)  # type: ignore[arg-type]
    records.create(current)
    assert records.replace(FULL, replace(FULL, updated_at=4000)) == current
    assert records.remove(FULL) is False
    assert records.get(REPO, "1") == current


DAMAGED: Item = {
    **to_item(FULL),
    "requested_at": {"N": "9007199254740993.5"},
    "updated_at": {"N": "2000.25"},
    "attempts": {"S": "two"},
    "build_id": {"L": [{"N": "1"}]},
    "digest": {"NULL": True},
    "owner": {"S": "me"},
}


def put(cloud: Cloud, item: Item) -> None:
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)


@pytest.mark.parametrize("item", [DAMAGED, {**DAMAGED, "status": {"S": "LOST"}}], ids=["known", "unknown status"])
def test_a_condition_compares_what_was_read_and_a_write_leaves_nothing_of_it(
    cloud: Cloud, records: Records, item: Item
) -> None:
    put(cloud, item)
    found = records.get(REPO, "1")
    assert found is not None
    assert records.replace(found, FULL) is FULL
    assert cloud.items() == [{**to_item(FULL), "owner": {"S": "me"}}]
    put(cloud, item)
    assert records.remove(found) is True


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"updated_at": {"N": "2000.5"}}, id="another fraction"),
        pytest.param({"requested_at": {"N": "1E+125"}}, id="another huge number"),
        pytest.param({"attempts": {"S": "three"}}, id="another text"),
        pytest.param({"digest": {"BOOL": False}}, id="another type"),
    ],
)
def test_a_write_fails_if_an_item_changed_in_between_although_it_reads_the_same(
    cloud: Cloud, records: Records, change: Item
) -> None:
    put(cloud, DAMAGED)
    found = records.get(REPO, "1")
    assert found is not None
    put(cloud, {**DAMAGED, **change})
    assert records.remove(found) is False
    again = records.replace(found, FULL)
    assert again == found
    assert again is not FULL
    assert records.replace(again, FULL) is FULL


def test_what_takes_the_room_of_a_record_is_removed_by_a_write_whatever_its_name(
    cloud: Cloud, records: Records
) -> None:
    put(cloud, {**to_item(FULL), "a note. of mine": {"S": "x" * 390_000}})
    found = records.get(REPO, "1")
    assert found == FULL
    new = replace(FULL, error="x" * 1_000)
    assert records.replace(found, new) is new
    assert cloud.items() == [to_item(new)]


def test_an_item_that_cannot_be_written_has_its_own_error(records: Records) -> None:
    records.create(FULL)
    with pytest.raises(UnusableRecordError, match=f"{REPO}:1: .*ValidationException"):
        records.replace(FULL, replace(FULL, error="x" * 500_000))


def test_a_record_that_was_removed_is_not_written_again(cloud: Cloud, records: Records) -> None:
    legacy = Record(repo=REPO, tag="1")
    assert records.replace(FULL, replace(FULL, updated_at=4000)) is None
    assert records.replace(legacy, FULL) is None
    assert cloud.items() == []


def test_an_item_of_an_older_deployment_is_adopted_with_all_it_holds(cloud: Cloud, records: Records) -> None:
    item = {"repo": {"S": REPO}, "tag": {"S": "1"}, "owner": {"S": "me"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    current = records.create(FULL)
    assert current.status is None
    assert records.replace(current, FULL) is FULL
    assert cloud.items() == [{**to_item(FULL), "owner": {"S": "me"}}]


def test_writing_an_unchanged_record_writes_nothing(records: Records) -> None:
    assert records.replace(FULL, replace(FULL)) == FULL
    assert records.get(REPO, "1") is None


def test_a_removed_record_is_gone(cloud: Cloud, records: Records) -> None:
    records.create(FULL)
    assert records.remove(FULL) is True
    assert cloud.items() == []


def test_what_is_due_comes_oldest_first_over_all_pages(records: Records) -> None:
    for number in range(30):
        records.create(replace(FULL, tag=str(number), due_at=1000 + number, error="x" * 100))
    records.create(replace(FULL, tag="later", due_at=9000))
    records.create(replace(FULL, tag="never", due_at=None))
    assert list(records.due(1028)) == [(REPO, str(number), 1000 + number) for number in range(29)]


def test_an_entry_of_the_index_that_somebody_wrote_hides_no_other(cloud: Cloud, records: Records) -> None:
    odd = {"0": "-1E+125", "1": "-3", "3": "1000.5", "5": "9007199254740993.5", "6": "1E+125"}
    for tag, number in odd.items():
        put(cloud, {**to_item(replace(FULL, tag=tag)), "due_at": {"N": number}, "status": {"N": "1"}})
    for tag, due_at in (("2", 1000), ("4", 1001), ("later", 2000)):
        records.create(replace(FULL, tag=tag, due_at=due_at))
    assert list(records.due(1500)) == [(REPO, str(tag), at) for tag, at in enumerate((0, 0, 1000, 1000, 1001))]
    assert list(records.due_after(2000)) == [(REPO, "5", 10**15), (REPO, "6", 10**15)]


def test_many_records_are_read_at_once_and_those_that_a_throttled_table_leaves_out_one_by_one(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(cloud.dynamodb, "ImageListTable")
    for number in range(150):
        records.create(replace(FULL, tag=str(number)))
    ask, asked = cloud.dynamodb.batch_get_item, list[int]()

    def throttled(RequestItems: Any) -> Any:  # noqa: N803 - its name in AWS
        keys = RequestItems["ImageListTable"]["Keys"]
        assert RequestItems["ImageListTable"]["ConsistentRead"]
        asked.append(len(keys))
        some: Any = {"ImageListTable": {"Keys": keys[1:], "ConsistentRead": True}}
        return ask(RequestItems=some) | {"UnprocessedKeys": {"ImageListTable": {"Keys": keys[:1]}}}

    monkeypatch.setattr(cloud.dynamodb, "batch_get_item", throttled)
    wanted = [*((REPO, str(number)) for number in range(151)), (REPO, "3")]
    found = records.get_all(wanted)
    assert found == {(REPO, str(number)): replace(FULL, tag=str(number)) for number in range(150)}
    assert asked == [100, 51]


def test_no_record_at_all_is_asked_for(records: Records) -> None:
    assert records.get_all([]) == {}


def test_an_adopted_item_is_due_whatever_its_attributes_were(cloud: Cloud, records: Records) -> None:
    item = {"repo": {"S": REPO}, "tag": {"S": "1"}, "status": {"S": "NEW"}, "due_at": {"N": "3"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    found = records.create(FULL)
    assert records.replace(found, FULL) is FULL
    assert list(records.due(FULL.due_at or 0)) == [(REPO, "1", FULL.due_at)]
    cloud.dynamodb.update_item(
        TableName="ImageListTable",
        Key={"repo": {"S": REPO}, "tag": {"S": "1"}},
        UpdateExpression="SET due_at = :half",
        ExpressionAttributeValues={":half": {"N": "4.5"}},
    )
    assert list(records.due(4)) == []
    assert list(records.due(5)) == [(REPO, "1", 4)], "written by hand, but listed too"


def test_all_records_are_read_page_by_page_whatever_else_their_items_hold(cloud: Cloud, records: Records) -> None:
    many = [replace(FULL, tag=str(number), error="x" * 10_000) for number in range(120)]
    for record in many:
        records.create(record)
    foreign = {"owner": {"S": "me"}, "attempts": {"N": "1.5"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item={"repo": {"S": REPO}, "tag": {"S": "older"}, **foreign})
    pages = list(records.pages())
    assert len(pages) > 1
    found = {record.tag: record for page in pages for record in page}
    assert found.pop("older") == Record(repo=REPO, tag="older", attempts=1)
    assert found == {record.tag: record for record in many}


# ---- after a rollback ----

# What the release before the slots reads of an item: each attribute with its type. It ignores all others.
OLDER = {
    **dict.fromkeys(("repo", "tag", "source", "status", "build_id", "digest", "error", "due"), "S"),
    **dict.fromkeys(("requested_at", "updated_at", "attempts", "waits", "due_at"), "N"),
}


@pytest.mark.parametrize("status", list(Status))
def test_an_older_release_finds_each_record_and_each_attribute_that_it_needs(status: Status) -> None:
    item = to_item(replace(FULL, status=status, due_at=None if status is Status.FAILED else FULL.due_at))
    for name, kind in OLDER.items():
        if status is Status.FAILED and name in ("due", "due_at"):
            assert name not in item, "it does not look at a FAILED record"
        else:
            assert list(item[name]) == [kind], name


def test_an_older_release_takes_the_state_for_no_record() -> None:
    """It reads an item that the index has, that the stream's filter passes (a status), or that an image is named by."""
    item = state_item(
        State(at=1, refusal=Refusal(at=1, build="p:1"), oldest=(("r", "t"),), main=Slots(out={"shop": 3}))
    )
    assert not item.keys() & {"status", "source", "due", "due_at"}
    assert "/" not in item["repo"]["S"], "each copy has a registry and a repository"
