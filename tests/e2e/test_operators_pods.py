"""`image-mirror pods` on a real API server, with the shipped configuration and the real handler.

There is no kubelet: the statuses and the events that it would write are written by the tests.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.copies import arrive, change
from e2e.harness.kubelet import failing
from e2e.harness.pods import COPIES, images, pod
from e2e.harness.stage import silent
from image_mirror.cli.emulation import Emulation
from image_mirror.lifecycle import delayed, refused
from image_mirror.record import MINUTE, Status
from support.recorded import now, run

pytest_plugins = ["e2e.harness.operator"]
Json = dict[str, Any]
MISSING, THERE, LIMITED = "docker.io/library/nginx:9.99", "ghcr.io/acme/svc:2026.11", "docker.io/library/redis:7.2"


def rows(*arguments: object) -> dict[str, Json]:
    result = run("pods", *arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return {row["image"]: row for row in json.loads(result.stdout)}


@pytest.fixture
def night(mirrored: Cluster, gate: Gateway, aws: Emulation, kubeconfig: str) -> Iterator[str]:
    """Pods that all read ImagePullBackOff, for six causes; two of them are in a namespace that is opted out."""
    for name, image in (("n1", MISSING), ("n2", MISSING), ("s1", THERE), ("r1", LIMITED), ("g1", "gcr.io/gone/a:1")):
        mirrored.apply(pod(name, image))
    mirrored.apply(pod("off", "gcr.io/off/app:1", labels={"image-mirror/skip": "true"}))
    with silent(gate):
        mirrored.apply(pod("lost", "gcr.io/lost/app:1"))
        mirrored.apply(pod("runs", "gcr.io/lost/app:1"))
    record = next(each for each in aws.records() if each.source == MISSING)
    change(aws, MISSING, refused(replace(record, same_result="NOT_FOUND 1"), "NOT_FOUND: manifest unknown", now()))
    record = next(each for each in aws.records() if each.source == LIMITED)
    change(aws, LIMITED, delayed(record, "RATE_LIMITED: too many requests", now()), due_at=now() + 30 * MINUTE)
    arrive(aws, THERE)
    change(aws, "gcr.io/gone/a:1", status=Status.COPIED, digest="sha256:" + "a" * 64)
    for name in ("n1", "n2", "s1", "r1", "g1", "off", "lost"):
        failing(mirrored, name, "i/o timeout" if name in ("off", "lost") else "not found")
    running = {"phase": "Running"}
    mirrored.kubectl(
        "patch", "pod", "runs", "--subresource=status", "--type=merge", "-p", json.dumps({"status": running})
    )
    try:
        yield kubeconfig
    finally:
        mirrored.kubectl("delete", "events", "--all", "-n", "default")


def test_pods_in_back_off_are_told_apart(night: str) -> None:
    found = rows("--kubeconfig", night)
    assert {image: (row["cause"], row["count"]) for image, row in found.items()} == {
        MISSING: ("refused", 2),
        THERE: ("copied", 1),
        LIMITED: ("delayed", 1),
        "gcr.io/gone/a:1": ("gone", 1),
        "gcr.io/off/app:1": ("opted-out", 1),
        "gcr.io/lost/app:1": ("missed", 1),
    }
    assert next(iter(found)) == MISSING, "most pods"
    # 40 s after the third try, and a sync.
    assert found[THERE]["why"] == "the copy is there; the kubelet tries within a minute"
    shown = run("pods", "--kubeconfig", night, "-A", "-o", "wide")
    assert "1 of 5 attempts refused: NOT_FOUND" in shown.stdout
    assert shown.stdout.splitlines()[1].endswith("  default/n1 default/n2")
    assert shown.stderr == "7 pods cannot pull: 6 causes\n"


def test_selectors_are_kubectls(night: str, mirrored: Cluster) -> None:
    mirrored.kubectl("label", "pod", "n2", "tier=web")
    assert [row["count"] for row in rows("--kubeconfig", night, "-l", "tier=web").values()] == [1]
    assert rows("--kubeconfig", night, "-n", "kube-system") == {}


def test_the_pods_that_the_webhook_missed_are_found_also_those_that_run(night: str) -> None:
    found = json.loads(run("pods", "--kubeconfig", night, "--missed", "-o", "json").stdout)
    assert sorted((row["image"], row["cause"], row["pods"][0]["phase"], row["do"]) for row in found) == [
        (
            *("gcr.io/lost/app:1", "missed", "Pending"),
            "image-mirror warm --cluster, then image-mirror nudge --missed",
        ),
        ("gcr.io/lost/app:1", "missed", "Running", "recreate the pod (kubectl rollout restart)"),
    ]


def test_a_namespace_s_label_opts_its_pods_out(night: str, mirrored: Cluster, gate: Gateway) -> None:
    mirrored.kubectl("label", "namespace", "default", "image-mirror/skip=true")
    try:
        [row] = [row for image, row in rows("--kubeconfig", night).items() if image == "gcr.io/lost/app:1"]
        assert row["why"] == "opted out by the namespace's label; its registry does not answer the node"
        assert rows("--kubeconfig", night, "--missed") == {}
    finally:
        mirrored.kubectl("label", "namespace", "default", "image-mirror/skip-")
    assert gate.reviews


def test_one_pod_is_shown_with_what_the_live_webhook_does_now(
    night: str, mirrored: Cluster, gate: Gateway, aws: Emulation
) -> None:
    before = aws.records()
    gate.bodies.clear()
    shown = json.loads(run("pods", "lost", "--kubeconfig", night, "-o", "json").stdout)
    assert shown["dry_run"] == {"containers/c0": f"{COPIES}/gcr.io/lost/app:1"}
    assert shown["warnings"] == [
        "gcr.io/lost/app:1 is being copied to ECR; the pod waits in ImagePullBackOff until it arrives"
    ]
    assert shown["webhook"].startswith("asked: image-mirror selects the pod; failurePolicy Ignore, 5 s; exists since")
    assert shown["notes"] == []
    assert [review["request"]["dryRun"] for review in gate.reviews] == [True]
    assert aws.records() == before
    assert images(mirrored.get("pod", "lost")) == {"c0": "gcr.io/lost/app:1"}
    text = run("pods", "s1", "--kubeconfig", night).stdout
    for words in (f"containers/c0: {THERE}", "COPIED since", "held", "one platform", "would get the same", "3 tries"):
        assert words in text, text


def test_without_aws_the_pods_themselves_say_enough(
    night: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    result = run("pods", "--kubeconfig", night, "-o", "json")
    assert result.exit_code == 0, result.output
    causes = {row["image"]: row["cause"] for row in json.loads(result.stdout)}
    assert causes == {
        **dict.fromkeys((MISSING, THERE, LIMITED, "gcr.io/gone/a:1"), "copy-unknown"),
        "gcr.io/off/app:1": "opted-out",
        "gcr.io/lost/app:1": "missed",
    }
    assert "Note: AWS was not asked" in result.stderr
