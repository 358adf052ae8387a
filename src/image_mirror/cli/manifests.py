"""The pods in manifests: takes YAML or JSON, returns pods and pod templates, and the place of each fault.

In Kubernetes' own kinds the place of the pod template is known, and the fields that the webhook reads are checked. Any
other kind is searched (custom_resources.py). A fault hides nothing but its own document or object.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Any

import typer

from image_mirror.cli.custom_resources import FoundImages, children, join, search
from image_mirror.cli.documents import decode, read_documents
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.output import say
from image_mirror.cli.terminal import bar
from image_mirror.messages import printable
from image_mirror.pod_images import ImageField
from image_mirror.review import Json

_STDIN = "-"
_SUFFIXES = (".json", ".yaml", ".yml")  # those that kubectl reads in a directory
_FEW = 10  # files that are read too fast for a progress bar
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")  # kustomize's; no manifests

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_TEMPLATE = ("spec", "template")
_PLACES: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): _TEMPLATE,
    ("batch", "Job"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", *_TEMPLATE),
    **{("apps", kind): _TEMPLATE for kind in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")},
}

# Shapes: a text, a list of one shape, or a mapping by key. "*" is any key; a key that ends in "!" must be there.
_WANTED: dict[type[Any], str] = {str: "a text", list: "a list", dict: "a mapping"}
_METADATA: Json = {"labels": {"*": ""}, "annotations": {"*": ""}}
_NAMES = dict.fromkeys(("name", "generateName", "namespace"), "")
_OBJECT: Json = {"apiVersion!": "", "kind!": "", "metadata": _METADATA | _NAMES}
_SPEC: Json = {kind: [{"name!": "", "image": ""}] for kind in ("containers!", *_CONTAINERS[1:])}
_POD: Json = {"metadata": _METADATA, "spec!": _SPEC | {"volumes": [{"name!": "", "image": {"reference": ""}}]}}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, or with one of its documents (counted from 1) at a `place` in it."""

    file: str
    document: int | None
    place: str
    message: str

    def __str__(self) -> str:
        """Return one line: the file, the document, the place, and the message."""
        document = f"document {self.document}" if self.document else ""
        return printable(": ".join(part for part in (self.file, document, self.place, self.message) if part))


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod or a pod template, and the object it was found in.

    `name` may be a generateName; `namespace` is None if the manifest names none. `path` leads from the document to
    the pod; it is "" if the document is the pod. `pod` has a mapping for its metadata and one for its spec. `fields`
    are the images of containers that are in no pod template; their pointers begin at `path`.
    """

    file: str
    document: int
    kind: str
    name: str
    namespace: str | None
    path: str
    pod: Json
    fields: tuple[ImageField, ...] = ()


@dataclass(slots=True)
class Manifests:
    """What all files read so far contain; `namespaces` are those defined there, each with its labels.

    `problems` are what could not be read; `warnings` what kubectl accepts without a word. `unread` counts objects by
    their kind and the path of a text in them that looks like an image; `passed_over` are kustomize's own files.
    """

    pods: list[FoundPod] = field(default_factory=list)
    namespaces: dict[str, Json] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)
    is_empty: bool = True

    def read(self, file: str, data: bytes) -> None:
        """Add what a file contains. Never raises: each fault becomes a problem, and the rest is read."""
        text, remark = decode(data)
        if remark:
            self.warnings.append(Problem(file, None, "", remark))
        for document in read_documents(text):
            for line, sentence in document.remarks:
                place = f"line {line}" if line else ""
                self.warnings.append(Problem(file, document.number, place, sentence))
            if error := document.error:
                hint = "; render the chart first: helm template CHART | image-mirror preview -" if "{{" in text else ""
                self.problems.append(Problem(file, document.number, f"line {error.line}", f"{error.cause}{hint}"))
            else:
                self.add(file, document.number, document.value)

    def add(self, file: str, document: int, value: object) -> None:
        """Add one document, given as its parsed value, None for an empty one. Never raises."""
        self.is_empty &= value is None
        pending: list[tuple[str, object]] = [] if value is None else [("", value)]
        while pending:
            path, item = pending.pop()
            title, faults = "", list(_faults(path, item, _OBJECT))
            if not faults and isinstance(item, dict):
                title = f"{item['kind']}/{_name(item)}"
                if item["kind"].endswith("List") and "items" in item:
                    path, items = join(path, "items"), item["items"] or []
                    faults = list(_faults(path, items, [{}]))
                    kind = item["kind"].removesuffix("List")  # the items of a PodList may leave out their kind
                    inherited = {"apiVersion": item["apiVersion"], "kind": kind} if kind else {}
                    pending += [] if faults else children(path, [inherited | value for value in items])
                else:
                    faults = self._add_object(file, document, path, item)
            if [at for at, _ in faults] == [join(path, "apiVersion"), join(path, "kind")]:
                faults = [(path, "is no manifest: apiVersion and kind are missing")]
            for at, message in faults:
                self.problems.append(Problem(file, document, ": ".join(filter(None, (title, at))), message))

    def _add_object(self, file: str, document: int, path: str, item: Json) -> list[tuple[str, str]]:
        group, kind, metadata = item["apiVersion"].rpartition("/")[0], item["kind"], item.get("metadata") or {}
        if (group, kind) == ("", "Namespace"):
            self.namespaces[_name(item)] = metadata.get("labels") or {}
        keys = _PLACES.get((group, kind))
        if keys is None:
            searched = search(path, item)
            found = searched.found
            places = {re.sub(r"\[[0-9]+]", "[]", place.removeprefix(path)) for place in searched.unread}
            self.unread.update((kind, place.removeprefix(".")) for place in places)
        else:
            template: Any = item
            for key in keys:
                path, template = join(path, key), template.get(key) if isinstance(template, dict) else None
            if faults := list(_faults(path, template, _POD)):
                return faults
            found = [FoundImages(path, {"metadata": template.get("metadata") or {}, "spec": template["spec"]})]
        self.pods += (
            FoundPod(file, document, kind, _name(item), metadata.get("namespace"), each.path, each.pod, each.fields)
            for each in found
        )
        return []


def read_manifests(names: Iterable[str], *, recursive: bool = False) -> Manifests:
    """Read files, the manifests in directories, and standard input for "-". Reads each once, and never raises.

    `recursive`: the directories below a directory are read too, but no symbolic link to one.
    """
    manifests, files = Manifests(), dict[str, OSError | None]()
    for name in names:
        files |= {file: error for file, error in _files(name, recursive=recursive) if file not in files}
    with bar("reading", len(files)) if len(files) > _FEW else nullcontext(lambda _: None) as advance:
        for file, error in files.items():
            if error is None and Path(file).name in _KUSTOMIZATIONS:
                manifests.passed_over.append(file)
            else:
                _read_file(manifests, file, error)
            advance(1)
    return manifests


def _read_file(manifests: Manifests, file: str, error: OSError | None) -> None:
    try:
        if error:
            raise error
        manifests.read(file, sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes())
    except OSError as found:
        manifests.problems.append(Problem(file, None, "", f"cannot be read: {found.strerror or found}"))


def read_valid_manifests(names: Iterable[str]) -> Manifests:
    """Read as `read_manifests`, and print what `report` prints. If something is wrong, raise typer.Exit."""
    manifests = read_manifests(names)
    report(manifests)
    if manifests.problems:
        raise typer.Exit(ExitCode.WRONG_INPUT)
    return manifests


def report(manifests: Manifests) -> None:
    """Print on standard error what was not read, what is doubtful, and what is wrong, nearest to the prompt."""
    if count := len(manifests.passed_over):
        what = manifests.passed_over[0] if count == 1 else f"{count} files such as {manifests.passed_over[0]}"
        say(f"Note: passed over: {what}. To see what kustomize makes: kubectl kustomize DIR | image-mirror preview -")
    if manifests.unread:
        places = [
            f"{place} of {kind}" + (f" ({count} objects)" if count > 1 else "")
            for (kind, place), count in manifests.unread.items()
        ]
        say(f"Note: not read, because only a controller knows what it makes of them: {', '.join(places)}")
    for problem in manifests.warnings:
        say(f"Warning: {problem}")
    for problem in manifests.problems:
        say(f"Error: {problem}")


def _files(name: str, *, recursive: bool) -> Iterator[tuple[str, OSError | None]]:
    """Yield the files to read: `name`, or those in the folder `name`. What cannot be listed comes with an error."""
    if name == _STDIN or not Path(name).is_dir():
        yield name, None
        return
    found: list[tuple[str, OSError | None]] = []
    errors: list[OSError] = []
    for folder, below, files in os.walk(name, onerror=errors.append):
        below[:] = sorted(below) if recursive else []
        paths = (Path(folder, file) for file in sorted(files) if file.endswith(_SUFFIXES))
        found += ((str(path), None) for path in paths if path.is_file())
    found += ((str(error.filename), error) for error in errors)
    yield from found or [(name, FileNotFoundError(ENOENT, f"no file in it ends in {', '.join(_SUFFIXES)}"))]


def _name(item: Json) -> str:
    metadata = item.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "")


def _faults(path: str, value: Any, shape: Any) -> Iterator[tuple[str, str]]:
    """Yield each field that does not have its shape, and why. A null counts as missing, as in the API server."""
    wanted = _WANTED[type(shape)]
    if value is None:
        yield path, f"is missing; it must be {wanted}"
    elif type(value) is not type(shape):
        is_scalar = not isinstance(value, dict | list)
        shown = f"{json.dumps(value):.40}" if is_scalar else _WANTED[type(value)]
        yield path, f"must be {wanted}, not {shown}{'; put it in quotes' if is_scalar and shape == '' else ''}"
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _faults(join(path, index), entry, shape[0])
    elif isinstance(value, dict):
        for mark, below in shape.items():
            for key in value if mark == "*" else [mark.removesuffix("!")]:
                needed, found = mark.endswith("!"), value.get(key)
                if needed or found is not None:
                    yield from _faults(join(path, key), None if needed and found in ("", []) else found, below)
