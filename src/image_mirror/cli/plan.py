"""Decides about the images of manifests or of a cluster's pods: the new image, the rule, the copy. Pure.

There is one row for each place of an image, or one for each image with the count of its places: as data, in a table,
and in a listing for a terminal.
"""

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import assert_never

import typer

from image_mirror.cli.manifests import FoundPod, Manifests, Problem
from image_mirror.cli.output import aligned, folded
from image_mirror.decisions import Copy, Leave, Mirror, Restore, Rewrite
from image_mirror.pod_images import (
    NEVER_PULLED,
    SKIP_LABEL,
    ImageField,
    image_fields,
    original_images,
    skip_reason,
)
from image_mirror.reference import Destination, variable_in
from image_mirror.review import Json
from image_mirror.swap_when import swap_when_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision about one image of a new pod. `copy` is set if the image is copied.

    `becomes` is the image itself if it is left unchanged. `reason` says why if no rule decided; `warning` is what
    kubectl prints.
    """

    image: str
    becomes: str
    copy: Copy | None = None
    rule: str | None = None
    reason: str | None = None
    warning: str | None = None

    @property
    def cause(self) -> str:
        """What decided, for a table: the rule, or else the reason and the warning."""
        causes = (self.rule and f"rule {self.rule}", self.reason, self.warning)
        return "; ".join(cause for cause in causes if cause)

    def __str__(self) -> str:
        """Return all of it as one sentence, without a full stop."""
        if self.copy:
            return f"{self.image} is copied to {self.becomes} when a pod names it: {self.cause}"
        if self.becomes != self.image:
            return f"{self.image} is pulled from {self.becomes}: {self.cause}"
        return self.warning or f"{self.image or repr('')} stays as written: {self.cause}"


def explain(image: str, mirror: Mirror, skipped: str | None = None) -> Explanation:
    """Decide about `image` as the webhook does for a new pod; `skipped` says why it ignores the pod or the image."""
    if skipped:
        return Explanation(image, image, reason=skipped)
    decision, rule = mirror.decide(image)
    named = None if rule is None else str(rule)
    match decision:
        case Copy(destination=destination):
            return Explanation(image, str(destination), decision, named)
        case Rewrite(image=other) | Restore(image=other):
            return Explanation(image, other, None, named)
        case Leave(warning=warning):
            reason = None
            if rule is None and warning is None:
                is_there = image.startswith(f"{mirror.registry}/")
                reason = "it is already in this registry" if is_there else "no rule names it"
            return Explanation(image, image, None, named, reason, warning)
        case _:
            assert_never(decision)


@dataclass(frozen=True, slots=True)
class Row:
    """One image: its place, the new image, and the rule that decided. The fields are the keys of the JSON output."""

    file: str
    document: int
    kind: str
    name: str
    namespace: str | None
    field: str
    path: str
    image: str
    becomes: str
    rule: str | None
    reason: str | None
    warning: str | None


def rows(manifests: Manifests, mirror: Mirror) -> Iterator[Row]:
    """Decide about each image of `manifests` as if its pod were new, in the order in which they were read."""
    return (_row(found, image_field, explained) for found, image_field, explained in _explained(manifests, mirror))


def label_warnings(manifests: Manifests) -> Iterator[Problem]:
    """Yield what kubectl would print about labels for SwapWhen that have no known value, once for each pod."""
    for found in manifests.pods:
        _, warned = swap_when_of({}, found.pod, "always")
        if warned and not _opted_out(found, manifests):
            yield from (Problem(found.file, found.document, f"{found.kind}/{found.name}", text) for text in warned)


def table(found: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and one aligned line for each image, of any length: for a pipe, a file, a document."""
    lines = [["FILE", "DOCUMENT", "OBJECT", "FIELD", "IMAGE", "BECOMES", "DECIDED BY"]]
    lines += [[row.file, str(row.document), f"{row.kind}/{row.name}", row.field, *_cells(row)] for row in found]
    yield from aligned(lines)


def listing(found: Iterable[Row]) -> Iterator[str]:
    """Yield a block for each object: for a terminal, because a name in ECR needs a whole line."""
    for title, of_object in groupby(found, lambda row: f"{row.file}, document {row.document}: {row.kind}/{row.name}"):
        yield from (typer.style(line, bold=True) for line in folded(title))
        for row in of_object:
            yield from _block(f"{row.field}:", row)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image with the same decision in `count` places. The fields are the keys of the JSON output."""

    image: str
    count: int
    becomes: str
    rule: str | None
    reason: str | None
    warning: str | None


def image_rows(found: Iterable[Row]) -> list[ImageRow]:
    """Return each image once, in the order of its first place; twice only if two decisions were made about it."""
    decided = (ImageRow(row.image, 0, row.becomes, row.rule, row.reason, row.warning) for row in found)
    return [replace(row, count=count) for row, count in Counter(decided).items()]


def image_table(found: Iterable[ImageRow]) -> Iterator[str]:
    """Yield a heading and one aligned line for each image."""
    lines = [["COUNT", "IMAGE", "BECOMES", "DECIDED BY"]]
    yield from aligned(lines + [[str(row.count), *_cells(row)] for row in found])


def image_listing(found: Iterable[ImageRow]) -> Iterator[str]:
    """Yield a block for each image, for a terminal."""
    for row in found:
        yield from _block(f"{row.count} x", row)


def summary(found: Iterable[Row], mirror: Mirror) -> str:
    """Return the counts of what happens to all images, on one line. What does not happen is not named."""
    rows = list(found)
    warned = sum(row.warning is not None for row in rows)
    copied = sum(row.becomes != row.image and row.becomes.startswith(mirror.copies_prefix) for row in rows)
    elsewhere = sum(row.becomes != row.image for row in rows) - copied
    counts = {
        "copied": copied,
        "pulled from another place": elsewhere,
        "left unchanged": len(rows) - warned - copied - elsewhere,
        "with warnings": warned,
    }
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{len(rows)} image{'s' if len(rows) != 1 else ''}: {parts}"


def _block(place: str, row: Row | ImageRow) -> Iterator[str]:
    image, becomes, decided = _cells(row)
    for indent, text in (("  ", f"{place} {image}"), ("    ", f"-> {becomes}"), ("    ", decided)):
        yield from folded(text, indent)


def _cells(row: Row | ImageRow) -> tuple[str, str, str]:
    becomes = "as written" if row.becomes == row.image else row.becomes
    explained = Explanation(row.image, row.becomes, None, row.rule, row.reason, row.warning)
    return row.image or "''", becomes, explained.cause


def _explained(manifests: Manifests, mirror: Mirror) -> Iterator[tuple[FoundPod, ImageField, Explanation]]:
    for found in manifests.pods:
        skipped = _opted_out(found, manifests)
        for subresource in ("", "ephemeralcontainers"):
            for image_field in image_fields(found.pod, subresource):
                reason = skipped or (NEVER_PULLED if image_field.pull_never else None)
                yield found, image_field, explain(image_field.image, mirror, reason)
        for image_field in found.fields:
            reason = skipped or (NEVER_PULLED if image_field.pull_never else None)
            if variable := variable_in(image_field.image):
                reason = reason or f"{found.kind} fills in {variable} when it runs"
            yield found, image_field, explain(image_field.image, mirror, reason)


def _opted_out(found: FoundPod, manifests: Manifests) -> str | None:
    labels = manifests.namespaces.get(found.namespace, {}) if found.namespace else {}
    # The API server does not send the pods of such a namespace, because of the webhook's configuration.
    by_namespace = f"its namespace has the label {SKIP_LABEL}" if labels.get(SKIP_LABEL) == "true" else None
    return by_namespace or skip_reason(found.pod)


def _row(found: FoundPod, field: ImageField, explained: Explanation) -> Row:
    path = found.path + re.sub(r"/([0-9]+)", r"[\1]", field.pointer).replace("/", ".")
    return Row(
        file=found.file,
        document=found.document,
        kind=found.kind,
        name=found.name,
        namespace=found.namespace,
        field=field.key,
        path=path.removeprefix("."),
        image=field.image,
        becomes=explained.becomes,
        rule=explained.rule,
        reason=explained.reason,
        warning=explained.warning,
    )


@dataclass(slots=True)
class ImagesToCopy:
    """The copies to make, each once; and the other images, each with a sentence that says why it is not copied."""

    copies: dict[Destination, Copy] = field(default_factory=dict)
    not_copied: dict[str, str] = field(default_factory=dict)


def images_to_copy(manifests: Manifests, mirror: Mirror, images: Iterable[str] = ()) -> ImagesToCopy:
    """Decide about each image of `manifests`, and each of `images`, as the webhook does for a new pod."""
    found = ImagesToCopy()
    decided = (explained for _, _, explained in _explained(manifests, mirror))
    for explained in chain(decided, (explain(image, mirror) for image in images)):
        if explained.copy:
            found.copies[explained.copy.destination] = explained.copy
        else:
            found.not_copied[explained.image] = str(explained)
    return found


def pods_as_written(pods: Iterable[Json], namespaces: Iterable[Json], mirror: Mirror) -> Manifests:
    """Return a cluster's pods with the images that their authors wrote, if the webhook has changed them.

    `namespaces` are the ones with the label that opts out.
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
