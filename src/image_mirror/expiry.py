"""When a copy expires, and what is deleted with it. Pure: others call AWS.

ECR's own lifecycle rules cannot do this: they count from the first push of a manifest, so they delete tags in daily
use. An image is given as one of DescribeImages' `imageDetails`. Other times are milliseconds since the epoch.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from image_mirror.record import DAY, Policy, Record, Status

Details = Mapping[str, Any]
"""One of DescribeImages' `imageDetails`."""

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SIGNATURE_TAG = re.compile(r"sha256-([a-f0-9]{64})\.(?:sig|att|sbom)")
_BY_DIGEST = "Copies made by digest stay: pods may name them for good"
# The second rule's description, in each release that wrote one.
_BY_TAG = ("Other copies go {} days after their latest push", "Other copies: deleted {} days after their latest push")
_NEVER_DAYS = 36_500


def last_use(image: Details) -> int:
    """Return the latest time at which an image can have been pushed or pulled.

    ECR writes the time of a pull at most once in 24 hours, so an image may have been pulled a day later than it says.
    """
    pushed, pulled = _milliseconds(image["imagePushedAt"]), image.get("lastRecordedPullTime")
    return max(pushed, _milliseconds(pulled) + DAY) if pulled else pushed


def has_expired(record: Record, image: Details, now: int, policy: Policy) -> bool:
    """Return whether a copy that ECR holds expires at `now`: nobody has used or requested it for `policy.expire`.

    The request counts because the push of an image that is already there, under this or another tag, changes no time
    in ECR. A copy with a build that has not ended never expires.
    """
    if not policy.expire or (record.by_digest and not policy.expire_digests):
        return False
    if record.status is not Status.COPIED or record.open_build is not None:
        return False
    return max(last_use(image), record.requested_at) < now - policy.expire


def signature_tags(digest: str) -> list[str]:
    """Return the tags that cosign 2 gives the signature, the attestation and the SBOM of an image."""
    return [f"{digest.replace(':', '-', 1)}.{kind}" for kind in ("sig", "att", "sbom")]


def signed_digest(tag: str) -> str | None:
    """Return the digest of the image that a tag of cosign 2 belongs to: its signature, attestation or SBOM."""
    found = _SIGNATURE_TAG.fullmatch(tag)
    return f"sha256:{found[1]}" if found else None


def unused_untagged(images: Iterable[Details], since: int) -> tuple[list[str], list[str]]:
    """Return the digests of the untagged images that nobody has used since a time: indexes, and others.

    An index is deleted before the images that it refers to, because ECR keeps these as long as the index exists. ECR
    itself deletes what refers to a subject, as a signature does, after its subject.
    """
    indexes: list[str] = []
    others: list[str] = []
    for image in images:
        if image.get("imageTags") or image.get("subjectManifestDigest") or last_use(image) >= since:
            continue
        (indexes if image.get("imageManifestMediaType") in _INDEXES else others).append(image["imageDigest"])
    return indexes, others


def is_released_policy(text: str) -> bool:
    """Return whether a lifecycle policy is exactly what an earlier release wrote for its ExpireDays."""
    try:
        policy = json.loads(text)
        days = policy["rules"][1]["selection"]["countNumber"]
    except (ValueError, LookupError, TypeError):
        return False
    return type(days) is int and any(policy == _released_policy(days, form.format(days)) for form in _BY_TAG)


def _released_policy(days: int, by_tag: str) -> dict[str, Any]:
    selections = (
        {"tagStatus": "tagged", "tagPatternList": ["digest-sha256-*"], "countNumber": _NEVER_DAYS},
        {"tagStatus": "any", "countNumber": days},
    )
    return {
        "rules": [
            {
                "rulePriority": priority,
                "description": description,
                "selection": {**selection, "countType": "sinceImagePushed", "countUnit": "days"},
                "action": {"type": "expire"},
            }
            for priority, (description, selection) in enumerate(zip((_BY_DIGEST, by_tag), selections, strict=True), 1)
        ]
    }


def _milliseconds(time: Any) -> int:
    return int(time.timestamp() * 1000)
