"""The images of a pod: where they are, which of them are new, and which originals the annotation names."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from image_mirror.decisions import Decision, Leave, Mirror, Restore
from image_mirror.reference import InvalidReferenceError, parse_reference
from image_mirror.review import Json, Review

ORIGINALS = "image-mirror/original-images"
SKIP_LABEL = "image-mirror/skip"
_MIRROR_POD = "kubernetes.io/config.mirror"
NEVER_PULLED = "its pull policy is Never"


@dataclass(frozen=True, slots=True)
class ImageField:
    """One image in a pod: `key` (containers/NAME) names it, `pointer` (RFC 6901) finds it, `image` is its text.

    `pull_always`, `pull_never`: the image pull policy is Always, or Never. The API server sets the default, which is
    not Never, before it calls the webhook.
    """

    key: str
    pointer: str
    image: str
    pull_always: bool
    pull_never: bool


def skip_reason(pod: Json) -> str | None:
    """Return why the whole `pod` is left unchanged (mirror copy of a static pod, or label to opt out), or None."""
    if is_static(pod):
        return "it is the mirror copy of a static pod"
    labels = pod.get("metadata", {}).get("labels")
    opted_out = isinstance(labels, dict) and labels.get(SKIP_LABEL) == "true"
    return f"its pod has the label {SKIP_LABEL}" if opted_out else None


def is_static(pod: Json) -> bool:
    """Return whether `pod` is the mirror copy of a static pod: the kubelet runs it from a file, not from the API."""
    return _MIRROR_POD in annotations(pod)


def image_fields(pod: Json, subresource: str = "") -> list[ImageField]:
    """List the images of `pod` that a request to `subresource` can change, in the order of the object."""
    if subresource == "ephemeralcontainers":
        return list(_containers(pod, "ephemeralContainers"))
    return [*_containers(pod, "containers"), *_containers(pod, "initContainers"), *_volumes(pod)]


def new_images(review: Review, mirror: Mirror) -> dict[ImageField, Decision]:
    """Decide about each new image of this request: all of a new pod; of an updated one, those that have changed.

    An image that is never pulled is left unchanged: it is on the node, under the name that the pod gives it.
    """
    old = {field.key: field.image for field in image_fields(review.old_object, review.subresource)}
    originals = original_images(review.old_object)
    decisions: dict[ImageField, Decision] = {}
    for field in image_fields(review.object, review.subresource):
        current = old.get(field.key)
        if current == field.image or (current is not None and review.subresource):
            continue
        if current is not None and _comes_from(current, field.image, originals.get(field.key), mirror):
            decisions[field] = Restore(current)
        elif field.pull_never:
            decisions[field] = Leave()
        else:
            decisions[field] = mirror.decide(field.image)[0]
    return decisions


def original_images(pod: Json) -> dict[str, str]:
    """Read the annotation of `pod`; anything but a JSON object of texts is ignored."""
    text = annotations(pod).get(ORIGINALS)
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict) or not all(isinstance(image, str) for image in value.values()):
        return {}
    return value


def originals_text(originals: Mapping[str, str]) -> str:
    """Return the annotation's text."""
    return json.dumps(originals, separators=(",", ":"), sort_keys=True)


def annotations(pod: Json) -> Mapping[str, Any]:
    """Return the annotations of `pod`, {} if it has none."""
    found = pod.get("metadata", {}).get("annotations")
    return found if isinstance(found, dict) else {}


def _comes_from(current: str, image: str, original: str | None, mirror: Mirror) -> bool:
    """Return whether `current` was made from `image` earlier: by the annotation, or else by its name."""
    if original is None or not mirror.may_be_copy_of(current, original):
        return mirror.is_copy_of(current, image, annotated=False)
    try:
        return parse_reference(image).pinned == parse_reference(original).pinned
    except InvalidReferenceError:
        return False


def _containers(pod: Json, kind: str) -> Iterator[ImageField]:
    for index, container in enumerate(_list(pod.get("spec", {}).get(kind))):
        if isinstance(container, dict) and isinstance(container.get("name"), str):
            image, key = container.get("image"), f"{kind}/{container['name']}"
            if image is None or isinstance(image, str):
                yield _field(key, f"/spec/{kind}/{index}/image", image, container.get("imagePullPolicy"))


def _volumes(pod: Json) -> Iterator[ImageField]:
    for index, volume in enumerate(_list(pod.get("spec", {}).get("volumes"))):
        if isinstance(volume, dict) and isinstance(volume.get("name"), str) and isinstance(volume.get("image"), dict):
            image, key = volume["image"].get("reference"), f"volumes/{volume['name']}"
            if image is None or isinstance(image, str):
                yield _field(key, f"/spec/volumes/{index}/image/reference", image, volume["image"].get("pullPolicy"))


def _field(key: str, pointer: str, image: str | None, policy: object) -> ImageField:
    return ImageField(key, pointer, image or "", pull_always=policy == "Always", pull_never=policy == "Never")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
