"""Items that somebody has changed by hand: each ends in a record that is in order, and stops no other copy.

Both functions run on emulated AWS, again and again, while the clock moves. Each build pushes its image.
"""

import base64
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import botocore.client
import pytest
import time_machine
from botocore.exceptions import ClientError

from image_mirror import reconciler, webhook
from image_mirror.cli.commands.status.estimate import under_way
from image_mirror.cli.commands.status.one import full, one_copy
from image_mirror.cli.commands.status.records import by_attention, listing, needs_attention, record_row, table
from image_mirror.cli.output import Output, as_data
from image_mirror.codebuild import Builds
from image_mirror.decisions import Mirror
from image_mirror.ecr import Repositories
from image_mirror.record import DAY, Policy, Record, Status, asked_again
from image_mirror.repair import repaired
from image_mirror.rules import parse_rules
from image_mirror.table import Item, Records, to_item, to_record
from support.clock import NOON
from support.cloud import REGISTRY, Cloud
from support.damaged import COPIED, COPYING, DUE, FAILED, REQUESTED, changed_item, damaged_items, number
from support.reviews_data import event_of, images_of, made_pod, review_of

REPO = f"{REGISTRY}/mirror/gcr.io/team/app"
SOURCE = "gcr.io/team/app:1"
OTHER = "gcr.io/other/app:1"
Published = Callable[[], dict[str, list[float]]]


item: Callable[..., Item] = partial(changed_item, REPO, SOURCE, NOON)
KINDS = damaged_items(REPO, SOURCE, NOON, another=OTHER)
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
# No pod asks for these, but the index has no entry either, so the schedule cannot find them.
LEFT_TO_THE_NEXT_POD = [name for name, kind in KINDS.items() if kind.get("due") != DUE or "due_at" not in kind]


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 120_000


class World:
    """Both functions, the clock, and the calls that were made: by operation, and for writes only those of REPO."""

    def __init__(self, cloud: Cloud, clock: time_machine.Traveller, calls: Counter[str], built: list[str]) -> None:
        self.cloud = cloud
        self.clock = clock
        self.calls = calls
        self.built = built

    def put(self, damaged: Item) -> None:
        self.cloud.dynamodb.put_item(TableName="ImageListTable", Item=damaged)
        self.calls.clear()

    def record(self) -> Record:
        return to_record(self.item())

    def item(self) -> Item:
        [found] = [each for each in self.cloud.items() if each["repo"]["S"] == REPO]
        return found

    def admit(self, *images: str) -> tuple[list[str], list[str]]:
        """Create a pod with these images. Return the images that it gets and the warnings.

        Like the API server, call again after a 503: on a slow machine an answer can come too late.
        """
        review = review_of(made_pod({str(number): image for number, image in enumerate(images)}))
        for _ in range(11):
            answered = webhook.handler(event_of(review, time_epoch=int(time.time() * 1000)), None)
            if answered["statusCode"] != 503:
                break
        assert answered["statusCode"] == 200, answered
        response = json.loads(answered["body"])["response"]
        given = images_of(review["request"]["object"])
        for each in json.loads(base64.b64decode(response.get("patch", "W10="))):
            if each["path"].endswith("/image"):
                given[f"containers/{each['path'].split('/')[3]}"] = each["value"]
        return list(given.values()), response.get("warnings", [])

    def minutes(self, *pauses: int) -> None:
        """Run the schedule after each of these pauses."""
        for pause in pauses:
            self.clock.shift(pause * 60)
            reconciler.handler({"source": "aws.events"}, Context())


@pytest.fixture
def world(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    calls: Counter[str] = Counter()
    built: list[str] = []
    make, start = botocore.client.BaseClient._make_api_call, Builds.start  # type: ignore[attr-defined]

    def count(client: Any, operation: str, request: Any) -> Any:
        key = request.get("Key", request.get("Item", {}))
        if "repo" not in key or (key["repo"]["S"] == REPO and operation != "GetItem"):
            calls[operation] += 1
        return make(client, operation, request)

    def build(builds: Builds, record: Record) -> str:
        build_id = start(builds, record)
        built.append(record.source)
        cloud.push(record.repo.partition("/")[2], record.tag, record.source)
        return build_id

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", count)
    monkeypatch.setattr(Builds, "start", build)
    monkeypatch.setattr(webhook, "seconds_left", lambda *_: 600.0)  # a slow machine is no failure
    for function in (webhook, reconciler):
        function.load.cache_clear()
    with time_machine.travel(NOON / 1000, tick=False) as clock:
        yield World(cloud, clock, calls, built)
    for function in (webhook, reconciler):
        function.load.cache_clear()


def assert_in_order(found: Item, now: int) -> None:
    record = to_record(found)
    assert record.raw is None
    assert repaired(record, SOURCE, now, Policy()) is record
    assert found == to_item(record), "and nothing else"
    assert record.status is Status.COPIED, record
    assert (record.source, record.error) == (SOURCE, None)


@each_kind
def test_a_pod_gets_a_copy_whatever_somebody_wrote_and_so_does_the_next_image(
    world: World, published: Published, kind: Item
) -> None:
    world.put(kind)
    given, _ = world.admit(SOURCE, OTHER)
    assert given[1] == f"{REGISTRY}/mirror/{OTHER}", "the other image is not affected"
    world.minutes(*[1] * 4, 70)
    world.admit(SOURCE, OTHER)  # a FAILED copy is requested again
    world.minutes(1, 1, 1)
    assert_in_order(world.item(), int(time.time() * 1000))
    given, warnings = world.admit(SOURCE, OTHER)
    assert given == [f"{REGISTRY}/mirror/{SOURCE}", f"{REGISTRY}/mirror/{OTHER}"]
    assert warnings == []
    assert Counter(world.built)[OTHER] == 1
    assert Counter(world.built)[SOURCE] <= 1
    assert "StepErrors" not in published()


@each_kind
def test_no_damage_makes_work_for_ever(world: World, kind: Item) -> None:
    """No pod is created after the damage: the schedule repairs what its index has, and leaves the rest alone."""
    world.put(kind)
    world.minutes(*[1] * 5, 600, 1_000)
    assert world.calls["UpdateItem"] + world.calls["DeleteItem"] <= 8
    assert world.calls["StartBuild"] <= 1
    before = dict(world.calls)
    world.minutes(1, 1, 1)
    assert world.calls["StartBuild"] == before.get("StartBuild", 0)
    assert world.calls["UpdateItem"] == before.get("UpdateItem", 0)
    reads = world.calls["Query"] - before["Query"]
    assert reads == 6, "each of the three runs reads the index twice"


def test_what_the_index_has_is_repaired_without_a_pod(world: World, published: Published) -> None:
    for name, kind in KINDS.items():
        if name not in LEFT_TO_THE_NEXT_POD:
            key = {"repo": {"S": f"{REPO}/{len(world.cloud.items())}"}, "tag": {"S": "1"}}
            source = key["repo"]["S"].removeprefix(f"{REGISTRY}/mirror/") + ":1"
            sound = kind.get("source") == {"S": SOURCE}
            world.put({**kind, **key, **({"source": {"S": source}} if sound else {})})
    count = len(world.cloud.items())
    assert count >= 32
    world.minutes(*[1] * 10)
    found = published()
    assert "StepErrors" not in found
    assert sum(found["RecordsRepaired"]) >= count - 5
    left = [to_record(each) for each in world.cloud.items()]
    assert all(each.raw is None for each in left)
    assert {each.status for each in left} <= {Status.COPIED, Status.FAILED}
    assert all(each.due_at is None or NOON < each.due_at < NOON + 2 * DAY for each in left)
    assert len(world.built) == len(set(world.built)) <= count


# ---- writes that fail ----


def change_by_hand(world: World, **attributes: Any) -> None:
    """Change the item of REPO between a read and the write after it."""
    world.cloud.dynamodb.update_item(
        TableName="ImageListTable",
        Key={"repo": {"S": REPO}, "tag": {"S": "1"}},
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in attributes),
        ExpressionAttributeValues={f":{name}": value for name, value in attributes.items()},
    )


def test_a_write_that_fails_although_the_item_reads_the_same_is_logged_counted_and_made(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    world.put(item(REQUESTED))
    start = Builds.start

    def start_slowly(builds: Builds, record: Record) -> str:
        change_by_hand(world, attempts=number("0.5"))
        return start(builds, record)

    monkeypatch.setattr(Builds, "start", start_slowly)
    world.minutes(0)
    assert world.record().status is COPYING
    assert world.item() == to_item(world.record()), "the item is written whole"
    found = published()
    assert found["RecordsRepaired"] == [1]
    assert found["BuildsStarted"] == [1]
    assert '"reason":"a write failed although nothing had changed"' in logged.getvalue()
    world.minutes(*[1] * 10)
    assert world.record().status is COPIED
    assert len(world.built) == 1


def test_a_removal_that_fails_although_the_item_reads_the_same_is_counted_and_made(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(item(COPIED))
    image = Repositories.image

    def look_slowly(repositories: Repositories, record: Record) -> Any:
        change_by_hand(world, attempts=number("0.5"))
        return image(repositories, record)

    monkeypatch.setattr(Repositories, "image", look_slowly)
    world.minutes(0)
    assert world.cloud.items() == []
    found = published()
    assert (found["RecordsRepaired"], found["CopiesGone"]) == ([1], [1])


def test_a_pod_s_write_that_fails_although_the_item_reads_the_same_is_counted_and_made(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(item(FAILED, updated_at=number(NOON - DAY)))
    create = Records.create

    def create_slowly(records: Records, record: Record) -> Record:
        found = create(records, record)
        change_by_hand(world, attempts=number("0.5"))
        return found

    monkeypatch.setattr(Records, "create", create_slowly)
    given, _ = world.admit(SOURCE)
    assert given == [f"{REGISTRY}/mirror/{SOURCE}"]
    assert world.item() == to_item(world.record())
    assert world.record().status is REQUESTED
    assert published()["RecordsRepaired"] == [1]


@pytest.fixture(params=["the condition never holds", "the item cannot be written"])
def refusing(world: World, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    """Return a world whose table refuses each change of REPO's item."""
    make = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]

    def refuse(client: Any, operation: str, asked: Any) -> Any:
        if operation not in ("UpdateItem", "DeleteItem") or asked["Key"]["repo"]["S"] != REPO:
            return make(client, operation, asked)
        world.calls[operation] += 1
        error = {"Code": "ValidationException", "Message": "Item size to update has exceeded the maximum allowed size"}
        answer: dict[str, Any] = {"Error": error}
        if request.param == "the condition never holds":
            answer = {"Error": {"Code": "ConditionalCheckFailedException", "Message": "no"}, "Item": world.item()}
        raise ClientError(answer, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)
    return world


def test_an_image_whose_record_cannot_be_used_stays_as_written_and_the_others_do_not(
    refusing: World, published: Published, logged: io.StringIO
) -> None:
    refusing.put(item(COPIED, attempts=number("1.5")))
    given, warnings = refusing.admit(OTHER, SOURCE, "gcr.io/third:1")
    assert given == [f"{REGISTRY}/mirror/{OTHER}", SOURCE, f"{REGISTRY}/mirror/gcr.io/third:1"]
    assert f"{SOURCE} stays as written: its record in the table cannot be used" in warnings
    assert len(warnings) == 3
    refusing.clock.shift(1)
    refusing.admit(SOURCE)
    assert sum(published()["RecordsUnusable"]) == 2
    assert '"message":"record unusable"' in logged.getvalue()
    assert '"state":"UNUSABLE"' in logged.getvalue(), "the audit log says so too"


def test_no_build_is_started_for_a_record_that_cannot_be_written(refusing: World, published: Published) -> None:
    refusing.put(item(REQUESTED, attempts=number("1.5")))
    refusing.cloud.dynamodb.put_item(
        TableName="ImageListTable",
        Item=item(REQUESTED, repo={"S": f"{REGISTRY}/mirror/gcr.io/other/app"}, source={"S": OTHER}),
    )
    refusing.minutes(*[1] * 10)
    assert refusing.built == [OTHER], "and the next record is not affected"
    assert published()["StepErrors"] == [1] * 10
    assert refusing.calls["UpdateItem"] <= 2 * 10


# ---- names ----


@pytest.mark.parametrize(
    ("repo", "tag"),
    [
        pytest.param(f"{REGISTRY}/mirror/Team/app", "1", id="no host, upper case"),
        pytest.param(f"{REGISTRY}/mirror/", "1", id="the prefix alone"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/a", "a tag\n", id="no tag"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/A", "1", id="a path in upper case"),
    ],
)
@pytest.mark.parametrize("status", [REQUESTED, COPYING, COPIED])
def test_a_record_that_no_image_can_have_ends_as_failed(
    world: World, published: Published, status: Status, repo: str, tag: str
) -> None:
    world.put(item(status, repo={"S": repo}, tag={"S": tag}))
    world.minutes(*[1] * 5)
    [found] = map(to_record, world.cloud.items())
    assert (found.status, found.due_at, found.error) == (FAILED, None, "no image has a copy of this name")
    assert published()["RecordsRepaired"] == [1]
    assert world.built == []


def test_what_is_not_served_any_more_is_written_once_whatever_it_is(world: World) -> None:
    for serial, kind in enumerate(KINDS.values()):
        world.put({**kind, "repo": {"S": f"{REGISTRY}/older/gcr.io/team/app"}, "tag": {"S": str(serial)}})
    world.minutes(0, 1)
    before = world.cloud.items()
    left = [each for each in before if each.get("due") == DUE and "due_at" in each and to_record(each).raw]
    assert left == []
    world.minutes(1, 1, 1)
    assert world.cloud.items() == before
    assert world.calls["StartBuild"] == 0


# ---- the commands ----


def test_every_command_that_reads_the_table_reads_damaged_items_too(world: World) -> None:
    records = Records(world.cloud.dynamodb, "ImageListTable")
    for serial, kind in enumerate(KINDS.values()):
        world.put({**kind, "tag": {"S": str(serial)}})
    found = [record for page in records.pages() for record in page]
    assert len(found) == len(KINDS)
    assert json.loads(as_data([asdict(record_row(record, {})) for record in found], Output.JSON))
    assert len(list(table(by_attention(found), {}, NOON, wide=True))) == len(KINDS) + 1
    assert len(listing(by_attention(found), {}, NOON, 80, wide=True)) == len(KINDS) + 1
    under_way(found, {}, NOON)
    for record in found:
        assert list(
            full(
                one_copy(record, None, Mirror(REGISTRY, "mirror", parse_rules("gcr.io")), NOON, role_pushes=False), NOON
            )
        )
        needs_attention(record, NOON)
        assert records.remove(record), record
    assert world.cloud.items() == []


@each_kind
def test_a_record_is_retried_and_put_back_whatever_it_was(world: World, kind: Item) -> None:
    world.put(kind)
    records = Records(world.cloud.dynamodb, "ImageListTable")
    [[found]] = records.pages()
    again = asked_again(found, NOON)
    if again is not None:
        assert records.replace(found, again) is again
        assert world.record() == again
        assert world.record().raw is None
        found = again
    assert records.remove(found)
    assert records.create(found) is found
    assert world.record().raw is None
