"""The pods in manifests: takes YAML or JSON, returns pods and pod templates, and the place of each fault.

In Kubernetes' own kinds the place of the pod template is known, and the fields that the webhook reads are checked. In
any other kind each mapping whose `spec` lists containers that name an image counts as a pod template.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Any

import typer

from image_mirror.cli.documents import UnreadableError, read_documents
from image_mirror.cli.errors import ExitCode
from image_mirror.messages import printable
from image_mirror.review import Json

_STDIN = "-"
_SUFFIXES = (".json", ".yaml", ".yml")  # as kubectl reads a directory: without its subdirectories

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
    the pod; it is "" if the document is the pod. `pod` has a mapping for its metadata and one for its spec.
    """

    file: str
    document: int
    kind: str
    name: str
    namespace: str | None
    path: str
    pod: Json


@dataclass(slots=True)
class Manifests:
    """What all files read so far contain; `namespaces` are those defined there, each with its labels."""

    pods: list[FoundPod] = field(default_factory=list)
    namespaces: dict[str, Json] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read(self, file: str, data: bytes) -> None:
        """Add what a file contains. Never raises: each fault becomes a problem.

        What follows a document that does not parse is not read.
        """
        number, text = 0, ""
        try:
            text = data.decode("utf-8-sig")
            for number, document in enumerate(read_documents(text), start=1):
                self.add(file, number, document)
        except UnicodeDecodeError as error:
            self.problems.append(Problem(file, None, "", f"byte {error.start + 1} is not UTF-8; save it as UTF-8"))
        except UnreadableError as error:
            hint = "; render the chart first: helm template CHART | image-mirror preview -" if "{{" in text else ""
            self.problems.append(Problem(file, number + 1, f"line {error.line}", f"{error.cause}{hint}"))

    def add(self, file: str, document: int, value: object) -> None:
        """Add one document, given as its parsed value, None for an empty one. Never raises."""
        pending: list[tuple[str, object]] = [] if value is None else [("", value)]
        while pending:
            path, item = pending.pop()
            title, faults = "", list(_faults(path, item, _OBJECT))
            if not faults and isinstance(item, dict):
                title = f"{item['kind']}/{_name(item)}"
                if item["kind"].endswith("List") and "items" in item:
                    path, items = _join(path, "items"), item["items"] or []
                    faults = list(_faults(path, items, [{}]))
                    kind = item["kind"].removesuffix("List")  # the items of a PodList may leave out their kind
                    inherited = {"apiVersion": item["apiVersion"], "kind": kind} if kind else {}
                    pending += [] if faults else _children(path, [inherited | value for value in items])
                else:
                    faults = self._add_object(file, document, path, item)
            for at, message in faults:
                self.problems.append(Problem(file, document, ": ".join(filter(None, (title, at))), message))

    def _add_object(self, file: str, document: int, path: str, item: Json) -> list[tuple[str, str]]:
        group, kind, metadata = item["apiVersion"].rpartition("/")[0], item["kind"], item.get("metadata") or {}
        if (group, kind) == ("", "Namespace"):
            self.namespaces[_name(item)] = metadata.get("labels") or {}
        keys = _PLACES.get((group, kind))
        if keys is None:
            found = list(_search(path, item))
        else:
            template: Any = item
            for key in keys:
                path, template = _join(path, key), template.get(key) if isinstance(template, dict) else None
            if faults := list(_faults(path, template, _POD)):
                return faults
            found = [(path, {"metadata": template.get("metadata") or {}, "spec": template["spec"]})]
        self.pods += (FoundPod(file, document, kind, _name(item), metadata.get("namespace"), *pair) for pair in found)
        return []


def read_manifests(names: Iterable[str]) -> Manifests:
    """Read files, the manifests in directories, and standard input for "-". Reads each once, and never raises."""
    manifests = Manifests()
    for name in dict.fromkeys(names):
        try:
            for file in _files(name):
                manifests.read(file, sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes())
        except OSError as error:
            file = str(error.filename or name)
            manifests.problems.append(Problem(file, None, "", f"cannot be read: {error.strerror or error}"))
    return manifests


def read_valid_manifests(names: Iterable[str]) -> Manifests:
    """Read as `read_manifests`. If something is wrong, print each problem and raise typer.Exit."""
    manifests = read_manifests(names)
    for problem in manifests.problems:
        typer.echo(f"Error: {problem}", err=True)
    if manifests.problems:
        raise typer.Exit(ExitCode.WRONG_INPUT)
    return manifests


def _files(name: str) -> list[str]:
    path = Path(name)
    if name == _STDIN or not path.is_dir():
        return [name]
    files = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(ENOENT, f"no file in it ends in {', '.join(_SUFFIXES)}", name)
    return files


def _name(item: Json) -> str:
    metadata = item.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "")


def _join(path: str, key: str | int) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".removeprefix(".")


def _children(path: str, value: object) -> list[tuple[str, Any]]:
    """List what `value` contains, the last first, because the caller takes from the end."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(_join(path, key), child) for key, child in held][::-1]


def _search(path: str, value: Any) -> Iterator[tuple[str, Json]]:
    """Find what looks like a pod template at any depth; yield its path and its well-formed parts."""
    pending = [(path, value)]
    while pending:
        path, value = pending.pop()
        pending += _children(path, value)
        if isinstance(value, dict) and isinstance(spec := value.get("spec"), dict):
            metadata, fit = value.get("metadata"), {kind: _named(spec.get(kind)) for kind in _CONTAINERS}
            if any(any(containers) for containers in fit.values()):
                yield path, {"metadata": metadata if isinstance(metadata, dict) else {}, "spec": spec | fit}


def _named(containers: object) -> list[Json]:
    """Return the containers, with {} in place of each that names no image.

    A container without a name (Knative allows that) gets its index as its name.
    """
    return [
        {"name": f"[{index}]"} | container
        if isinstance(container, dict) and isinstance(container.get("image"), str)
        else {}
        for index, container in enumerate(containers if isinstance(containers, list) else [])
    ]


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
            yield from _faults(_join(path, index), entry, shape[0])
    elif isinstance(value, dict):
        for mark, below in shape.items():
            for key in value if mark == "*" else [mark.removesuffix("!")]:
                needed, found = mark.endswith("!"), value.get(key)
                if needed or found is not None:
                    yield from _faults(_join(path, key), None if needed and found in ("", []) else found, below)
