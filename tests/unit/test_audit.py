"""Who asks for which copies, as the records, the webhook's log and the cluster's audit log name them."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.admission import CopyRequest
from image_mirror.audit import audit_annotations, named_copies, requester
from image_mirror.decisions import Copy
from image_mirror.record import Status
from image_mirror.reference import destination_of, parse_reference
from image_mirror.review import Json, parse_review
from support.reviews_data import (
    DIGEST,
    FAILED,
    HEX,
    REGISTRY,
    admit,
    all_records,
    captured,
    event_of,
    made_pod,
    review_of,
)

CONTROLLER = {"kind": "ReplicaSet", "name": "web-5d9c", "controller": True}


def named(metadata: Json, namespace: Any = "shop") -> str | None:
    """Return the requester of a pod with this metadata, in a request with this namespace."""
    pod = made_pod({"a": "nginx"}) | {"metadata": metadata}
    return requester(parse_review(event_of(review_of(pod, namespace=namespace))))


@pytest.mark.parametrize(
    ("name", "requested_by"),
    [
        pytest.param("create-pod.json", "default/Pod/full", id="a-pod-by-hand"),
        pytest.param("create-pod-from-deployment.json", "default/ReplicaSet/nginx-gcr-ff5dfcc99", id="a-controller"),
        pytest.param("ephemeral-container.json", "default/Pod/full", id="an-ephemeral-container"),
        pytest.param("image-update.json", "default/Pod/full", id="an-update"),
    ],
)
def test_a_captured_review_names_the_pod_or_its_controller(name: str, requested_by: str) -> None:
    assert requester(parse_review(event_of(captured(name)))) == requested_by


@pytest.mark.parametrize(
    ("metadata", "requested_by"),
    [
        pytest.param({"name": "p"}, "shop/Pod/p", id="name"),
        pytest.param({"generateName": "p-"}, "shop/Pod/p-", id="generate-name"),
        pytest.param({"name": "p-1", "generateName": "p-"}, "shop/Pod/p-", id="both: the one that stays the same"),
        pytest.param({"name": "p", "ownerReferences": [CONTROLLER]}, "shop/ReplicaSet/web-5d9c", id="controller"),
        pytest.param(
            {"name": "p", "ownerReferences": [{**CONTROLLER, "controller": False}]}, "shop/Pod/p", id="another-owner"
        ),
        pytest.param(
            {"ownerReferences": [{"kind": "X", "name": "x"}, CONTROLLER]}, "shop/ReplicaSet/web-5d9c", id="second-owner"
        ),
        pytest.param({}, "shop", id="no-name"),
        pytest.param({"name": "p", "namespace": "other"}, "shop/Pod/p", id="the-request's-namespace-counts"),
    ],
)
def test_the_requester_is_the_controller_or_else_the_pod(metadata: Json, requested_by: str) -> None:
    assert named(metadata) == requested_by


@pytest.mark.parametrize(
    ("namespace", "metadata", "requested_by"),
    [
        pytest.param(None, {"name": "p", "namespace": "own"}, "own/Pod/p", id="the-pod's-namespace"),
        pytest.param(5, {"name": "p"}, None, id="number"),
        pytest.param("", {"name": "p"}, None, id="empty"),
        pytest.param("a/b", {"name": "p"}, None, id="slash"),
        pytest.param("Shop", {"name": "p"}, None, id="upper-case"),
        pytest.param("a\n", {"name": "p"}, None, id="newline"),
        pytest.param("a" * 64, {"name": "p"}, None, id="too-long"),
        pytest.param("a" * 63, {"name": "p" * 253}, f"{'a' * 63}/Pod/{'p' * 253}", id="longest"),
        pytest.param("shop", {"name": "p" * 254}, "shop", id="name-too-long"),
        pytest.param("shop", {"name": "p/q"}, "shop", id="slash-in-the-name"),
        pytest.param("shop", {"name": "\x1b[31m"}, "shop", id="control-character"),
        pytest.param("shop", {"name": "p", "generateName": "\u202e"}, "shop/Pod/p", id="invisible"),
        pytest.param("shop", {"name": ["p"]}, "shop", id="list"),
        pytest.param("shop", {"name": "p", "ownerReferences": "x"}, "shop/Pod/p", id="owners-that-are-a-text"),
        pytest.param("shop", {"name": "p", "ownerReferences": [None, 5, [], {}]}, "shop/Pod/p", id="strange-owners"),
        pytest.param(
            "shop", {"name": "p", "ownerReferences": [{**CONTROLLER, "kind": "A/B"}]}, "shop/Pod/p", id="strange-kind"
        ),
        pytest.param(
            "shop", {"name": "p", "ownerReferences": [{**CONTROLLER, "name": {}}]}, "shop/Pod/p", id="strange-name"
        ),
        pytest.param(
            "shop", {"ownerReferences": [{**CONTROLLER, "controller": "true"}]}, "shop", id="controller-as-a-text"
        ),
    ],
)
def test_only_names_that_kubernetes_allows_are_taken_from_a_body(
    namespace: Any, metadata: Json, requested_by: str | None
) -> None:
    assert named(metadata, namespace) == requested_by


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "name", "controller"]), inner),
)


@given(
    anything, st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "generateName", "ownerReferences"), anything))
)
def test_the_requester_of_any_body_is_short_printable_and_begins_with_the_namespace(
    namespace: Any, metadata: Json
) -> None:
    found = named(metadata, namespace)
    if found is not None:
        assert re.fullmatch(r"[a-z0-9-]{1,63}(/[A-Za-z0-9]{1,63}/[A-Za-z0-9.:_-]{1,253})?", found)
        assert found.split("/")[0] == namespace


def requests(*images: str) -> list[CopyRequest]:
    sources = [parse_reference(image) for image in images]
    return [CopyRequest(Copy(each.pinned, destination_of(each, REGISTRY, "mirror")), False) for each in sources]


def test_the_answer_names_the_source_the_copy_and_the_state_of_each_image() -> None:
    pod = made_pod(
        {"a": "nginx", "b": f"gcr.io/x:1@{DIGEST}", "c": "private.example.com/x"}, init={"i": "nginx:latest"}
    )
    admitted = admit(review_of(pod))
    assert list(admitted.audit) == ["copies"]
    assert json.loads(admitted.audit["copies"]) == [
        {
            "image": "docker.io/library/nginx:latest",
            "copy": f"{REGISTRY}/mirror/docker.io/library/nginx:latest",
            "state": "REQUESTED",
        },
        {
            "image": f"gcr.io/x@{DIGEST}",
            "copy": f"{REGISTRY}/mirror/gcr.io/x:digest-sha256-{HEX}",
            "state": "REQUESTED",
        },
    ]
    failed = admit(review_of(pod), FAILED)
    assert {each["state"] for each in json.loads(failed.audit["copies"])} == {"FAILED"}


def test_an_answer_without_copies_has_no_annotations_for_the_audit_log() -> None:
    for pod in (
        made_pod({"a": "private.example.com/x"}),
        made_pod({"a": "nginx"}, labels={"image-mirror/skip": "true"}),
    ):
        assert admit(review_of(pod)).audit == {}


@pytest.mark.parametrize("count", [1, 20, 40, 2_000])
def test_what_does_not_fit_is_counted(count: int) -> None:
    wanted = requests(*(f"gcr.io/team/app:{number}" for number in range(count)))
    shown, omitted = named_copies(wanted, all_records(Status.COPIED)(wanted))
    assert len(shown) + omitted == count
    assert (omitted > 0) == (count > 20)
    annotations = audit_annotations(shown, omitted)
    assert sum(map(len, annotations.values())) <= 4_200
    assert annotations.get("copies-omitted", "0") == str(omitted)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,61}[A-Za-z0-9]", key) for key in annotations)


def test_the_longest_names_leave_room_for_at_least_one_copy() -> None:
    wanted = requests("gcr.io/" + "x" * (255 - len(REGISTRY) - len("/mirror/gcr.io/")) + ":" + "t" * 128)
    shown, omitted = named_copies(wanted, all_records(None)(wanted))
    assert (len(shown), omitted) == (1, 0)
    assert shown[0]["state"] == "NONE"
