"""Which images in ECR nobody needs: by the times that ECR records, by the table, and by what clusters run. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from image_mirror.decisions import Mirror
from image_mirror.pod_images import image_fields, original_images
from image_mirror.record import Record, Status
from image_mirror.reference import InvalidReferenceError, NoDestinationError, destination_named, parse_reference
from image_mirror.review import Json

DAY = 24 * 60 * 60 * 1000
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")

Details = Mapping[str, Any]
"""One of DescribeImages' `imageDetails`."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag in ECR, in the repository `repo` (with its registry), and its image; times are in milliseconds.

    `size` is in bytes, of an image for several platforms the largest one's: DescribeImages knows no other.
    """

    repo: str
    name: str
    digest: str
    size: int
    pushed_at: int
    pulled_at: int | None

    @property
    def key(self) -> tuple[str, str]:
        """The key of its record."""
        return self.repo, self.name

    @property
    def used_at(self) -> int:
        """When it was last pushed or pulled, as far as ECR has recorded."""
        return max(self.pushed_at, self.pulled_at or 0)


@dataclass(frozen=True, slots=True)
class Unused:
    """A tag that nobody has pulled, and the record that stands for it, if one does."""

    tag: Tag
    record: Record | None


@dataclass(slots=True)
class Found:
    """What nobody has pulled: what may go, and how many stay because of a cluster or of their record's state."""

    going: list[Unused]
    running: int = 0
    under_way: int = 0


@dataclass(frozen=True, slots=True)
class InUse:
    """Copies that may not be removed: as (repo, tag), and as (repo, digest) under whatever tag."""

    tags: frozenset[tuple[str, str]] = frozenset()
    digests: frozenset[tuple[str, str]] = frozenset()

    def holds(self, repo: str, tag: str, digest: str) -> bool:
        """Say whether a cluster runs this copy."""
        return (repo, tag) in self.tags or (repo, digest) in self.digests


def in_use(pods: Iterable[Json], mirror: Mirror) -> InUse:
    """Collect what `pods` name: copies by their own names, and the copies of sources, whatever the rules say now."""
    tags, digests = set(), set()
    for name in {name for pod in pods for name in _names(pod)}:
        try:
            destination = destination_named(parse_reference(name), mirror.registry, mirror.prefix)
        except (InvalidReferenceError, NoDestinationError):
            continue  # no copy has such a name
        tags.add((destination.repo, destination.tag))
        if destination.digest:
            digests.add((destination.repo, destination.digest))
    return InUse(frozenset(tags), frozenset(digests))


def tags(repo: str, images: Iterable[Details]) -> Iterator[Tag]:
    """Yield each tag of a repository's images."""
    for image in images:
        for name in image.get("imageTags", ()):
            yield Tag(
                repo=repo,
                name=name,
                digest=image["imageDigest"],
                size=image.get("imageSizeInBytes") or 0,
                pushed_at=_milliseconds(image["imagePushedAt"]),
                pulled_at=_milliseconds(image["lastRecordedPullTime"]) if "lastRecordedPullTime" in image else None,
            )


def unused(held: Iterable[Tag], records: Mapping[tuple[str, str], Record], running: InUse, cutoff: int) -> Found:
    """Sort out what was neither pushed, pulled nor asked for since `cutoff`, the least recently used first.

    What has a record that is not COPIED is on its way, or has failed and may be tried again: it is left.
    """
    found = Found([])
    for tag in sorted(held, key=lambda tag: (tag.used_at, tag.key)):
        record = records.get(tag.key)
        # A refresh that finds nothing newer pushes nothing; its request alone says that a pod wanted it.
        if max(tag.used_at, record.requested_at if record else 0) >= cutoff:
            continue
        if running.holds(tag.repo, tag.name, tag.digest):
            found.running += 1
        elif record is not None and record.status is not Status.COPIED:
            found.under_way += 1
        else:
            found.going.append(Unused(tag, record))
    return found


def leftovers(repo: str, images: Iterable[Details], running: InUse, cutoff: int) -> tuple[list[str], list[str]]:
    """Return the digests of a repository's untagged images that nobody has used since `cutoff`: indexes, and others.

    An index goes before the images that it refers to, for ECR keeps these while it stands.
    """
    indexes: list[str] = []
    others: list[str] = []
    for image in images:
        [as_tagged] = tags(repo, [{**image, "imageTags": [""]}])
        if image.get("imageTags") or as_tagged.used_at >= cutoff or running.holds(repo, "", as_tagged.digest):
            continue
        (indexes if image.get("imageManifestMediaType") in _INDEXES else others).append(as_tagged.digest)
    return indexes, others


def _milliseconds(time: Any) -> int:
    return int(time.timestamp() * 1000)


def _names(pod: Json) -> Iterator[str]:
    for subresource in ("", "ephemeralcontainers"):
        yield from (field.image for field in image_fields(pod, subresource))
    yield from original_images(pod).values()
    status = pod.get("status") or {}
    for each in (each for kind in _STATUSES for each in status.get(kind) or ()):
        # What the tag held when the container started may be under another tag by now.
        yield str(each.get("imageID", "")).rpartition("://")[2]
