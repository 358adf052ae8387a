"""Which copies clusters run, by every name that a pod may have for one. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from image_mirror.cli.image_selection import destination_named
from image_mirror.decisions import Mirror
from image_mirror.pod_images import image_fields, original_images
from image_mirror.reference import InvalidReferenceError, NoDestinationError
from image_mirror.review import Json

_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


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
            destination = destination_named(name, mirror)
        except (InvalidReferenceError, NoDestinationError):
            continue  # no copy has such a name
        tags.add((destination.repo, destination.tag))
        if destination.digest:
            digests.add((destination.repo, destination.digest))
    return InUse(frozenset(tags), frozenset(digests))


def _names(pod: Json) -> Iterator[str]:
    for subresource in ("", "ephemeralcontainers"):
        yield from (field.image for field in image_fields(pod, subresource))
    yield from original_images(pod).values()
    status = pod.get("status") or {}
    for each in (each for kind in _STATUSES for each in status.get(kind) or ()):
        # What the tag held when the container started may be under another tag by now.
        yield str(each.get("imageID", "")).rpartition("://")[2]
