"""A bad night on a real API server: what an operator types, as docs/undo.md says, and what it answers.

There is no kubelet: the statuses and the events that it would write are written by the tests. `pytest -s` prints what a
terminal would show.
"""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace

import boto3
import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.copies import arrive, change
from e2e.harness.kubelet import failing, not_pulled
from e2e.harness.pods import COPIES, images, pod
from e2e.harness.processes import wait_for
from e2e.harness.stage import silent
from image_mirror.cli.emulation import Emulation
from image_mirror.lifecycle import delayed, refused
from image_mirror.record import MINUTE
from support.recorded import now, run
from support.templates import ROOT

pytest_plugins = ["e2e.harness.operator"]
WRONG, LIMITED, THERE, MISSED, LOST = (
    "docker.io/library/nginx:9.99",
    "docker.io/library/redis:7.2",
    "ghcr.io/acme/svc:2026.11",
    "gcr.io/lost/app:1",
    "quay.io/acme/gone:1",
)
Typed = Callable[..., str]


@pytest.fixture
def typed(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Run a command line against the cluster and the emulated accounts, and return what a terminal shows."""
    monkeypatch.setenv("KUBECONFIG", kubeconfig)

    def typed(line: str, code: int = 0) -> str:
        result = run(*line.split())
        print(f"$ image-mirror {line}\n{result.output}")
        assert result.exit_code == code, result.output
        return result.output

    return typed


def two_hundred_pods(cluster: Cluster) -> None:
    """Apply 200 pods of one image whose name is wrong, in one list, and let the kubelet fail with all of them."""
    items = [pod(f"web-{number}", WRONG) for number in range(200)]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": items})
    not_pulled(cluster, *(item["metadata"]["name"] for item in items))


def test_pods_says_of_two_hundred_pods_which_cause_each_has(
    mirrored: Cluster, gate: Gateway, aws: Emulation, typed: Typed
) -> None:
    two_hundred_pods(mirrored)
    for name, image in (("cache", LIMITED), ("svc", THERE)):
        mirrored.apply(pod(name, image))
    with silent(gate):
        mirrored.apply(pod("missed", MISSED))
    record = next(each for each in aws.records() if each.source == WRONG)
    change(aws, WRONG, refused(replace(record, same_result="NOT_FOUND 1"), "NOT_FOUND: manifest unknown", now()))
    record = next(each for each in aws.records() if each.source == LIMITED)
    change(aws, LIMITED, delayed(record, "RATE_LIMITED: too many requests", now()), due_at=now() + 30 * MINUTE)
    arrive(aws, THERE)
    for name in ("cache", "svc", "missed"):
        failing(mirrored, name, "i/o timeout" if name == "missed" else "not found")
    try:
        shown = typed("pods -A")
        rows = {row.split()[1]: row for row in shown.splitlines()[1:] if re.match(r" +\d+ ", row)}
        assert rows[WRONG].split()[0] == "200"
        for image, cause, remedy in (
            (WRONG, "1 of 5 attempts refused: NOT_FOUND", "correct the name"),
            (LIMITED, "delayed 1 time: RATE_LIMITED, next try ", "RegistryAuthSecretArn"),
            (THERE, "the copy is there; the kubelet tries within ", "image-mirror nudge"),
            (MISSED, "probably made while the webhook did not answer", "image-mirror nudge -A --missed"),
        ):
            assert cause in rows[image]
            assert remedy in rows[image]
        # A pod whose copy is there and that does not run.
        assert "1 patched" in typed("nudge -A")
        assert images(mirrored.get("pod", "svc"))["c0"].startswith(f"{COPIES}/{THERE}@sha256:")
        # A pod that was made meanwhile: its copy is requested first.
        assert MISSED in typed("pods -A --missed")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("image_mirror.cli.waiting.time.sleep", lambda _: arrive(aws, MISSED))
            typed(f"warm --image {MISSED}")
        assert "1 patched" in typed("nudge -A --missed")
        assert images(mirrored.get("pod", "missed"))["c0"] == f"{COPIES}/{MISSED}"
        # Who asked, and what happens next.
        one = typed(f"status {WRONG}")
        assert "default/Pod/web-" in one
        assert "NOT_FOUND" in one
    finally:
        mirrored.kubectl("delete", "events", "--all", "-n", "default")


def test_a_repository_that_was_deleted_is_found_and_copied_again(
    mirrored: Cluster, aws: Emulation, typed: Typed
) -> None:
    mirrored.apply(pod("web", LOST))
    arrive(aws, LOST)
    boto3.client("ecr").delete_repository(repositoryName=f"mirror/{LOST.rpartition(':')[0]}", force=True)
    assert f"gone    {LOST}" in typed("status --verify", code=1)
    assert f"{LOST}: " in typed("retry --gone")
    [record] = aws.records()
    assert (record.status, record.digest is None) == ("REQUESTED", True)


def test_the_pod_says_why_it_was_not_rewritten(mirrored: Cluster, typed: Typed) -> None:
    mirrored.apply(pod("off", "gcr.io/off/app:1", labels={"image-mirror/skip": "true"}))
    mirrored.apply(pod("other", "registry.example.cn/app:1"))
    assert "opted out" in typed("pods off")
    assert "rule     none names it" in typed("pods other")


def test_a_developer_without_aws_permissions_gets_the_causes_that_the_cluster_shows(
    mirrored: Cluster, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored.apply(pod("web", WRONG))
    failing(mirrored, "web")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    shown = typed("pods")
    assert WRONG in shown
    assert "Note: " in shown
    assert json.loads(run("pods", "-o", "json").stdout)[0]["count"] == 1


def test_pods_are_created_again_although_the_webhook_does_not_answer(mirrored: Cluster, gate: Gateway) -> None:
    section = (ROOT / "docs" / "undo.md").read_text(encoding="utf-8").partition("## No pod can be created")[2]
    command = section.partition("```console\n")[2].partition("image-mirror")[0] + "image-mirror"
    command += section.partition("mutatingwebhookconfiguration image-mirror")[2].partition("image-mirror doctor")[0]
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["kubectl", "patch"]
    back = [word.replace("Ignore", "Fail") for word in words[1:]]
    mirrored.kubectl(*back)
    try:
        with silent(gate):
            refused = mirrored.try_kubectl("apply", "-f", "-", stdin=json.dumps(pod("web", WRONG)))
            assert "failed calling webhook" in refused.stderr
            mirrored.kubectl(*words[1:])
            wait_for(
                lambda: mirrored.try_kubectl("apply", "-f", "-", stdin=json.dumps(pod("web", WRONG))).returncode == 0,
                "a pod",
            )
            assert images(mirrored.get("pod", "web")) == {"c0": WRONG}
    finally:
        mirrored.kubectl(*words[1:])
