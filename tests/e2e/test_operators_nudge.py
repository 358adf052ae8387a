"""`image-mirror nudge` on a real API server, with the shipped configuration and the real handler.

There is no kubelet: the statuses that it would write are written by the tests.
"""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster, assets
from e2e.harness.pods import COPIES, images, originals, pod, pods_of, version
from e2e.harness.processes import wait_for
from e2e.test_operators_pods import arrive, failing, silent
from image_mirror.cli import kubernetes
from image_mirror.cli.emulation import REGION, TABLE, Emulation
from support.operators import CHINA_OUTPUTS, Operated
from support.recorded import run

Json = dict[str, Any]
IMAGE, OTHER = "ghcr.io/acme/svc:2026.11", "gcr.io/team/app:1"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def kubeconfig(mirrored: Cluster, monkeypatch: pytest.MonkeyPatch, aws: Emulation) -> str:
    """The cluster's kubeconfig, with its kubectl on PATH and the stack in China deployed."""
    assert aws.records() == []
    monkeypatch.setenv("PATH", str(assets()), prepend=":")
    outputs = CHINA_OUTPUTS | {"CopiesPrefix": f"{COPIES}/", "ImageListTableName": TABLE}
    Operated().deploy("sam-template.yaml", REGION, "image-mirror", outputs, WebhookToken=TOKEN)
    return mirrored._command[2]


def digest_of(source: str) -> str:
    """Return the digest that ECR has under the tag of a copy."""
    repository, _, tag = f"mirror/{source}".rpartition(":")
    answer = boto3.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    return str(answer["imageDetails"][0]["imageDigest"])


def nudge(*arguments: object, code: int = 0) -> list[Json]:
    result = run("nudge", *arguments, "-o", "json")
    assert result.exit_code == code, result.output
    rows: list[Json] = json.loads(result.stdout)
    return rows


def waiting_pod(cluster: Cluster, aws: Emulation, name: str, flags: tuple[str, ...] = ()) -> tuple[Json, Json]:
    """Apply a pod of two images that waits for the first, whose copy has arrived. Return its manifest and the pod."""
    manifest = pod(name, IMAGE, OTHER)
    cluster.apply(manifest, *flags)
    arrive(aws, IMAGE)
    failing(cluster, name)
    return manifest, cluster.get("pod", name)


@pytest.mark.parametrize("flags", [(), ("--server-side",)], ids=["client", "server"])
def test_a_waiting_pod_gets_its_copy_by_digest_and_nothing_else_changes(
    mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str, flags: tuple[str, ...]
) -> None:
    _, before = waiting_pod(mirrored, aws, "w", flags)
    gate.bodies.clear()
    planned = nudge("--kubeconfig", kubeconfig, "--dry-run")
    assert [(row["result"], row["field"]) for row in planned] == [("would be patched", "containers/c0")]
    assert (version(mirrored.get("pod", "w")), gate.reviews) == (version(before), [])
    [row] = nudge("--kubeconfig", kubeconfig)
    becomes = f"{COPIES}/{IMAGE}@{digest_of(IMAGE)}"
    assert (row["result"], row["image"], row["becomes"]) == ("patched", IMAGE, becomes)
    after = mirrored.get("pod", "w")
    assert images(after) == images(before) | {"c0": becomes}
    assert originals(after) == originals(before) == {"containers/c0": IMAGE, "containers/c1": OTHER}
    assert [review["request"]["operation"] for review in gate.reviews] == ["UPDATE"], "the webhook has seen it"
    assert (after["metadata"]["uid"], after["status"]["phase"]) == (before["metadata"]["uid"], "Pending")
    assert nudge("--kubeconfig", kubeconfig) == []


CONFLICT = 'conflict with "image-mirror" using v1: .spec.containers[name="c0"].image'


@pytest.mark.parametrize("first", [(), ("--server-side",)], ids=["made by client", "made by server"])
@pytest.mark.parametrize("then", [(), ("--server-side", "--force-conflicts")], ids=["client", "server"])
def test_applying_the_manifest_again_keeps_the_image_of_a_nudged_pod(
    mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    manifest, _ = waiting_pod(mirrored, aws, "w", first)
    nudge("--kubeconfig", kubeconfig)
    nudged = mirrored.get("pod", "w")
    if first and then:
        alone = mirrored.try_kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))
        assert CONFLICT in alone.stderr, "as after any other change of the image"
    gate.bodies.clear()
    again = mirrored.apply(manifest, *then)
    kept = "the pod keeps the image that it has already in place of this one"
    assert [line for line in again.stderr.splitlines() if line.startswith("Warning: g")] == [
        f"Warning: {image}: {kept}" for image in (IMAGE, OTHER)
    ]
    after = mirrored.get("pod", "w")
    assert (after["spec"], originals(after)) == (nudged["spec"], originals(nudged))
    assert version(after)[1] == version(nudged)[1], "the generation: nothing of the pod has changed"
    assert gate.reviews


def test_another_image_that_is_set_in_a_nudged_pod_is_copied_and_the_other_containers_stay(
    mirrored: Cluster, aws: Emulation, kubeconfig: str
) -> None:
    waiting_pod(mirrored, aws, "w")
    nudge("--kubeconfig", kubeconfig)
    nudged = mirrored.get("pod", "w")
    mirrored.kubectl("set", "image", "pod/w", "c1=gcr.io/team/app:2")
    after = mirrored.get("pod", "w")
    assert images(after) == images(nudged) | {"c1": f"{COPIES}/gcr.io/team/app:2"}
    assert originals(after) == originals(nudged) | {"containers/c1": "gcr.io/team/app:2"}
    mirrored.kubectl("set", "image", "pod/w", f"c0={IMAGE}")
    assert images(mirrored.get("pod", "w")) == images(after), "the same source is no change"
    mirrored.kubectl("set", "image", "pod/w", "c0=ghcr.io/acme/svc:2026.12")
    assert images(mirrored.get("pod", "w")) == images(after) | {"c0": f"{COPIES}/ghcr.io/acme/svc:2026.12"}
    assert originals(mirrored.get("pod", "w"))["containers/c0"] == "ghcr.io/acme/svc:2026.12"


def test_a_pod_that_changes_meanwhile_is_read_again_and_patched(
    mirrored: Cluster, aws: Emulation, kubeconfig: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_pod(mirrored, aws, "w")
    patch, versions = kubernetes.Cluster.patch_pod, list[str]()

    def late(self: kubernetes.Cluster, namespace: str, name: str, body: Json) -> None:
        if not versions:
            mirrored.kubectl("label", "pod", name, "the-kubelet=was-faster")
        versions.append(body["metadata"]["resourceVersion"])
        patch(self, namespace, name, body)

    monkeypatch.setattr(kubernetes.Cluster, "patch_pod", late)
    [row] = nudge("--kubeconfig", kubeconfig)
    assert (row["result"], len(set(versions))) == ("patched", 2)
    after = mirrored.get("pod", "w")
    assert images(after)["c0"] == row["becomes"]
    assert after["metadata"]["labels"] == {"the-kubelet": "was-faster"}


def job(name: str, image: str) -> Json:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c0", "image": image}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def test_a_job_that_may_not_fail_once_survives_and_gets_what_the_webhook_would_have_written(
    mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str
) -> None:
    with silent(gate):
        mirrored.apply(job("once", IMAGE))
        wait_for(lambda: pods_of(mirrored, "job-name=once"), "the Job has a pod")
    [made] = pods_of(mirrored, "job-name=once")
    name = made["metadata"]["name"]
    assert images(made) == {"c0": IMAGE}
    failing(mirrored, name, "i/o timeout")
    before = mirrored.get("pod", name)

    [row] = nudge("--kubeconfig", kubeconfig, "--missed", "--jobs", code=1)
    assert (row["result"], row["why"]) == ("not patched", "its copy is not in ECR")
    # What `image-mirror warm --cluster` does: a record, a build, the copy.
    mirrored.apply(pod("warm", IMAGE))
    arrive(aws, IMAGE)
    mirrored.kubectl("delete", "pod", "warm", "--force", "--grace-period=0")
    [row] = nudge("--kubeconfig", kubeconfig, "--missed", code=1)
    assert (row["result"], row["do"]) == ("not patched", "add --jobs")
    assert version(mirrored.get("pod", name)) == version(before)

    gate.bodies.clear()
    [row] = nudge("--kubeconfig", kubeconfig, "--missed", "--jobs")
    assert (row["result"], row["becomes"]) == ("patched", f"{COPIES}/{IMAGE}")
    [after] = pods_of(mirrored, "job-name=once")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert images(after) == {"c0": f"{COPIES}/{IMAGE}"}
    mirrored.apply(pod("by-the-webhook", IMAGE))
    assert originals(after) == originals(mirrored.get("pod", "by-the-webhook")) == {"containers/c0": IMAGE}
    assert len(gate.reviews) == 2, "the webhook has seen the patch, and keeps it"
    # The kubelet pulls, and the Job ends well.
    status = {"phase": "Succeeded", "containerStatuses": []}
    mirrored.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def conditions() -> list[str]:
        return [each["type"] for each in mirrored.get("job", "once")["status"].get("conditions", ())]

    wait_for(lambda: "Complete" in conditions(), "the Job is complete")
    assert "Failed" not in conditions()


def test_a_missed_pod_is_applied_again_without_a_restart_and_one_that_runs_is_only_named(
    mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str
) -> None:
    manifest = pod("lost", IMAGE, "private.example.com/x:1")
    mirrored.apply(pod("warm", IMAGE))
    arrive(aws, IMAGE)
    with silent(gate):
        mirrored.apply(manifest)
        mirrored.apply(pod("runs", IMAGE))
    failing(mirrored, "lost", "i/o timeout")
    running = json.dumps({"status": {"phase": "Running"}})
    mirrored.kubectl("patch", "pod", "runs", "--subresource=status", "--type=merge", "-p", running)
    rows = nudge("--kubeconfig", kubeconfig, "--missed", code=1)
    assert [(row["pod"], row["result"], row["do"]) for row in rows] == [
        ("lost", "patched", None),
        ("runs", "not patched", "delete and create the pod again"),
    ]
    patched = mirrored.get("pod", "lost")
    assert images(patched) == {"c0": f"{COPIES}/{IMAGE}", "c1": "private.example.com/x:1"}
    assert images(mirrored.get("pod", "runs")) == {"c0": IMAGE}
    mirrored.apply(manifest)
    after = mirrored.get("pod", "lost")
    assert (after["spec"], originals(after)) == (patched["spec"], {"containers/c0": IMAGE})
    failing(mirrored, "lost")
    [row] = nudge("--kubeconfig", kubeconfig, "lost")
    assert row["becomes"] == f"{COPIES}/{IMAGE}@{digest_of(IMAGE)}", "it is a pod like any other now"


def waits_in(cluster: Cluster, name: str, statuses: str, container: str, image: str) -> None:
    """Write the status of one container that waits for an image."""
    message = f'Back-off pulling image "{image}": ErrImagePull: {image}: not found'
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    each = {"name": container, "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
    status = {"status": {"phase": "Pending", statuses: [each]}}
    cluster.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def test_init_containers_are_patched_and_what_cannot_be_is_named(
    mirrored: Cluster, aws: Emulation, kubeconfig: str
) -> None:
    copy = f"{COPIES}/{IMAGE}"
    manifest = pod("i", OTHER)
    manifest["spec"]["initContainers"] = [{"name": "first", "image": "quay.io/a/b:1"}, {"name": "i", "image": IMAGE}]
    mirrored.apply(manifest)
    arrive(aws, IMAGE)
    waits_in(mirrored, "i", "initContainerStatuses", "i", copy)
    manifest = pod("v", OTHER)
    manifest["spec"]["volumes"] = [{"name": "files", "image": {"reference": IMAGE}}]
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "files", "mountPath": "/files"}]
    mirrored.apply(manifest)
    waits_in(mirrored, "v", "containerStatuses", "c0", copy)
    mirrored.apply(pod("e", OTHER))
    mirrored.kubectl("debug", "e", f"--image={IMAGE}", "-c=d", "--attach=false", "--", "sleep", "1")
    waits_in(mirrored, "e", "ephemeralContainerStatuses", "d", copy)
    static = pod("s", copy, annotations={"kubernetes.io/config.mirror": "hash"})
    static["spec"]["nodeName"] = "node"
    mirrored.apply(static)
    waits_in(mirrored, "s", "containerStatuses", "c0", copy)
    before = {name: mirrored.get("pod", name) for name in "ives"}
    rows = nudge("--kubeconfig", kubeconfig, code=1)
    assert [(row["pod"], row["field"], row["result"], row["why"]) for row in rows] == [
        ("e", "ephemeralContainers/d", "not patched", "the image of an ephemeral container cannot change"),
        ("i", "initContainers/i", "patched", None),
        ("s", "containers/c0", "not patched", "a static pod: its manifest is a file on the node"),
        ("v", "volumes/files", "not patched", "the image of a volume cannot change"),
    ]
    after = mirrored.get("pod", "i")
    assert images(after) == images(before["i"]) | {"i": f"{copy}@{digest_of(IMAGE)}"}
    assert [each["name"] for each in after["spec"]["initContainers"]] == ["first", "i"]
    for name in "ves":
        assert version(mirrored.get("pod", name)) == version(before[name])


def test_without_the_right_to_patch_pods_the_right_is_named(
    mirrored: Cluster, aws: Emulation, kubeconfig: str, tmp_path: Path
) -> None:
    _, before = waiting_pod(mirrored, aws, "w")
    role = ("clusterrole", "reads-pods", "--verb=get,list", "--resource=pods,events")
    mirrored.kubectl("create", *role)
    mirrored.kubectl("create", "clusterrolebinding", "reads-pods", "--clusterrole=reads-pods", "--user=developer")
    try:
        config = json.loads(Path(kubeconfig).read_text())
        config["users"][0]["user"]["as"] = "developer"
        file = tmp_path / "developer.json"
        file.write_text(json.dumps(config))
        assert run("nudge", "--kubeconfig", file, "--dry-run").exit_code == 0
        result = run("nudge", "--kubeconfig", file)
        assert result.exit_code == 3
        words = "the right `patch pods` is missing in the namespace default"
        assert result.stderr.splitlines()[-1] == f"Error: {words}; ask for it, or use another context"
        assert words in result.stdout
    finally:
        mirrored.kubectl("delete", "clusterrolebinding", "reads-pods")
        mirrored.kubectl("delete", "clusterrole", "reads-pods")
    assert version(mirrored.get("pod", "w")) == version(before)
