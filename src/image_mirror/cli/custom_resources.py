"""The images in a custom resource: in pod templates, in lists of containers, and at the keys of known controllers.

A mapping whose `spec` lists containers that name an image counts as a pod template, as in Rollout or VirtualMachine. A
list `containers` under any other key counts as a list of containers (KServe's predictor). Each of Tekton, Argo,
KServe and KubeVirt also has keys of its own. Other texts under `image` are only named, because what a controller makes
of them cannot be known. A policy has patterns in their place, and the schema of a resource no images at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from image_mirror.pod_images import ImageField
from image_mirror.review import Json

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# The keys of one container, or of a list of them, by the group of the resource.
_OWN_KEYS: dict[str, tuple[str, ...]] = {
    "argoproj.io": ("container", "script", "sidecars"),
    "kubevirt.io": ("container", "containerDisk"),
    "serving.kserve.io": (
        *("container", "model", "alibi", "art", "huggingface", "lightgbm", "mlflow", "onnx"),
        *("paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost"),
    ),
    "tekton.dev": ("steps", "stepTemplate", "sidecars"),
}
_STEP = ("tekton.dev", "StepAction")  # its spec is a step
_WITHOUT_IMAGES = (
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "gatekeeper.sh",
    "jspolicy.com",
    "kyverno.io",
    "sigstore.dev",
)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """A pod template at `path`, or a mapping there that holds containers: `fields`, whose pointers begin there."""

    path: str
    pod: Json
    fields: tuple[ImageField, ...] = ()


@dataclass(slots=True)
class Search:
    """The images of one resource; `unread` has the paths of texts that look like images and are not read."""

    found: list[FoundImages] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def join(path: str, key: str | int) -> str:
    """Return the path of what is at `key` in the value at `path`."""
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".removeprefix(".")


def children(path: str, value: object) -> list[tuple[str, Any]]:
    """List what `value` contains, the last first, because the caller takes from the end."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(join(path, key), child) for key, child in held][::-1]


def search(path: str, resource: Json) -> Search:
    """Search a resource at any depth; `path` is where it is in its document."""
    result, read = Search(), set[str]()  # read: the paths of containers
    pending: list[tuple[str, Any, str]] = [(path, resource, "")]
    while pending:
        path, value, group = pending.pop()
        held = children(path, value)
        if isinstance(value, dict):
            keys: tuple[str, ...] = ()
            version, own_kind = value.get("apiVersion"), value.get("kind")
            if isinstance(version, str) and isinstance(own_kind, str):
                group = version.rpartition("/")[0]
                if any(f".{group}".endswith(f".{other}") for other in _WITHOUT_IMAGES):
                    continue
                keys = ("spec",) if (group, own_kind) == _STEP else ()
                held = [pair for pair in held if pair[0] != join(path, "status")]  # its controller's words
            if template := _template(value):
                result.found.append(FoundImages(path, template))
                read |= {f"{join(path, 'spec')}.{key}" for key in _CONTAINERS}
            keys += (*(key for key in _CONTAINERS if join(path, key) not in read), *_OWN_KEYS.get(group, ()))
            if fields := tuple(field for key in keys for field in _fields(key, value)):
                result.found.append(FoundImages(path, {"metadata": {}, "spec": {}}, fields))
            read |= {join(path, key) for key in keys}
            # In Kubernetes' own groups, `image` is a disk (of Ceph's).
            if "." in group and not group.endswith(".k8s.io") and _list_of(path) not in read:
                result.unread += [join(path, key) for key in value if _is_image(key, value[key])]
        pending += [(below, child, group) for below, child in held]
    return result


def _list_of(path: str) -> str:
    """Return the path of the list in which the value at `path` is, or else `path`."""
    return path[: path.rindex("[")] if path.endswith("]") else path


def _template(value: Json) -> Json | None:
    """Return the well-formed parts of a pod template, or None for what is none."""
    spec, metadata = value.get("spec"), value.get("metadata")
    if not isinstance(spec, dict):
        return None
    fit = {kind: _named(spec.get(kind)) for kind in _CONTAINERS}
    if not any(any(containers) for containers in fit.values()):
        return None
    return {"metadata": metadata if isinstance(metadata, dict) else {}, "spec": spec | fit}


def _named(containers: object) -> list[Json]:
    """Return the containers, with {} in place of each that names no image.

    A container without a name (Knative allows that) gets its index as its name.
    """
    return [
        {"name": f"[{index}]"} | container if _names_image(container) else {}
        for index, container in enumerate(containers if isinstance(containers, list) else [])
    ]


def _fields(key: str, holder: Json) -> Iterator[ImageField]:
    """Yield the images of a container under `key`, or of a list of them. A single one is named as its holder is."""
    held = holder.get(key)
    if isinstance(held, list):
        for index, container in enumerate(held):
            if _names_image(container):
                yield _field(f"{key}/{container.get('name') or f'[{index}]'}", f"/{key}/{index}/image", container)
    elif _names_image(held):
        name = holder.get("name")
        yield _field(f"{key}/{name}" if isinstance(name, str) else key, f"/{key}/image", held)


def _field(key: str, pointer: str, container: Any) -> ImageField:
    policy = container.get("imagePullPolicy")
    return ImageField(key, pointer, container["image"], pull_always=policy == "Always", pull_never=policy == "Never")


def _names_image(container: object) -> bool:
    return isinstance(container, dict) and isinstance(container.get("image"), str)


def _is_image(key: str, value: object) -> bool:
    if isinstance(value, dict):
        return key == "image" and isinstance(value.get("repository"), str)
    return isinstance(value, str) and value != "" and (key == "image" or key.endswith("Image"))
