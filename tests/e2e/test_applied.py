"""What users apply, on a real API server with the shipped configuration and the real handler."""

import json

import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, EVERY_FIELD, FULL, Json, images, originals, pod, pods_of
from e2e.harness.processes import wait_for
from image_mirror.cli.emulation import Emulation
from image_mirror.record import Status
from support.templates import ROOT


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


def test_the_audit_log_says_who_asked_for_which_copies(mirrored: Cluster, aws: Emulation) -> None:
    mirrored.apply(pod("asking", "gcr.io/a/a:1", "nginx"))
    [event] = mirrored.audited("create", "asking")
    assert event["user"]["username"] == "admin"
    assert json.loads(event["annotations"]["pods.image-mirror.webhook/copies"]) == [
        {"image": image, "copy": f"{COPIES}/{image}", "state": "REQUESTED"}
        for image in ("gcr.io/a/a:1", "docker.io/library/nginx:latest")
    ]
    assert [record.requested_by for record in aws.records()] == ["default/Pod/asking"] * 2


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


def test_a_pod_of_too_many_images_keeps_some_as_written_also_when_it_is_applied_again(
    mirrored: Cluster, aws: Emulation
) -> None:
    big = pod("big", *(f"gcr.io/big/big:{number}" for number in range(60)))
    applied = mirrored.apply(big)
    assert "Warning: 10 images stay as written: too many are new; run image-mirror warm or raise" in applied.stderr
    made = images(mirrored.get("pod", "big"))
    assert [made[f"c{number}"] for number in range(60)] == [
        *(f"{COPIES}/gcr.io/big/big:{number}" for number in range(50)),
        *(f"gcr.io/big/big:{number}" for number in range(50, 60)),
    ]
    assert len(aws.records()) == 50
    again = mirrored.apply(big | {"metadata": {"name": "big", "labels": {"new": "label"}}})
    assert "too many are new" not in again.stderr, "nothing new is requested"
    assert images(mirrored.get("pod", "big")) == made
    assert len(aws.records()) == 50


@pytest.mark.parametrize("kind", ["CronJob", "StatefulSet"])
def test_the_pods_of_other_workloads_carry_ecr_images(mirrored: Cluster, kind: str) -> None:
    """The CronJob's job is made by `kubectl create job --from`, so that the test does not wait for its schedule."""
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
