"""SwapWhen by the labels of namespaces and pods, and a pause, with the printed configuration on a real API server."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster, namespace
from e2e.harness.copies import arrive
from e2e.harness.kubelet import not_pulled
from e2e.harness.pods import COPIES, images, pod
from e2e.harness.processes import wait_for
from e2e.harness.stage import answer, emptied, output_path
from e2e.test_operators_webhook_config import certified, printed
from image_mirror.cli.emulation import Emulation
from image_mirror.swap_when import LABEL
from support.recorded import run

pytest_plugins = ["e2e.harness.operator"]
Json = dict[str, Any]
LABELS = {"plain": None, "a": "always", "c": "copied", "p": "paused", "unknown": "pause"}
ALL = ("--modes", "always,copied,paused")
NOT_REQUESTED = "ECR has no copy yet, and image-mirror is paused: it requests none"


class Configured:
    """The cluster with a configuration that changes, and the routes that the API server has called."""

    def __init__(self, cluster: Cluster, gate: Gateway) -> None:
        self.cluster = cluster
        self.called: list[str] = []
        self._gate = gate
        gate.handler = self._answer

    def _answer(self, event: Json) -> Json:
        self.called.append(event["rawPath"].removeprefix(output_path()))
        return answer(event)

    def apply(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Apply what `webhook-config` prints, and wait until the API server uses it for each namespace."""
        configuration = certified(self._gate, printed(self._gate, *options))
        done = self.cluster.apply(configuration)
        expected = [
            each["clientConfig"]["url"].removeprefix(self._gate.url + output_path())
            for each in configuration["webhooks"]
        ]
        wait_for(lambda: set(self._probed()) == set(expected), f"the API server calls {expected}")
        self.called.clear()
        return done

    def _probed(self) -> list[str]:
        self.called.clear()
        for name in LABELS:
            probe = {**pod("probe"), "metadata": {"name": "probe", "namespace": name}}
            self.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
        return self.called

    def create(self, name: str, where: str, *sources: str, **labels: str) -> subprocess.CompletedProcess[str]:
        """Create a pod in a namespace."""
        made = {**pod(name, *sources), "metadata": {"name": name, "namespace": where, "labels": labels}}
        return self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(made))

    def image(self, name: str, where: str) -> str:
        """Return the image of the pod's first container."""
        return images(self.cluster.get("pod", name, "-n", where))["c0"]


@pytest.fixture
def configured(cluster: Cluster, gate: Gateway, aws: Emulation) -> Iterator[Configured]:
    assert aws.records() == []
    with ExitStack() as stack:
        stack.enter_context(emptied(cluster))
        for name, value in LABELS.items():
            stack.enter_context(namespace(cluster, name, **({LABEL: value} if value else {})))
        running = Configured(cluster, gate)
        try:
            yield running
        finally:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", "image-mirror", "--ignore-not-found")
            gate.handler = answer

            def is_gone() -> bool:
                running.called.clear()
                return running._probed() == []

            gate.handler = running._answer
            wait_for(is_gone, "the webhook is no longer asked")
            gate.handler = answer


def test_the_label_of_a_namespace_chooses_the_route_and_the_label_of_a_pod_wins(
    configured: Configured, aws: Emulation
) -> None:
    configured.apply(*ALL)
    kubectl_said = {}
    for where in LABELS:
        kubectl_said[where] = configured.create("p", where, f"gcr.io/{where}/app:1").stderr
    assert configured.called == ["", "/always", "/copied", "/paused", ""]
    waiting, source = "the pod waits in ImagePullBackOff", "this pod keeps the source"
    for where, swapped, said in (
        ("plain", True, waiting),
        ("a", True, waiting),
        ("c", False, source),
        ("p", False, NOT_REQUESTED),
        ("unknown", True, waiting),
    ):
        image = f"gcr.io/{where}/app:1"
        assert configured.image("p", where) == (f"{COPIES}/{image}" if swapped else image)
        assert said in kubectl_said[where]
    assert {each.source for each in aws.records()} == {f"gcr.io/{where}/app:1" for where in LABELS if where != "p"}

    before = aws.records()
    said = configured.create("own", "plain", "gcr.io/own/app:1", **{LABEL: "paused"}).stderr
    assert NOT_REQUESTED in said
    assert configured.image("own", "plain") == "gcr.io/own/app:1"
    assert aws.records() == before
    said = configured.create("typo", "plain", "gcr.io/plain/app:1", **{LABEL: "pause"}).stderr
    assert "Warning: pause is no value of the label image-mirror/swap-when (always, copied, paused)" in said
    assert configured.image("typo", "plain") == f"{COPIES}/gcr.io/plain/app:1"
    configured.create("own", "p", "gcr.io/own/app:1", **{LABEL: "always"})
    assert configured.image("own", "p") == f"{COPIES}/gcr.io/own/app:1"


def test_a_paused_namespace_gets_the_copies_that_are_in_ecr(configured: Configured, aws: Emulation) -> None:
    configured.apply(*ALL)
    configured.create("first", "plain", "gcr.io/a/app:1")
    configured.create("early", "p", "gcr.io/a/app:1")
    arrive(aws, "gcr.io/a/app:1")
    before = aws.records()
    configured.create("late", "p", "gcr.io/a/app:1", "gcr.io/none/app:1")
    assert configured.image("early", "p") == "gcr.io/a/app:1"
    assert images(configured.cluster.get("pod", "late", "-n", "p")) == {
        "c0": f"{COPIES}/gcr.io/a/app:1",
        "c1": "gcr.io/none/app:1",
    }
    assert aws.records() == before


def test_a_namespaces_label_holds_for_what_comes_after_it(configured: Configured) -> None:
    configured.apply(*ALL)
    configured.create("before", "plain", "gcr.io/a/app:1")
    configured.cluster.kubectl("label", "namespace", "plain", f"{LABEL}=paused")
    wait_for(lambda: "/paused" in _routes_of_a_probe(configured, "plain"), "the API server knows the label")
    configured.create("after", "plain", "gcr.io/b/app:1")
    assert configured.image("before", "plain") == f"{COPIES}/gcr.io/a/app:1"
    assert configured.image("after", "plain") == "gcr.io/b/app:1"
    configured.cluster.kubectl("set", "image", "pod/before", "-n", "plain", "c0=gcr.io/c/app:1")
    assert configured.image("before", "plain") == "gcr.io/c/app:1", "another image is new"


def _routes_of_a_probe(configured: Configured, where: str) -> list[str]:
    configured.called.clear()
    probe = {**pod("probe"), "metadata": {"name": "probe", "namespace": where}}
    configured.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(probe))
    return configured.called


@pytest.mark.parametrize(
    "before",
    [
        pytest.param((), id="plain"),
        pytest.param(ALL, id="with-labels"),
        pytest.param(
            ("--modes", "copied", "--failure-policy", "Fail", "--exclude-namespaces", "kube-system"), id="fail"
        ),
    ],
)
def test_a_pause_takes_the_place_of_the_older_configuration_and_ends_with_it(
    configured: Configured, aws: Emulation, before: tuple[str, ...]
) -> None:
    configured.apply(*before)
    configured.create("first", "a", "gcr.io/a/app:1")
    arrive(aws, "gcr.io/a/app:1")
    kept = aws.records()

    done = configured.apply("--pause")
    assert (done.stdout.strip(), done.stderr) == (
        "mutatingwebhookconfiguration.admissionregistration.k8s.io/image-mirror configured",
        "",
    )
    [entry] = configured.cluster.get("mutatingwebhookconfiguration", "image-mirror")["webhooks"]
    assert entry["failurePolicy"] == "Ignore"
    for where in LABELS:
        said = configured.create("paused", where, "gcr.io/a/app:1", "gcr.io/new/app:1").stderr
        assert NOT_REQUESTED in said
        assert images(configured.cluster.get("pod", "paused", "-n", where)) == {
            "c0": f"{COPIES}/gcr.io/a/app:1",
            "c1": "gcr.io/new/app:1",
        }
    assert set(configured.called) == {"/paused"}
    first = {**pod("first", "gcr.io/a/app:1"), "metadata": {"name": "first", "namespace": "a"}}
    configured.cluster.apply(first)
    assert configured.image("first", "a") == f"{COPIES}/gcr.io/a/app:1", "applied again, it does not restart"
    assert aws.records() == kept

    configured.apply(*before)
    configured.create("again", "plain", "gcr.io/new/app:1")
    assert configured.image("again", "plain") == f"{COPIES}/gcr.io/new/app:1"
    assert len(aws.records()) == len(kept) + 1


def test_labels_are_added_to_and_taken_from_a_configuration_that_is_there(configured: Configured) -> None:
    for options, count in (((), 1), (ALL, 4), (("--modes", "copied"), 2), ((), 1)):
        configured.apply(*options)
        entries = configured.cluster.get("mutatingwebhookconfiguration", "image-mirror")["webhooks"]
        assert len(entries) == count


def test_pods_names_the_pause(configured: Configured, kubeconfig: str) -> None:
    configured.apply(*ALL)
    configured.create("p", "p", "gcr.io/p/app:1")
    configured.create("own", "plain", "gcr.io/own/app:1", **{LABEL: "paused"})
    not_pulled(configured.cluster, "p", namespace="p", words="timeout")
    not_pulled(configured.cluster, "own", namespace="plain", words="timeout")
    result = run("pods", "-A", "--kubeconfig", kubeconfig, "-o", "json")
    assert result.exit_code == 0, result.output
    assert {row["image"]: row["why"] for row in json.loads(result.stdout)} == {
        "gcr.io/p/app:1": "paused by the namespace's label: no copy is requested",
        "gcr.io/own/app:1": "paused by the pod's label: no copy is requested",
    }
    one = json.loads(run("pods", "p", "-n", "p", "--kubeconfig", kubeconfig, "-o", "json").stdout)
    assert "; paused by the namespace's label" in one["webhook"]
    assert one["dry_run"] == {"containers/c0": "gcr.io/p/app:1"}
    assert any(NOT_REQUESTED in warning for warning in one["warnings"])
