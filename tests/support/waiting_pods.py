"""Pods that wait for their images, and a cluster of plain objects that has them, in place of kubectl."""

import copy
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster, NotFoundError, Refusal, RefusedError
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


def restarted(made: Json) -> Json:
    """Return a pod whose container has run before, as it waits again."""
    statuses = [each | {"lastState": {"terminated": {"exitCode": 1}}} for each in made["status"]["containerStatuses"]]
    return made | {"status": {"phase": "Running", "containerStatuses": statuses}}


def running(made: Json) -> Json:
    state = {"running": {"startedAt": at(20)}}
    return made | {"status": {"phase": "Running", "containerStatuses": [{"name": "app", "state": state}]}}


class World(SimpleNamespace):
    """What kubectl answers: pods, namespaces, configurations and events; and what it was asked.

    `patched` has the patches that were accepted, by the pod's name; they change only the pod's version. `late` has
    errors of a patch, the first of which is raised by the next one; a conflict is a change by somebody else. `tried` is
    the image that a dry run gives a new pod, None for the one that it names, and `warned` has the warnings.
    """

    pods: list[Json]
    namespaces: list[Json]
    configurations: list[Json]
    events: list[Json]
    refused: set[str]
    asked: list[tuple[str, ...]]
    patched: list[tuple[str, Json]]
    late: list[Exception]
    tried: str | None
    warned: list[str]

    def get(self, *what: str) -> Json:
        self.asked.append(what)
        kind = what[0]
        if kind in self.refused:
            raise NoAnswerError(f"the cluster: {kind} is forbidden", "run kubectl")
        if kind == "pod":
            namespace = next((each.partition("=")[2] for each in what if each.startswith("--namespace=")), "shop")
            return copy.deepcopy(self._pod(namespace, what[1]))
        if kind == "pods":
            phases = ("Pending",) if "--field-selector=status.phase=Pending" in what else ("Pending", "Running")
            return {"items": copy.deepcopy([each for each in self.pods if each["status"]["phase"] in phases])}
        named = {"namespaces": self.namespaces, "mutatingwebhookconfigurations": self.configurations}
        return {"items": named.get(kind, self.events)}

    def dry_run(self, new: Json) -> tuple[Json, list[str]]:
        if "dry-run" in self.refused:
            raise NoAnswerError("the cluster: pods is forbidden")
        self.asked.append(("dry-run", json.dumps(new)))
        if self.tried is None:
            return new, self.warned
        return new | {"spec": {"containers": [{"name": "app", "image": self.tried}]}}, self.warned

    def patch_pod(self, namespace: str, name: str, patch: Json) -> None:
        metadata = self._pod(namespace, name)["metadata"]
        error = self.late.pop(0) if self.late else None
        if error is None and patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            error = RefusedError(Refusal.CONFLICT, "somebody else keeps changing the pod")
        elif error is None or (isinstance(error, RefusedError) and error.refusal is Refusal.CONFLICT):
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        if error is not None:
            raise error
        self.patched.append((f"{namespace}/{name}", patch))

    def _pod(self, namespace: str, name: str) -> Json:
        for each in self.pods:
            if (each["metadata"]["namespace"], each["metadata"]["name"]) == (namespace, name):
                return each
        raise NotFoundError(f'the cluster: Error from server (NotFound): pods "{name}" not found', "run kubectl")


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
        tried="changed",
        warned=["it is being copied"],
    )
    monkeypatch.setattr(Cluster, "get", lambda _, *what: made.get(*what))
    monkeypatch.setattr(Cluster, "dry_run", lambda _, new: made.dry_run(new))
    monkeypatch.setattr(Cluster, "patch_pod", lambda _, *what: made.patch_pod(*what))
    return made
