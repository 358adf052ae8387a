"""What a pod's object says of its owner, and of which images can be patched."""

import json
from typing import Any

import pytest

from image_mirror.cli.pod_objects import (
    cannot_be_patched,
    names_tag_and,
    needs_no_image,
    other_digest,
    restart,
    runs_once,
)
from image_mirror.pod_images import ORIGINALS, ImageField
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


def with_images(image: str, original: str | None = None) -> tuple[Json, ImageField]:
    noted = {ORIGINALS: json.dumps({"containers/a": original})} if original else {}
    return {"metadata": {"annotations": noted}}, ImageField(
        "containers/a", "", image, pull_always=False, pull_never=False
    )


OTHER, LONGER = f"sha256:{'b' * 64}", f"sha512:{'b' * 128}"


@pytest.mark.parametrize(
    ("image", "original", "other"),
    [
        pytest.param("gcr.io/x:1", None, "", id="no-digest"),
        pytest.param(f"gcr.io/x:1@{DIGEST}", None, "", id="the-same-digest"),
        pytest.param(f"gcr.io/x:1@{OTHER}", None, OTHER, id="the-author-s"),
        pytest.param(f"gcr.io/x@{OTHER}", None, OTHER, id="the-author-s-without-a-tag"),
        pytest.param(f"gcr.io/x:1@{OTHER}", "gcr.io/x:1", "", id="of-an-earlier-nudge"),
        pytest.param(f"gcr.io/x:1@{OTHER}", f"gcr.io/x:1@{OTHER}", OTHER, id="of-the-source"),
        pytest.param(f"gcr.io/x:1@{OTHER}", "$IMAGE", OTHER, id="an-annotation-that-is-no-image"),
        pytest.param(f"gcr.io/x:1@{LONGER}", "gcr.io/x:1", LONGER, id="sha512"),
        pytest.param("$IMAGE", None, "", id="no-image"),
    ],
)
def test_a_digest_that_the_author_names_is_told_from_that_of_a_nudge(
    image: str, original: str | None, other: str
) -> None:
    assert other_digest(*with_images(image, original), DIGEST) == other


ENDED: Json = {"initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0}}}]}
BEGUN: Json = {"initContainerStatuses": [{"name": "a", "state": {"running": {}}}]}


@pytest.mark.parametrize(
    ("key", "policy", "status", "why"),
    [
        pytest.param("containers/a", "Always", {}, None, id="container"),
        pytest.param("containers/a", "Always", ENDED, None, id="container-beside-an-init-container"),
        pytest.param("containers/a", "Never", {}, "its pod runs once", id="a-pod-that-runs-once"),
        pytest.param("volumes/a", "Always", {}, None, id="image-volume"),
        pytest.param("initContainers/a", "Always", ENDED, "the init container has ended", id="ended"),
        pytest.param("initContainers/a", "Always", BEGUN, None, id="a-sidecar-that-runs"),
        pytest.param("initContainers/b", "Always", ENDED, None, id="another-one-has-ended"),
        pytest.param("initContainers/a", "Always", None, None, id="no-status"),
        pytest.param("ephemeralContainers/a", "Always", {}, "an ephemeral container starts only once", id="ephemeral"),
    ],
)
def test_it_is_known_whether_a_container_needs_its_image_again(
    key: str, policy: str, status: Json | None, why: str | None
) -> None:
    pod = {"metadata": {}, "spec": {"restartPolicy": policy}, "status": status}
    assert needs_no_image(pod, ImageField(key, "", "", pull_always=False, pull_never=False)) == why
