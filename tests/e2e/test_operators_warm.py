"""`image-mirror warm --cluster` against a real API server and real kubectl; AWS is emulated in this process."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, pod
from e2e.harness.stage import emptied
from image_mirror.cli import app
from image_mirror.pod_images import ORIGINALS, SKIP_LABEL
from support.operators import Operated


@pytest.fixture
def kubeconfig(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster's kubeconfig, with its kubectl on PATH."""
    program, _, file = cluster._command
    monkeypatch.setenv("PATH", f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}")
    return Path(file)


@pytest.fixture
def running(cluster: Cluster) -> Iterator[None]:
    """Pods that the webhook has answered, and pods that it has never seen."""
    rewritten = pod("rewritten", f"{COPIES}/quay.io/a/b:1")
    rewritten["metadata"]["annotations"] = {ORIGINALS: json.dumps({"containers/c0": "quay.io/a/b:1"})}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "off", "labels": {SKIP_LABEL: "true"}}}
    opted_out = pod("opted-out", "gcr.io/a/off:1")
    opted_out["metadata"]["namespace"] = "off"
    with emptied(cluster):
        for each in (pod("new", "gcr.io/a/b:1", "gcr.io/a/b:1"), rewritten, namespace, opted_out):
            cluster.apply(each)
        cluster.apply(pod("ended", "gcr.io/a/ended:1"))
        ended = json.dumps({"status": {"phase": "Succeeded"}})
        cluster.kubectl("patch", "pod", "ended", "--subresource=status", "--type=merge", "-p", ended)
        yield
        cluster.kubectl("delete", "namespace", "off", "--wait=false")
        cluster.kubectl("delete", "pod", "opted-out", "-n", "off", "--force", "--grace-period=0")


def warm(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["warm", *map(str, arguments)])


@pytest.mark.usefixtures("running")
def test_what_runs_in_a_cluster_is_copied_by_its_sources(
    operated: Operated, cluster: Cluster, kubeconfig: Path
) -> None:
    result = warm("--kubeconfig", kubeconfig, "--dry-run", "--output", "json")
    assert result.exit_code == 0, result.output
    assert [(each["image"], each["state"]) for each in json.loads(result.stdout)] == [
        ("gcr.io/a/b:1", "NEW"),
        ("quay.io/a/b:1", "NEW"),
    ]
    server = cluster.kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}").stdout
    context = cluster.kubectl("config", "current-context").stdout.strip()
    assert warm("--kubeconfig", kubeconfig, "--dry-run").stderr.splitlines()[-2:] == [
        "2 images: 2 to copy, 1 left unchanged.",
        f"Asked: the context {context} ({server}) and the stack image-mirror in cn-northwest-1. Nothing was changed.",
    ]
    assert operated.cloud.items() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["--context", "no-such"], "context was not found for specified context: no-such", id="no-such-context"
        ),
        pytest.param([], "run `kubectl get namespaces", id="no-server"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_a_cluster_that_gives_no_answer_is_reported(
    arguments: list[str], words: str, kubeconfig: Path, tmp_path: Path
) -> None:
    file = kubeconfig
    if not arguments:
        file = tmp_path / "kubeconfig"
        file.write_text(kubeconfig.read_text().replace("127.0.0.1:", "127.0.0.1:1", 1).replace("https", "http", 1))
    result = warm("--cluster", "--kubeconfig", file, *arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert words in result.stderr


@pytest.mark.usefixtures("operated")
def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    result = warm("--kubeconfig", "no-such-file")
    assert result.exit_code == 2
    assert "'no-such-file' does not exist" in result.stderr
