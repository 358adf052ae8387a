"""The API server around the webhook: matchConditions, and other webhooks that change the same pod."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.fakes.adapter import Gateway, gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, Json, images, originals, pod
from e2e.harness.stage import answer, configuration, configured, emptied, policy_of
from image_mirror.cli.emulation import Emulation


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, ["POST /inject"], answer) as running:
        yield running


@pytest.mark.parametrize("place", [0, "-"], ids=["first", "last"])
def test_a_sidecar_that_a_later_webhook_injects_is_rewritten_too(
    cluster: Cluster, gate: Gateway, aws: Emulation, injector: Gateway, place: object
) -> None:
    def inject(event: Json) -> Json:
        request = json.loads(event["body"])["request"]
        present = any(each["name"] == "sidecar" for each in request["object"]["spec"]["containers"])
        sidecar = {"name": "sidecar", "image": "quay.io/side/car:1"}
        operation = {"op": "add", "path": f"/spec/containers/{place}", "value": sidecar}
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        if not present:
            patch = base64.b64encode(json.dumps([operation]).encode()).decode()
            response |= {"patchType": "JSONPatch", "patch": patch}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return {"statusCode": 200, "body": json.dumps(review)}

    injector.handler = inject
    shipped = configuration(gate)
    bundle = base64.b64encode(injector.certificate).decode()
    second = {"name": "inject.example.com", "clientConfig": {"url": f"{injector.url}/inject", "caBundle": bundle}}
    shipped["webhooks"].append(shipped["webhooks"][0] | second)
    with emptied(cluster), configured(cluster, gate, shipped):
        cluster.apply(pod("injected", "nginx", "gcr.io/team/app:1"))
        made = cluster.get("pod", "injected")
    assert images(made) == {
        "c0": f"{COPIES}/docker.io/library/nginx:latest",
        "c1": f"{COPIES}/gcr.io/team/app:1",
        "sidecar": f"{COPIES}/quay.io/side/car:1",
    }
    assert originals(made) == {
        "containers/c0": "nginx",
        "containers/c1": "gcr.io/team/app:1",
        "containers/sidecar": "quay.io/side/car:1",
    }
    assert {record.source for record in aws.records()} == {
        "docker.io/library/nginx:latest",
        "gcr.io/team/app:1",
        "quay.io/side/car:1",
    }


def test_the_match_conditions_hold_for_pods_that_lack_fields_and_for_huge_ones(
    cluster: Cluster, gate: Gateway, aws: Emulation
) -> None:
    bare, huge = pod("bare", "nginx"), pod("huge", *(f"gcr.io/h/h:{number}" for number in range(5000)))
    with emptied(cluster), configured(cluster, gate, configuration(gate, policy_of("Fail"))):
        gate.handler = _admit  # the API server is tested here, not how fast 250 calls are
        for each in (bare, huge):
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(each))
            name = each["metadata"]["name"]
            gate.bodies.clear()
            cluster.kubectl("label", "pod", name, "a=b")
            cluster.kubectl("annotate", "pod", name, "a=b")
            assert gate.reviews == []
            cluster.kubectl("set", "image", f"pod/{name}", "c0=gcr.io/other/image:1")
            assert len(gate.reviews) == 1
    assert aws.records() == []


def _admit(event: Json) -> Json:
    review = json.loads(event["body"])
    response = {"uid": review["request"]["uid"], "allowed": True}
    body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
    return {"statusCode": 200, "body": body}
