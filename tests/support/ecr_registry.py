"""ECR as its documentation describes it, where moto differs: pull times, several tags for one image, indexes, archive.

If a tag is deleted, its image stays while it has other tags; with the last tag the image is deleted too. The images of
an index have no tags, and cannot be deleted while the index exists (BatchDeleteImage: ImageReferencedByManifestList).
Archived images are listed only with the filter `imageStatus`. A call that names images is refused as a whole if one of
them is missing.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.operators import Operated, Reply

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Json = dict[str, Any]


@dataclass(slots=True)
class Image:
    """One image: its tags, its size, when it was pushed and last pulled, and the digests that it refers to."""

    digest: str
    tags: list[str]
    size: int
    pushed: datetime
    pulled: datetime | None
    children: list[str] = field(default_factory=list)
    subject: str | None = None
    status: str = "ACTIVE"

    def details(self) -> Json:
        """Return an entry of DescribeImages."""
        shown: Json = {
            "imageDigest": self.digest,
            "imageSizeInBytes": self.size,
            "imagePushedAt": self.pushed,
            "imageManifestMediaType": INDEX if self.children else MANIFEST,
            "imageStatus": self.status,
        }
        if self.tags:
            shown["imageTags"] = list(self.tags)
        if self.pulled:
            shown["lastRecordedPullTime"] = self.pulled
        if self.subject:
            shown["subjectManifestDigest"] = self.subject
        return shown


class Registry:
    """Repositories by name, each with its images by digest; pages are of `page` entries."""

    def __init__(self, page: int = 2) -> None:
        self.repositories: dict[str, dict[str, Image]] = {}
        self.created: dict[str, datetime] = {}
        self.page = page
        self.failing: dict[str, str] = {}
        """Tags that ECR does not delete, each with its failure code."""

    def push(
        self,
        repository: str,
        *tags: str,
        days: float = 100,
        pulled: float | None = None,
        size: int = 1_000_000,
        content: str = "",
        digest: str = "",
        children: tuple[Image, ...] = (),
        subject: str | None = None,
    ) -> Image:
        """Add an image that was pushed `days` days ago and pulled `pulled` days ago (None: never)."""
        digest = digest or "sha256:" + hashlib.sha256(f"{repository} {tags} {content}".encode()).hexdigest()
        image = Image(digest, list(tags), size, ago(days), None if pulled is None else ago(pulled))
        image.children, image.subject = [child.digest for child in children], subject
        self.repositories.setdefault(repository, {})[digest] = image
        return image

    def tags(self) -> set[str]:
        """Return all existing tags, as repository:tag."""
        return {
            f"{name}:{tag}" for name, images in self.repositories.items() for i in images.values() for tag in i.tags
        }

    def untagged(self, repository: str) -> set[str]:
        """Return the digests of the repository's untagged images."""
        return {image.digest for image in self.repositories[repository].values() if not image.tags}

    def describe_repositories(self, asked: Json) -> Json:
        """Answer DescribeRepositories."""
        found = [
            {"repositoryName": name, "createdAt": self.created.get(name, ago(400))}
            for name in sorted(self.repositories)
        ]
        return self._paged("repositories", found, asked)

    def delete_repository(self, asked: Json) -> Json:
        """Answer DeleteRepository without force."""
        assert "force" not in asked
        name = asked["repositoryName"]
        code = "RepositoryNotEmptyException" if self.repositories.get(name) else "RepositoryNotFoundException"
        if name not in self.repositories or self.repositories[name]:
            return {"Error": {"Code": code, "Message": "so it is"}}
        del self.repositories[name]
        return {"repository": {"repositoryName": name}}

    def describe_images(self, asked: Json) -> Json:
        """Answer DescribeImages, for all images or those that are named."""
        if asked["repositoryName"] not in self.repositories:
            return {"Error": {"Code": "RepositoryNotFoundException", "Message": "not here"}}
        images = self.repositories[asked["repositoryName"]].values()
        wanted = asked.get("imageIds", [])
        assert len(wanted) <= 100, "ECR takes 100 at once"
        assert not wanted or asked.keys().isdisjoint(("maxResults", "nextToken"))
        if wanted:
            tags = [each["imageTag"] for each in wanted]
            if any(all(tag not in image.tags for image in images) for tag in tags):
                return {"Error": {"Code": "ImageNotFoundException", "Message": "not here"}}
            return {"imageDetails": [image.details() for image in images if not set(tags).isdisjoint(image.tags)]}
        chosen = asked.get("filter", {})
        status, tagged = chosen.get("imageStatus", "ACTIVE"), chosen.get("tagStatus", "ANY")
        found = [
            image.details()
            for image in images
            if status in ("ANY", image.status) and tagged in ("ANY", "TAGGED" if image.tags else "UNTAGGED")
        ]
        return self._paged("imageDetails", found, asked)

    def batch_delete_image(self, asked: Json) -> Json:
        """Answer BatchDeleteImage."""
        assert len(asked["imageIds"]) <= 100, "ECR takes 100 at once"
        images = self.repositories[asked["repositoryName"]]
        failures = []
        for wanted in asked["imageIds"]:
            code = self._delete(images, **wanted)
            if code:
                failures.append({"imageId": wanted, "failureCode": code, "failureReason": "so it is"})
        return {"imageIds": [], "failures": failures}

    def _delete(self, images: dict[str, Image], imageTag: str = "", imageDigest: str = "") -> str | None:  # noqa: N803
        if imageTag in self.failing:
            return self.failing[imageTag]
        found = [image for image in images.values() if imageTag in image.tags or image.digest == imageDigest]
        if not found:
            return "ImageNotFound"
        [image] = found
        last = imageDigest or image.tags == [imageTag]
        if last and any(image.digest in other.children for other in images.values()):
            return "ImageReferencedByManifestList"
        if imageTag:
            image.tags.remove(imageTag)
        if imageDigest or not image.tags:
            del images[image.digest]
        return None

    def _paged(self, key: str, entries: list[Json], asked: Json) -> Json:
        assert asked.get("maxResults", 100) <= 1000, "ECR answers 1000 at once"
        start = int(asked.get("nextToken", 0))
        end = start + self.page
        return {key: entries[start:end], **({"nextToken": str(end)} if end < len(entries) else {})}


@pytest.fixture
def registry(operated: Operated, answer: Callable[[str, str, Reply], None]) -> Registry:  # noqa: ARG001 - the AWS it is of
    """A model of ECR instead of moto's."""
    made = Registry()
    answer("ecr", "DescribeRepositories", made.describe_repositories)
    answer("ecr", "DescribeImages", made.describe_images)
    answer("ecr", "BatchDeleteImage", made.batch_delete_image)
    answer("ecr", "DeleteRepository", made.delete_repository)
    return made


def ago(days: float) -> datetime:
    """Return the time so many days ago."""
    return datetime.now(UTC) - timedelta(days=days)
