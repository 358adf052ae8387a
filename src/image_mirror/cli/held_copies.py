"""What ECR holds of the copies that the records describe.

A repository is listed as a whole, in pages of 1,000 images: the most that ECR answers in one call. It would refuse a
call for up to 100 named tags as a whole if one of them were missing, without saying which.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from image_mirror.cli.terminal import each
from image_mirror.decisions import Mirror
from image_mirror.ecr import can_be_pulled
from image_mirror.record import Record

_MOST = 1_000  # DescribeImages' maxResults
# Without this, ECR leaves archived images out, and they would seem to be deleted.
_TAGGED = {"tagStatus": "TAGGED", "imageStatus": "ANY"}

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
"""The media types of an index. BatchGetImage must be told them: of its own it may answer a platform's manifest."""

Details = Mapping[str, Any]
"""One of DescribeImages' `imageDetails`."""


class InECR(StrEnum):
    """What ECR has under the tag of a record whose copy has arrived."""

    HELD = "held"
    OTHER_DIGEST = "other digest"
    GONE = "gone"
    ARCHIVED = "archived"
    NOT_SERVED = "not served"


@dataclass(frozen=True, slots=True)
class Held:
    """What ECR has under a record's tag: its state, and the digest, None if there is none.

    `lost`: the reconciler would remove the record, because pods cannot pull the copy that it describes.
    """

    state: InECR
    digest: str | None = None
    lost: bool = False

    def __str__(self) -> str:
        """Return it for people, as what follows the copy's name and a colon."""
        match self.state:
            case InECR.HELD:
                return "ECR holds it"
            case InECR.OTHER_DIGEST:
                return f"ECR holds another digest than its record says, {self.digest}"
            case InECR.GONE:
                return "ECR no longer holds it"
            case InECR.ARCHIVED:
                return "ECR has archived it, so it cannot be pulled"
            case InECR.NOT_SERVED:
                return "the stack no longer serves its name, so ECR was not asked"


def look_up(ecr: Any, mirror: Mirror, records: Iterable[Record]) -> dict[str, Held]:
    """Return what ECR holds of each copy, by its name (`Record.destination`). A terminal shows a progress bar.

    Raises ClientError, BotoCoreError.
    """
    found: dict[str, Held] = {}
    by_repo: dict[str, list[Record]] = {}
    for record in records:
        if mirror.serves(record.repo):
            by_repo.setdefault(record.repo, []).append(record)
        else:
            found[record.destination] = Held(InECR.NOT_SERVED)

    def read(repo: str) -> None:
        images = _tagged(ecr, repo)
        found.update({record.destination: judge(record, images.get(record.tag)) for record in by_repo[repo]})

    if by_repo:
        each("asking ECR", read, list(by_repo))
    return found


def look_up_one(ecr: Any, mirror: Mirror, record: Record) -> Held:
    """Return what ECR holds of one copy, without a progress bar. Raises ClientError, BotoCoreError."""
    if not mirror.serves(record.repo):
        return Held(InECR.NOT_SERVED)
    return judge(record, _tagged(ecr, record.repo).get(record.tag))


def judge(record: Record, image: Details | None) -> Held:
    """Compare a record with the image that ECR has under its tag, or None. Pure."""
    if image is None:
        return Held(InECR.GONE, lost=True)
    digest = image["imageDigest"]
    if not can_be_pulled(image):
        return Held(InECR.ARCHIVED, digest, lost=True)
    if digest == record.digest:
        return Held(InECR.HELD, digest)
    # A copy by tag has the digest that was pushed last. One by digest must have exactly that digest.
    return Held(InECR.OTHER_DIGEST, digest, lost=record.by_digest and not record.source.endswith(f"@{digest}"))


def _tagged(ecr: Any, repo: str) -> dict[str, Details]:
    """Return the images of a repository by their tags; {} if the repository does not exist."""
    pages = ecr.get_paginator("describe_images").paginate(
        repositoryName=repo.partition("/")[2], filter=_TAGGED, PaginationConfig={"PageSize": _MOST}
    )
    try:
        images: Sequence[Details] = [image for page in pages for image in page["imageDetails"]]
    except ecr.exceptions.RepositoryNotFoundException:
        return {}
    return {tag: image for image in images for tag in image.get("imageTags", ())}


def images_of(ecr: Any, repo: str) -> list[Details] | None:
    """Return what ECR says of a repository's images, tagged or not; None if the repository does not exist."""
    # Without the filter, ECR leaves archived images out.
    pages = ecr.get_paginator("describe_images").paginate(
        repositoryName=repo.partition("/")[2], filter={"imageStatus": "ANY"}
    )
    try:
        return [image for page in pages for image in page["imageDetails"]]
    except ecr.exceptions.RepositoryNotFoundException:
        return None
