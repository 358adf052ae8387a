"""A real API server, the shipped configuration, the real handler: what users see by kubectl."""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from ssl import create_default_context
from typing import Any

import pytest
from adapter import Gateway, gateway
from control_plane import Cluster
from processes import wait_for
from stage import TOKEN, Json, answer, configuration, configured, output_path, pod, pods_of

from image_mirror import webhook
from image_mirror.cli.emulation import REGISTRY, Emulation
from image_mirror.images import ORIGINALS
from image_mirror.record import Record, Status
from image_mirror.records import to_item
from templates import ROOT

COPIES = f"{REGISTRY}/mirror"
EVERY_FIELD = ROOT / "samples" / "every-image-field.yaml"
FULL = "every-image-field"


def images(pod: Json) -> dict[str, str]:
    spec = pod["spec"]
    found = {
        each["name"]: each["image"]
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for each in spec.get(kind, ())
    }
    return found | {each["name"]: each["image"]["reference"] for each in spec.get("volumes", ()) if "image" in each}


def originals(pod: Json) -> dict[str, str]:
    found: dict[str, str] = json.loads(pod["metadata"].get("annotations", {}).get(ORIGINALS, "{}"))
    return found


def version(pod: Json) -> tuple[str, int]:
    return pod["metadata"]["resourceVersion"], pod["metadata"].get("generation", 0)


def put(aws: Emulation, record: Record) -> None:
    aws._dynamodb.put_item(TableName="ImageListTable", Item=to_item(record))
    webhook.load.cache_clear()


# ---- what users apply ----


def test_the_sample_deployment_s_own_pods_carry_ecr_images(mirrored: Cluster, gate: Gateway, aws: Emulation) -> None:
    mirrored.kubectl("apply", "-f", ROOT / "samples" / "nginx-gcr.yaml")
    wait_for(lambda: pods_of(mirrored, "app=nginx-gcr"), "the Deployment has a pod")
    shown = mirrored.kubectl(
        "get", "pods", "-l", "app=nginx-gcr", "-o", "jsonpath={.items[*].spec.containers[*].image}"
    ).stdout
    assert shown == f"{COPIES}/gcr.io/google-samples/hello-app:1.0"
    [record] = aws.records()
    assert (record.source, record.status) == ("gcr.io/google-samples/hello-app:1.0", Status.REQUESTED)
    assert {review["apiVersion"] for review in gate.reviews} == {"admission.k8s.io/v1"}


def test_every_image_field_is_rewritten_and_kubectl_prints_the_warnings(mirrored: Cluster, aws: Emulation) -> None:
    applied = mirrored.kubectl("apply", "-f", EVERY_FIELD)
    made = mirrored.get("pod", FULL)
    assert all(image.startswith(f"{COPIES}/") for image in images(made).values())
    assert set(originals(made)) == {
        *("containers/by-tag", "containers/by-digest", "containers/docker-hub"),
        *("initContainers/prepare", "volumes/files"),
    }
    warnings = [line for line in applied.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 5 == len(aws.records())
    assert "Warning: nginx is being copied to ECR; the pod waits in ImagePullBackOff until it arrives" in warnings


def test_an_ephemeral_container_is_rewritten_alone(mirrored: Cluster) -> None:
    mirrored.kubectl("apply", "-f", EVERY_FIELD)
    before = mirrored.get("pod", FULL)
    done = mirrored.kubectl("debug", FULL, "--image=quay.io/prometheus/busybox", "--attach=false", "--", "sleep", "1")
    assert "Warning: quay.io/prometheus/busybox is being copied to ECR" in done.stderr
    after = mirrored.get("pod", FULL)
    [debugger] = after["spec"]["ephemeralContainers"]
    assert debugger["image"] == f"{COPIES}/quay.io/prometheus/busybox:latest"
    assert images(before).items() <= images(after).items()
    mirrored.kubectl("debug", FULL, "--image=gcr.io/second/one", "--attach=false", "--", "sleep", "1")
    assert [each["image"] for each in mirrored.get("pod", FULL)["spec"]["ephemeralContainers"]] == [
        f"{COPIES}/quay.io/prometheus/busybox:latest",
        f"{COPIES}/gcr.io/second/one:latest",
    ]


def test_a_dry_run_shows_the_images_and_writes_nothing(mirrored: Cluster, aws: Emulation) -> None:
    done = mirrored.kubectl("apply", "--dry-run=server", "-o", "json", "-f", EVERY_FIELD)
    assert all(image.startswith(f"{COPIES}/") for image in images(json.loads(done.stdout)).values())
    assert aws.records() == []
    assert mirrored.get("pods")["items"] == []


@pytest.mark.parametrize("kind", ["CronJob", "StatefulSet"])
def test_the_pods_of_other_workloads_carry_ecr_images(mirrored: Cluster, kind: str) -> None:
    template: Json = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c0", "image": "gcr.io/w/w:1"}]},
    }
    if kind == "CronJob":
        job = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}
        mirrored.apply({"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": "w"}, "spec": job})
        mirrored.kubectl("create", "job", "--from=cronjob/w", "now")
    else:
        template["spec"]["restartPolicy"] = "Always"
        spec = {"serviceName": "w", "selector": {"matchLabels": {"app": "w"}}, "template": template}
        mirrored.apply({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": spec})
    wait_for(lambda: pods_of(mirrored, "app=w"), f"the {kind} has a pod")
    assert [images(each) for each in pods_of(mirrored, "app=w")] == [{"c0": f"{COPIES}/gcr.io/w/w:1"}]


# ---- updates ----


def test_a_label_an_annotation_and_a_mirror_pod_never_reach_the_webhook(mirrored: Cluster, gate: Gateway) -> None:
    mirrored.kubectl("apply", "-f", EVERY_FIELD)
    gate.bodies.clear()
    mirrored.kubectl("label", "pod", FULL, "a=b")
    mirrored.kubectl("annotate", "pod", FULL, "a=b")
    static = pod("static", "registry.k8s.io/kube-proxy:v1", annotations={"kubernetes.io/config.mirror": "hash"})
    static["spec"]["nodeName"] = "node"
    mirrored.apply(static)
    assert gate.reviews == []
    assert images(mirrored.get("pod", "static")) == {"c0": "registry.k8s.io/kube-proxy:v1"}


def test_an_image_that_is_set_is_rewritten_and_the_others_keep_their_originals(mirrored: Cluster) -> None:
    mirrored.kubectl("apply", "-f", EVERY_FIELD)
    before = mirrored.get("pod", FULL)
    mirrored.kubectl("set", "image", f"pod/{FULL}", "by-tag=gcr.io/google-samples/hello-app:2.0")
    after = mirrored.get("pod", FULL)
    copied = f"{COPIES}/gcr.io/google-samples/hello-app:2.0"
    assert images(after) == images(before) | {"by-tag": copied}
    changed = {"containers/by-tag": "gcr.io/google-samples/hello-app:2.0"}
    assert originals(after) == originals(before) | changed


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("volume", [True, False], ids=["image volume", "no volume"])
@pytest.mark.parametrize("since", ["nothing", "failed", "rules"])
def test_applying_an_unchanged_pod_again_changes_nothing(
    mirrored: Cluster, aws: Emulation, monkeypatch: pytest.MonkeyPatch, side: str, volume: bool, since: str
) -> None:
    manifest = pod("again", "nginx", "gcr.io/team/app:1")
    if volume:
        manifest["spec"]["volumes"] = [{"name": "v", "image": {"reference": "registry.k8s.io/pause:3.9"}}]
    flags = ("--server-side",) if side == "server" else ()
    mirrored.apply(manifest, *flags)
    made = mirrored.get("pod", "again")
    if since == "failed":
        for record in aws.records():
            put(aws, Record(repo=record.repo, tag=record.tag, source=record.source, status=Status.FAILED, error="x"))
    if since == "rules":
        monkeypatch.setenv("MIRROR_RULES", "!docker.io gcr.io=asia.gcr.io")
        monkeypatch.setenv("REPOSITORY_PREFIX", "other")
        webhook.load.cache_clear()
    again = mirrored.apply(manifest, *flags)
    assert "Warning" not in again.stderr
    after = mirrored.get("pod", "again")
    assert version(after) == version(made)
    assert images(after) == images(made)
    assert originals(after) == originals(made)
    difference = mirrored.try_kubectl("diff", *flags, "-f", "-", stdin=json.dumps(manifest))
    assert (difference.returncode, difference.stdout) == (0, "")


def test_a_skip_label_added_later_lets_the_source_s_images_through(mirrored: Cluster) -> None:
    manifest = pod("later", "gcr.io/team/app:1")
    mirrored.apply(manifest)
    manifest["metadata"]["labels"] = {"image-mirror/skip": "true"}
    mirrored.apply(manifest)
    assert images(mirrored.get("pod", "later")) == {"c0": "gcr.io/team/app:1"}


# ---- who is left alone, and other webhooks ----


def test_opted_out_pods_and_namespaces_stay_as_written(mirrored: Cluster, gate: Gateway) -> None:
    mirrored.kubectl("apply", "-f", ROOT / "samples" / "opted-out.yaml")
    assert images(mirrored.get("pod", "opted-out")) == {"hello-app": "gcr.io/google-samples/hello-app:1.0"}
    mirrored.kubectl("create", "namespace", "out")
    mirrored.kubectl("label", "namespace", "out", "image-mirror/skip=true")
    try:
        mirrored.apply(pod("p", "nginx", namespace="out"))  # type: ignore[arg-type]
        assert images(mirrored.get("pod", "p", "-n", "out")) == {"c0": "nginx"}
    finally:
        mirrored.kubectl("delete", "pod", "-n", "out", "--all", "--force", "--grace-period=0")
        mirrored.kubectl("delete", "namespace", "out", "--wait=false")
    assert gate.reviews == []


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, "POST /inject", answer) as running:
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
    second = configuration(gate)
    second["metadata"]["name"] = "z-injector"
    [entry] = second["webhooks"]
    bundle = base64.b64encode(injector.certificate).decode()
    entry |= {"name": "inject.example.com", "clientConfig": {"url": f"{injector.url}/inject", "caBundle": bundle}}
    with configured(cluster, gate, configuration(gate), second):
        cluster.apply(pod("injected", "nginx", "gcr.io/team/app:1"))
        made = cluster.get("pod", "injected")
        cluster.kubectl("delete", "pod", "injected", "--force", "--grace-period=0")
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
    assert len(aws.records()) >= 3


# ---- matchConditions, where an error would be silent under Ignore ----


def fail_closed(entry: Json) -> None:
    entry["failurePolicy"] = "Fail"


def test_the_match_conditions_hold_for_pods_that_lack_fields_and_for_huge_ones(
    cluster: Cluster, gate: Gateway, aws: Emulation
) -> None:
    bare, huge = pod("bare", "nginx"), pod("huge", *(f"gcr.io/h/h:{number}" for number in range(5000)))
    with configured(cluster, gate, configuration(gate, fail_closed)):
        gate.handler = _ignore  # what is measured is the API server: 5,000 records take longer than it waits
        for each in (bare, huge):
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(each))
            name = each["metadata"]["name"]
            gate.bodies.clear()
            cluster.kubectl("label", "pod", name, "a=b")
            cluster.kubectl("annotate", "pod", name, "a=b")
            assert gate.reviews == []
            cluster.kubectl("set", "image", f"pod/{name}", "c0=gcr.io/other/image:1")
            assert len(gate.reviews) == 1
            cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    assert aws.records() == []


def _ignore(event: Json) -> Json:
    review = json.loads(event["body"])
    response = {"uid": review["request"]["uid"], "allowed": True}
    body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
    return {"statusCode": 200, "body": body}


# ---- the webhook in trouble ----


def _status(code: int, headers: dict[str, str] | None = None) -> Any:
    return lambda _event: {"statusCode": code, "headers": headers or {}, "body": '{"message":"x"}'}


def _hang(_event: Json) -> Json:
    time.sleep(3)
    return {"statusCode": 200, "body": "{}"}


TROUBLES = {
    "hanging": _hang,
    "garbage": lambda _event: {"statusCode": 200, "body": "garbage"},
    "429": _status(429),
    "500": _status(500),
    "503": _status(503),
    "400": _status(400),
    "404": _status(404),
}


@pytest.fixture(scope="module", params=["Ignore", "Fail"])
def policy(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def _hurry(policy: str) -> Any:
    def change(entry: Json) -> None:
        entry |= {"failurePolicy": policy, "timeoutSeconds": 2}

    return change


def test_whatever_the_webhook_s_trouble_ignore_admits_and_fail_admits_nothing_unpatched(
    cluster: Cluster, gate: Gateway, aws: Emulation, policy: str
) -> None:
    with configured(cluster, gate, configuration(gate, _hurry(policy))):
        for name, handler in TROUBLES.items():
            gate.handler = handler
            manifest = pod(f"trouble-{name}", "gcr.io/team/app:1")
            done = cluster.try_kubectl("create", "-f", "-", stdin=json.dumps(manifest))
            if policy == "Ignore":
                assert done.returncode == 0, f"{name}: {done.stderr}"
                assert images(cluster.get("pod", f"trouble-{name}")) == {"c0": "gcr.io/team/app:1"}
                cluster.kubectl("delete", "pod", f"trouble-{name}", "--force", "--grace-period=0")
            else:
                assert done.returncode != 0, name
                assert "failed calling webhook" in done.stderr
    assert aws.records() == []


def test_a_webhook_that_is_down_is_ignored_or_fails(
    cluster: Cluster, gate: Gateway, aws: Emulation, tmp_path: Path, policy: str
) -> None:
    with gateway(tmp_path, f"POST /{TOKEN}", answer) as down:
        base = down.url

    def dead(entry: Json) -> None:
        _hurry(policy)(entry)
        entry["clientConfig"]["url"] = base + output_path()

    second = configuration(gate, dead)
    second["metadata"]["name"] = "down"
    with configured(cluster, gate, configuration(gate)):
        cluster.apply(second)
        try:
            time.sleep(1.5)  # until the API server has noticed; nothing can tell, for under Ignore nothing changes
            done = cluster.try_kubectl("create", "-f", "-", stdin=json.dumps(pod("down", "gcr.io/team/app:1")))
        finally:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", "down")
        assert (done.returncode == 0) == (policy == "Ignore")
        cluster.kubectl("delete", "pod", "down", "--ignore-not-found", "--force", "--grace-period=0")
    assert bool(aws.records()) == (policy == "Ignore"), "the other webhook has had its turn"


def test_two_refusals_to_promise_and_then_an_answer_admit_the_pod_rewritten(
    cluster: Cluster, gate: Gateway, aws: Emulation
) -> None:
    attempts: list[Json] = []

    def recover(event: Json) -> Json:
        attempts.append(event)
        late = {**event, "requestContext": {**event["requestContext"], "timeEpoch": int((time.time() - 4) * 1000)}}
        return answer(late if len(attempts) <= 2 else event)

    with configured(cluster, gate, configuration(gate, fail_closed)):
        gate.handler = recover
        cluster.apply(pod("recovered", "gcr.io/team/app:1"))
        assert images(cluster.get("pod", "recovered")) == {"c0": f"{COPIES}/gcr.io/team/app:1"}
        cluster.kubectl("delete", "pod", "recovered", "--force", "--grace-period=0")
    assert len(attempts) == 3
    assert len(aws.records()) == 1


def test_no_answer_is_a_redirect(gate: Gateway, aws: Emulation) -> None:
    context = create_default_context(cadata=gate.certificate.decode())
    found = {}
    for path in (output_path(), "/", "/other", output_path() + "/", output_path() + "/x"):
        for method, body in (("POST", b"{}"), ("POST", b""), ("GET", None), ("PUT", b"{}")):
            request = urllib.request.Request(gate.url + path, data=body, method=method)
            try:
                with urllib.request.urlopen(request, context=context) as response:
                    found[method, path, body] = response.status
            except urllib.error.HTTPError as error:
                found[method, path, body] = error.code
    assert set(found.values()) == {400, 404}
    assert {key for key, status in found.items() if status == 400} == {
        ("POST", output_path(), b"{}"),
        ("POST", output_path(), b""),
    }
    assert aws.records() == []
