"""What a pod's object says: who made it, how to recreate it, and which of its images can be patched. Pure."""

from image_mirror.pod_images import ImageField, is_static, original_images
from image_mirror.reference import InvalidReferenceError, parse_reference
from image_mirror.review import Json


def owner(pod: Json) -> tuple[str, str]:
    """Return kind and name of the pod's controller; two empty texts if it has none."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return next(((each["kind"], each["name"]) for each in owners if each.get("controller")), ("", ""))


def restart(pod: Json) -> str:
    """Return how to recreate a pod."""
    metadata = pod["metadata"]
    kind, name = owner(pod)
    template_hash = (metadata.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and template_hash:  # the Deployment's controller has made it
        kind, name = "Deployment", name.removesuffix(f"-{template_hash}")
    if kind in ("Deployment", "StatefulSet", "DaemonSet"):
        return f"kubectl rollout restart {kind.lower()}/{name} -n {metadata['namespace']}"
    return f"delete and create the {kind or 'pod'} again"


def runs_once(pod: Json) -> bool:
    """Return whether the pod is a Job's, or one that is never started again."""
    return owner(pod)[0] == "Job" or pod["spec"].get("restartPolicy") == "Never"


def cannot_be_patched(pod: Json, field: ImageField) -> tuple[str, str] | None:
    """Return why this image of a pod cannot be changed, and what to do instead; None if it can be changed.

    The API server takes other images for containers and init containers only.
    """
    if is_static(pod):
        return "a static pod: its manifest is a file on the node", "wait"
    if field.key.startswith("volumes/"):
        return "the image of a volume cannot change", f"wait, or {restart(pod)}"
    if field.key.startswith("ephemeralContainers/"):
        return "the image of an ephemeral container cannot change", "wait, or kubectl debug again"
    return None


def needs_no_image(pod: Json, field: ImageField) -> str | None:
    """Return why a container that does not wait for its image will not need it again in this pod; None if it may."""
    kind, _, name = field.key.partition("/")
    if kind == "ephemeralContainers":
        return "an ephemeral container starts only once"
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    ended = (each["name"] for each in statuses if (each.get("state") or {}).get("terminated"))
    if kind == "initContainers" and name in ended:
        return "the init container has ended"
    return "its pod runs once" if runs_once(pod) else None


def other_digest(pod: Json, field: ImageField, digest: str) -> str:
    """Return the digest that the author of a pod names in the image of a copy, if it is another one; else "".

    For a source that the annotation names without a digest, only a nudge has written the digest: a newer one may take
    its place. ECR's digests are SHA-256.
    """
    try:
        named = parse_reference(field.image).digest or ""
    except InvalidReferenceError:
        return ""
    if named == digest:
        return ""
    try:
        by_tag = parse_reference(original_images(pod).get(field.key, "")).digest is None
    except InvalidReferenceError:
        by_tag = False
    return "" if by_tag and named.startswith("sha256:") else named


def names_tag_and(digest: str, image: str) -> bool:
    """Return whether an image is named by a tag and by this digest, as a nudge writes it: it can do nothing more."""
    try:
        reference = parse_reference(image)
    except InvalidReferenceError:
        return False
    return reference.tag is not None and reference.digest == digest
