"""`image-mirror nudge` on a real API server, with the shipped configuration and the real handler.

There is no kubelet: the statuses that it would write are written by the tests.
"""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.copies import arrive
from e2e.harness.kubelet import failing, not_pulled
from e2e.harness.pods import COPIES, images, originals, pod, pods_of, version
from e2e.harness.processes import wait_for
from e2e.harness.stage import silent
from image_mirror.cli import kubernetes
from image_mirror.cli.emulation import Emulation
from image_mirror.cli.pod_patches import PodPatch
from image_mirror.pod_images import ORIGINALS
from support.recorded import run

pytest_plugins = ["e2e.harness.operator"]
Json = dict[str, Any]
IMAGE, OTHER = "ghcr.io/acme/svc:2026.11", "gcr.io/team/app:1"


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


def test_a_container_that_has_run_before_is_patched_too(mirrored: Cluster, aws: Emulation, kubeconfig: str) -> None:
    waiting_pod(mirrored, aws, "w")
    not_pulled(mirrored, "w", phase="Running")
    [row] = nudge("--kubeconfig", kubeconfig)
    assert (row["result"], row["becomes"]) == ("patched", f"{COPIES}/{IMAGE}@{digest_of(IMAGE)}")
    assert images(mirrored.get("pod", "w"))["c0"] == row["becomes"]


def test_a_digest_that_the_author_has_chosen_stays(mirrored: Cluster, aws: Emulation, kubeconfig: str) -> None:
    mirrored.apply(pod("first", IMAGE))
    arrive(aws, IMAGE)
    pinned = f"{COPIES}/{IMAGE}@sha256:{'c' * 64}"
    mirrored.apply(pod("w", pinned))
    failing(mirrored, "w")
    [row] = nudge("--kubeconfig", kubeconfig, code=1)
    assert (row["result"], row["why"]) == (
        "not patched",
        "its author names a digest that ECR does not hold under this tag",
    )
    assert images(mirrored.get("pod", "w")) == {"c0": pinned}


def test_a_pod_with_a_large_annotation_is_patched_as_all_others(
    mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str
) -> None:
    mirrored.apply(pod("first", IMAGE))
    arrive(aws, IMAGE)
    large = {ORIGINALS: json.dumps({f"containers/c{number}": "x" * 70_000 for number in range(3)})}
    manifest = pod("w", IMAGE, *["private.example.com/x:1"] * 2, annotations=large)
    with silent(gate):
        mirrored.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        mirrored.apply(pod("other", IMAGE))
    for name in ("w", "other"):
        failing(mirrored, name)
    rows = nudge("--kubeconfig", kubeconfig, "--missed")
    assert [(row["pod"], row["result"]) for row in rows] == [("other", "patched"), ("w", "patched")]
    assert originals(mirrored.get("pod", "w"))["containers/c0"] == IMAGE


def test_what_the_api_server_says_of_a_patch_that_it_does_not_take_is_shown(
    mirrored: Cluster, aws: Emulation, kubeconfig: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_pod(mirrored, aws, "w")
    monkeypatch.setattr(PodPatch, "body", lambda one: {"spec": {"nodeName": one.pod["metadata"]["name"]}})
    [row] = nudge("--kubeconfig", kubeconfig, code=1)
    assert row["result"] == "failed"
    assert 'The Pod "w" is invalid: spec: Forbidden: pod updates may not change fields' in row["why"]


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
    rows = nudge("--kubeconfig", kubeconfig, "--missed")
    assert [(row["pod"], row["result"], row["do"]) for row in rows] == [
        ("lost", "patched", None),
        ("runs", "not waiting", "delete and create the pod again"),
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


def test_init_containers_are_patched_and_what_cannot_be_is_named(
    mirrored: Cluster, aws: Emulation, kubeconfig: str
) -> None:
    copy = f"{COPIES}/{IMAGE}"
    manifest = pod("i", OTHER)
    manifest["spec"]["initContainers"] = [{"name": "first", "image": "quay.io/a/b:1"}, {"name": "i", "image": IMAGE}]
    mirrored.apply(manifest)
    arrive(aws, IMAGE)
    not_pulled(mirrored, "i", field="initContainers/i", image=copy)
    manifest = pod("v", OTHER)
    manifest["spec"]["volumes"] = [{"name": "files", "image": {"reference": IMAGE}}]
    manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "files", "mountPath": "/files"}]
    mirrored.apply(manifest)
    not_pulled(mirrored, "v", image=copy)
    mirrored.apply(pod("e", OTHER))
    mirrored.kubectl("debug", "e", f"--image={IMAGE}", "-c=d", "--attach=false", "--", "sleep", "1")
    not_pulled(mirrored, "e", field="ephemeralContainers/d", image=copy)
    static = pod("s", copy, annotations={"kubernetes.io/config.mirror": "hash"})
    static["spec"]["nodeName"] = "node"
    mirrored.apply(static)
    not_pulled(mirrored, "s", image=copy)
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


def test_without_the_permission_to_patch_pods_the_permission_is_named(
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
        words = "the permission `patch pods` is missing in the namespace default"
        assert result.stderr.splitlines()[-1] == f"Error: {words}; ask for it, or use another context"
        assert words in result.stdout
    finally:
        mirrored.kubectl("delete", "clusterrolebinding", "reads-pods")
        mirrored.kubectl("delete", "clusterrole", "reads-pods")
    assert version(mirrored.get("pod", "w")) == version(before)
