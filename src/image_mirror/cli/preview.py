"""`image-mirror preview`: what the webhook would make of manifests, decided by its own code, without any network."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from errno import ENOENT
from itertools import groupby
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from image_mirror.cli.manifests import FoundPod, Manifests, Problem
from image_mirror.images import SKIP_LABEL, ImageField, exemption, image_fields
from image_mirror.mirror import Copy, Keep, Mirror
from image_mirror.notices import printable
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.settings import parse_prefix, parse_registry

_STDIN = "-"
_SUFFIXES = (".json", ".yaml", ".yml")  # as kubectl reads a directory: these files of it, and not those below
_EXAMPLE_REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"


Parsed = TypeVar("Parsed")


class Output(StrEnum):
    """How the images are printed."""

    TABLE = "table"
    JSON = "json"


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


def preview(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="A manifest, a directory of them, or - for standard input.")
    ],
    rules: Annotated[str, typer.Option(envvar="MIRROR_RULES", help="The rules to decide by.")] = DEFAULT_RULES,
    registry: Annotated[str, typer.Option(metavar="HOST", help="The ECR registry of the copies.")] = _EXAMPLE_REGISTRY,
    prefix: Annotated[str, typer.Option(help="What the names of the copies' repositories begin with.")] = "mirror",
    output: Annotated[Output, typer.Option(help="How the images are printed.")] = Output.TABLE,
) -> None:
    """Show what the images in manifests become, and which rule decides. Nothing is called, nothing is changed.

    Reads pods, workloads, lists, and custom resources that hold a pod template, in YAML or JSON of many documents:

    \b
    helm template CHART | image-mirror preview -

    Images that a controller alone knows of are in no manifest, and so not here. A namespace counts as opted out where
    its own manifest is among the files.

    \b
    --output json prints a list of objects, one for each image, with the keys
      file       as given; "-" is standard input
      document   number of the document in the file, from 1
      kind, name, namespace
                 of the object; namespace is null where the manifest leaves it open
      field      containers/NAME, initContainers/NAME, ephemeralContainers/NAME or volumes/NAME
      path       to the image in its document
      image      as written, "" where it is left out
      becomes    what the webhook makes of it; the same text where it is left alone
      rule       the rule that decided, or null
      reason     why it is left alone without a rule, or null
      warning    what kubectl would print, or null

    Exits with 2 where an option or a manifest is wrong; standard error then says which, and nothing is shown.
    """
    mirror = _mirror(registry, prefix, rules)
    manifests = read_manifests(files)
    if manifests.problems:
        for problem in manifests.problems:
            typer.echo(f"Error: {problem}", err=True)
        raise typer.Exit(2)
    found = list(rows(manifests, mirror))
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(row) for row in found], indent=2))
    elif found:
        for line in listing(found) if sys.stdout.isatty() else table(found):
            typer.echo(line)
    else:
        typer.echo("No image found.", err=True)


def read_manifests(names: Iterable[str]) -> Manifests:
    """Read files, the manifests in directories, and standard input for "-", each once; never raises."""
    manifests = Manifests()
    for name in dict.fromkeys(names):
        try:
            for file in _files(name):
                manifests.read(file, sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes())
        except OSError as error:
            file = str(error.filename or name)
            manifests.problems.append(Problem(file, None, "", f"cannot be read: {error.strerror or error}"))
    return manifests


def rows(manifests: Manifests, mirror: Mirror) -> Iterator[Row]:
    """Decide about each image of `manifests` as if its pod were new, in the order in which they were read."""
    for found in manifests.pods:
        labels = manifests.namespaces.get(found.namespace, {}) if found.namespace else {}
        # The webhook's configuration keeps such a namespace's pods from being sent at all.
        opted_out = f"its namespace is labelled {SKIP_LABEL}" if labels.get(SKIP_LABEL) == "true" else None
        for subresource in ("", "ephemeralcontainers"):
            for field in image_fields(found.pod, subresource):
                yield _row(found, field, mirror, opted_out or exemption(found.pod))


def table(found: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and one aligned line for each image, however long: for a pipe, a file, a document."""
    lines = [["FILE", "DOCUMENT", "OBJECT", "FIELD", "IMAGE", "BECOMES", "DECIDED BY"]]
    for row in found:
        texts = (row.file, str(row.document), f"{row.kind}/{row.name}", row.field, *_told(row))
        lines.append([printable(text) for text in texts])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


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


def _mirror(registry: str, prefix: str, rules: str) -> Mirror:
    """Make the mirror that the options describe. Raises typer.BadParameter, which quotes what is wrong."""
    return Mirror(
        _option("--registry", parse_registry, registry),
        _option("--prefix", parse_prefix, prefix),
        _option("--rules (or MIRROR_RULES)", parse_rules, rules),
    )


def _option(name: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=name) from error


def _files(name: str) -> list[str]:
    path = Path(name)
    if name == _STDIN or not path.is_dir():
        return [name]
    files = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(ENOENT, f"no file in it ends in {', '.join(_SUFFIXES)}", name)
    return files


def _row(found: FoundPod, field: ImageField, mirror: Mirror, exempt: str | None) -> Row:
    becomes, rule, reason, warning = field.image, None, exempt, None
    if exempt is None:
        decision, rule = mirror.decide(field.image)
        if isinstance(decision, Keep):
            warning = decision.warning
        else:
            becomes = str(decision.home) if isinstance(decision, Copy) else decision.image
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
