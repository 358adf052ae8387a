"""The images of a run, and what the table and ECR had of them before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from image_mirror.cli.held_copies import images_of
from image_mirror.cli.manifests import Manifests
from image_mirror.cli.plan import images_to_copy
from image_mirror.decisions import Copy, Mirror
from image_mirror.record import Lane
from image_mirror.reference import InvalidReferenceError, parse_reference
from image_mirror.table import Records

IMAGES = ("registry.k8s.io/pause:3.2", "registry.k8s.io/pause:3.1")
"""Each has five Linux platforms of less than half a megabyte and no signature; later versions have large Windows
platforms too. No release of Kubernetes that is supported uses them, and EKS's nodes pull their pause image from AWS's
own ECR. The registry needs no login and has no pull limit. The default rules have its host."""
MISSING = ("registry.k8s.io/pause:image-mirror-selftest-1", "registry.k8s.io/pause:image-mirror-selftest-2")
"""Tags that nobody will push, in a repository that exists: for one that does not, some registries ask for a login."""
NAMESPACE = "image-mirror-selftest"
"""The namespace of the pods in the reviews. Their records name it in `requested_by`, so that what a killed run has left
can be told from a pod's."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a run: the copy that is requested, and the lane in which its build has to run.

    `forced`: its record is written so that only the main lane may make it; else a review is sent to the webhook.
    `missing`: its source has no such image.
    """

    image: str
    copy: Copy
    lane: Lane
    forced: bool = False
    missing: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """The key of its record."""
        return self.copy.destination.repo, self.copy.destination.tag

    @property
    def repository(self) -> str:
        """The name of its repository in ECR."""
        return self.copy.destination.repo.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Before:
    """What ECR had before a run: the digests in each repository by its name, None for one that did not exist."""

    digests: dict[str, frozenset[str] | None]


def choose(
    mirror: Mirror, lanes: Sequence[Lane], images: Sequence[str] = IMAGES, missing: Sequence[str] = MISSING
) -> list[Sample]:
    """Return the samples: one image and one missing image for each lane. Raises typer.BadParameter."""
    found: list[Sample] = []
    for option, given, default in (("--image", images, IMAGES), ("--missing", missing, MISSING)):
        if len(given) < len(lanes) or (given != default and len(given) > len(lanes)):
            need = "two images, one for each lane" if len(lanes) > 1 else "one image, because there is one lane"
            raise typer.BadParameter(f"give {need}, by repeating the option", param_hint=option)
        for lane, image in zip(lanes, given, strict=False):
            forced = lane is Lane.MAIN and len(lanes) > 1
            found.append(Sample(image, _copy(image, mirror, option), lane, forced, missing=option == "--missing"))
    if len({each.key for each in found}) < len(found):
        raise typer.BadParameter("name different images", param_hint="--image and --missing")
    return found


def _copy(image: str, mirror: Mirror, option: str) -> Copy:
    try:
        parse_reference(image)
    except InvalidReferenceError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    decided = images_to_copy(Manifests(), mirror, [image])
    for sentence in decided.not_copied.values():
        raise typer.BadParameter(f"{sentence}; name an image that the rules copy", param_hint=option)
    [copy] = decided.copies.values()
    return copy


def taken(samples: Sequence[Sample], records: Records, ecr: Any) -> tuple[Before, list[str]]:
    """Return what ECR has now, and why samples cannot be used, because somebody has their record or copy.

    Raises ClientError, BotoCoreError.
    """
    before: dict[str, frozenset[str] | None] = {}
    tags: dict[str, set[str]] = {}
    reasons = []
    for each in samples:
        if each.repository not in before:
            details = images_of(ecr, each.copy.destination.repo)
            before[each.repository] = None if details is None else frozenset(one["imageDigest"] for one in details)
            tags[each.repository] = {tag for one in details or () for tag in one.get("imageTags", ())}
        option = "--missing" if each.missing else "--image"
        record = records.get(*each.key)
        if record is not None and (record.requested_by or "").startswith(f"{NAMESPACE}/"):
            reasons.append(
                f"{each.image}: another selftest has requested it. Wait for its end; if it was killed, remove its "
                f"record with `image-mirror forget --force {each.image}`"
            )
        elif record is not None:
            reasons.append(f"{each.image}: it has a record already; choose another image with {option}")
        elif each.copy.destination.tag in tags[each.repository]:
            reasons.append(f"{each.image}: ECR has a copy of it already; choose another image with {option}")
    return Before(before), reasons
