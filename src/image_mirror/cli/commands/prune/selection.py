"""Finds the images in ECR that nobody needs: from the times in ECR, the table, and what clusters run. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from image_mirror import expiry
from image_mirror.cli.output import milliseconds
from image_mirror.decisions import Mirror
from image_mirror.expiry import Details, signed_digest
from image_mirror.pod_images import image_fields, original_images
from image_mirror.record import Record, Status
from image_mirror.reference import InvalidReferenceError, NoDestinationError, destination_named, parse_reference
from image_mirror.review import Json

_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag in ECR, in the repository `repo` (with its registry), and its image; times are in milliseconds.

    `size` is in bytes. For an image with several platforms it is the size of the largest, as DescribeImages says.
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
    """A tag that nobody has pulled, and its record, if it has one."""

    tag: Tag
    record: Record | None


@dataclass(slots=True)
class Found:
    """What nobody has pulled: what may be removed; how many a cluster runs; how many records are not COPIED.

    `empty` are repositories without an image, with their registry.
    """

    removable: list[Unused]
    running: int = 0
    not_copied: int = 0
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InUse:
    """Copies that may not be removed: as (repo, tag), and as (repo, digest) with any tag."""

    tags: frozenset[tuple[str, str]] = frozenset()
    digests: frozenset[tuple[str, str]] = frozenset()

    def holds(self, repo: str, tag: str, digest: str) -> bool:
        """Return whether a cluster runs this copy."""
        return (repo, tag) in self.tags or (repo, digest) in self.digests


def in_use(pods: Iterable[Json], mirror: Mirror) -> InUse:
    """Collect what `pods` name: copies by their own names, and the copies of sources, also without a rule for them."""
    tags, digests = set(), set()
    for name in {name for pod in pods for name in _names(pod)}:
        try:
            reference = parse_reference(name)
            destination = destination_named(reference, mirror.registry, mirror.prefix)
        except (InvalidReferenceError, NoDestinationError):
            continue  # no copy has such a name
        tags.add((destination.repo, destination.tag))
        if reference.digest:
            digests.add((destination.repo, reference.digest))
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
                pushed_at=milliseconds(image["imagePushedAt"]),
                pulled_at=milliseconds(image["lastRecordedPullTime"]) if "lastRecordedPullTime" in image else None,
            )


def unused(all_tags: Iterable[Tag], records: Mapping[tuple[str, str], Record], running: InUse, cutoff: int) -> Found:
    """Find what was not pushed, pulled or requested since `cutoff`. What was not used for the longest time is first.

    A copy whose record is not COPIED is kept: it is being copied, or has failed and may be requested again. cosign's
    tags are no copies.
    """
    found = Found([])
    for tag in sorted(all_tags, key=lambda tag: (tag.used_at, tag.key)):
        if signed_digest(tag.name):
            continue
        record = records.get(tag.key)
        # A refresh that finds nothing newer pushes nothing. Only its request shows that a pod needed the copy.
        if max(tag.used_at, record.requested_at if record else 0) >= cutoff:
            continue
        if running.holds(tag.repo, tag.name, tag.digest):
            found.running += 1
        elif record is not None and record.status is not Status.COPIED:
            found.not_copied += 1
        else:
            found.removable.append(Unused(tag, record))
    return found


def not_requested(repos: Iterable[str], records: Iterable[Record]) -> list[str]:
    """Return the repositories for which no copy is requested, being made, or recorded as there, in order."""
    active = {record.repo for record in records if record.is_active}
    return sorted(repo for repo in repos if repo not in active)


def signatures_left(repo: str, images: Sequence[Details], running: InUse) -> list[str]:
    """Return cosign's tags in a repository whose image is not there, and does not run either."""
    # A tag of an image can name that image itself. Then it must not keep it.
    held = {
        image["imageDigest"]
        for image in images
        if not image.get("imageTags") or not all(map(signed_digest, image["imageTags"]))
    }
    subjects = {tag.name: signed_digest(tag.name) for tag in tags(repo, images)}
    return [
        name
        for name, digest in subjects.items()
        if digest and digest not in held and not running.holds(repo, "", digest)
    ]


def unused_untagged(repo: str, images: Iterable[Details], running: InUse, cutoff: int) -> Iterator[list[str]]:
    """Yield the digests of a repository's untagged images that nobody has used since `cutoff`: indexes, then others."""
    for digests in expiry.unused_untagged(images, cutoff):
        yield [digest for digest in digests if not running.holds(repo, "", digest)]


def _names(pod: Json) -> Iterator[str]:
    for subresource in ("", "ephemeralcontainers"):
        yield from (field.image for field in image_fields(pod, subresource))
    yield from original_images(pod).values()
    status = pod.get("status") or {}
    for each in (each for kind in _STATUSES for each in status.get(kind) or ()):
        # The image that the tag named when the container started may have another tag now.
        yield str(each.get("imageID", "")).rpartition("://")[2]
