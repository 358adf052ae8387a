"""What an operator has, as a pytest plugin: a kubeconfig, kubectl, and the stack in China.

A test module that uses it has `pytest_plugins = ["e2e.harness.operator"]`.
"""

import pytest

from e2e.harness.control_plane import Cluster, assets
from e2e.harness.pods import COPIES
from image_mirror.cli.emulation import REGION, TABLE, Emulation
from support.operators import CHINA_OUTPUTS, TOKEN, Operated


@pytest.fixture
def kubeconfig(cluster: Cluster, aws: Emulation, monkeypatch: pytest.MonkeyPatch) -> str:
    """What an operator has: the cluster's kubeconfig, its kubectl on PATH, and the stack in China, without a record."""
    assert aws.records() == []
    monkeypatch.setenv("PATH", str(assets()), prepend=":")
    outputs = CHINA_OUTPUTS | {"CopiesPrefix": f"{COPIES}/", "ImageListTableName": TABLE}
    Operated().deploy("sam-template.yaml", REGION, "image-mirror", outputs, WebhookToken=TOKEN)
    return cluster._command[2]
