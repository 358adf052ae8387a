"""Whole AdmissionReviews in, patched pods out."""

import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.admission import CopyRequest, copies_placed, copy_requests
from image_mirror.decisions import Copy, Mirror, Rewrite
from image_mirror.messages import (
    at_most_ten,
    copied_later,
    copying,
    failed,
    left_unchanged,
    not_read,
    not_requested,
    refused,
    restored,
    too_many,
)
from image_mirror.pod_images import ORIGINALS, new_images
from image_mirror.record import MINUTE, Missing, Policy, Record, Status
from image_mirror.reference import Destination
from image_mirror.review import BadReviewError, Json, parse_review
from image_mirror.rules import parse_rules
from image_mirror.swap_when import SwapWhen
from support.reviews_data import (
    COPIED,
    DIGEST,
    FAILED,
    MIRROR,
    REGISTRY,
    REQUESTED,
    Lookup,
    admit,
    all_records,
    captured,
    event_of,
    images_of,
    made_pod,
    respond,
    review_of,
    sample,
)

steady = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
HUB = f"{REGISTRY}/mirror/docker.io/library"
GCR = f"{REGISTRY}/mirror/gcr.io"


def no_lookup(wanted: Sequence[CopyRequest]) -> Mapping[Destination, Record]:
    """Replace a table that must not be called."""
    assert not wanted
    return {}


STATIC = f"gcr.io/distroless/static@{DIGEST}"
OF_THE_POD = {
    "containers/a": "nginx",
    "containers/b": STATIC,
    "initContainers/i": "quay.io/prometheus/busybox:latest",
    "volumes/v": "registry.k8s.io/pause:3.9",
}
COPIES_OF_THE_POD = {
    "containers/a": f"{HUB}/nginx:latest",
    "containers/b": f"{GCR}/distroless/static@{DIGEST}",
    "initContainers/i": f"{REGISTRY}/mirror/quay.io/prometheus/busybox:latest",
    "volumes/v": f"{REGISTRY}/mirror/registry.k8s.io/pause:3.9",
}
DEBUGGER = "ephemeralContainers/debugger-6bdnt"


@pytest.mark.parametrize(
    ("name", "images", "originals", "warned"),
    [
        pytest.param("create-pod.json", COPIES_OF_THE_POD, OF_THE_POD, list(OF_THE_POD.values()), id="create"),
        pytest.param("create-pod-dry-run.json", COPIES_OF_THE_POD, OF_THE_POD, list(OF_THE_POD.values()), id="dry-run"),
        pytest.param(
            "create-pod-from-deployment.json",
            {"containers/nginx": f"{REGISTRY}/mirror/k8s.gcr.io/nginx:latest"},
            {"containers/nginx": "k8s.gcr.io/nginx"},
            ["k8s.gcr.io/nginx"],
            id="create-by-a-replica-set",
        ),
        pytest.param(
            "ephemeral-container.json",
            {**OF_THE_POD, DEBUGGER: f"{HUB}/busybox:1.36"},
            None,
            ["docker.io/library/busybox:1.36"],
            id="ephemeral-container",
        ),
        pytest.param(
            "image-update.json",
            {**OF_THE_POD, "containers/a": f"{HUB}/nginx:1.27", DEBUGGER: "docker.io/library/busybox:1.36"},
            {"containers/a": "nginx:1.27"},
            ["nginx:1.27"],
            id="image-update",
        ),
        pytest.param(
            "label-update.json", {**OF_THE_POD, DEBUGGER: "docker.io/library/busybox:1.36"}, None, [], id="label-update"
        ),
    ],
)
def test_a_captured_review_is_answered_with_a_patch_that_applies(
    name: str, images: dict[str, str], originals: dict[str, str] | None, warned: list[str]
) -> None:
    review = captured(name)
    admitted = admit(review)
    assert admitted.images == images
    assert admitted.originals == originals
    assert admitted.warnings == [copying(image) for image in warned]
    assert bool(admitted.patch) == (name != "label-update.json")
    before = copy.deepcopy(review["request"]["object"])
    assert rest_of(admitted.pod) == rest_of(before)


NUDGED = (
    f"{REGISTRY}/mirror/ghcr.io/acme/svc:2026.11"
    "@sha256:81fb16bcb4be908ba19372269610f15003d334641a6beb9d8eaed135bedc4fdf"
)
OF_A_NUDGED_POD = {"containers/c0": "ghcr.io/acme/svc:2026.11", "containers/c1": "gcr.io/team/app:1"}


def test_the_patch_of_image_mirror_nudge_is_admitted_as_it_is() -> None:
    admitted = admit(captured("nudge.json"), no_lookup)
    assert (admitted.patch, admitted.warnings) == ([], [])
    assert admitted.images == {"containers/c0": NUDGED, "containers/c1": f"{GCR}/team/app:1"}
    assert admitted.originals == OF_A_NUDGED_POD


def test_the_exact_patch_of_a_nudged_pod_that_is_applied_again() -> None:
    admitted = admit(captured("nudged-pod-applied-again.json"), no_lookup)
    assert admitted.patch == [
        {"op": "replace", "path": "/spec/containers/0/image", "value": NUDGED},
        {"op": "replace", "path": "/spec/containers/1/image", "value": f"{GCR}/team/app:1"},
    ]
    assert admitted.originals == OF_A_NUDGED_POD
    assert admitted.warnings == [restored(image) for image in OF_A_NUDGED_POD.values()]


@pytest.mark.parametrize(
    ("missing", "warning"),
    [
        pytest.param(Missing.ABSENT, not_requested, id="there-is-none"),
        pytest.param(Missing.UNREAD, not_read, id="the-table-does-not-answer"),
        pytest.param(
            Missing.UNUSABLE, partial(left_unchanged, cause="its record in the table cannot be used"), id="damaged"
        ),
    ],
)
def test_an_image_whose_record_is_missing_stays_as_written_and_a_rewrite_does_not(
    missing: Missing, warning: Callable[[str], str]
) -> None:
    def records(wanted: Sequence[CopyRequest]) -> Any:
        return {request.copy.destination: missing for request in wanted}

    pod = made_pod({"a": "gcr.io/x:1", "b": "a.io/b:1"})
    admitted = admit(
        review_of(pod), records, mirror=Mirror(REGISTRY, "mirror", parse_rules("gcr.io a.io=b.io")), swap_when="paused"
    )
    assert admitted.images == {"containers/a": "gcr.io/x:1", "containers/b": "b.io/b:1"}
    assert admitted.warnings == [warning("gcr.io/x:1")]


def test_an_image_whose_record_cannot_be_used_stays_as_written_and_the_others_get_their_copies() -> None:
    def records(wanted: Sequence[CopyRequest]) -> Any:
        return {
            name: Missing.UNUSABLE if "nginx" in name.repository else record
            for name, record in REQUESTED(wanted).items()
        }

    admitted = admit(review_of(made_pod({"a": "nginx", "b": "gcr.io/b:1"})), records)
    assert admitted.images == {"containers/a": "nginx", "containers/b": f"{GCR}/b:1"}
    assert admitted.originals == {"containers/b": "gcr.io/b:1"}
    assert admitted.warnings == [
        "nginx stays as written: its record in the table cannot be used",
        copying("gcr.io/b:1"),
    ]


def rest_of(pod: Json) -> Json:
    """Return the pod without images and without our annotation: the part that no answer may change."""
    rest = copy.deepcopy(pod)
    (rest["metadata"].get("annotations") or {}).pop(ORIGINALS, None)
    if not rest["metadata"].get("annotations"):
        rest["metadata"].pop("annotations", None)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in rest["spec"].get(kind, ()):
            container.pop("image", None)
    for volume in rest["spec"].get("volumes", ()):
        if "image" in volume:
            volume["image"].pop("reference", None)
    return rest


def test_the_exact_patch_of_a_pod_with_annotations() -> None:
    assert admit(captured("create-pod.json")).patch == [
        {"op": "replace", "path": "/spec/containers/0/image", "value": COPIES_OF_THE_POD["containers/a"]},
        {"op": "replace", "path": "/spec/containers/1/image", "value": COPIES_OF_THE_POD["containers/b"]},
        {"op": "replace", "path": "/spec/initContainers/0/image", "value": COPIES_OF_THE_POD["initContainers/i"]},
        {"op": "replace", "path": "/spec/volumes/0/image/reference", "value": COPIES_OF_THE_POD["volumes/v"]},
        {
            "op": "add",
            "path": "/metadata/annotations/image-mirror~1original-images",
            "value": json.dumps(OF_THE_POD, separators=(",", ":"), sort_keys=True),
        },
    ]


def test_the_exact_patch_of_a_pod_without_annotations() -> None:
    image = f"{REGISTRY}/mirror/k8s.gcr.io/nginx:latest"
    originals = '{"containers/nginx":"k8s.gcr.io/nginx"}'
    assert admit(captured("create-pod-from-deployment.json")).patch == [
        {"op": "replace", "path": "/spec/containers/0/image", "value": image},
        {"op": "add", "path": "/metadata/annotations", "value": {"image-mirror/original-images": originals}},
    ]


def test_the_exact_patch_of_an_ephemeral_container_touches_no_metadata() -> None:
    assert admit(captured("ephemeral-container.json")).patch == [
        {"op": "replace", "path": "/spec/ephemeralContainers/0/image", "value": f"{HUB}/busybox:1.36"}
    ]


@pytest.mark.parametrize("version", ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"])
def test_both_versions_get_the_same_patch(version: str) -> None:
    review = captured("create-pod.json")
    assert admit(review | {"apiVersion": version}).patch == admit(review).patch


def test_a_dry_run_gets_the_same_patch() -> None:
    assert admit(captured("create-pod-dry-run.json")).patch == admit(captured("create-pod.json")).patch


@pytest.mark.parametrize(
    ("image", "becomes"),
    [
        pytest.param("nginx", f"{HUB}/nginx:latest", id="familiar"),
        pytest.param(f"gcr.io/x:1@{DIGEST}", f"{GCR}/x@{DIGEST}", id="tag-and-digest"),
        pytest.param("private.example.com/x", "private.example.com/x", id="no-rule"),
        pytest.param(f"{GCR}/x:1", f"{GCR}/x:1", id="a-copy-already"),
        pytest.param(f"{REGISTRY}/own/x", f"{REGISTRY}/own/x", id="own-image"),
        pytest.param("auto", "auto", id="placeholder"),
        pytest.param("__X__", "__X__", id="placeholder-in-upper-case"),
        pytest.param("", "", id="empty"),
        pytest.param("GCR.io/x", "GCR.io/x", id="no-destination"),
    ],
)
@pytest.mark.parametrize("place", ["containers", "init", "volumes"])
def test_each_image_of_a_new_pod_is_looked_at(image: str, becomes: str, place: str) -> None:
    admitted = admit(review_of(made_pod(**{place: {"n": image}})))
    assert list(admitted.images.values()) == [becomes]
    assert bool(admitted.patch) == (image != becomes)


@pytest.mark.parametrize(
    ("image", "warned"),
    [
        pytest.param("auto", True, id="auto"),
        pytest.param("__X__", True, id="upper-case"),
        pytest.param("", True, id="empty"),
        pytest.param("a\nb", True, id="control-character"),
        pytest.param("GCR.io/x", True, id="no-destination"),
        pytest.param("private.example.com/x", False, id="no-rule"),
        pytest.param(f"{GCR}/x:1", False, id="a-copy-already"),
    ],
)
def test_warnings_are_about_images_that_stay_although_a_rule_matches(image: str, warned: bool) -> None:
    admitted = admit(review_of(made_pod({"a": image})), no_lookup)
    assert not admitted.patch
    assert len(admitted.warnings) == warned
    assert all(warning.isprintable() and "stays as written" in warning for warning in admitted.warnings)


def test_a_missing_image_gets_a_warning_and_no_patch() -> None:
    pod = made_pod({"a": "x"}, volumes={"v": "x"})
    del pod["spec"]["containers"][0]["image"]
    del pod["spec"]["volumes"][0]["image"]["reference"]
    admitted = admit(review_of(pod), no_lookup)
    assert admitted.pod == pod
    assert admitted.warnings == ["'' stays as written: it is empty"]


def test_a_placeholder_that_another_webhook_fills_in_is_then_looked_at() -> None:
    first = admit(review_of(made_pod({"proxy": "auto"})))
    first.pod["spec"]["containers"][0]["image"] = "docker.io/istio/proxyv2:1.24"
    second = admit(review_of(first.pod))
    assert second.images == {"containers/proxy": f"{REGISTRY}/mirror/docker.io/istio/proxyv2:1.24"}
    assert second.originals == {"containers/proxy": "docker.io/istio/proxyv2:1.24"}


@pytest.mark.parametrize(
    ("status", "digest", "swap_when", "swapped", "warning"),
    [
        pytest.param(Status.REQUESTED, None, "always", True, copying, id="always-requested"),
        pytest.param(Status.COPYING, None, "always", True, copying, id="always-copying"),
        pytest.param(None, None, "always", True, copying, id="always-adopted"),
        pytest.param(Status.COPIED, DIGEST, "always", True, None, id="always-copied"),
        pytest.param(Status.REQUESTED, DIGEST, "always", True, None, id="always-refresh-requested"),
        pytest.param(Status.COPYING, DIGEST, "always", True, None, id="always-refreshing"),
        pytest.param(Status.FAILED, None, "always", False, failed, id="always-failed"),
        pytest.param(Status.REQUESTED, None, "copied", False, copied_later, id="copied-requested"),
        pytest.param(Status.COPYING, None, "copied", False, copied_later, id="copied-copying"),
        pytest.param(None, None, "copied", False, copied_later, id="copied-adopted"),
        pytest.param(Status.COPIED, DIGEST, "copied", True, None, id="copied-copied"),
        pytest.param(Status.REQUESTED, DIGEST, "copied", True, None, id="copied-refresh-requested"),
        pytest.param(Status.COPYING, DIGEST, "copied", True, None, id="copied-refreshing"),
        pytest.param(Status.FAILED, None, "copied", False, failed, id="copied-failed"),
        pytest.param(Status.REQUESTED, None, "paused", False, not_requested, id="paused-requested"),
        pytest.param(Status.COPYING, None, "paused", False, not_requested, id="paused-copying"),
        pytest.param(None, None, "paused", False, not_requested, id="paused-not-adopted"),
        pytest.param(Status.COPIED, DIGEST, "paused", True, None, id="paused-copied"),
        pytest.param(Status.REQUESTED, DIGEST, "paused", True, None, id="paused-refresh-requested"),
        pytest.param(Status.COPYING, DIGEST, "paused", True, None, id="paused-refreshing"),
        pytest.param(Status.FAILED, None, "paused", False, not_requested, id="paused-failed"),
    ],
)
def test_the_record_and_swap_when_say_whether_the_image_changes(
    status: Status | None,
    digest: str | None,
    swap_when: SwapWhen,
    swapped: bool,
    warning: Callable[..., str] | None,
) -> None:
    lookup = all_records(status, digest=digest, error="DENIED: no pull access")
    policy = Policy(retry_failed=90 * MINUTE)
    admitted = admit(review_of(made_pod({"a": "gcr.io/x:1"})), lookup, swap_when=swap_when, policy=policy)
    assert admitted.images == {"containers/a": f"{GCR}/x:1" if swapped else "gcr.io/x:1"}
    assert admitted.originals == ({"containers/a": "gcr.io/x:1"} if swapped else None)
    details = ("DENIED: no pull access", 90) if warning is failed else ()
    assert admitted.warnings == ([warning("gcr.io/x:1", *details)] if warning else [])


def test_the_warning_of_a_copy_that_failed_again_gives_the_longer_pause() -> None:
    lookup = all_records(Status.FAILED, error="STALLED: nothing was read", same_result="STALLED 2", failures=1)
    admitted = admit(review_of(made_pod({"a": "gcr.io/x:1"})), lookup)
    assert admitted.warnings == [failed("gcr.io/x:1", "STALLED: nothing was read", 24 * 60)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"same_result": "NOT_FOUND 2", "error": "NOT_FOUND: manifest unknown"}, "NOT_FOUND", id="both"),
        pytest.param({"same_result": "DENIED 1", "error": None}, "DENIED", id="while-a-build-runs"),
        pytest.param({"error": "BAD_INPUT: no image"}, "BAD_INPUT", id="of-an-earlier-release"),
        pytest.param({"error": "the build was stopped by hand"}, "the build was stopped by hand", id="without-a-code"),
        pytest.param({"same_result": "\x1b[31m 9", "error": "\x1b[31m: x"}, "\x1b[31m: x", id="written-by-hand"),
        pytest.param({}, "", id="unknown"),
    ],
)
@pytest.mark.parametrize("status", [Status.REQUESTED, Status.COPYING])
@pytest.mark.parametrize("swap_when", ["always", "copied"])
def test_after_the_first_refusal_the_warning_says_so(
    changes: dict[str, Any], reason: str, status: Status, swap_when: SwapWhen
) -> None:
    def lookup(wanted: Sequence[CopyRequest]) -> dict[Destination, Record]:
        found = all_records(status)(wanted)
        return {name: replace(record, attempts=2, **changes) for name, record in found.items()}

    admitted = admit(review_of(made_pod({"a": "nginx:9.99"})), lookup, swap_when=swap_when)
    assert admitted.warnings == [refused("nginx:9.99", reason, 2, 5, waits=swap_when == "always")]
    assert all(warning.isprintable() for warning in admitted.warnings)


def test_a_refresh_that_the_source_refuses_is_no_warning_because_there_is_a_copy() -> None:
    def lookup(wanted: Sequence[CopyRequest]) -> dict[Destination, Record]:
        found = all_records(Status.REQUESTED, digest=DIGEST, error="NOT_FOUND: x")(wanted)
        return {name: replace(record, attempts=2) for name, record in found.items()}

    assert admit(review_of(made_pod({"a": "nginx:9.99"})), lookup).warnings == []


def test_a_failed_image_beside_others_stays_alone() -> None:
    def lookup(wanted: Sequence[CopyRequest]) -> dict[Destination, Record]:
        return {
            request.copy.destination: (FAILED if request.copy.source.repository == "bad" else REQUESTED)([request])[
                request.copy.destination
            ]
            for request in wanted
        }

    admitted = admit(review_of(made_pod({"a": "gcr.io/bad:1", "b": "gcr.io/good:1"})), lookup)
    assert admitted.images == {"containers/a": "gcr.io/bad:1", "containers/b": f"{GCR}/good:1"}
    assert admitted.originals == {"containers/b": "gcr.io/good:1"}
    assert [warning.split(" ")[0] for warning in admitted.warnings] == ["gcr.io/bad:1", "gcr.io/good:1"]
    assert "its copy failed: NOT_FOUND" in admitted.warnings[0]


def test_an_image_without_a_record_stays_as_written_and_all_of_them_have_one_warning() -> None:
    pod = made_pod(
        {"a": "gcr.io/x:1", "b": "gcr.io/x:2", "c": "gcr.io/x:2"},
        init={"i": "gcr.io/x:3"},
        volumes={"v": "gcr.io/x:2"},
        annotations={"a": "b"},
    )
    admitted = admit(review_of(pod), lambda wanted: REQUESTED(wanted[:1]))
    assert admitted.patch == [
        {"op": "replace", "path": "/spec/containers/0/image", "value": f"{GCR}/x:1"},
        {
            "op": "add",
            "path": "/metadata/annotations/image-mirror~1original-images",
            "value": '{"containers/a":"gcr.io/x:1"}',
        },
    ]
    assert admitted.warnings == [too_many(2), copying("gcr.io/x:1")]
    assert json.loads(admitted.audit["copies"]) == [{"image": "gcr.io/x:1", "copy": f"{GCR}/x:1", "state": "REQUESTED"}]
    again = admit(review_of(pod, admitted.pod), no_lookup)
    assert (again.images, again.warnings) == (admitted.images, [restored("gcr.io/x:1")])


def test_an_image_that_stayed_as_written_is_looked_at_when_it_changes() -> None:
    old = admit(review_of(made_pod({"a": "gcr.io/x:1"})), lambda _: {}).pod
    assert images_of(old) == {"containers/a": "gcr.io/x:1"}
    admitted = admit(review_of(made_pod({"a": "gcr.io/x:2"}), old))
    assert admitted.images == {"containers/a": f"{GCR}/x:2"}
    assert admitted.originals == {"containers/a": "gcr.io/x:2"}


def test_the_warning_about_too_many_images_is_the_first_of_many() -> None:
    pod = made_pod({f"c{number}": f"gcr.io/x:{number}" for number in range(40)})
    admitted = admit(review_of(pod), lambda wanted: REQUESTED(wanted[:30]))
    assert (admitted.warnings[0], len(admitted.warnings)) == (too_many(10), 11)
    assert admitted.warnings[-1] == "and 21 more"


def test_copies_that_an_earlier_call_has_put_into_the_pod_are_counted_once_each() -> None:
    copies = {"a": f"{GCR}/x:1", "b": f"{GCR}/x:1", "c": f"{GCR}/y:1", "d": f"{REGISTRY}/own/x:1", "e": "gcr.io/x:2"}
    new = new_images(parse_review(event_of(review_of(made_pod(copies)))), MIRROR)
    assert copies_placed(new, MIRROR) == 2
    unchanged = new_images(parse_review(event_of(review_of(made_pod(copies), made_pod(copies)))), MIRROR)
    assert copies_placed(unchanged, MIRROR) == 0


def test_a_pod_of_many_images_gives_ten_warnings_and_a_count() -> None:
    admitted = admit(review_of(made_pod({f"c{number}": f"gcr.io/x:{number}" for number in range(30)})))
    assert len(admitted.warnings) == 11
    assert admitted.warnings[-1] == "and 20 more"


def test_one_image_used_often_is_requested_once_and_warned_of_once() -> None:
    asked: list[CopyRequest] = []

    def lookup(wanted: Sequence[CopyRequest]) -> Mapping[Destination, Record]:
        asked.extend(wanted)
        return REQUESTED(wanted)

    pod = made_pod({"a": "nginx", "b": "nginx"}, init={"i": "nginx"}, volumes={"v": "nginx"})
    admitted = admit(review_of(pod), lookup)
    assert set(admitted.images.values()) == {f"{HUB}/nginx:latest"}
    assert len(asked) == 1
    assert admitted.warnings == [copying("nginx")]


@pytest.mark.parametrize(
    ("policies", "always"),
    [
        pytest.param(["IfNotPresent", "Always"], True, id="last"),
        pytest.param(["Always", "IfNotPresent"], True, id="first"),
        pytest.param(["IfNotPresent", "Never"], False, id="neither"),
        pytest.param([None, None], False, id="none"),
        pytest.param(["always", ["Always"]], False, id="nonsense"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "volumes"])
def test_a_copy_counts_as_pulled_always_if_any_use_says_so(policies: list[Any], always: bool, kind: str) -> None:
    pod = made_pod(**{kind: {"a": "nginx", "b": "docker.io/library/nginx"}})
    for entry, policy in zip(pod["spec"][kind], policies, strict=True):
        if kind == "containers":
            entry["imagePullPolicy"] = policy
        else:
            entry["image"]["pullPolicy"] = policy
    (request,) = copy_requests(new_images(parse_review(event_of(review_of(pod))), MIRROR))
    assert request.pull_always is always
    assert str(request.copy.source) == "docker.io/library/nginx:latest"


def pod_with_policy(place: str, policy: object, *, image: str = "gcr.io/x:1") -> Json:
    """Make a pod with one image in `place`, a keyword of made_pod, and its pull policy."""
    pod = made_pod(**{place: {"n": image}})
    for each in pod["spec"].get("volumes", ()):
        each["image"]["pullPolicy"] = policy
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for each in pod["spec"].get(kind, ()):
            each["imagePullPolicy"] = policy
    return pod


def test_images_that_are_never_pulled_stay_beside_one_that_is_rewritten() -> None:
    asked: list[CopyRequest] = []

    def lookup(wanted: Sequence[CopyRequest]) -> Mapping[Destination, Record]:
        asked.extend(wanted)
        return REQUESTED(wanted)

    admitted = admit(review_of(yaml.safe_load(sample("pull-policy-never.yaml").read_text())), lookup)
    copy = f"{REGISTRY}/mirror/quay.io/team/tool:1"
    assert admitted.patch == [
        {"op": "replace", "path": "/spec/containers/1/image", "value": copy},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": {ORIGINALS: '{"containers/pulled":"quay.io/team/tool:1"}'},
        },
    ]
    assert [str(request.copy.source) for request in asked] == ["quay.io/team/tool:1"]
    assert admitted.warnings == [copying("quay.io/team/tool:1")]


@pytest.mark.parametrize("place", ["containers", "init", "ephemeral", "volumes"])
@pytest.mark.parametrize("image", ["gcr.io/x:1", "a.io/x:1", "auto", "__X__", ""])
def test_an_image_that_is_never_pulled_is_left_alone_in_silence(place: str, image: str) -> None:
    pod = pod_with_policy(place, "Never", image=image)
    mirror = Mirror(REGISTRY, "mirror", parse_rules("gcr.io a.io=b.io"))
    review = review_of(pod)
    if place == "ephemeral":
        review = review_of(pod, made_pod(), subresource="ephemeralcontainers")
    admitted = admit(review, no_lookup, mirror=mirror)
    assert (admitted.patch, admitted.warnings) == ([], [])


@pytest.mark.parametrize("place", ["containers", "init", "ephemeral", "volumes"])
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
        pytest.param("never", id="lower-case"),
        pytest.param(["Never"], id="list"),
        pytest.param({"Never": "Never"}, id="object"),
        pytest.param("IfNotPresent", id="another"),
    ],
)
def test_any_other_policy_is_not_never(place: str, policy: object) -> None:
    pod = pod_with_policy(place, policy)
    review = review_of(pod)
    if place == "ephemeral":
        review = review_of(pod, made_pod(), subresource="ephemeralcontainers")
    assert list(admit(review).images.values()) == [f"{GCR}/x:1"]


def test_an_image_that_one_container_never_pulls_is_copied_for_the_other() -> None:
    pod = made_pod({"local": "nginx", "pulled": "nginx"})
    pod["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    admitted = admit(review_of(pod))
    assert admitted.images == {"containers/local": "nginx", "containers/pulled": f"{HUB}/nginx:latest"}
    assert admitted.originals == {"containers/pulled": "nginx"}


@pytest.mark.parametrize(
    "images",
    [
        pytest.param({"a": f"nginx:1@{DIGEST}"}, id="alone"),
        pytest.param({"a": f"nginx@{DIGEST}", "b": f"nginx:1@{DIGEST}"}, id="beside-the-digest-alone"),
        pytest.param({"a": f"nginx:1@{DIGEST}", "b": f"nginx:2@{DIGEST}"}, id="with-two-tags"),
    ],
)
def test_a_source_with_tag_and_digest_is_requested_by_digest(images: dict[str, str]) -> None:
    (request,) = copy_requests(new_images(parse_review(event_of(review_of(made_pod(images)))), MIRROR))
    assert str(request.copy.source) == f"docker.io/library/nginx@{DIGEST}"


@pytest.mark.parametrize(
    ("labels", "annotations", "skipped"),
    [
        pytest.param({"image-mirror/skip": "true"}, None, True, id="skip"),
        pytest.param({"image-mirror/skip": "false"}, None, False, id="skip-false"),
        pytest.param({"image-mirror/skip": "True"}, None, False, id="skip-in-upper-case"),
        pytest.param({"image-mirror/skip": ""}, None, False, id="skip-empty"),
        pytest.param({"image-mirror/skip": True}, None, False, id="skip-no-text"),
        pytest.param(None, {"image-mirror/skip": "true"}, False, id="skip-as-an-annotation"),
        pytest.param(["image-mirror/skip"], None, False, id="labels-no-object"),
        pytest.param(None, {"kubernetes.io/config.mirror": "0123"}, True, id="mirror-pod"),
        pytest.param(None, {"kubernetes.io/config.mirror": ""}, True, id="mirror-pod-with-an-empty-hash"),
        pytest.param({"kubernetes.io/config.mirror": "0123"}, None, False, id="mirror-as-a-label"),
        pytest.param(None, {"kubernetes.io/config.source": "file"}, False, id="another-annotation"),
    ],
)
@pytest.mark.parametrize("update", [False, True], ids=["create", "update"])
def test_opted_out_pods_and_mirror_pods_are_left_unchanged(
    labels: Any, annotations: Any, skipped: bool, update: bool
) -> None:
    pod = made_pod({"a": "gcr.io/x:2"}, labels=labels, annotations=annotations)
    old = made_pod({"a": "gcr.io/x:1"}, labels=labels, annotations=annotations) if update else None
    admitted = admit(review_of(pod, old), no_lookup if skipped else REQUESTED)
    assert bool(admitted.patch) is not skipped
    assert bool(admitted.warnings) is not skipped


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"operation": "DELETE", "object": None}, id="delete"),
        pytest.param({"operation": "CONNECT", "subResource": "exec"}, id="connect"),
        pytest.param({"subResource": "binding"}, id="binding"),
        pytest.param({"subResource": "status"}, id="status"),
        pytest.param({"resource": {"resource": "deployments"}}, id="another-resource"),
        pytest.param({"operation": "PATCH"}, id="no-such-operation"),
    ],
)
def test_any_other_request_is_allowed_as_it_is(changes: Json) -> None:
    answered = respond(event_of(review_of(made_pod({"a": "nginx"}), made_pod({"a": "x"}), **changes)), no_lookup)
    response = json.loads(answered["body"])["response"]
    assert set(response) == {"uid", "allowed"}


@pytest.mark.parametrize("place", ["containers", "init", "volumes"])
def test_an_update_looks_at_what_differs_by_name(place: str) -> None:
    old = made_pod(**{place: {"a": "gcr.io/a:1", "b": "gcr.io/b:1"}})
    pod = made_pod(**{place: {"new": "gcr.io/new:1", "b": "gcr.io/b:2", "a": "gcr.io/a:1"}})
    admitted = admit(review_of(pod, old))
    assert list(admitted.images.values()) == [f"{GCR}/new:1", f"{GCR}/b:2", "gcr.io/a:1"]
    assert set(admitted.originals or ()) == {key for key in admitted.images if not key.endswith("/a")}


def test_one_name_in_two_lists_is_two_images() -> None:
    old = made_pod({"a": "gcr.io/a:1"}, init={"a": "gcr.io/a:2"}, volumes={"a": "gcr.io/a:3"})
    pod = made_pod({"a": "gcr.io/a:3"}, init={"a": "gcr.io/a:2"}, volumes={"a": "gcr.io/a:1"})
    assert admit(review_of(pod, old)).images == {
        "containers/a": f"{GCR}/a:3",
        "initContainers/a": "gcr.io/a:2",
        "volumes/a": f"{GCR}/a:1",
    }


def test_an_update_of_the_pod_does_not_touch_ephemeral_containers() -> None:
    pod = made_pod({"a": "gcr.io/a:1"}, ephemeral={"e": "gcr.io/e:1"})
    assert not admit(review_of(pod, made_pod({"a": "gcr.io/a:1"})), no_lookup).patch


def test_a_new_ephemeral_container_is_rewritten_and_nothing_else() -> None:
    old = made_pod({"a": "gcr.io/a:1"}, ephemeral={"e": "gcr.io/e:1"}, annotations={"a": "b"})
    pod = made_pod({"a": "gcr.io/a:2"}, ephemeral={"e": "gcr.io/e:1", "f": "gcr.io/f:1"}, annotations={"a": "b"})
    admitted = admit(review_of(pod, old, subresource="ephemeralcontainers"))
    assert admitted.patch == [{"op": "replace", "path": "/spec/ephemeralContainers/1/image", "value": f"{GCR}/f:1"}]


def test_an_ephemeral_container_that_exists_is_never_patched() -> None:
    old = made_pod(ephemeral={"e": f"{GCR}/e:1"})
    pod = made_pod(ephemeral={"e": "gcr.io/e:1"})
    assert not admit(review_of(pod, old, subresource="ephemeralcontainers"), no_lookup).patch


names = st.sampled_from(["a", "b", "c", "ü/~1"])
pool = [
    "nginx",
    "docker.io/library/nginx:latest",
    "gcr.io/x:1",
    "gcr.io/x:2",
    f"gcr.io/x@{DIGEST}",
    f"quay.io/p/x:1@{DIGEST}",
    "a.io/x:1",
    "b.io/m/x:1",
    "private.example.com/x:1",
    "auto",
    "",
    "__X__",
    "GCR.io/x:1",
    f"{HUB}/nginx:latest",
    f"{GCR}/x:1",
    f"{REGISTRY}/older/gcr.io/x:1",
    f"{GCR}/x@{DIGEST}",
    f"{REGISTRY}/own/x:1",
]
named_images = st.dictionaries(names, st.sampled_from(pool), max_size=3)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
notes = st.one_of(
    st.dictionaries(
        st.builds("{}/{}".format, st.sampled_from(["containers", "initContainers", "volumes", "x"]), names),
        st.sampled_from(pool),
        max_size=4,
    ).map(json.dumps),
    any_json.map(json.dumps),
    st.text(max_size=8),
)
annotation_maps = st.none() | st.fixed_dictionaries({}, optional={"a": st.just("b"), ORIGINALS: notes})
pods = st.builds(
    made_pod,
    named_images,
    init=st.none() | named_images,
    ephemeral=st.none() | named_images,
    volumes=st.none() | named_images,
    annotations=annotation_maps,
)
OTHER = Mirror(REGISTRY, "other", parse_rules("quay.io !gcr.io"))
REWRITING = Mirror(REGISTRY, "mirror", parse_rules("docker.io gcr.io quay.io a.io=b.io/m"))


def mixed(wanted: Sequence[CopyRequest]) -> dict[Destination, Record]:
    """Answer by the name of a copy alone: some requested, copied, failed, some without a status or without a record."""
    answers: tuple[Lookup, ...] = (REQUESTED, COPIED, FAILED, all_records(None), lambda _: {})
    found: dict[Destination, Record] = {}
    for request in wanted:
        found |= answers[sum(map(ord, str(request.copy.source))) % 5]([request])
    return found


@steady
@given(pods, st.none() | pods, st.sampled_from(["always", "copied"]), st.sampled_from(["", "ephemeralcontainers"]))
def test_answering_the_patched_pod_again_changes_nothing(
    pod: Json, old: Json | None, swap_when: SwapWhen, subresource: str
) -> None:
    """The API server calls again with our own patch applied, after another webhook has changed something."""
    subresource = subresource if old is not None else ""
    options: Json = {"swap_when": swap_when, "mirror": REWRITING}
    first = admit(review_of(pod, old, subresource=subresource), mixed, **options)
    second = admit(review_of(first.pod, old, subresource=subresource), mixed, **options)
    assert second.patch == []
    assert rest_of(first.pod) == rest_of(pod)


@steady
@given(pods, st.sampled_from(["", "ephemeralcontainers"]), annotation_maps, st.sampled_from([REWRITING, OTHER]))
def test_an_update_that_changes_no_image_never_restarts_a_container(
    old: Json, subresource: str, annotations: Any, mirror: Mirror
) -> None:
    pod = copy.deepcopy(old)
    pod["metadata"]["labels"] = {"new": "label"}
    pod["metadata"]["annotations"] = annotations
    admitted = admit(review_of(pod, old, subresource=subresource), no_lookup, mirror=mirror)
    assert admitted.images == images_of(old)
    assert admitted.warnings == []


@steady
@given(pods, st.sampled_from(["always", "copied"]), st.sampled_from([REWRITING, OTHER]), st.booleans())
def test_a_pod_applied_again_from_its_source_stays_unchanged(
    source: Json, swap_when: SwapWhen, later: Mirror, forgets: bool
) -> None:
    """kubectl apply keeps our annotation in the object, kubectl replace drops it; rules and prefix may have changed."""
    source["metadata"].pop("annotations", None)
    live = admit(review_of(source), mixed, swap_when=swap_when, mirror=REWRITING).pod
    again = copy.deepcopy(source)
    if not forgets and "annotations" in live["metadata"]:
        again["metadata"]["annotations"] = live["metadata"]["annotations"]
    admitted = admit(review_of(again, live), no_lookup, mirror=later)
    assert admitted.images == images_of(live)
    assert admitted.originals == admit(review_of(live, live), no_lookup, mirror=later).originals
    images = images_of(live)
    put_back = [restored(image) for key, image in images_of(source).items() if image != images[key]]
    assert admitted.warnings == at_most_ten(put_back)


def becomes(mirror: Mirror, image: str) -> str:
    """Return the image that a pod gets if nothing failed."""
    match mirror.decide(image)[0]:
        case Copy(destination=destination):
            return str(destination)
        case Rewrite(image=rewritten):
            return rewritten
    return image


# Without destinations under a prefix of earlier days, which name the same image once more.
present = st.sampled_from([image for image in pool if "/older/" not in image])
two_images = st.fixed_dictionaries({"a": present, "b": present})
requests = st.tuples(st.sampled_from(["label", "apply", "replace"]), two_images, st.sampled_from([REWRITING, OTHER]))


@steady
@given(two_images, st.lists(requests, max_size=6), st.sampled_from(["always", "copied"]))
def test_in_a_pods_whole_life_each_image_is_the_one_written_last_or_its_rewrite(
    images: dict[str, str], life: list[tuple[str, dict[str, str], Mirror]], swap_when: SwapWhen
) -> None:
    live = admit(review_of(made_pod(images)), mixed, swap_when=swap_when, mirror=REWRITING).pod
    written = {f"containers/{name}": image for name, image in images.items()}
    for verb, named, mirror in life:
        current = images_of(live)
        pod = copy.deepcopy(live) if verb != "replace" else made_pod(named)
        if verb != "label":
            pod["spec"] = made_pod(named)["spec"]
            # A write of the current image changes nothing, so its original stays.
            written |= {key: image for key, image in images_of(pod).items() if image != current[key]}
        admitted = admit(review_of(pod, live), mixed, swap_when=swap_when, mirror=mirror)
        for key, image in admitted.images.items():
            made = [becomes(each, written[key]) for each in (REWRITING, OTHER)]
            assert image in (written[key], *made)
            if key in (admitted.originals or {}):
                assert becomes(REWRITING, (admitted.originals or {})[key]) == made[0]
        live = admitted.pod


junk_entries = st.one_of(
    any_json,
    st.fixed_dictionaries(
        {"name": names | any_json},
        optional={
            "image": st.sampled_from(pool) | any_json | st.fixed_dictionaries({"reference": st.sampled_from(pool)}),
            "imagePullPolicy": any_json,
        },
    ),
)
junk_specs = st.fixed_dictionaries(
    {},
    optional={
        kind: st.lists(junk_entries, max_size=3) | any_json
        for kind in ("containers", "initContainers", "ephemeralContainers", "volumes")
    },
)
junk_metadata = st.fixed_dictionaries(
    {},
    optional={
        "annotations": any_json | st.fixed_dictionaries({}, optional={ORIGINALS: any_json | notes, "a": any_json}),
        "labels": any_json | st.fixed_dictionaries({"image-mirror/skip": any_json}),
    },
)
junk_pods = st.fixed_dictionaries({"metadata": junk_metadata, "spec": junk_specs})


@steady
@given(junk_pods, st.none() | junk_pods, st.sampled_from(["", "ephemeralcontainers"]))
def test_junk_anywhere_in_a_pod_gets_an_answer_whose_patch_applies(
    pod: Json, old: Json | None, subresource: str
) -> None:
    review = review_of(pod, old, subresource=subresource)
    first = admit(review, mixed, mirror=REWRITING)
    assert all(warning.isprintable() and len(warning) <= 120 for warning in first.warnings)


@pytest.mark.parametrize("place", ["containers", "volumes"])
def test_an_image_that_is_no_text_does_not_affect_the_others(place: str) -> None:
    pod = made_pod(**{place: {"a": "nginx", "b": "nginx"}})
    entry = pod["spec"][place][0]
    (entry if place == "containers" else entry["image"])["image" if place == "containers" else "reference"] = 5
    admitted = admit(review_of(pod))
    assert admitted.images == {f"{place}/a": 5, f"{place}/b": f"{HUB}/nginx:latest"}


def test_a_review_without_a_pod_is_refused_before_anything_is_decided() -> None:
    with pytest.raises(BadReviewError):
        respond(event_of(review_of([])), no_lookup)  # type: ignore[arg-type]


def calls_of(work: Callable[[], object]) -> int:
    """Count the function calls of `work`: a measure that does not depend on the machine's speed."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("change", ["create", "label", "every-image", "apply-again"])
def test_the_work_grows_no_faster_than_the_pod(change: str) -> None:
    def work_for(size: int) -> int:
        source = made_pod({f"c{number}": f"gcr.io/{change}/{size}:{number}" for number in range(size)})
        old = None if change == "create" else admit(review_of(source)).pod
        pod = source
        if old is not None and change != "apply-again":
            tag = "" if change == "label" else "-new"
            pod = made_pod({f"c{number}": f"gcr.io/{change}/{size}:{number}{tag}" for number in range(size)})
            pod["spec"] = old["spec"] if change == "label" else pod["spec"]
            pod["metadata"] = old["metadata"]
        event = event_of(review_of(pod, old))
        return calls_of(lambda: respond(event))

    small, large = work_for(250), work_for(5000)
    assert large < 30 * small
