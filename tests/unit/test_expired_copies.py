"""The reconciler removes the record of a copy that nobody uses, then the copy: on emulated AWS, as the clock moves."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import time_machine
from botocore.exceptions import EndpointConnectionError

from image_mirror import reconciler
from image_mirror.cli.emulation import Context
from image_mirror.ecr import Repositories
from image_mirror.expiry import signature_tags
from image_mirror.reconciler import RESERVE
from image_mirror.record import DAY, HOUR, Record, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import Records
from support.clock import NOON
from support.cloud import REGISTRY, Cloud
from support.lifecycle_policies import RELEASED

NAME = "mirror/gcr.io/team/app"
DIGEST, SECOND, THIRD = (f"sha256:{letter * 64}" for letter in "abc")
SIGNATURE = signature_tags(DIGEST)[0]
LATER = NOON + 31 * DAY
Published = Callable[[], dict[str, list[float]]]


class Mirror:
    """A copy in ECR with its record, both made at NOON, and the reconciler."""

    def __init__(self, cloud: Cloud, clock: time_machine.Traveller) -> None:
        self.cloud = cloud
        self.clock = clock
        self.records = Records(cloud.dynamodb, "ImageListTable")
        cloud.ecr.create_repository(repositoryName=NAME)

    def copy(self, image: str = "gcr.io/team/app:1") -> Record:
        """Make a copy and its record, which is due now."""
        source = parse_reference(image)
        record = new_record(destination_of(source, REGISTRY, "mirror"), source, NOON)
        record = replace(record, status=Status.COPIED, digest=DIGEST)
        self.push(record.tag, DIGEST)
        assert self.records.create(record) is record
        return record

    def push(self, tag: str | None, digest: str) -> None:
        manifest = json.dumps({"schemaVersion": 2, "config": {}, "layers": [], "annotations": {"of": digest}})
        self.cloud.ecr.put_image(
            repositoryName=NAME,
            **({} if tag is None else {"imageTag": tag}),
            imageManifest=manifest,
            imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
            imageDigest=digest,
        )

    def images(self) -> int:
        return len(self.cloud.ecr.describe_images(repositoryName=NAME)["imageDetails"])

    def tags(self) -> list[str]:
        found = self.cloud.ecr.describe_images(repositoryName=NAME)["imageDetails"]
        return sorted(tag for image in found for tag in image.get("imageTags", ()))

    def run(self, at: int = LATER) -> None:
        """Run the schedule at a time."""
        self.clock.move_to(at / 1000)
        reconciler.handler({"source": "aws.events"}, Context())

    def record(self) -> Record | None:
        found = [self.records.get(item["repo"]["S"], item["tag"]["S"]) for item in self.cloud.items()]
        return found[0] if found else None


@pytest.fixture
def mirror(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("EXPIRE_DAYS", "30")
    reconciler.load.cache_clear()
    with time_machine.travel(NOON / 1000, tick=False) as clock:
        yield Mirror(cloud, clock)
    reconciler.load.cache_clear()


def test_the_record_goes_first_then_the_copy_and_it_is_logged_and_counted(
    mirror: Mirror, logged: io.StringIO, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = mirror.copy()
    mirror.push(SIGNATURE, SECOND)
    mirror.push("other", THIRD)
    delete = Repositories.delete
    seen: list[int] = []

    def deleted(*arguments: Any) -> int:
        seen.append(len(mirror.cloud.items()))
        return delete(*arguments)

    monkeypatch.setattr(Repositories, "delete", deleted)
    mirror.run(NOON + 30 * DAY)
    assert (mirror.tags(), seen) == (["1", "other", SIGNATURE], [])
    assert published()["Due"] == [1]
    mirror.run()
    assert (mirror.record(), mirror.tags(), seen) == (None, ["other"], [0])
    line = next(line for line in map(json.loads, logged.getvalue().splitlines()) if line["message"] == "record changed")
    assert (line["image"], line["copy"]) == ("gcr.io/team/app:1", record.destination)
    assert (line["before"], line["after"], line["reason"]) == ("COPIED", "expired", "not used since 2026-09-21")


def test_the_count_of_expired_copies_is_not_that_of_lost_ones(mirror: Mirror, published: Published) -> None:
    mirror.copy()
    mirror.run()
    found = published()
    assert found["CopiesExpired"] == [1]
    assert "CopiesGone" not in found


@pytest.mark.parametrize(
    ("digests", "left"), [pytest.param("false", True, id="as-shipped"), pytest.param("true", False, id="ExpireDigests")]
)
def test_a_copy_by_digest_expires_only_if_the_parameter_says_so(
    digests: str, left: bool, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPIRE_DIGESTS", digests)
    mirror.copy("gcr.io/team/app@" + DIGEST)
    mirror.run()
    assert (mirror.record() is not None, len(mirror.tags())) == (left, int(left))


def test_without_expire_days_nothing_expires(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPIRE_DAYS", "0")
    mirror.copy()
    mirror.run(NOON + 3650 * DAY)
    assert mirror.record() is not None
    assert mirror.tags() == ["1"]


def test_a_copy_whose_record_a_pod_has_just_changed_stays(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    record = mirror.copy()
    image = Repositories.image

    def look_slowly(repositories: Repositories, one: Record) -> Any:
        found = image(repositories, one)
        requested = replace(record, status=Status.REQUESTED, requested_at=LATER, updated_at=LATER)
        assert mirror.records.replace(record, requested) is requested
        return found

    monkeypatch.setattr(Repositories, "image", look_slowly)
    mirror.run()
    assert mirror.tags() == ["1"]
    after = mirror.record()
    assert after is not None
    assert after.status is Status.REQUESTED


def test_after_a_crash_between_the_two_the_copy_stays_until_the_next_pod_which_keeps_it(
    mirror: Mirror, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = mirror.copy()

    def fail(*_: object) -> int:
        raise EndpointConnectionError(endpoint_url="ecr")

    with monkeypatch.context() as patched:
        patched.setattr(Repositories, "delete", fail)
        mirror.run()
    assert published()["StepErrors"] == [1]
    assert (mirror.record(), mirror.tags()) == (None, ["1"])
    mirror.run(LATER + DAY)
    assert mirror.tags() == ["1"], "nothing is left that would delete it"
    # A pod asks again. The build pushes nothing, because the image is there: no time in ECR changes.
    again = replace(record, requested_at=LATER + DAY, updated_at=LATER + DAY, due_at=LATER + DAY)
    mirror.records.create(again)
    for days in (1, 2, 30):
        mirror.run(LATER + days * DAY)
        assert (mirror.record() is not None, mirror.tags()) == (True, ["1"])
    mirror.run(LATER + 33 * DAY)
    assert (mirror.record(), mirror.tags()) == (None, [])


def test_if_time_is_short_the_copy_is_deleted_and_untagged_images_wait(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.copy()
    mirror.push(None, SECOND)
    times = [120.0]
    delete = Repositories.delete

    def deleted(*arguments: Any) -> int:
        times[0] = RESERVE - 1
        return delete(*arguments)

    monkeypatch.setattr(Context, "get_remaining_time_in_millis", lambda _: int(times[0] * 1000))
    monkeypatch.setattr(Repositories, "delete", deleted)
    mirror.run()
    assert (mirror.tags(), mirror.images()) == ([], 1)


def test_with_time_the_untagged_images_go_with_the_copy(mirror: Mirror) -> None:
    mirror.copy()
    mirror.push(None, SECOND)
    mirror.run()
    assert (mirror.tags(), mirror.images()) == ([], 0)


@pytest.mark.parametrize("days", ["0", "30"])
def test_the_look_at_a_copy_removes_the_lifecycle_policy_of_an_earlier_release(
    days: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPIRE_DAYS", days)
    mirror.copy()
    mirror.cloud.ecr.put_lifecycle_policy(repositoryName=NAME, lifecyclePolicyText=RELEASED)
    mirror.run(NOON)
    with pytest.raises(mirror.cloud.ecr.exceptions.LifecyclePolicyNotFoundException):
        mirror.cloud.ecr.get_lifecycle_policy(repositoryName=NAME)


def test_a_policy_that_may_not_be_read_is_an_error_and_the_copy_is_looked_at_at_its_usual_times(
    mirror: Mirror, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.copy()

    def refuse(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="ecr")

    monkeypatch.setattr(Repositories, "remove_released_policy", refuse)
    mirror.run(NOON)
    assert published()["StepErrors"] == [1]
    mirror.run(NOON + HOUR)
    assert published() == {"OldestDue": [0], "Due": [0], "OldestFirstCopy": [0]}
