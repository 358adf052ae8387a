"""Pods that wait for their images, and a cluster of plain objects that has them, in place of kubectl."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.webhook_manifest import shipped_configuration
from image_mirror.pod_images import ORIGINALS
from support.clock import NOON
from support.cloud import REGISTRY
from support.operators import URL

COPIES = f"{REGISTRY}/mirror"
NOT_FOUND = 'Back-off pulling image "{0}": ErrImagePull: {0}: not found'
Json = dict[str, Any]


def at(minutes: float) -> str:
    """Return a time before noon, as the API server writes it."""
    return datetime.fromtimestamp(NOON / 1000 - minutes * 60, UTC).isoformat().replace("+00:00", "Z")


def pod(name: str, image: str, original: str | None = None, **changes: Any) -> Json:
    """Return a pod whose only container waits for `image`; the webhook has put it in place of `original`."""
    named = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": at(30),
        "labels": {},
    }
    noted = {"annotations": {ORIGINALS: json.dumps({"containers/app": original})}} if original else {}
    waiting = {"reason": "ImagePullBackOff", "message": NOT_FOUND.format(image)}
    made: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": named | noted | changes.pop("metadata", {}),
        "spec": {"containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}], "nodeName": "n1"},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "app", "state": {"waiting": waiting}}]},
    }
    return made | changes


def copied(name: str, source: str) -> Json:
    return pod(name, f"{COPIES}/{source}", source)


def running(made: Json) -> Json:
    state = {"running": {"startedAt": at(20)}}
    return made | {"status": {"phase": "Running", "containerStatuses": [{"name": "app", "state": state}]}}


class World(SimpleNamespace):
    """What kubectl answers: pods, namespaces, configurations and events; and what it was asked.

    `patched` has the patches that were sent, by the pod's name; `late` has errors of a patch, the first of which is
    raised by the next one.
    """

    pods: list[Json]
    namespaces: list[Json]
    configurations: list[Json]
    events: list[Json]
    refused: set[str]
    asked: list[tuple[str, ...]]
    patched: list[tuple[str, Json]]
    late: list[Exception]

    def get(self, *what: str) -> Json:
        self.asked.append(what)
        kind = what[0]
        if kind in self.refused:
            raise NoAnswerError(f"the cluster: {kind} is forbidden", "run kubectl")
        if kind == "pod":
            return next(each for each in self.pods if each["metadata"]["name"] == what[1])
        if kind == "pods":
            phases = ("Pending",) if "--field-selector=status.phase=Pending" in what else ("Pending", "Running")
            return {"items": [each for each in self.pods if each["status"]["phase"] in phases]}
        named = {"namespaces": self.namespaces, "mutatingwebhookconfigurations": self.configurations}
        return {"items": named.get(kind, self.events)}

    def dry_run(self, new: Json) -> tuple[Json, list[str]]:
        if "dry-run" in self.refused:
            raise NoAnswerError("the cluster: pods is forbidden")
        self.asked.append(("dry-run", json.dumps(new)))
        return new | {"spec": {"containers": [{"name": "app", "image": "changed"}]}}, ["it is being copied"]

    def patch_pod(self, namespace: str, name: str, patch: Json) -> None:
        if self.late:
            raise self.late.pop(0)
        self.patched.append((f"{namespace}/{name}", patch))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    configuration = shipped_configuration(URL)
    configuration["metadata"]["creationTimestamp"] = at(100_000)
    made = World(
        pods=[],
        namespaces=[{"metadata": {"name": "shop", "labels": {}}}],
        configurations=[configuration],
        events=[],
        refused=set(),
        asked=[],
        patched=[],
        late=[],
    )
    monkeypatch.setattr(Cluster, "get", lambda _, *what: made.get(*what))
    monkeypatch.setattr(Cluster, "dry_run", lambda _, new: made.dry_run(new))
    monkeypatch.setattr(Cluster, "patch_pod", lambda _, *what: made.patch_pod(*what))
    return made
