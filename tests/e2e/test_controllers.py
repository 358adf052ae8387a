"""What controllers and policies see that compare images or give up on them, on a real API server: docs/controllers.md.

The controllers themselves do not run here, except those of Kubernetes. The tests make their requests.
"""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.fakes.adapter import Gateway, gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, Json, images, originals, pod, pods_of, version
from e2e.harness.processes import wait_for
from e2e.harness.stage import answer
from image_mirror.cli.emulation import Emulation
from image_mirror.record import Status
from support.templates import ROOT

SOURCE = "gcr.io/team/app:1"
COPY = f"{COPIES}/{SOURCE}"


def workload(kind: str, name: str, image: str, **spec: object) -> Json:
    """A Deployment or a Job whose pods have the label app=NAME."""
    template: Json = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c0", "image": image}]}}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
        return {
            "apiVersion": "batch/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {"template": template, **spec},
        }
    selected = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": selected | spec}


def condition(cluster: Cluster, kind: str, name: str, wanted: str) -> Json:
    """Return the condition of a type, {} if there is none."""
    found: list[Json] = cluster.get(kind, name).get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == wanted), {})


# ---- admission policies ----


@contextmanager
def allow_list(cluster: Cluster, resource: str, containers: str, prefix: str) -> Iterator[None]:
    """Admit only `resource` (deployments, pods) whose images begin with `prefix`, once the API server knows that."""
    group = "apps" if resource == "deployments" else ""
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    policy: Json = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "allow-list"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [
                {"expression": f"{containers}.all(c, c.image.startsWith('{prefix}'))", "message": "not on the list"}
            ],
        },
    }
    binding: Json = policy | {
        "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": "allow-list", "validationActions": ["Deny"]},
    }
    # Opted out, so its image begins with neither prefix.
    opted_out = pod("probe", "quay.io/probe/probe", labels={"image-mirror/skip": "true"})
    probe = opted_out if resource == "pods" else workload("Deployment", "probe", "quay.io/probe/probe")

    def refused() -> bool:
        done = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
        return "not on the list" in done.stderr

    try:
        cluster.apply(policy)
        cluster.apply(binding)
        wait_for(refused, "the policy is in use")
        yield
    finally:
        cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "allow-list")
        wait_for(lambda: not refused(), "the policy is no longer in use")


PODS, TEMPLATES = "object.spec.containers", "object.spec.template.spec.containers"


def test_an_allow_list_of_pods_sees_the_copy_s_name(mirrored: Cluster, aws: Emulation) -> None:
    with allow_list(mirrored, "pods", PODS, f"{COPIES}/"):
        mirrored.apply(pod("listed", SOURCE))
        assert images(mirrored.get("pod", "listed")) == {"c0": COPY}
    with allow_list(mirrored, "pods", PODS, "gcr.io/"):
        done = mirrored.try_kubectl("create", "-f", "-", stdin=json.dumps(pod("source", SOURCE)))
        assert "not on the list" in done.stderr, "a list of sources refuses what the webhook has rewritten"
    assert [record.source for record in aws.records()] == [SOURCE], "a refused pod has requested its copy too"


def test_an_allow_list_of_templates_sees_the_source_s_name(mirrored: Cluster) -> None:
    app = workload("Deployment", "app", SOURCE)
    with allow_list(mirrored, "deployments", TEMPLATES, f"{COPIES}/"):
        done = mirrored.try_kubectl("create", "-f", "-", stdin=json.dumps(app))
        assert "not on the list" in done.stderr, "a list of copies refuses a template, which names the source"
    with allow_list(mirrored, "deployments", TEMPLATES, "gcr.io/"):
        mirrored.apply(app)
    wait_for(lambda: pods_of(mirrored, "app=app"), "the Deployment has a pod")


def test_the_policy_on_the_page_admits_copies_only(mirrored: Cluster) -> None:
    page = (ROOT / "docs" / "controllers.md").read_text(encoding="utf-8")
    [policy] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert policy.count("<CopiesPrefix>") == 1
    policy, words = policy.replace("<CopiesPrefix>", f"{COPIES}/"), "this cluster runs copies only"
    opted_out = json.dumps(pod("opted-out", SOURCE, labels={"image-mirror/skip": "true"}))

    def refused() -> bool:
        return words in mirrored.try_kubectl("create", "--dry-run=server", "-f", "-", stdin=opted_out).stderr

    mirrored.kubectl("apply", "-f", "-", stdin=policy)
    try:
        wait_for(refused, "the policy is in use")
        mirrored.apply(pod("rewritten", SOURCE))
        left = {"image-mirror/skip": "true"}
        strangers = pod("strangers", COPY.replace(COPY[:12], "999999999999"), labels=left)
        done = mirrored.try_kubectl("create", "-f", "-", stdin=json.dumps(strangers))
        assert words in done.stderr, "a stranger's ECR is no copy"
        elsewhere = pod("elsewhere", COPY, labels=left)
        for more in (
            {"initContainers": [{"name": "i", "image": SOURCE}]},
            {"volumes": [{"name": "v", "image": {"reference": SOURCE}}]},
        ):
            named = json.dumps(elsewhere | {"spec": elsewhere["spec"] | more})
            done = mirrored.try_kubectl("create", "--dry-run=server", "-f", "-", stdin=named)
            assert words in done.stderr, f"{list(more)} count too"
        mirrored.apply(
            elsewhere | {"spec": elsewhere["spec"] | {"volumes": [{"name": "v", "image": {"reference": COPY}}]}}
        )
        debug = ("debug", "elsewhere", "--attach=false", "--container=d")
        done = mirrored.try_kubectl(*debug, f"--image={SOURCE}")
        assert words in done.stderr, "ephemeral containers count too"
        done = mirrored.try_kubectl(*debug, f"--image={COPY}")
        assert done.returncode == 0, done.stderr
    finally:
        mirrored.kubectl("delete", "-f", "-", stdin=policy)
        wait_for(lambda: not refused(), "the policy is no longer in use")
    assert images(mirrored.get("pod", "rewritten")) == {"c0": COPY}


@pytest.fixture
def validator(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, "POST /validate", answer) as running:
        yield running


def test_a_validating_webhook_sees_the_copy_s_name_and_the_original_s_in_the_annotation(
    mirrored: Cluster, validator: Gateway
) -> None:
    """Kyverno and Gatekeeper are such webhooks."""

    def allow(event: Json) -> Json:
        review = json.loads(event["body"])
        response = {"uid": review["request"]["uid"], "allowed": True}
        body = {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
        return {"statusCode": 200, "body": json.dumps(body)}

    validator.handler = allow
    bundle = base64.b64encode(validator.certificate).decode()
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "a-validator"},
        "webhooks": [
            {
                "name": "validate.example.com",
                "clientConfig": {"url": f"{validator.url}/validate", "caBundle": bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
            }
        ],
    }
    mirrored.apply(configuration)
    try:

        def seen() -> list[Json]:
            done = json.dumps(pod("seen", SOURCE))
            mirrored.kubectl("create", "--dry-run=server", "-f", "-", stdin=done)
            return validator.reviews

        wait_for(seen, "the validating webhook is asked")
    finally:
        mirrored.kubectl("delete", "validatingwebhookconfiguration", "a-validator")
    reviewed = validator.reviews[-1]["request"]["object"]
    assert images(reviewed) == {"c0": COPY}
    assert originals(reviewed) == {"containers/c0": SOURCE}


# ---- controllers that compare ----


def test_a_workload_keeps_what_its_author_wrote_so_nothing_differs_from_git(mirrored: Cluster) -> None:
    """What Argo CD and Flux compare."""
    app = workload("Deployment", "app", SOURCE)
    mirrored.apply(app, "--server-side")
    wait_for(lambda: pods_of(mirrored, "app=app"), "the Deployment has a pod")
    live = mirrored.get("deployment", "app")
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == SOURCE
    [made] = pods_of(mirrored, "app=app")
    assert images(made) == {"c0": COPY}
    for flags in ((), ("--server-side",)):
        difference = mirrored.try_kubectl("diff", *flags, "-f", "-", stdin=json.dumps(app))
        assert (difference.returncode, difference.stdout) == (0, ""), difference.stderr
    before = live["metadata"]["generation"]
    mirrored.apply(app, "--server-side")
    assert mirrored.get("deployment", "app")["metadata"]["generation"] == before
    assert [each["metadata"]["uid"] for each in pods_of(mirrored, "app=app")] == [made["metadata"]["uid"]]


def test_a_controller_that_compares_its_pod_with_the_live_one_finds_another_image(mirrored: Cluster) -> None:
    """NiFiKop and Koperator delete such a pod, and make it again, for ever."""
    wanted = pod("broker", SOURCE)
    mirrored.apply(wanted)
    assert images(mirrored.get("pod", "broker")) != images(wanted)


def test_a_pod_that_names_the_copy_is_left_as_it_is_so_such_a_controller_is_content(
    mirrored: Cluster, aws: Emulation
) -> None:
    wanted = pod("broker", COPY)
    mirrored.apply(wanted)
    made = mirrored.get("pod", "broker")
    assert images(made) == images(wanted)
    assert originals(made) == {}
    assert aws.records() == [], "and nobody requests the copy"


@pytest.mark.parametrize("write", ["put", "patch", "apply"])
def test_a_controller_that_writes_the_source_again_gets_the_copy_s_name_and_restarts_nothing(
    mirrored: Cluster, write: str
) -> None:
    mirrored.apply(pod("kept", SOURCE))
    made = mirrored.get("pod", "kept")
    wanted = json.loads(json.dumps(made))
    wanted["spec"]["containers"][0]["image"] = SOURCE
    if write == "put":
        mirrored.kubectl("replace", "-f", "-", stdin=json.dumps(wanted))
    elif write == "patch":
        operations = [{"op": "replace", "path": "/spec/containers/0/image", "value": SOURCE}]
        mirrored.kubectl("patch", "pod", "kept", "--type=json", "-p", json.dumps(operations))
    else:
        mirrored.apply(pod("kept", SOURCE), "--server-side", "--force-conflicts", "--field-manager=controller")
    after = mirrored.get("pod", "kept")
    assert images(after) == {"c0": COPY}
    assert originals(after) == {"containers/c0": SOURCE}
    assert after["spec"] == made["spec"]
    assert version(after)[1] == version(made)[1], "the generation, which counts changes of the specification"


def test_an_update_in_place_to_another_image_is_rewritten_like_a_new_pod(mirrored: Cluster, aws: Emulation) -> None:
    """What OpenKruise does: a PUT of the pod with the new image, and its own annotation."""
    mirrored.apply(pod("in-place", SOURCE))
    wanted = mirrored.get("pod", "in-place")
    wanted["spec"]["containers"][0]["image"] = "gcr.io/team/app:2"
    wanted["metadata"]["annotations"]["apps.kruise.io/inplace-update-state"] = "{}"
    mirrored.kubectl("replace", "-f", "-", stdin=json.dumps(wanted))
    after = mirrored.get("pod", "in-place")
    assert images(after) == {"c0": f"{COPIES}/gcr.io/team/app:2"}
    assert originals(after) == {"containers/c0": "gcr.io/team/app:2"}
    assert after["metadata"]["annotations"]["apps.kruise.io/inplace-update-state"] == "{}"
    assert {record.source: record.status for record in aws.records()}["gcr.io/team/app:2"] is Status.REQUESTED


def test_a_digest_that_a_controller_has_resolved_at_the_source_is_rewritten_and_kept(mirrored: Cluster) -> None:
    """What Knative and Tekton write after they have asked the source's registry."""
    digest = "sha256:" + "a" * 64
    mirrored.apply(workload("Deployment", "resolved", f"gcr.io/team/app@{digest}"))
    wait_for(lambda: pods_of(mirrored, "app=resolved"), "the Deployment has a pod")
    [made] = pods_of(mirrored, "app=resolved")
    assert images(made) == {"c0": f"{COPIES}/gcr.io/team/app@{digest}"}


# ---- controllers that give up ----


def waits(cluster: Cluster, made: Json) -> None:
    """Write the status of a kubelet that waits for the copy."""
    waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{COPY}"'}
    container = {"name": "c0", "image": COPY, "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Pending", "containerStatuses": [container | {"state": {"waiting": waiting}}]}
    name, patch = made["metadata"]["name"], json.dumps({"status": status})
    cluster.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)


def test_a_job_whose_pod_waits_has_not_failed_even_with_no_retry(mirrored: Cluster) -> None:
    mirrored.apply(workload("Job", "once", SOURCE, backoffLimit=0))
    wait_for(lambda: pods_of(mirrored, "app=once"), "the Job has a pod")
    [made] = pods_of(mirrored, "app=once")
    waits(mirrored, made)
    wait_for(lambda: mirrored.get("job", "once")["status"].get("active") == 1, "the Job counts its pod")
    assert mirrored.get("job", "once")["status"].get("failed", 0) == 0
    assert condition(mirrored, "job", "once", "Failed") == {}
    [still] = pods_of(mirrored, "app=once")
    assert still["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_job_s_deadline_counts_the_time_for_which_its_pod_waits(mirrored: Cluster) -> None:
    mirrored.apply(workload("Job", "late", SOURCE, backoffLimit=5, activeDeadlineSeconds=2))
    wait_for(lambda: pods_of(mirrored, "app=late"), "the Job has a pod")
    waits(mirrored, pods_of(mirrored, "app=late")[0])
    wait_for(lambda: condition(mirrored, "job", "late", "Failed"), "the deadline has passed")
    assert condition(mirrored, "job", "late", "Failed")["reason"] == "DeadlineExceeded"


def test_a_deployment_s_deadline_is_only_a_condition_and_its_pods_stay(mirrored: Cluster) -> None:
    """Helm, Flux and `kubectl rollout status` read this condition."""
    mirrored.apply(workload("Deployment", "slow", SOURCE, progressDeadlineSeconds=1))
    wait_for(lambda: pods_of(mirrored, "app=slow"), "the Deployment has a pod")
    [made] = pods_of(mirrored, "app=slow")
    waits(mirrored, made)
    progressing = ("deployment", "slow", "Progressing")
    wait_for(lambda: condition(mirrored, *progressing).get("status") == "False", "the deadline has passed")
    assert condition(mirrored, *progressing)["reason"] == "ProgressDeadlineExceeded"
    [still] = pods_of(mirrored, "app=slow")
    assert still["metadata"]["uid"] == made["metadata"]["uid"]
