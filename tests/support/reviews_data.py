"""AdmissionReviews for tests, captured and made, and the pod that the API server makes of an answer."""

import base64
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jsonpatch

from image_mirror.admission import CopyRequest
from image_mirror.decisions import Mirror
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import Missing, Policy, Record, Status
from image_mirror.reference import Destination
from image_mirror.review import Json, Response
from image_mirror.settings import Settings
from image_mirror.swap_when import SwapWhen
from image_mirror.webhook import Webhook
from support.cloud import ENVIRONMENT

if TYPE_CHECKING:
    from image_mirror.recorder import Recorder

SETTINGS = Settings.from_env(ENVIRONMENT)
MIRROR = SETTINGS.mirror
REGISTRY = MIRROR.registry
NOW = 1_800_000_000_000
HEX = "c0f429e16b13e583da7e5a6ec20dd656d325d88e6819cafe0adb0828976529dc"
DIGEST = f"sha256:{HEX}"
CAPTURED = tuple(sorted(path.name for path in (Path(__file__).parents[1] / "reviews").glob("*.json")))

Lookup = Callable[[Sequence[CopyRequest]], Mapping[Destination, Record]]


def captured(name: str) -> Json:
    """Load an AdmissionReview as a real API server sent it."""
    review: Json = json.loads((Path(__file__).parents[1] / "reviews" / name).read_text())
    return review


def sample(name: str) -> Path:
    """Return the path of a manifest in tests/samples, which tests take as it is."""
    return Path(__file__).parents[1] / "samples" / name


def made_pod(
    containers: Mapping[str, str] | None = None,
    *,
    init: Mapping[str, str] | None = None,
    ephemeral: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    annotations: Any = None,
    labels: Any = None,
) -> Json:
    """Make a pod with images by container name; `annotations` and `labels` are used unchanged, None leaves them out."""
    metadata: Json = {"name": "made", "namespace": "default"}
    if annotations is not None:
        metadata["annotations"] = annotations
    if labels is not None:
        metadata["labels"] = labels
    spec: Json = {"containers": [{"name": name, "image": image} for name, image in (containers or {}).items()]}
    for kind, images in (("initContainers", init), ("ephemeralContainers", ephemeral)):
        if images is not None:
            spec[kind] = [{"name": name, "image": image} for name, image in images.items()]
    if volumes is not None:
        spec["volumes"] = [{"name": name, "image": {"reference": image}} for name, image in volumes.items()]
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}


def review_of(pod: Json, old: Json | None = None, *, subresource: str = "", **request: Any) -> Json:
    """Make the AdmissionReview of a new pod, or with `old` of an update."""
    body: Json = {
        "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE" if old is None else "UPDATE",
        "object": pod,
        "oldObject": old,
        "dryRun": False,
    }
    if subresource:
        body["subResource"] = subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": body | request}


def event_of(
    body: Json | str,
    *,
    timeout: str = "10s",
    time_epoch: int = 1_790_000_000_000,
    encoded: bool = False,
    path: str = "/token",
) -> Json:
    """Wrap a body as the HTTP API does (payload 2.0), base64 where `encoded`; `path` is that of a route."""
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "rawPath": path,
        "rawQueryString": f"timeout={timeout}",
        "headers": {"content-type": "application/json", "accept-encoding": "gzip"},
        "queryStringParameters": {"timeout": timeout},
        "requestContext": {"http": {"method": "POST", "path": path}, "timeEpoch": time_epoch},
        "body": base64.b64encode(text.encode()).decode() if encoded else text,
        "isBase64Encoded": encoded,
    }


def all_records(status: Status | None, *, digest: str | None = None, error: str | None = None, **more: Any) -> Lookup:
    """Return a lookup that answers every request with a record of this status, and of `more`."""

    def lookup(wanted: Sequence[CopyRequest]) -> dict[Destination, Record]:
        return {
            request.copy.destination: Record(
                repo=request.copy.destination.repo,
                tag=request.copy.destination.tag,
                source=str(request.copy.source),
                updated_at=NOW,
                status=status,
                digest=digest,
                error=error,
                **more,
            )
            for request in wanted
        }

    return lookup


REQUESTED = all_records(Status.REQUESTED)
COPIED = all_records(Status.COPIED, digest=DIGEST)
FAILED = all_records(Status.FAILED, error="NOT_FOUND: manifest unknown")


def respond(
    event: Mapping[str, Any],
    records: Lookup = REQUESTED,
    *,
    swap_when: SwapWhen = "always",
    policy: Policy | None = None,
    mirror: Mirror = MIRROR,
) -> Response:
    """Answer an event with the real webhook; `records` is used instead of the table."""
    settings = replace(SETTINGS, mirror=mirror, swap_when=swap_when, policy=policy or Policy())
    return Webhook(settings, cast("Recorder", ActiveRecords(records)), lambda: NOW / 1000).answer(event)


@dataclass(frozen=True)
class ActiveRecords:
    """A recorder that returns records of a given lookup and calls no table."""

    records: Lookup

    def record(self, wanted: Sequence[CopyRequest], **_: object) -> dict[Destination, Record]:
        return dict(self.records(wanted))

    def existing(self, wanted: Sequence[CopyRequest], **_: object) -> dict[Destination, Record | Missing]:
        return {request.copy.destination: Missing.ABSENT for request in wanted} | dict(self.records(wanted))


@dataclass(frozen=True)
class Admitted:
    """What the API server makes of an answer: the patched pod, the patch itself, the warnings."""

    pod: Json
    patch: list[Json]
    warnings: list[str]
    audit: dict[str, str]

    @property
    def images(self) -> dict[str, str]:
        """The pod's images by key, ephemeral containers among them."""
        return images_of(self.pod)

    @property
    def originals(self) -> dict[str, str] | None:
        """The annotation decoded, None where the pod has none."""
        text = (self.pod["metadata"].get("annotations") or {}).get(ORIGINALS)
        return None if text is None else dict(json.loads(text))


def images_of(pod: Json) -> dict[str, str]:
    """Read the images of a well-formed pod by key."""
    kinds = ("containers", "initContainers", "ephemeralContainers")
    images = {f"{kind}/{item['name']}": item["image"] for kind in kinds for item in pod["spec"].get(kind, ())}
    with_image = (volume for volume in pod["spec"].get("volumes", ()) if "image" in volume)
    return images | {f"volumes/{volume['name']}": volume["image"]["reference"] for volume in with_image}


def admit(review: Json, records: Lookup = REQUESTED, *, path: str = "/token", **options: Any) -> Admitted:
    """Send a review, check the form of the answer, and apply its patch. A patch that does not apply raises."""
    answered = respond(event_of(review, path=path), records, **options)
    assert answered["statusCode"] == 200
    body = json.loads(answered["body"])
    response = body["response"]
    assert body["apiVersion"] == review["apiVersion"]
    assert body["kind"] == "AdmissionReview"
    assert response["uid"] == review["request"]["uid"]
    assert response["allowed"] is True
    assert ("patch" in response) == ("patchType" in response)
    patch = json.loads(base64.b64decode(response["patch"], validate=True)) if "patch" in response else []
    assert "patch" not in response or (patch and response["patchType"] == "JSONPatch")
    pod = jsonpatch.JsonPatch(patch).apply(copy.deepcopy(review["request"]["object"]))
    return Admitted(pod, patch, response.get("warnings", []), response.get("auditAnnotations", {}))
