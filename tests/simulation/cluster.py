"""A cluster's API server: calls the webhook for each new pod, with retries, and creates the pod as answered."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from image_mirror.reference import Destination, destination_of, parse_reference
from simulation.functions import Function, Services
from simulation.ledger import Ledger
from simulation.monitoring import GATEWAY
from simulation.table import Key
from simulation.threads import Process

TIMEOUT = 5.0  # mutating-webhook.yaml's timeoutSeconds
_MOST_CALLS = 11  # k8s.io/apiserver: a request and ten retries


@dataclass(frozen=True, slots=True)
class Pod:
    """A new pod: the images of its containers, in order, and whether the kubelet always pulls them."""

    images: tuple[str, ...]
    pull_always: bool = False
    namespace: str = "default"


class ApiServer:
    """Creates pods. failurePolicy is Ignore: without an answer in time the images of a pod are left unchanged."""

    def __init__(self, services: Services, webhook: Function, ledger: Ledger) -> None:
        self._world = services.world
        self._mirror = services.settings.mirror
        self._webhook = webhook
        self._ledger = ledger
        self._number = 0

    def create(self, pod: Pod) -> None:
        """Begin to create a pod."""
        self._number += 1
        self._world.counts["pods"] += 1
        number = self._number
        self._world.threads.start(Process(None), lambda: self._admit(pod, number))

    def destination(self, image: str) -> Destination:
        """Return the destination of an image."""
        return destination_of(parse_reference(image), self._mirror.registry, self._mirror.prefix)

    def key(self, image: str) -> Key:
        """Return the key of an image's record."""
        destination = self.destination(image)
        return destination.repo, destination.tag

    def _admit(self, pod: Pod, number: int) -> None:
        clock, began = self._world.clock, self._world.clock.now
        body, policy = _review(pod, number), "Always" if pod.pull_always else "IfNotPresent"
        self._world.note("pod", number, policy, *pod.images)
        for _ in range(_MOST_CALLS):
            left = began + TIMEOUT - clock.now
            response = self._post(body, left) if left > 0 else None
            if response is None or response["statusCode"] != 503 or "Retry-After" not in response["headers"]:
                break
            self._world.counts["answers 503"] += 1
            self._world.threads.sleep(float(response["headers"]["Retry-After"]))
        if response is None or response["statusCode"] != 200:
            self._world.note("ignored", number)
            self._world.counts["pods without an answer"] += 1
            return
        images = _patched(pod, json.loads(response["body"])["response"])
        self._world.note("admitted", number, *images)
        for before, after in zip(pod.images, images, strict=True):
            if before != after:
                self._ledger.sent(self.key(before), began)
            else:
                self._ledger.left_unchanged(self.key(before), began)

    def _post(self, body: str, seconds: float) -> dict[str, Any] | None:
        """Send one request through the gateway and wait for its answer."""
        world, answers = self._world, list[dict[str, Any]]()
        event = {
            "version": "2.0",
            "rawPath": "/token",
            "queryStringParameters": {"timeout": f"{TIMEOUT:.0f}s"},
            "requestContext": {"timeEpoch": int(world.clock.now * 1000)},
            "body": body,
            "isBase64Encoded": False,
        }

        def until(wake: Any) -> None:
            def done(answer: Any) -> None:
                if world.happens(world.faults.answer_lost):
                    world.note("answer", "lost")
                else:
                    answers.append(answer or {"statusCode": 500, "headers": {}, "body": ""})
                    wake()
                status = (answer or {"statusCode": 500})["statusCode"]
                world.metrics.add((GATEWAY, "Count"), 1)
                for name, errors in (("4xx", range(400, 500)), ("5xx", range(500, 600))):
                    world.metrics.add((GATEWAY, name), int(status in errors))

            self._webhook.invoke(event, done)

        world.threads.wait_for(until, seconds)
        return answers[0] if answers else None


def _review(pod: Pod, number: int) -> str:
    policy = "Always" if pod.pull_always else "IfNotPresent"
    containers = [
        {"name": f"c{place}", "image": image, "imagePullPolicy": policy} for place, image in enumerate(pod.images)
    ]
    request = {
        "uid": f"00000000-0000-0000-0000-{number:012}",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": pod.namespace,
        "object": {"metadata": {"name": f"pod-{number}"}, "spec": {"containers": containers}},
        "oldObject": None,
        "dryRun": False,
    }
    return json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})


def _patched(pod: Pod, response: dict[str, Any]) -> list[str]:
    images = list(pod.images)
    for change in json.loads(base64.b64decode(response.get("patch", "W10="))):
        parts = change["path"].split("/")
        if change["op"] == "replace" and parts[1:3] == ["spec", "containers"] and parts[4:] == ["image"]:
            images[int(parts[3])] = change["value"]
    return images
