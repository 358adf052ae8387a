"""Writes what a kubelet writes about images that it cannot pull: the control plane of the tests has no kubelet."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.harness.control_plane import Cluster
from e2e.harness.pods import images


def not_pulled(
    cluster: Cluster,
    *names: str,
    namespace: str = "default",
    field: str = "containers/c0",
    image: str | None = None,
    words: str = "not found",
    phase: str = "Pending",
) -> None:
    """Write the status of pods whose container waits in back-off for the first pod's image, or for `image`.

    `words` are the container runtime's. In the phase Running, the container has run before.
    """
    kind, _, container = field.partition("/")
    image = image or images(cluster.get("pod", names[0], "-n", namespace))[container]
    message = f'Back-off pulling image "{image}": ErrImagePull: {image}: {words}'
    state: dict[str, Any] = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}}
    if phase == "Running":
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state["lastState"] = {"terminated": {"exitCode": 1, "startedAt": at, "finishedAt": at}}
    status = {"name": container, "image": image, "imageID": "", "ready": False, "restartCount": 0} | state
    body = json.dumps({"status": {"phase": phase, f"{kind.removesuffix('s')}Statuses": [status]}})
    cluster.kubectl("patch", "pod", *names, "-n", namespace, "--subresource=status", "--type=merge", "-p", body)


def failing(cluster: Cluster, name: str, words: str = "not found", tries: int = 3) -> None:
    """Let a pod's first container wait in back-off, with the events of so many tries, the last one just now."""
    not_pulled(cluster, name, words=words)
    made = cluster.get("pod", name)
    at = (datetime.now(UTC) - timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": "Pod", "namespace": "default", "name": name, "uid": made["metadata"]["uid"]}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.1", "namespace": "default"},
        "involvedObject": about | {"fieldPath": "spec.containers{c0}"},
        "reason": "Pulling",
        "message": f'Pulling image "{images(made)["c0"]}"',
        "source": {"component": "kubelet"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": tries,
        "type": "Normal",
    }
    cluster.apply(event)
