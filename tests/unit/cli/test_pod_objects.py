"""What a pod's object says of its owner, and of which images can be patched."""

from typing import Any

import pytest

from image_mirror.cli.pod_objects import cannot_be_patched, names_tag_and, restart, runs_once
from image_mirror.pod_images import ImageField
from support.recorded import DIGEST

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("owner", "labels", "command"),
    [
        pytest.param(
            {"kind": "ReplicaSet", "name": "web-5d9c"},
            {"pod-template-hash": "5d9c"},
            "kubectl rollout restart deployment/web -n shop",
            id="deployment",
        ),
        pytest.param(
            {"kind": "ReplicaSet", "name": "web"}, {}, "delete and create the ReplicaSet again", id="bare-set"
        ),
        pytest.param(
            {"kind": "StatefulSet", "name": "db"}, {}, "kubectl rollout restart statefulset/db -n shop", id="set"
        ),
        pytest.param({"kind": "Job", "name": "j"}, {}, "delete and create the Job again", id="job"),
        pytest.param(None, {}, "delete and create the pod again", id="bare-pod"),
    ],
)
def test_the_command_that_recreates_a_pod_is_that_of_its_owner(
    owner: Json | None, labels: dict[str, str], command: str
) -> None:
    owners = [owner | {"controller": True}] if owner else []
    assert restart({"metadata": {"namespace": "shop", "labels": labels, "ownerReferences": owners}}) == command


@pytest.mark.parametrize(
    ("owner", "policy", "once"),
    [
        pytest.param({"kind": "Job", "name": "j", "controller": True}, "OnFailure", True, id="a-job"),
        pytest.param({"kind": "Workflow", "name": "w", "controller": True}, "Never", True, id="never-started-again"),
        pytest.param({"kind": "Job", "name": "j"}, "Always", False, id="an-owner-that-does-not-control-it"),
        pytest.param({"kind": "ReplicaSet", "name": "r", "controller": True}, "Always", False, id="a-replica-set"),
        pytest.param(None, "Always", False, id="a-bare-pod"),
        pytest.param(None, None, False, id="no-policy"),
    ],
)
def test_it_is_known_whether_a_pod_runs_once(owner: Json | None, policy: str | None, once: bool) -> None:
    pod = {"metadata": {"ownerReferences": [owner] if owner else []}, "spec": {"restartPolicy": policy}}
    assert runs_once(pod) is once


@pytest.mark.parametrize(
    ("key", "annotations", "why"),
    [
        pytest.param("containers/a", {}, None, id="container"),
        pytest.param("initContainers/a", {}, None, id="init-container"),
        pytest.param(
            "ephemeralContainers/a", {}, "the image of an ephemeral container cannot change", id="ephemeral-container"
        ),
        pytest.param("volumes/a", {}, "the image of a volume cannot change", id="image-volume"),
        pytest.param(
            "containers/a",
            {"kubernetes.io/config.mirror": "x"},
            "a static pod: its manifest is a file on the node",
            id="static-pod",
        ),
    ],
)
def test_it_is_known_which_images_can_be_patched(key: str, annotations: dict[str, str], why: str | None) -> None:
    pod = {"metadata": {"namespace": "shop", "annotations": annotations}}
    field = ImageField(key, "", "", pull_always=False, pull_never=False)
    found = cannot_be_patched(pod, field)
    assert (found[0] if found else None) == why


@pytest.mark.parametrize(
    ("image", "named"),
    [
        pytest.param(f"gcr.io/x:1@{DIGEST}", True, id="tag-and-digest"),
        pytest.param(f"gcr.io/x@{DIGEST}", False, id="no-tag"),
        pytest.param("gcr.io/x:1", False, id="no-digest"),
        pytest.param(f"gcr.io/x:1@sha256:{'b' * 64}", False, id="another-digest"),
        pytest.param("$IMAGE", False, id="no-image"),
    ],
)
def test_a_second_nudge_to_the_same_digest_would_change_nothing(image: str, named: bool) -> None:
    assert names_tag_and(DIGEST, image) is named
