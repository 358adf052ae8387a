"""Changes of users to existing pods: which of them reach the webhook, and its answers."""

import json

import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, EVERY_FIELD, FULL, images, originals, pod, version
from image_mirror import webhook
from image_mirror.cli.emulation import Emulation
from image_mirror.record import Record, Status
from image_mirror.table import to_item


def put(aws: Emulation, record: Record) -> None:
    aws._dynamodb.put_item(TableName="ImageListTable", Item=to_item(record))
    webhook.load.cache_clear()


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


@pytest.mark.parametrize(
    ("field", "name"),
    [
        pytest.param("containers", "by-tag", id="container"),
        pytest.param("initContainers", "prepare", id="init container"),
    ],
)
def test_an_image_that_is_set_is_rewritten_and_the_others_keep_their_originals(
    mirrored: Cluster, field: str, name: str
) -> None:
    mirrored.kubectl("apply", "-f", EVERY_FIELD)
    before = mirrored.get("pod", FULL)
    mirrored.kubectl("set", "image", f"pod/{FULL}", f"{name}=gcr.io/google-samples/hello-app:2.0")
    after = mirrored.get("pod", FULL)
    assert images(after) == images(before) | {name: f"{COPIES}/gcr.io/google-samples/hello-app:2.0"}
    assert originals(after) == originals(before) | {f"{field}/{name}": "gcr.io/google-samples/hello-app:2.0"}


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
    warnings = [line for line in again.stderr.splitlines() if line.startswith("Warning: ")]
    kept = "the pod keeps the image that it has already in place of this one"
    assert sorted(warnings) == sorted(f"Warning: {image}: {kept}" for image in originals(made).values())
    after = mirrored.get("pod", "again")
    assert version(after) == version(made)
    assert images(after) == images(made)
    assert originals(after) == originals(made)
    difference = mirrored.try_kubectl("diff", *flags, "-f", "-", stdin=json.dumps(manifest))
    assert (difference.returncode, difference.stdout) == (0, "")


def test_with_a_skip_label_added_later_the_source_s_images_are_left_unchanged(mirrored: Cluster) -> None:
    manifest = pod("later", "gcr.io/team/app:1")
    mirrored.apply(manifest)
    manifest["metadata"]["labels"] = {"image-mirror/skip": "true"}
    mirrored.apply(manifest)
    assert images(mirrored.get("pod", "later")) == {"c0": "gcr.io/team/app:1"}


@pytest.mark.parametrize("flags", [(), ("--server-side", "--force-conflicts")], ids=["client", "server"])
def test_a_skip_label_added_later_is_refused_where_an_image_volume_would_go_back(
    mirrored: Cluster, flags: tuple[str, ...]
) -> None:
    manifest = pod("later", "gcr.io/team/app:1")
    manifest["spec"]["volumes"] = [{"name": "v", "image": {"reference": "registry.k8s.io/pause:3.9"}}]
    mirrored.apply(manifest)
    made = mirrored.get("pod", "later")
    manifest["metadata"]["labels"] = {"image-mirror/skip": "true"}
    done = mirrored.try_kubectl("apply", *flags, "-f", "-", stdin=json.dumps(manifest))
    assert done.returncode != 0
    assert 'The Pod "later" is invalid: spec: Forbidden: pod updates may not change fields' in done.stderr
    assert version(mirrored.get("pod", "later")) == version(made)


def test_a_second_server_side_applier_conflicts_on_the_image_until_it_forces_it(mirrored: Cluster) -> None:
    manifest = pod("shared", "gcr.io/team/app:1")
    apply = ("apply", "--server-side", "-f", "-")
    mirrored.apply(manifest, "--server-side", "--field-manager=first")
    done = mirrored.try_kubectl(*apply, "--field-manager=second", stdin=json.dumps(manifest))
    assert done.returncode != 0
    assert 'Apply failed with 1 conflict: conflict with "first": .spec.containers[name="c0"].image' in done.stderr
    mirrored.kubectl(*apply, "--field-manager=second", "--force-conflicts", stdin=json.dumps(manifest))
    after = mirrored.get("pod", "shared")
    assert images(after) == {"c0": f"{COPIES}/gcr.io/team/app:1"}
    assert originals(after) == {"containers/c0": "gcr.io/team/app:1"}
