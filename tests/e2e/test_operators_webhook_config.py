"""The output of `image-mirror webhook-config`, applied by kubectl to a real control plane, and its effect there."""

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import run

import pytest
import yaml

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster, namespace
from e2e.harness.pods import COPIES, Json, images, pod
from e2e.harness.stage import answer, configured, emptied, output_path

NAME = "mutatingwebhookconfiguration"
SOURCE = "gcr.io/a/b:1"


def printed(gate: Gateway, *options: str) -> str:
    command = [sys.executable, "-m", "image_mirror.cli", "webhook-config", "--url", gate.url + output_path(), *options]
    return run(command, check=True, capture_output=True, text=True).stdout


def certified(gate: Gateway, text: str) -> Json:
    """Return the printed configuration with the certificate of the gateway in each webhook."""
    configuration: Json = yaml.safe_load(text)
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"]["caBundle"] = base64.b64encode(gate.certificate).decode()
    return configuration


@contextmanager
def in_force(cluster: Cluster, gate: Gateway, text: str) -> Iterator[None]:
    """Apply the printed configuration, with the certificate of the gateway."""
    configuration = certified(gate, text)
    with emptied(cluster), configured(cluster, gate, configuration):
        yield


@pytest.fixture
def other(cluster: Cluster) -> Iterator[str]:
    with namespace(cluster, "other"):
        yield "other"


NAMESPACES = ("--exclude-namespaces", "kube-system,on,1", "--namespaces", "y,no")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="as-shipped"),
        pytest.param(("--failure-policy", "Fail", "--timeout", "30", *NAMESPACES), id="all-options"),
        pytest.param(("--modes", "always,copied,paused", *NAMESPACES), id="modes"),
        pytest.param(("--modes", "copied", "--pause"), id="pause"),
    ],
)
def test_kubectl_takes_it_as_it_is_and_the_api_server_keeps_it(
    cluster: Cluster, gate: Gateway, options: tuple[str, ...]
) -> None:
    text = printed(gate, *options)
    try:
        applied = cluster.kubectl("apply", "-f", "-", stdin=text)
        assert applied.stderr == ""
        kept = cluster.get(NAME, "image-mirror")
    finally:
        cluster.kubectl("delete", NAME, "image-mirror", "--ignore-not-found")
    expected: list[Json] = yaml.safe_load(text)["webhooks"]
    # The one field that is left to its default.
    assert kept["webhooks"] == [{**each, "matchPolicy": "Equivalent"} for each in expected]
    again = cluster.try_kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
    assert again.returncode == 0


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("option", [("--namespaces", "default"), ("--exclude-namespaces", "kube-system,other")])
def test_only_the_namespaces_that_are_meant_are_rewritten(
    cluster: Cluster, gate: Gateway, other: str, option: tuple[str, str]
) -> None:
    with in_force(cluster, gate, printed(gate, *option)):
        for namespace in ("default", other):
            cluster.apply({**pod("p", SOURCE), "metadata": {"name": "p", "namespace": namespace}})
        assert images(cluster.get("pod", "p")) == {"c0": f"{COPIES}/{SOURCE}"}
        assert images(cluster.get("pod", "p", "-n", other)) == {"c0": SOURCE}


@pytest.mark.usefixtures("aws")
def test_with_fail_no_pod_starts_while_the_webhook_is_down_except_in_excluded_namespaces(
    cluster: Cluster, gate: Gateway, other: str
) -> None:
    text = printed(gate, "--failure-policy", "Fail", "--exclude-namespaces", f"kube-system,{other}", "--timeout", "2")
    asked: list[str] = []

    def down(event: Json) -> Json:
        asked.append(event["queryStringParameters"]["timeout"])
        return {"statusCode": 500, "body": ""}

    with in_force(cluster, gate, text):
        gate.handler = down
        refused = cluster.try_kubectl("create", "-f", "-", stdin=_as_yaml(pod("p", SOURCE)))
        assert refused.returncode != 0
        assert 'failed calling webhook "pods.image-mirror.webhook"' in refused.stderr
        assert asked == ["2s"]
        cluster.apply({**pod("p", SOURCE), "metadata": {"name": "p", "namespace": other}})
        assert images(cluster.get("pod", "p", "-n", other)) == {"c0": SOURCE}
        gate.handler = answer


def _as_yaml(value: Json) -> str:
    text: str = yaml.safe_dump(value)
    return text
