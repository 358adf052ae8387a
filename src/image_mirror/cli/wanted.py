"""Which images of manifests, or of a cluster's pods, are to be copied, and why the others are not. Pure."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

from image_mirror.cli.manifests import FoundPod, Manifests
from image_mirror.cli.plan import rows
from image_mirror.decisions import Copy, Mirror
from image_mirror.pod_images import SKIP_LABEL, image_fields, original_images
from image_mirror.reference import Destination
from image_mirror.review import Json


@dataclass(slots=True)
class ImagesToCopy:
    """What is to be copied, each copy once; and the other images, each with a sentence that says why not."""

    copies: dict[Destination, Copy] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def wanted(manifests: Manifests, mirror: Mirror) -> ImagesToCopy:
    """Decide about each image as the webhook would, were its pod new."""
    found = ImagesToCopy()
    for row in rows(manifests, mirror):
        decision = mirror.decide(row.image)[0]
        if row.becomes == row.image:
            cause = row.reason or f"by rule {row.rule}"
            found.left[row.image] = row.warning or f"{row.image} stays as written: {cause}"
        elif isinstance(decision, Copy):
            found.copies[decision.destination] = decision
        else:
            found.left[row.image] = f"{row.image} is pulled from {row.becomes}: by rule {row.rule}"
    return found


def pods_as_written(pods: Iterable[Json], namespaces: Iterable[Json], mirror: Mirror) -> Manifests:
    """Return a cluster's pods with the images that their authors wrote, where the webhook has changed them.

    `namespaces` are those that have the label which opts out.
    """
    skipped = {each["metadata"]["name"]: {SKIP_LABEL: "true"} for each in namespaces}
    found = Manifests(namespaces=skipped)
    for number, pod in enumerate(pods, start=1):
        metadata = pod["metadata"]
        written = _as_written(pod, mirror)
        found.pods.append(FoundPod("cluster", number, "Pod", metadata["name"], metadata["namespace"], "", written))
    return found


def _as_written(pod: Json, mirror: Mirror) -> Json:
    written, originals = copy.deepcopy(pod), original_images(pod)
    for subresource in ("", "ephemeralcontainers"):
        for image_field in image_fields(pod, subresource):
            original = originals.get(image_field.key)
            if original is not None and mirror.may_be_copy_of(image_field.image, original):
                *path, last = image_field.pointer.split("/")[1:]
                holder: Json = written
                for step in path:
                    holder = holder[int(step) if isinstance(holder, list) else step]
                holder[last] = original
    return written
