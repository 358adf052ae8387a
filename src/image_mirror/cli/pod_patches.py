"""Which images of waiting pods are patched so that the kubelet pulls at once, and the patch. Pure.

The kubelet waits by the image's text, up to five minutes. So a pod that waits for a copy gets another text for the same
image: the copy's name with its tag and its digest. A pod that the webhook has missed gets what the webhook would have
written: the copy's name, and the annotation with the original.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from image_mirror.cli.kubelet import PULLS, waiting
from image_mirror.cli.pod_causes import Code
from image_mirror.cli.pod_objects import (
    cannot_be_patched,
    names_tag_and,
    needs_no_image,
    other_digest,
    restart,
    runs_once,
)
from image_mirror.cli.pod_reading import Found, all_fields
from image_mirror.pod_images import ORIGINALS, original_images, originals_text
from image_mirror.record import Status
from image_mirror.reference import parse_reference
from image_mirror.review import Json

# With these, the node cannot pull the copy either, as far as its last try says.
_OF_THE_NODE = frozenset((Code.NO_SPACE, Code.NO_PLATFORM, Code.UNAUTHORIZED, Code.TIMEOUT))


@dataclass(frozen=True, slots=True)
class Change:
    """One image to be changed: its place (containers/NAME), its text before and after, and the source.

    `noted` says that the source belongs into the annotation, because the webhook has not seen the pod.
    """

    key: str
    image: str
    becomes: str
    source: str
    noted: bool


@dataclass(frozen=True, slots=True)
class PodPatch:
    """A pod as it was read, and its images to be changed."""

    pod: Json
    changes: Sequence[Change]

    def body(self) -> Json:
        """Return the strategic merge patch: containers by their names, and the version of the pod that was read.

        Of the annotation, only what names an image of the pod is kept.
        """
        metadata: Json = {"resourceVersion": self.pod["metadata"]["resourceVersion"]}
        noted = {change.key: change.source for change in self.changes if change.noted}
        if noted:
            keys = {each.key for each in all_fields(self.pod)}
            kept = {key: source for key, source in original_images(self.pod).items() if key in keys}
            metadata["annotations"] = {ORIGINALS: originals_text(kept | noted)}
        spec: dict[str, list[Json]] = {}
        for change in self.changes:
            kind, _, name = change.key.partition("/")
            spec.setdefault(kind, []).append({"name": name, "image": change.becomes})
        return {"metadata": metadata, "spec": spec}

    def of(self, pod: Json) -> "PodPatch | None":
        """Return the patch of the same pod as it is now, with what still waits; None if nothing does, or it ends."""
        metadata = pod["metadata"]
        if metadata.get("uid") != self.pod["metadata"].get("uid") or metadata.get("deletionTimestamp"):
            return None
        waits = {(each.field.key, each.field.image) for each in waiting(pod) if each.reason in PULLS}
        changes = [change for change in self.changes if (change.key, change.image) in waits]
        return replace(self, pod=pod, changes=changes) if changes else None


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that cannot be changed, or is not; and what to do instead, None if nothing is to be done."""

    found: Found
    why: str
    do: str | None = None


@dataclass(slots=True)
class Choice:
    """What is patched, pod by pod; what is not, with the reason; and how many images wait for something else."""

    patches: list[PodPatch]
    kept: list[Kept]
    others: int = 0


def choose(everything: Iterable[Found], *, missed: bool, jobs: bool, named: bool) -> Choice:
    """Choose among images that the kubelet cannot pull, or with `missed` that name a source which a rule copies.

    `jobs`: pods that run once are patched too. `named`: the operator has named the pod, so what its node said of the
    last try does not count.
    """
    choice, changes = Choice([], []), dict[str, tuple[Json, list[Change]]]()
    for found in everything:
        chosen = _chosen(found, jobs=jobs, named=named) if found.facts.is_copy or missed else None
        if chosen is None:
            choice.others += found.waiting is not None
        elif isinstance(chosen, Kept):
            choice.kept.append(chosen)
        else:
            changes.setdefault(found.name, (found.pod, []))[1].append(chosen)
    choice.patches = [PodPatch(pod, some) for pod, some in changes.values()]
    return choice


def _chosen(found: Found, *, jobs: bool, named: bool) -> Change | Kept | None:
    """Return what is done about one image; None if it waits for something else than the kubelet's next try."""
    facts, copy = found.facts, found.copy
    if copy is None or not facts.served or found.pod["metadata"].get("deletionTimestamp"):
        return None
    waits = found.waiting is not None and found.waiting.reason in PULLS
    if facts.is_copy:
        digest = _digest(found)
        # During the pull after a patch, the status still has the reason of the last failure.
        if not waits or not digest or names_tag_and(digest, facts.image):
            return None
        if other := other_digest(found.pod, found.field, digest):
            return _pinned(found, other)
    elif missing := _cannot_get_a_copy(found, waits=waits):
        return missing
    if fixed := cannot_be_patched(found.pod, found.field):
        return Kept(found, *fixed)
    if runs_once(found.pod) and not jobs:
        return Kept(found, "a pod that runs once, such as a Job's", "add --jobs")
    if found.cause.code in _OF_THE_NODE and not named:
        return Kept(found, found.cause.why, f"{found.cause.remedy(facts.source)}; then name the pod")
    becomes = f"{copy.by_tag}@{_digest(found)}" if facts.is_copy else str(copy)
    return Change(found.field.key, facts.image, becomes, facts.source, noted=not facts.is_copy)


def _digest(found: Found) -> str:
    """Return the digest under which the copy can be pulled now, "" if it cannot."""
    held = found.facts.held
    return held.digest or "" if held is not None and not held.lost else ""


def _pinned(found: Found, digest: str) -> Kept:
    """Return that the author of a pod has chosen another digest than ECR has under the tag."""
    why, do = "its author names a digest that ECR does not hold under this tag", "correct the digest"
    if digest.startswith("sha256:"):
        source = parse_reference(found.facts.source)
        do += f", or image-mirror warm --image {source.registry}/{source.repository}@{digest}"
    return Kept(found, why, do)


def _cannot_get_a_copy(found: Found, *, waits: bool) -> Kept | None:
    """Return why a container that names a source does not get the copy, or None if it does."""
    facts = found.facts
    if found.waiting is None and (why := needs_no_image(found.pod, found.field)):
        return Kept(found, why)
    if facts.not_sent:
        return Kept(found, found.cause.why, found.cause.remedy(facts.source))
    if not facts.namespace_known:
        why = "the namespace's labels or the webhook's configuration could not be read, so it may be opted out"
        return Kept(found, why, "ask for the permission in the note")
    if found.waiting is None:
        return Kept(found, "it does not wait for an image", restart(found.pod))
    if not waits:
        return Kept(found, found.cause.why, found.cause.remedy(facts.source))
    if facts.record is not None and facts.record.status is Status.FAILED:
        return Kept(found, "the record of its copy is FAILED", f"image-mirror retry {facts.source}")
    if not _digest(found):
        return Kept(found, "its copy is not in ECR", "image-mirror warm --cluster; then nudge again")
    return None
