"""When a copy expires, and what is deleted with it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.expiry import (
    has_expired,
    is_released_policy,
    last_use,
    signature_tags,
    signed_digest,
    unused_untagged,
)
from image_mirror.record import DAY, Policy, Record, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from support.cloud import REGISTRY
from support.ecr_registry import INDEX, MANIFEST
from support.lifecycle_policies import RELEASED

NOW = 1_800_000_000_000
DIGEST = "sha256:" + "a" * 64
POLICY = Policy(expire=30 * DAY)


def at(days: float) -> datetime:
    """Return the time so many days before NOW."""
    return datetime.fromtimestamp((NOW - days * DAY) / 1000, UTC)


def image(pushed: float, pulled: float | None = None, **more: Any) -> dict[str, Any]:
    """Return what ECR says of an image; times are in days before NOW."""
    times = {"imagePushedAt": at(pushed)} | ({} if pulled is None else {"lastRecordedPullTime": at(pulled)})
    return {"imageDigest": DIGEST, **times, **more}


def copied(name: str = "gcr.io/team/app:1", requested: float = 400, **more: Any) -> Record:
    source = parse_reference(name)
    fresh = new_record(destination_of(source, REGISTRY, "mirror"), source, int(NOW - requested * DAY))
    return replace(fresh, status=Status.COPIED, digest=DIGEST, **more)


def test_a_pull_counts_as_a_day_later_than_ecr_says_and_a_push_as_it_is() -> None:
    assert last_use(image(pushed=50)) == NOW - 50 * DAY
    assert last_use(image(pushed=50, pulled=40)) == NOW - 39 * DAY
    assert last_use(image(pushed=50, pulled=50.5)) == NOW - 49.5 * DAY
    assert last_use(image(pushed=5, pulled=40)) == NOW - 5 * DAY


@pytest.mark.parametrize(
    ("record", "found", "policy", "expired"),
    [
        pytest.param(copied(), image(31), POLICY, True, id="never-pulled"),
        pytest.param(copied(), image(29), POLICY, False, id="pushed-within-the-days"),
        pytest.param(copied(), image(400, 31.1), POLICY, True, id="pulled-long-ago"),
        pytest.param(copied(), image(400, 30.9), POLICY, False, id="perhaps-pulled-a-day-after-the-recorded-pull"),
        pytest.param(copied(), image(400, 1), POLICY, False, id="in-daily-use"),
        pytest.param(copied(requested=29), image(400), POLICY, False, id="requested-and-already-there"),
        pytest.param(copied(requested=31), image(400), POLICY, True, id="requested-before"),
        pytest.param(copied(), image(400), Policy(), False, id="expiry-is-off"),
        pytest.param(copied(f"gcr.io/team/app@{DIGEST}"), image(400), POLICY, False, id="by-digest"),
        pytest.param(
            copied(f"gcr.io/team/app@{DIGEST}"),
            image(400),
            replace(POLICY, expire_digests=True),
            True,
            id="by-digest-where-these-expire-too",
        ),
        pytest.param(
            copied(f"gcr.io/team/app@{DIGEST}"), image(400), Policy(expire_digests=True), False, id="digests-alone"
        ),
        pytest.param(copied(open_build="p:1"), image(400), POLICY, False, id="its-build-has-not-ended"),
        *(
            pytest.param(replace(copied(), status=status), image(400), POLICY, False, id=f"{status}")
            for status in (Status.REQUESTED, Status.COPYING, Status.FAILED, None)
        ),
    ],
)
def test_a_copy_expires_when_nobody_has_used_or_requested_it(
    record: Record, found: dict[str, Any], policy: Policy, expired: bool
) -> None:
    assert has_expired(record, found, NOW, policy) is expired


@given(
    pushed=st.floats(0, 100), pulled=st.none() | st.floats(0, 100), requested=st.floats(0, 100), days=st.integers(1, 60)
)
def test_no_copy_expires_that_was_pushed_pulled_or_requested_within_the_days(
    pushed: float, pulled: float | None, requested: float, days: int
) -> None:
    latest = min(pushed, requested, *([] if pulled is None else [pulled]))
    expired = has_expired(copied(requested=requested), image(pushed, pulled), NOW, Policy(expire=days * DAY))
    assert not (expired and latest <= days)
    assert expired or latest <= days + 1


def test_the_tags_of_cosign_belong_to_one_digest() -> None:
    assert signature_tags(DIGEST) == [f"sha256-{'a' * 64}.{kind}" for kind in ("sig", "att", "sbom")]
    assert {signed_digest(tag) for tag in signature_tags(DIGEST)} == {DIGEST}
    assert signed_digest("1.sig") is None


def test_untagged_images_that_nobody_uses_are_found_indexes_apart_and_none_with_a_subject() -> None:
    images = [
        image(40, imageManifestMediaType=MANIFEST) | {"imageDigest": "old"},
        image(40, imageManifestMediaType=INDEX) | {"imageDigest": "index"},
        image(40, imageTags=["1"]) | {"imageDigest": "tagged"},
        image(40, subjectManifestDigest=DIGEST) | {"imageDigest": "signature"},
        image(40, pulled=2) | {"imageDigest": "pulled"},
        image(40, pulled=30.5) | {"imageDigest": "perhaps pulled"},
        image(2) | {"imageDigest": "new"},
        image(40) | {"imageDigest": "of no type"},
    ]
    assert unused_untagged(images, NOW - 30 * DAY) == (["index"], ["old", "of no type"])


FIRST_RELEASED = RELEASED.replace("copies: deleted 90", "copies go 90")


def changed(**members: Any) -> str:
    policy = json.loads(RELEASED)
    policy["rules"][1] |= members
    return json.dumps(policy)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        pytest.param(RELEASED, True, id="of-the-latest-release"),
        pytest.param(FIRST_RELEASED, True, id="of-the-first-release"),
        pytest.param(RELEASED.replace("90", "3650"), True, id="of-other-days"),
        pytest.param(json.dumps(json.loads(RELEASED), indent=2, sort_keys=True), True, id="written-in-another-way"),
        pytest.param(RELEASED.replace(" 90 days", " 80 days"), False, id="days-that-do-not-fit-its-text"),
        pytest.param(RELEASED.replace(": 90}", ": 91}"), False, id="days-changed-by-hand"),
        pytest.param(RELEASED.replace(": 90}", ": true}"), False, id="no-days"),
        pytest.param(changed(description="Ours"), False, id="another-text"),
        pytest.param(
            changed(action={"type": "transition", "targetStorageClass": "archive"}), False, id="another-action"
        ),
        pytest.param(json.dumps({"rules": json.loads(RELEASED)["rules"][:1]}), False, id="one-rule"),
        pytest.param(
            json.dumps({"rules": [*json.loads(RELEASED)["rules"], {"rulePriority": 3}]}), False, id="a-rule-more"
        ),
        pytest.param('{"rules": []}', False, id="no-rules"),
        pytest.param("[]", False, id="no-object"),
        pytest.param("{", False, id="no-json"),
    ],
)
def test_a_lifecycle_policy_is_ours_only_if_a_release_wrote_it_word_for_word(text: str, ours: bool) -> None:
    assert is_released_policy(text) is ours
