"""Mutated reviews: any node is replaced, deleted, doubled, changed in type, nested or moved."""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzz.reading import ORIGINALS, REGISTRY

Slot = tuple[Any, Any]  # what holds a node, and the key or index under which it does
_HEX = "c0f429e16b13e583da7e5a6ec20dd656d325d88e6819cafe0adb0828976529dc"

# Where the webhook looks: most changes happen there, and the more of them in the pods.
_ENVELOPE = frozenset(
    (
        *("apiVersion", "kind", "request", "uid", "operation", "subResource", "resource", "dryRun", "object"),
        *("oldObject", "namespace", "ownerReferences", "generateName"),
    )
)
_PODS = frozenset(
    (
        "metadata spec annotations labels containers initContainers ephemeralContainers volumes name image reference "
        f"imagePullPolicy pullPolicy {ORIGINALS} image-mirror/skip image-mirror/swap-when kubernetes.io/config.mirror"
    ).split()
)
TEXTS = (
    *(
        "",
        " ",
        "a",
        "auto",
        "true",
        "Always",
        "Never",
        "always",
        "paused",
        "CREATE",
        "UPDATE",
        "DELETE",
        "ephemeralcontainers",
        "pods",
        "status",
    ),
    *("admission.k8s.io/v1", "admission.k8s.io/v1beta1", "admission.k8s.io/v2", "AdmissionReview"),
    *("\0", "a\0b", "a\nb", "\ud800", "\udfff\ud800", "\u202e", "\x1b[31m", "é", "日本語", "\U0001f433"),
    *("~1", "/", "../..", "{", "[]", "{}", "null", "[" * 5000, '{"a":' * 5000, "9" * 5000, "1e999"),
    *("a" * 1025, "a" * 300_000),
)
IMAGES = (
    *("nginx", "nginx:1.27", "docker.io/nginx", "index.docker.io/library/nginx", "redis", "a/b/c:1", "localhost/x"),
    *(
        "registry-1.docker.io/library/nginx",
        "registry.hub.docker.com/a/b:1",
        "hub.docker.com/a",
        "registry-1.docker.io/x",
    ),
    *("gcr.io/a/b", "GCR.io/a/b:1", "x.gcr.io/a", "a.x.gcr.io/a", "agcr.io/a", "gcr.io:443/a", ".gcr.io/a"),
    *("quay.io/prometheus/node:1", "quay.io/prometheusx/node", "registry.k8s.io/pause:3.9", "us-docker.pkg.dev/p/r/i"),
    *("private.example.com/x", "a.example.org/x/y/z", "b.a.example.org/x/y/z", "localhost:5000/x", "[fd00::1]:80/x"),
    *(f"gcr.io/a@sha256:{_HEX}", f"gcr.io/a:1@sha256:{_HEX}", f"gcr.io/a@sha512:{_HEX}{_HEX}", _HEX),
    *(
        f"gcr.io/a:sha256-{_HEX}",
        f"gcr.io/a:digest-sha256-{_HEX}",
        "gcr.io/a:digest-sha256-x",
        f"gcr.io/a@sha256:{_HEX.upper()}",
    ),
    *(f"{REGISTRY}/mirror/gcr.io/a/b:latest", f"{REGISTRY}/x", f"{REGISTRY}/mirror/{REGISTRY}/x:1"),
    *(
        f"{REGISTRY}/mirror/registry-1.docker.io/library/nginx:latest",
        f"{REGISTRY}/mirror/registry.hub.docker.com/a/b:1",
    ),
    *(f"{REGISTRY}/mirror/docker.io/library/nginx:latest", f"{REGISTRY}/mirror/gcr.io/a@sha256:{_HEX}"),
    *(f"{REGISTRY}/mirror/gcr.io/a:1@sha256:{_HEX}", f"{REGISTRY}/mirror/docker.io/library/nginx:1.27@sha256:{_HEX}"),
    *("hub.example.com/library/nginx:latest", "mirror.example.com/gcr/a/b", "docker.io/k8s/pause:3.9"),
    *("gcr.io/a:" + "t" * 128, "gcr.io/" + "r" * 255, "gcr.io/" + "r" * 256, "gcr.io/" + "a/" * 200 + "a"),
    *("gcr.io/a:1:2", "gcr.io/a@", "gcr.io//a", "gcr.io./a", "gcr.io/Ä", "nginx\n", "nginx\0"),
    *("a." * 500 + "io/x", "a-" * 500, "a_" * 500),
)
VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1e308, float("nan"), 10**400, [], {}, [[]], [None], {"": None}, "")


def mutated(review: Any, dice: Random) -> Any:
    """Return a copy of `review` with one to eight changes."""
    holder = {"review": copy.deepcopy(review)}
    for _ in range(dice.randint(1, 8)):
        change = dice.choice(_CHANGES)
        within, key = _chosen(holder, dice)
        change(within, key, dice)
        holder.setdefault("review", None)
    return holder["review"]


def _slots(node: Any) -> Iterator[Slot]:
    waiting = [node]
    while waiting:
        within = waiting.pop()
        for key in within if isinstance(within, dict) else range(len(within)):
            yield within, key
            if isinstance(within[key], dict | list):
                waiting.append(within[key])


def _chosen(holder: Any, dice: Random) -> Slot:
    """Choose a node: mostly one that the webhook reads, each name with the same probability."""
    slots = list(_slots(holder))
    read = dice.choice((_PODS, _PODS, _PODS, _ENVELOPE, frozenset[str]()))
    names = sorted({key for _, key in slots if key in read})
    if names:
        name = dice.choice(names)
        slots = [slot for slot in slots if slot[1] == name]
    return dice.choice(slots)


def _text(key: Any, dice: Random) -> str:
    """Choose a text, mostly of the kind that belongs to `key`."""
    if key in ("image", "reference") and dice.random() < 0.9:
        return dice.choice(IMAGES)
    if key == ORIGINALS and dice.random() < 0.9:
        return _originals(dice)
    return dice.choice(TEXTS)


def _originals(dice: Random) -> str:
    names = ("containers/a", "containers/b", "containers/c", "initContainers/i", "volumes/v", "containers/none")
    return json.dumps({name: dice.choice(IMAGES) for name in names if dice.random() < 0.6})


def _replace(within: Any, key: Any, dice: Random) -> None:
    within[key] = _text(key, dice) if isinstance(within[key], str) else copy.deepcopy(dice.choice(VALUES))


def _retype(within: Any, key: Any, dice: Random) -> None:
    within[key] = copy.deepcopy(dice.choice((*VALUES, dice.choice(TEXTS))))


def _delete(within: Any, key: Any, _: Random) -> None:
    del within[key]


def _double(within: Any, key: Any, dice: Random) -> None:
    """Double a node: an item of a list beside itself, a member under another name."""
    double = copy.deepcopy(within[key])
    if isinstance(within, list):
        within.insert(dice.randint(0, len(within)), double)
    else:
        within[dice.choice(sorted(_ENVELOPE | _PODS))] = double


def _nest(within: Any, key: Any, dice: Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 50))):
        within[key] = [within[key]] if dice.random() < 0.5 else {str(key): within[key]}


def _flatten(within: Any, key: Any, dice: Random) -> None:
    node = within[key]
    if node and isinstance(node, dict | list):
        within[key] = dice.choice(list(node.values()) if isinstance(node, dict) else node)


def _splice(within: Any, key: Any, dice: Random) -> None:
    """Put a part of a pod where there may be none: annotations, labels, containers, volumes."""
    node = within[key]
    if not isinstance(node, dict):
        return
    name = dice.choice(("a", "b", "c", "i", "v", "\0", "~1/"))
    image = dice.choice(IMAGES)
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": dice.choice(("Always", "IfNotPresent", "Never", None)),
    }
    part: dict[str, Any] = {
        "annotations": {ORIGINALS: _originals(dice), "b": dice.choice((dice.choice(TEXTS), TEXTS[-1]))},
        "labels": {
            "image-mirror/skip": dice.choice(("true", "false", "false", True, "")),
            "image-mirror/swap-when": dice.choice(("always", "copied", "paused", "pause", "", True)),
        },
        "containers": [container, {"name": "b", "image": dice.choice(IMAGES)}],
        "ephemeralContainers": [container],
        "volumes": [{"name": name, "image": {"reference": image, "pullPolicy": dice.choice(("Always", "Never"))}}],
    }
    fitting = {"metadata": ["annotations", "labels"], "spec": ["containers", "ephemeralContainers", "volumes"]}
    chosen = dice.choice(fitting.get(key, sorted(part)))
    node[chosen] = part[chosen]


def _alike(within: Any, key: Any, dice: Random) -> None:
    """Make a request an update whose old object equals the new one; later mutations make them different."""
    node = within[key]
    if isinstance(node, dict) and isinstance(node.get("object"), dict):
        node |= {"operation": "UPDATE", "oldObject": copy.deepcopy(node["object"])}
        if dice.random() < 0.3:
            node["subResource"] = "ephemeralcontainers"


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (
    *(_replace, _replace, _replace, _retype, _delete, _double, _nest, _flatten),
    *(_splice, _splice, _alike),
)
