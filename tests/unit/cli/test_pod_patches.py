"""Which images of waiting pods are patched, with what, and why the others are not: from the facts of each image."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.cli.held_copies import Held, InECR
from image_mirror.cli.kubelet import Said, Tries, Waiting
from image_mirror.cli.plan import explain
from image_mirror.cli.pod_causes import Facts, classify
from image_mirror.cli.pod_patches import Change, Choice, PodPatch, choose
from image_mirror.cli.pod_reading import Found, all_fields
from image_mirror.decisions import Mirror
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import HOUR, Status
from image_mirror.reference import destination_of, parse_reference
from image_mirror.rules import parse_rules
from support.clock import NOON
from support.cloud import REGISTRY
from support.recorded import DIGEST, record
from support.waiting_pods import COPIES, copied, pod, running

Json = dict[str, Any]
SOURCE, OTHER = "gcr.io/a/b:1", "sha256:" + "b" * 64
BY_DIGEST = f"gcr.io/a/b@{DIGEST}"
COPY = f"{COPIES}/{SOURCE}"
MIRROR = Mirror(REGISTRY, "mirror", parse_rules("gcr.io"))
HELD = Held(InECR.HELD, DIGEST)
JOB: Json = {"ownerReferences": [{"kind": "Job", "name": "j", "controller": True}]}
DEPLOYMENT: Json = {
    "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d9c", "controller": True}],
    "labels": {"pod-template-hash": "5d9c"},
}


def found(made: Json, source: str = SOURCE, key: str = "containers/app", **changes: Any) -> Found:
    """Return one image of a pod, whose copy is in ECR unless `changes` of the facts say otherwise."""
    [field] = [each for each in all_fields(made) if each.key == key]
    is_copy = field.image != source
    reason = changes.pop("reason", "ImagePullBackOff")
    facts = Facts(
        image=field.image,
        source=source,
        explained=explain(source, MIRROR),
        is_copy=is_copy,
        reason=reason,
        said=Said.NOT_FOUND,
        made_at=NOON - HOUR,
        configured_at=NOON - 2 * HOUR,
        record=record(source, at=NOON),
        held=HELD,
        now=NOON,
    )
    facts = replace(facts, **changes)
    destination = destination_of(parse_reference(source), REGISTRY, "mirror")
    wait = Waiting(field, reason, "not found") if reason else None
    return Found(made, field, facts, classify(facts), destination, wait, Tries())


def waits_for(source: str = SOURCE, **metadata: Any) -> Json:
    made = copied("p", source)
    made["metadata"] |= metadata
    return made


def chosen(one: Found, *, missed: bool = False, jobs: bool = False, named: bool = False) -> Choice:
    return choose([one], missed=missed, jobs=jobs, named=named)


PATCHED = [
    pytest.param(found(waits_for()), {}, f"{COPY}@{DIGEST}", id="the-copy-of-a-tag"),
    pytest.param(found(waits_for(), reason="ErrImagePull"), {}, f"{COPY}@{DIGEST}", id="ErrImagePull"),
    pytest.param(
        found(copied("p", BY_DIGEST), BY_DIGEST),
        {},
        f"{COPIES}/gcr.io/a/b:digest-sha256-{'a' * 64}@{DIGEST}",
        id="the-copy-of-a-digest",
    ),
    pytest.param(
        found(waits_for(), held=Held(InECR.OTHER_DIGEST, OTHER)),
        {},
        f"{COPY}@{OTHER}",
        id="what-ecr-holds-counts-and-not-the-record",
    ),
    pytest.param(
        found(waits_for(), record=record(SOURCE, Status.REQUESTED, at=NOON)),
        {},
        f"{COPY}@{DIGEST}",
        id="the-record-does-not-know-it-yet",
    ),
    pytest.param(found(waits_for(), record=None), {}, f"{COPY}@{DIGEST}", id="no-record"),
    pytest.param(
        found(pod("p", f"{COPY}@{OTHER}", SOURCE)), {}, f"{COPY}@{DIGEST}", id="nudged-before-to-a-digest-that-is-gone"
    ),
    pytest.param(
        found(pod("p", f"{COPIES}/gcr.io/a/b@{DIGEST}", BY_DIGEST), BY_DIGEST),
        {},
        f"{COPIES}/gcr.io/a/b:digest-sha256-{'a' * 64}@{DIGEST}",
        id="as-the-webhook-writes-the-copy-of-a-digest",
    ),
    pytest.param(found(waits_for(**JOB)), {"jobs": True}, f"{COPY}@{DIGEST}", id="a-job-with-jobs"),
    pytest.param(
        found(waits_for(), said=Said.UNAUTHORIZED),
        {"named": True},
        f"{COPY}@{DIGEST}",
        id="a-node-that-was-refused-and-is-named",
    ),
    pytest.param(found(pod("p", SOURCE)), {"missed": True}, COPY, id="missed"),
    pytest.param(found(pod("p", SOURCE), record=None), {"missed": True}, COPY, id="missed-without-a-record"),
    pytest.param(
        found(pod("p", SOURCE), configured_at=NOON), {"missed": True}, COPY, id="older-than-the-configuration"
    ),
    pytest.param(
        found(pod("p", SOURCE), too_many=True), {"missed": True}, COPY, id="one-image-too-many-for-the-webhook"
    ),
    pytest.param(
        found(pod("p", BY_DIGEST), BY_DIGEST), {"missed": True}, f"{COPIES}/{BY_DIGEST}", id="missed-by-digest"
    ),
    pytest.param(found(pod("p", SOURCE, metadata=JOB)), {"missed": True, "jobs": True}, COPY, id="missed-by-a-job"),
]


@pytest.mark.parametrize(("one", "options", "becomes"), PATCHED)
def test_an_image_whose_copy_is_there_is_changed(one: Found, options: dict[str, bool], becomes: str) -> None:
    choice = chosen(one, **options)
    [patch] = choice.patches
    noted = options.get("missed", False)
    assert patch.changes == [Change("containers/app", one.facts.image, becomes, one.facts.source, noted)]
    assert (choice.kept, choice.others) == ([], 0)
    assert parse_reference(becomes)


def with_volume(source: str) -> Json:
    made = waits_for()
    made["spec"]["volumes"] = [{"name": "v", "image": {"reference": f"{COPIES}/{source}"}}]
    return made


def with_ephemeral(source: str) -> Json:
    made = waits_for()
    made["spec"]["ephemeralContainers"] = [{"name": "d", "image": f"{COPIES}/{source}"}]
    return made


PINNED = "its author names a digest that ECR does not hold under this tag"
KEPT = [
    pytest.param(
        found(pod("p", f"{COPY}@{OTHER}")),
        {"jobs": True, "named": True},
        PINNED,
        f"correct the digest, or image-mirror warm --image gcr.io/a/b@{OTHER}",
        id="pinned-by-its-author",
    ),
    pytest.param(
        found(pod("p", f"{COPY}@sha512:{'d' * 128}", SOURCE)), {}, PINNED, "correct the digest", id="pinned-by-sha512"
    ),
    pytest.param(
        found(pod("p", f"{COPY}@{OTHER}", metadata={"annotations": {ORIGINALS: '{"containers/b":"gcr.io/a/b:1"}'}})),
        {},
        PINNED,
        f"correct the digest, or image-mirror warm --image gcr.io/a/b@{OTHER}",
        id="pinned-beside-a-container-with-a-source",
    ),
    pytest.param(
        found(waits_for(**JOB)), {}, "a pod that runs once, such as a Job's", "add --jobs", id="a-pod-of-a-job"
    ),
    pytest.param(
        found(waits_for() | {"spec": {"containers": waits_for()["spec"]["containers"], "restartPolicy": "Never"}}),
        {},
        "a pod that runs once, such as a Job's",
        "add --jobs",
        id="restartPolicy-Never",
    ),
    pytest.param(
        found(waits_for(annotations={"kubernetes.io/config.mirror": "x"})),
        {"jobs": True, "named": True},
        "a static pod: its manifest is a file on the node",
        "wait",
        id="static-pod",
    ),
    pytest.param(
        found(with_volume("gcr.io/a/b:1"), key="volumes/v"),
        {},
        "the image of a volume cannot change",
        "wait, or delete and create the pod again",
        id="image-volume",
    ),
    pytest.param(
        found(with_ephemeral("gcr.io/a/b:1"), key="ephemeralContainers/d"),
        {},
        "the image of an ephemeral container cannot change",
        "wait, or kubectl debug again",
        id="ephemeral-container",
    ),
    pytest.param(
        found(waits_for(), said=Said.UNAUTHORIZED),
        {},
        "ECR refuses the node: its role may not pull",
        "give the node's role AmazonEC2ContainerRegistryReadOnly; in another account, set PullAccounts; "
        "then name the pod",
        id="unauthorized",
    ),
    pytest.param(
        found(waits_for(), said=Said.NO_SPACE),
        {},
        "no space left on the node's disk",
        "free space there, or use larger disks; then name the pod",
        id="no-space",
    ),
    pytest.param(
        found(waits_for(), said=Said.TIMEOUT),
        {},
        "the copy is there; the node's connection to ECR times out",
        "check the node's way to ECR and S3: NAT, VPC endpoints, security groups; then name the pod",
        id="time-out",
    ),
    pytest.param(
        found(pod("p", SOURCE), held=Held(InECR.GONE, lost=True)),
        {"missed": True},
        "its copy is not in ECR",
        "image-mirror warm --cluster; then nudge again",
        id="missed-and-not-copied",
    ),
    pytest.param(
        found(pod("p", SOURCE), held=Held(InECR.ARCHIVED, DIGEST, lost=True)),
        {"missed": True},
        "its copy is not in ECR",
        "image-mirror warm --cluster; then nudge again",
        id="missed-and-archived",
    ),
    pytest.param(
        found(pod("p", SOURCE), record=record(SOURCE, Status.FAILED, at=NOON)),
        {"missed": True},
        "the record of its copy is FAILED",
        f"image-mirror retry {SOURCE}",
        id="missed-and-failed",
    ),
    pytest.param(
        found(running(pod("p", SOURCE, metadata=DEPLOYMENT)), reason=""),
        {"missed": True},
        "it does not wait for an image",
        "kubectl rollout restart deployment/web -n shop",
        id="missed-and-it-runs",
    ),
    pytest.param(
        found(pod("p", SOURCE), not_sent="the cluster has no webhook configuration for this"),
        {"missed": True},
        "the cluster has no webhook configuration for this",
        "see image-mirror webhook-config and doctor, then recreate the pod (kubectl rollout restart)",
        id="the-webhook-would-not-be-asked",
    ),
    pytest.param(
        found(pod("p", SOURCE), namespace_known=False),
        {"missed": True},
        "the namespace's labels or the webhook's configuration could not be read, so it may be opted out",
        "ask for the permission in the note",
        id="perhaps-opted-out",
    ),
    pytest.param(
        found(pod("p", SOURCE), reason="InvalidImageName"),
        {"missed": True},
        "the kubelet cannot read the name",
        "correct the name in the manifest",
        id="a-name-that-the-kubelet-cannot-read",
    ),
]


@pytest.mark.parametrize(("one", "options", "why", "do"), KEPT)
def test_what_is_not_changed_has_a_reason_and_a_remedy(one: Found, options: dict[str, bool], why: str, do: str) -> None:
    choice = chosen(one, **options)
    assert [(kept.found, kept.why, kept.do) for kept in choice.kept] == [(one, why, do)]
    assert (choice.patches, choice.others) == ([], 0)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(found(waits_for(), held=Held(InECR.GONE, lost=True)), id="gone"),
        pytest.param(found(waits_for(), held=Held(InECR.ARCHIVED, DIGEST, lost=True)), id="archived"),
        pytest.param(found(waits_for(), held=None), id="not-asked"),
        pytest.param(found(waits_for(), served=False), id="not-served"),
        pytest.param(found(waits_for(), reason="ErrImageNeverPull"), id="never-pulled"),
        pytest.param(found(waits_for(), reason="CreateContainerConfigError"), id="another-reason"),
        pytest.param(found(pod("p", f"{COPY}@{DIGEST}", SOURCE)), id="nudged-to-this-digest"),
        pytest.param(found(waits_for(deletionTimestamp="2026-11-28T12:00:00Z")), id="being-deleted"),
        pytest.param(found(pod("p", SOURCE)), id="a-source-without-missed"),
    ],
)
def test_what_does_not_wait_for_the_kubelet_alone_is_counted(one: Found) -> None:
    choice = chosen(one, jobs=True, named=True)
    assert (choice.patches, choice.kept, choice.others) == ([], [], 1)


def test_a_pod_that_runs_and_is_being_deleted_does_not_count_as_one_that_waits() -> None:
    ending = running(pod("p", SOURCE, metadata={"deletionTimestamp": "2026-11-28T12:00:00Z"}))
    assert chosen(found(ending, reason=""), missed=True) == Choice([], [], 0)


def test_a_pod_is_patched_once_with_all_its_images_and_the_version_that_was_read() -> None:
    made = pod("p", COPY, SOURCE)
    made["spec"]["containers"].append({"name": "second", "image": COPY})
    made["spec"]["initContainers"] = [{"name": "app", "image": COPY}]
    images = [found(made, key=key) for key in ("containers/app", "initContainers/app", "containers/second")]
    [patch] = choose(images, missed=False, jobs=False, named=False).patches
    becomes = f"{COPY}@{DIGEST}"
    assert patch.body() == {
        "metadata": {"resourceVersion": "1"},
        "spec": {
            "containers": [{"name": "app", "image": becomes}, {"name": "second", "image": becomes}],
            "initContainers": [{"name": "app", "image": becomes}],
        },
    }


def test_a_missed_pod_gets_the_annotation_of_the_webhook_beside_what_it_has_of_its_images() -> None:
    made = pod("p", SOURCE)
    made["spec"]["initContainers"] = [{"name": "other", "image": f"{COPIES}/gcr.io/o:1"}]
    noted = {"initContainers/other": "gcr.io/o:1", "containers/none": "x" * 200_000}
    made["metadata"]["annotations"] = {"a": "b", ORIGINALS: json.dumps(noted)}
    [patch] = chosen(found(made), missed=True).patches
    assert patch.body() == {
        "metadata": {
            "resourceVersion": "1",
            "annotations": {ORIGINALS: f'{{"containers/app":"{SOURCE}","initContainers/other":"gcr.io/o:1"}}'},
        },
        "spec": {"containers": [{"name": "app", "image": COPY}]},
    }


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        pytest.param({"labels": {"a": "b"}}, ["containers/app"], id="another-label"),
        pytest.param({"uid": "another"}, None, id="another-pod-of-the-same-name"),
    ],
)
def test_a_pod_that_was_read_again_is_patched_in_its_new_version(change: Json, keys: list[str] | None) -> None:
    patch = PodPatch(waits_for(), [Change("containers/app", COPY, f"{COPY}@{DIGEST}", SOURCE, noted=False)])
    latest = patch.of(waits_for(resourceVersion="2", **change))
    assert (latest and [each.key for each in latest.changes]) == keys
    assert latest is None or latest.body()["metadata"] == {"resourceVersion": "2"}


@pytest.mark.parametrize(
    "latest",
    [
        pytest.param(running(copied("p", SOURCE)), id="it-runs"),
        pytest.param(pod("p", f"{COPIES}/gcr.io/a/b:2", "gcr.io/a/b:2"), id="somebody-has-set-another-image"),
        pytest.param(pod("p", f"{COPY}@{DIGEST}", SOURCE), id="somebody-has-nudged-it"),
    ],
)
def test_a_container_that_has_changed_meanwhile_is_left(latest: Json) -> None:
    patch = PodPatch(waits_for(), [Change("containers/app", COPY, f"{COPY}@{DIGEST}", SOURCE, noted=False)])
    assert patch.of(latest) is None


@given(
    source=st.sampled_from(["gcr.io/a/b:1", "gcr.io/a", BY_DIGEST, f"gcr.io/a/b:1@{DIGEST}"]),
    missed=st.booleans(),
    prefix=st.sampled_from(["mirror", "other/mirror"]),
)
def test_the_webhook_knows_each_patched_image_as_the_copy_of_its_source(source: str, missed: bool, prefix: str) -> None:
    destination = destination_of(parse_reference(source), REGISTRY, "mirror")
    made = pod("p", source) if missed else pod("p", str(destination), source)
    [patch] = chosen(found(made, source), missed=missed).patches
    for change in patch.changes:
        assert replace(MIRROR, prefix=prefix).is_copy_of(change.becomes, source)
        assert change.becomes != change.image, "the kubelet waits by the text"
