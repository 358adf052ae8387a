"""Why a pod cannot pull an image, and what to do: each cause, from the facts that make it."""

import re
import time
from dataclasses import replace
from typing import Any

import pytest

from image_mirror.cli.held_copies import Held, InECR
from image_mirror.cli.kubelet import Said
from image_mirror.cli.output import moment
from image_mirror.cli.plan import explain
from image_mirror.cli.pod_causes import Code, Facts, classify, clock
from image_mirror.decisions import Mirror
from image_mirror.record import DAY, HOUR, MINUTE, Record, Status
from image_mirror.rules import parse_rules
from support.cloud import REGISTRY
from support.recorded import DIGEST, record
from support.templates import ROOT

NOW = 1_795_867_200_000  # noon in UTC
SOURCE = "gcr.io/a/b:1"
COPY = f"{REGISTRY}/mirror/{SOURCE}"
MIRROR = Mirror(REGISTRY, "mirror", parse_rules("gcr.io quay.io=quay.example !gcr.io/ours"))
LATER = clock(NOW + 20 * MINUTE, NOW)
HELD = Held(InECR.HELD, DIGEST)
GONE = Held(InECR.GONE, lost=True)
RETRY = f"image-mirror retry {SOURCE}"
RECREATE = "recreate the pod (kubectl rollout restart)"
NUDGE = "image-mirror nudge --missed"


def kept(status: Status = Status.REQUESTED, **changes: Any) -> Record:
    return record(SOURCE, status, at=NOW, **{"due_at": NOW + 20 * MINUTE, **changes})


def of_copy(**changes: Any) -> Facts:
    facts = Facts(image=COPY, source=SOURCE, explained=explain(SOURCE, MIRROR), is_copy=True, now=NOW)
    said: dict[str, Any] = {"reason": "ImagePullBackOff", "said": Said.NOT_FOUND, "made_at": NOW - HOUR}
    return replace(facts, **(said | changes))


def of_source(image: str = SOURCE, **changes: Any) -> Facts:
    facts = Facts(image=image, source=image, explained=explain(image, MIRROR), now=NOW, made_at=NOW - HOUR)
    return replace(facts, **{"reason": "ImagePullBackOff", "said": Said.TIMEOUT, **changes})


LATE = replace(kept(Status.FAILED, error="DENIED: no"), updated_at=NOW)
ROWS: list[Any] = [
    pytest.param(
        of_copy(record=kept(requested_at=NOW - MINUTE)), Code.REQUESTED, "the copy is requested", "wait", id="requested"
    ),
    pytest.param(
        of_copy(record=kept(requested_at=NOW - 5 * MINUTE)),
        Code.WAITS_FOR_BUILD,
        "requested 5m ago, waits for a free build",
        "wait; image-mirror doctor shows the quota of builds",
        id="waits-for-a-slot",
    ),
    pytest.param(
        of_copy(record=kept(attempts=2, error="NOT_FOUND: manifest unknown")),
        Code.REFUSED,
        f"requested, 2 of 5 attempts refused: NOT_FOUND, next try {LATER}",
        "correct the name in the manifest",
        id="refused",
    ),
    pytest.param(
        of_copy(record=kept(attempts=1, same_result="DENIED 1", due_at=NOW)),
        Code.REFUSED,
        "requested, 1 of 5 attempts refused: DENIED, next try now",
        "set RegistryAuthSecretArn to a login for the source",
        id="refused-and-due",
    ),
    pytest.param(
        of_copy(record=kept(waits=3, error="RATE_LIMITED: too many requests")),
        Code.DELAYED,
        f"delayed 3 times: RATE_LIMITED, next try {LATER}",
        "wait, or set RegistryAuthSecretArn",
        id="delayed",
    ),
    pytest.param(
        of_copy(record=kept(waits=1, error="the build's ID is missing; it is started again")),
        Code.DELAYED,
        f"delayed 1 time: the build's ID is missing; it is started again, next try {LATER}",
        "image-mirror doctor shows what is wrong",
        id="delayed-without-a-code",
    ),
    pytest.param(
        of_copy(record=kept(error="fast lane: OUT_OF_TIME: 13 minutes", requested_at=NOW - MINUTE, due_at=NOW)),
        Code.REQUESTED,
        "the copy is requested",
        "wait",
        id="it-goes-on-in-the-main-lane",
    ),
    pytest.param(
        of_copy(record=kept(attempts=1, same_result="OUT_OF_TIME 1")),
        Code.REFUSED,
        f"requested, 1 of 5 attempts refused: OUT_OF_TIME, next try {LATER}",
        "raise BuildTimeoutMinutes",
        id="too-slow-for-the-main-lane",
    ),
    pytest.param(
        of_copy(record=kept(error="TARGET_LOGIN: 401")),
        Code.DELAYED,
        f"delayed: TARGET_LOGIN, next try {LATER}",
        "image-mirror connect, or image-mirror doctor if the accounts federate",
        id="a-key-is-refused",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPYING, updated_at=NOW - 3 * MINUTE)),
        Code.COPYING,
        f"being copied since {clock(NOW - 3 * MINUTE, NOW)}",
        "wait",
        id="being-built",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPYING, updated_at=NOW, attempts=1, same_result="UNREACHABLE 4")),
        Code.COPYING,
        f"being copied since {clock(NOW, NOW)}, after 1 of 5 attempts refused: UNREACHABLE",
        "wait",
        id="being-built-again",
    ),
    pytest.param(
        of_copy(record=kept(Status.FAILED)),
        Code.FAILED,
        "the copy failed: NOT_FOUND",
        f"correct the name in the manifest; if it is right now, {RETRY}",
        id="failed",
    ),
    pytest.param(
        of_copy(record=kept(Status.FAILED, error="TOO_LARGE: 90 GB")),
        Code.FAILED,
        "the copy failed: TOO_LARGE",
        f"raise MaxImageGigabytes, then {RETRY}",
        id="failed-because-of-a-limit",
    ),
    pytest.param(
        of_copy(record=kept(Status.FAILED, error="UNREACHABLE: no route")),
        Code.FAILED,
        "the copy failed: UNREACHABLE",
        RETRY,
        id="failed-for-a-reason-that-passes",
    ),
    pytest.param(
        of_copy(record=kept(Status.FAILED, error=None)),
        Code.FAILED,
        "the copy failed: the reason is unknown",
        f"image-mirror doctor shows what is wrong, then {RETRY}",
        id="failed-without-a-reason",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD), Code.COPIED, "the copy is there", "wait", id="kubelet-waits"
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, nudge=""),
        Code.COPIED,
        "the copy is there",
        "wait, or image-mirror nudge",
        id="kubelet-waits-and-the-pod-can-be-patched",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, nudge=" --jobs"),
        Code.COPIED,
        "the copy is there",
        "wait, or image-mirror nudge --jobs",
        id="kubelet-waits-with-a-pod-of-a-job",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), nudge=""),
        Code.COPIED,
        "copied, says its record; ECR was not asked",
        "wait",
        id="ecr-is-not-known-and-the-pod-can-be-patched",
    ),
    pytest.param(
        of_copy(record=kept(Status.REQUESTED, digest=DIGEST), held=HELD),
        Code.COPIED,
        "the copy is there",
        "wait",
        id="kubelet-waits-while-a-refresh-is-requested",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=Held(InECR.OTHER_DIGEST, "sha256:" + "b" * 64)),
        Code.COPIED,
        "the copy is there",
        "wait",
        id="somebody-has-pushed-another-digest",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED)),
        Code.COPIED,
        "copied, says its record; ECR was not asked",
        "wait",
        id="ecr-is-not-known",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, said=Said.TIMEOUT),
        Code.TIMEOUT,
        "the copy is there; the node's connection to ECR times out",
        "check the node's way to ECR and S3: NAT, VPC endpoints, security groups",
        id="the-node-does-not-reach-ecr",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, said=Said.NO_HOST),
        Code.TIMEOUT,
        "the copy is there; the node does not find ECR's host",
        "check the node's DNS",
        id="the-node-has-no-dns",
    ),
    pytest.param(of_copy(record=kept(Status.COPIED), held=GONE), Code.GONE, "gone from ECR", RETRY, id="gone-from-ecr"),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=Held(InECR.ARCHIVED, DIGEST, lost=True)),
        Code.GONE,
        "archived in ECR",
        RETRY,
        id="archived",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPYING, digest=DIGEST, updated_at=NOW), held=GONE),
        Code.COPYING,
        f"being copied since {clock(NOW, NOW)}",
        "wait",
        id="gone-and-being-made-again",
    ),
    pytest.param(
        of_copy(record=None, held=GONE),
        Code.NO_RECORD,
        "a copy that has no record: it was removed or forgotten",
        f"image-mirror warm --cluster, or {RECREATE}",
        id="no-record",
    ),
    pytest.param(
        of_copy(record=None, held=Held(InECR.OTHER_DIGEST, DIGEST)),
        Code.COPIED,
        "the copy is there, without a record",
        "wait",
        id="no-record-but-a-copy",
    ),
    pytest.param(
        of_copy(record=replace(kept(), status=None)),
        Code.OLD_RECORD,
        "an older deployment wrote the record, which requests nothing",
        f"image-mirror warm --cluster, or {RECREATE}",
        id="record-of-an-older-deployment",
    ),
    pytest.param(
        of_copy(served=False, record=kept()),
        Code.NOT_SERVED,
        "a copy below a prefix or registry that the stack no longer serves",
        RECREATE,
        id="no-longer-served",
    ),
    pytest.param(
        of_copy(record=kept(), said=Said.UNAUTHORIZED),
        Code.UNAUTHORIZED,
        "ECR refuses the node: its role may not pull",
        "give the node's role AmazonEC2ContainerRegistryReadOnly; in another account, set PullAccounts",
        id="unauthorized",
    ),
    pytest.param(
        of_copy(record_known=False),
        Code.COPY_UNKNOWN,
        "a copy, probably still being made",
        f"wait; with AWS permissions: image-mirror status {SOURCE}",
        id="without-aws",
    ),
    pytest.param(
        of_copy(record_known=False, said=Said.NOTHING),
        Code.COPY_UNKNOWN,
        "a copy; its record is not known",
        f"wait; with AWS permissions: image-mirror status {SOURCE}",
        id="without-aws-and-without-words",
    ),
    pytest.param(
        of_copy(record_known=False, said=Said.TIMEOUT),
        Code.TIMEOUT,
        "the copy is probably there; the node's connection to ECR times out",
        "check the node's way to ECR and S3: NAT, VPC endpoints, security groups",
        id="without-aws-a-time-out",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, said=Said.PLATFORM),
        Code.NO_PLATFORM,
        "the image has no platform for the node",
        "choose nodes or an image of another architecture",
        id="no-match-for-platform",
    ),
    pytest.param(
        of_copy(record=kept(Status.COPIED), held=HELD, said=Said.NO_SPACE),
        Code.NO_SPACE,
        "no space left on the node's disk",
        "free space there, or use larger disks",
        id="no-space",
    ),
    pytest.param(
        of_source("GCR.io/A", reason="InvalidImageName", said=Said.OTHER),
        Code.INVALID_NAME,
        "the kubelet cannot read the name",
        "correct the name in the manifest",
        id="InvalidImageName",
    ),
    pytest.param(
        of_source(reason="ErrImageNeverPull", said=Said.OTHER),
        Code.NEVER_PULLED,
        "not on the node, and its pull policy is Never",
        "load the image onto the node, or change imagePullPolicy",
        id="ErrImageNeverPull",
    ),
    pytest.param(
        of_source(opted_out="opted out by the namespace's label"),
        Code.OPTED_OUT,
        "opted out by the namespace's label; its registry does not answer the node",
        "-",
        id="opted-out-by-the-namespace",
    ),
    pytest.param(
        of_source(opted_out="opted out by the pod's label", said=Said.NOTHING),
        Code.OPTED_OUT,
        "opted out by the pod's label",
        "-",
        id="opted-out-by-the-pod",
    ),
    pytest.param(
        of_source(not_sent="the cluster has no webhook configuration for this"),
        Code.NOT_SENT,
        "the cluster has no webhook configuration for this",
        f"see image-mirror webhook-config and doctor, then {RECREATE}",
        id="no-webhook",
    ),
    pytest.param(
        of_source(record=kept(Status.FAILED, updated_at=NOW - 2 * HOUR)),
        Code.FAILED_BEFORE,
        "its copy had failed when the pod was made: NOT_FOUND",
        f"correct the name in the manifest; if it is right now, {RETRY}, then {RECREATE}",
        id="failed-when-the-pod-was-made",
    ),
    pytest.param(
        of_source(record=kept(Status.FAILED, updated_at=NOW)),
        Code.MISSED,
        "probably made while the webhook did not answer",
        f"correct the name in the manifest; if it is right now, {RETRY}, then {RECREATE}",
        id="failed-only-later",
    ),
    pytest.param(
        of_source(configured_at=NOW),
        Code.OLDER_THAN_WEBHOOK,
        "made before the webhook's configuration",
        RECREATE,
        id="older-than-the-webhook",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.COPYING)),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was not there when the pod was made",
        f"when it is there, {RECREATE}",
        id="SwapWhen-copied",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.COPIED)),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was probably not there when the pod was made",
        RECREATE,
        id="SwapWhen-copied-and-now-there",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.COPIED, updated_at=NOW - HOUR - MINUTE)),
        Code.MISSED,
        "probably made while the webhook did not answer",
        RECREATE,
        id="SwapWhen-copied-and-it-was-there",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.COPIED, updated_at=NOW - HOUR - MINUTE + 1)),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was probably not there when the pod was made",
        RECREATE,
        id="SwapWhen-copied-and-it-came-a-moment-before-the-pod",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.FAILED, updated_at=NOW)),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was not there when the pod was made",
        f"correct the name in the manifest; if it is right now, {RETRY}, then {RECREATE}",
        id="SwapWhen-copied-and-failed-later",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(attempts=2, error="DENIED: unauthorized"), nudge=""),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was not there when the pod was made",
        f"set RegistryAuthSecretArn to a login for the source; when it is there, {NUDGE}",
        id="SwapWhen-copied-and-refused",
    ),
    pytest.param(
        of_source(swap_when="copied", chosen_by="the namespace's label", record=kept(Status.COPYING)),
        Code.COPIED_LATER,
        "copied by the namespace's label, and the copy was not there when the pod was made",
        f"when it is there, {RECREATE}",
        id="copied-by-a-label",
    ),
    pytest.param(
        of_source(swap_when="paused"),
        Code.PAUSED,
        "paused by SwapWhen: no copy is requested",
        f"image-mirror warm --cluster, or end the pause; then {RECREATE}",
        id="SwapWhen-paused",
    ),
    pytest.param(
        of_source(
            swap_when="paused",
            chosen_by="the webhook's configuration",
            record=kept(Status.COPYING, updated_at=NOW - 50 * MINUTE),
        ),
        Code.PAUSED,
        f"paused by the webhook's configuration; being copied since {clock(NOW - 50 * MINUTE, NOW)}",
        f"when it is there, {RECREATE}",
        id="paused-before-the-copy-arrived",
    ),
    pytest.param(
        of_source(swap_when="paused", record=kept(requested_at=NOW - 5 * MINUTE), nudge=""),
        Code.PAUSED,
        "paused by SwapWhen; requested 5m ago, waits for a free build",
        f"when it is there, {NUDGE}",
        id="paused-and-requested-before",
    ),
    pytest.param(
        of_source(swap_when="paused", record=kept(Status.FAILED, updated_at=NOW), nudge=""),
        Code.PAUSED,
        "paused by SwapWhen; the copy failed: NOT_FOUND",
        f"correct the name in the manifest; if it is right now, {RETRY}, then {NUDGE}",
        id="paused-and-failed-since",
    ),
    pytest.param(
        of_source(swap_when="paused", record=replace(kept(), status=None)),
        Code.PAUSED,
        "paused by SwapWhen: no copy is requested",
        f"image-mirror warm --cluster, or end the pause; then {RECREATE}",
        id="paused-with-the-record-of-an-older-deployment",
    ),
    pytest.param(
        of_source(swap_when="paused", chosen_by="the pod's label", record=kept(Status.COPIED)),
        Code.PAUSED,
        "paused by the pod's label: the copy was probably not there when the pod was made",
        RECREATE,
        id="paused-and-now-there",
    ),
    pytest.param(
        of_source(swap_when="paused", record=kept(Status.COPIED, updated_at=NOW - 2 * HOUR), nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer",
        NUDGE,
        id="paused-and-it-was-there",
    ),
    pytest.param(
        of_source(record=kept(Status.COPYING), nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer",
        f"when it is there, {NUDGE}",
        id="missed-and-the-copy-is-under-way",
    ),
    pytest.param(
        of_source(too_many=True),
        Code.TOO_MANY,
        "probably one image too many for its pod (MaxNewImages)",
        f"image-mirror warm --cluster, then {RECREATE}; or raise MaxNewImages",
        id="more-images-than-a-pod-may-request",
    ),
    pytest.param(
        of_source(configured_at=NOW - DAY, record=kept(Status.COPIED)),
        Code.MISSED,
        "probably made while the webhook did not answer",
        RECREATE,
        id="missed",
    ),
    pytest.param(
        of_source(configured_at=NOW - DAY, record=kept(Status.COPIED), nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer",
        NUDGE,
        id="missed-and-the-copy-is-there",
    ),
    pytest.param(
        of_source(nudge=" --jobs"),
        Code.MISSED,
        "probably made while the webhook did not answer",
        f"image-mirror warm --cluster, then {NUDGE} --jobs",
        id="missed-by-a-pod-of-a-job",
    ),
    pytest.param(
        of_source(reason="", said=Said.NOTHING, record=kept(Status.COPIED), nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer",
        RECREATE,
        id="missed-and-it-runs",
    ),
    pytest.param(
        of_source(namespace_known=False, record=kept(Status.COPIED), nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer, or opted out by its namespace",
        RECREATE,
        id="missed-or-opted-out",
    ),
    pytest.param(
        of_source(record_known=False, nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer",
        RECREATE,
        id="missed-without-aws",
    ),
    pytest.param(
        of_source(configured_at=NOW, record=kept(Status.COPIED), nudge=""),
        Code.OLDER_THAN_WEBHOOK,
        "made before the webhook's configuration",
        NUDGE,
        id="older-than-the-webhook-and-the-copy-is-there",
    ),
    pytest.param(
        of_source(record=kept(Status.FAILED, updated_at=NOW - 2 * HOUR), nudge=""),
        Code.FAILED_BEFORE,
        "its copy had failed when the pod was made: NOT_FOUND",
        f"correct the name in the manifest; if it is right now, {RETRY}, then {NUDGE}",
        id="failed-when-the-pod-was-made-which-waits",
    ),
    pytest.param(
        of_source(swap_when="copied", record=kept(Status.COPYING), nudge=""),
        Code.COPIED_LATER,
        "SwapWhen=copied, and the copy was not there when the pod was made",
        f"when it is there, {NUDGE}",
        id="SwapWhen-copied-and-the-pod-waits",
    ),
    pytest.param(
        of_source(too_many=True, nudge=""),
        Code.TOO_MANY,
        "probably one image too many for its pod (MaxNewImages)",
        f"image-mirror warm --cluster, then {NUDGE}; or raise MaxNewImages",
        id="more-images-than-a-pod-may-request-and-it-waits",
    ),
    pytest.param(
        of_source(namespace_known=False, rules_known=False, record_known=False, nudge=""),
        Code.MISSED,
        "probably made while the webhook did not answer, or opted out by its namespace; by the default rules",
        RECREATE,
        id="missed-as-far-as-a-developer-can-see",
    ),
    pytest.param(
        of_source("my.example/x:1", said=Said.UNAUTHORIZED),
        Code.NO_RULE,
        "left as written: no rule names it; its registry refuses the node",
        "correct the name, or the pod's imagePullSecrets",
        id="no-rule",
    ),
    pytest.param(
        of_source("my.example/x:1", said=Said.OTHER, rules_known=False),
        Code.NO_RULE,
        "left as written: no rule names it, by the default rules",
        "check the image's registry, or add it to MirrorRules",
        id="no-default-rule",
    ),
    pytest.param(
        of_source("gcr.io/ours/x:1", said=Said.NOT_FOUND),
        Code.NO_RULE,
        "left as written: rule !gcr.io/ours; its registry does not have it",
        "correct the name in the manifest",
        id="a-rule-leaves-it",
    ),
    pytest.param(
        of_source("gcr.io/x@sha512:" + "a" * 128),
        Code.NO_RULE,
        "left as written: ECR knows images by sha256 digests only; its registry does not answer the node",
        "add it to MirrorRules if its registry is blocked",
        id="it-cannot-be-copied",
    ),
    pytest.param(
        of_source("quay.io/x:1"),
        Code.NO_RULE,
        "left as written: rule quay.io=quay.example: the pod was not rewritten; its registry does not answer the node",
        RECREATE,
        id="not-rewritten",
    ),
    pytest.param(
        replace(of_source("quay.io/x:1"), image="quay.example/x:1"),
        Code.REWRITTEN,
        "pulled from quay.example by rule quay.io=quay.example; its registry does not answer the node",
        "add it to MirrorRules if its registry is blocked",
        id="rewritten",
    ),
    pytest.param(
        replace(of_source(), image="old.example/a/b:1"),
        Code.NOT_SERVED,
        "pulled from old.example, where the rules no longer point it",
        RECREATE,
        id="rewritten-by-an-earlier-rule",
    ),
    pytest.param(
        of_source(kept_now=()),
        Code.KEPT_NOW,
        "a new pod would keep its source too: the webhook does not answer, or is not asked",
        f"image-mirror doctor --kubeconfig FILE shows what is wrong, then {RECREATE}",
        id="kept-in-a-dry-run",
    ),
    pytest.param(
        of_source(kept_now=("would violate PodSecurity", f"{SOURCE} stays as written: no"), nudge=""),
        Code.KEPT_NOW,
        f"a new pod would keep its source too: {SOURCE} stays as written: no",
        f"do what the warning says, then image-mirror warm --cluster, then {NUDGE}",
        id="kept-in-a-dry-run-with-the-webhooks-warning",
    ),
    pytest.param(
        of_source(kept_now=(f"{SOURCE} stays as written, its copy failed: DENIED",), record=LATE, nudge=""),
        Code.KEPT_NOW,
        f"a new pod would keep its source too: {SOURCE} stays as written, its copy failed: DENIED",
        f"set RegistryAuthSecretArn to a login for the source, then {RETRY}, then {NUDGE}",
        id="kept-in-a-dry-run-because-its-copy-has-failed-since",
    ),
    pytest.param(
        of_source("quay.io/a/b:1", kept_now=()),
        Code.KEPT_NOW,
        "a new pod would keep its source too: the webhook does not answer, or is not asked",
        f"image-mirror doctor --kubeconfig FILE shows what is wrong, then {RECREATE}",
        id="kept-in-a-dry-run-although-a-rule-gives-another-name",
    ),
    pytest.param(
        of_source(kept_now=(), configured_at=NOW),
        Code.KEPT_NOW,
        "a new pod would keep its source too: the webhook does not answer, or is not asked",
        f"image-mirror doctor --kubeconfig FILE shows what is wrong, then {RECREATE}",
        id="kept-in-a-dry-run-and-older-than-the-webhook",
    ),
    pytest.param(
        of_source(kept_now=(), too_many=True),
        Code.TOO_MANY,
        "probably one image too many for its pod (MaxNewImages)",
        f"image-mirror warm --cluster, then {RECREATE}; or raise MaxNewImages",
        id="kept-in-a-dry-run-for-a-cause-that-is-known",
    ),
    pytest.param(
        of_source(kept_now=(), swap_when="copied"),
        Code.MISSED,
        "probably made while the webhook did not answer",
        f"image-mirror warm --cluster, then {RECREATE}",
        id="kept-in-a-dry-run-because-swapwhen-waits-for-the-copy",
    ),
    pytest.param(
        of_copy(kept_now=()),
        Code.NO_RECORD,
        "a copy that has no record: it was removed or forgotten; a new pod would get its source",
        "image-mirror warm --cluster",
        id="a-lost-copy-whose-source-a-dry-run-keeps",
    ),
    pytest.param(
        of_copy(kept_now=(), served=False),
        Code.NOT_SERVED,
        "a copy below a prefix or registry that the stack no longer serves; a new pod would get its source",
        f"image-mirror doctor --kubeconfig FILE shows what is wrong; then {RECREATE}",
        id="an-unserved-copy-whose-source-a-dry-run-keeps",
    ),
]


@pytest.mark.parametrize(("facts", "code", "why", "do"), ROWS)
def test_each_situation_has_its_cause_and_its_remedy(facts: Facts, code: Code, why: str, do: str) -> None:
    cause = classify(facts)
    assert (cause.code, cause.why, cause.remedy(facts.source)) == (code, why, do)
    # Only where the kubelet is all that a pod waits for.
    assert cause.tries == (code in (Code.COPIED, Code.TIMEOUT))


def test_each_cause_is_in_the_table() -> None:
    assert {row.values[1] for row in ROWS} == set(Code)


def documented() -> list[re.Pattern[str]]:
    """Return how WHY begins, of each row of the table in docs/waiting-pods.md."""
    page = (ROOT / "docs" / "waiting-pods.md").read_text(encoding="utf-8")
    section = page.partition("## Which pods cannot pull, and why")[2].partition("\n## ")[0]
    texts = [text for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for text in re.findall("`(.*?)`", row)]
    wild = {"...": ".*", "CODE": ".*", "2 of 5": "[0-9] of 5", " 3 times": ".*"}
    patterns = []
    for text in texts:
        pattern = re.escape(text)
        for fixed, meant in wild.items():
            pattern = pattern.replace(re.escape(fixed), meant)
        patterns.append(re.compile(pattern))
    return patterns


def test_the_page_about_waiting_pods_explains_each_cause_and_no_other() -> None:
    patterns, texts = documented(), [classify(row.values[0]).why for row in ROWS]
    assert [text for text in texts if not any(pattern.match(text) for pattern in patterns)] == []
    # live_webhook.py and pod_reading.py say these.
    elsewhere = ("the webhook's configuration leaves its namespace out: x In y", "a static pod: ...")
    assert [
        pattern.pattern for pattern in patterns if not any(pattern.match(text) for text in (*texts, *elsewhere))
    ] == []


def test_a_time_of_another_day_has_its_date() -> None:
    assert len(clock(NOW + HOUR, NOW)) == len("12:34")
    assert len(clock(NOW + 13 * HOUR, NOW)) == len("2026-11-28 12:34")
    assert clock(2**53, NOW) == "at an unknown time", "somebody has written it by hand"


def test_a_time_that_is_after_the_year_9999_in_the_machines_zone_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has written it by hand; it is before the year 10000 in UTC."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert clock(253_402_300_799_000, NOW) == "at an unknown time"
        assert moment(253_402_300_799_000, NOW) == "-"
        assert classify(of_copy(record=kept(Status.COPYING, updated_at=253_402_300_799_000))).why.startswith("being")
    finally:
        monkeypatch.undo()
        time.tzset()
