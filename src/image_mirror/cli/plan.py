"""One row for each image in manifests: what it becomes and what decided, as data, as a table and as a listing."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import typer

from image_mirror.cli.manifests import FoundPod, Manifests
from image_mirror.cli.output import aligned
from image_mirror.decisions import Copy, Leave, Mirror
from image_mirror.messages import printable
from image_mirror.pod_images import SKIP_LABEL, ImageField, image_fields, skip_reason


@dataclass(frozen=True, slots=True)
class Row:
    """One image: where it stands, what it becomes, and what decided. Its fields are the keys of the JSON output."""

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
    for found in manifests.pods:
        labels = manifests.namespaces.get(found.namespace, {}) if found.namespace else {}
        # The webhook's configuration keeps such a namespace's pods from being sent at all.
        opted_out = f"its namespace is labelled {SKIP_LABEL}" if labels.get(SKIP_LABEL) == "true" else None
        for subresource in ("", "ephemeralcontainers"):
            for field in image_fields(found.pod, subresource):
                yield _row(found, field, mirror, opted_out or skip_reason(found.pod))


def table(found: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and one aligned line for each image, however long: for a pipe, a file, a document."""
    lines = [["FILE", "DOCUMENT", "OBJECT", "FIELD", "IMAGE", "BECOMES", "DECIDED BY"]]
    lines += [[row.file, str(row.document), f"{row.kind}/{row.name}", row.field, *_told(row)] for row in found]
    yield from aligned(lines)


def listing(found: Iterable[Row]) -> Iterator[str]:
    """Yield a block for each object: for a terminal, where a name in ECR fills a line by itself."""
    for title, of_object in groupby(found, lambda row: f"{row.file}, document {row.document}: {row.kind}/{row.name}"):
        yield typer.style(printable(title), bold=True)
        for row in of_object:
            image, becomes, decided = map(printable, _told(row))
            yield from (f"  {printable(row.field)}: {image}", f"    -> {becomes}", f"    {decided}")


def _told(row: Row) -> tuple[str, str, str]:
    becomes = "as written" if row.becomes == row.image else row.becomes
    causes = (row.rule and f"rule {row.rule}", row.reason, row.warning)
    return row.image or "''", becomes, "; ".join(cause for cause in causes if cause)


def _row(found: FoundPod, field: ImageField, mirror: Mirror, exempt: str | None) -> Row:
    becomes, rule, reason, warning = field.image, None, exempt, None
    if exempt is None:
        decision, rule = mirror.decide(field.image)
        if isinstance(decision, Leave):
            warning = decision.warning
        else:
            becomes = str(decision.destination) if isinstance(decision, Copy) else decision.image
        if rule is None and warning is None:
            is_there = field.image.startswith(f"{mirror.registry}/")
            reason = "it lies in the registry already" if is_there else "no rule names it"
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
        becomes=becomes,
        rule=None if rule is None else str(rule),
        reason=reason,
        warning=warning,
    )
