"""Where the values come from that a command uses for its accounts, stacks and cluster."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.options import (
    GLOBAL_STACK,
    ChinaProfile,
    ChinaRegion,
    GlobalProfile,
    GlobalRegion,
    GlobalStackName,
    Kubeconfig,
    KubeContext,
    StackName,
)
from image_mirror.cli.values import lines, values_of

_PROFILES = """
[profile china]
region = cn-north-1
[profile global]
region = us-west-2
[default]
region = eu-central-1
"""
_app = typer.Typer()


@_app.command()
def main(
    ctx: typer.Context,
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
) -> None:
    china, other = Account("china", china_profile, china_region), Account("global", global_profile, global_region)
    cluster = Cluster(kubeconfig, context) if kubeconfig or context else None
    assert ctx.params["stack_name"] == stack_name
    assert ctx.params["global_stack_name"] == global_stack_name
    for line in lines(values_of(ctx, china, other, cluster)):
        typer.echo(line)


@pytest.fixture(autouse=True)
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles with regions, no variable, an empty working directory, and a kubectl that knows its contexts."""
    (tmp_path / "config").write_text(_PROFILES)
    (tmp_path / "kubeconfig").write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for side in ("CHINA", "GLOBAL"):
        monkeypatch.delenv(f"IMAGE_MIRROR_{side}_PROFILE", raising=False)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def config(self: Cluster, *_: object) -> tuple[dict[str, object], str]:
        if self.context == "unknown":
            raise NoAnswerError("the cluster: no context exists with the name")
        return {
            "current-context": self.context or "here",
            "clusters": [{"cluster": {"server": "https://10.0.0.1:6443"}}],
        }, ""

    monkeypatch.setattr(Cluster, "_run", config)


def printed(*arguments: str, **of_the_file: str) -> list[str]:
    result = CliRunner().invoke(_app, arguments, default_map=of_the_file)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_an_option_an_environment_variable_and_a_default_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_MIRROR_CHINA_PROFILE", "china")
    assert printed("--global-profile", "global", "--global-stack-name", "pulls", "--global-region", "us-east-1") == [
        "China: profile china (IMAGE_MIRROR_CHINA_PROFILE), region cn-north-1 (the profile china), "
        "stack image-mirror (the default)",
        "Global: profile global (--global-profile), region us-east-1 (--global-region), "
        "stack pulls (--global-stack-name)",
    ]


def test_a_value_of_the_configuration_file_is_named_so() -> None:
    of_the_file = {"china_profile": "china", "global_region": "us-east-2", "stack_name": "mine", "context": "shop"}
    assert printed("--global-profile", "global", **of_the_file) == [
        "China: profile china (the configuration file), region cn-north-1 (the profile china), "
        "stack mine (the configuration file)",
        "Global: profile global (--global-profile), region us-east-2 (the configuration file), "
        "stack image-pulling (the default)",
        "Cluster: context shop (the configuration file), server https://10.0.0.1:6443 (of this context)",
    ]


@pytest.mark.parametrize(
    ("environ", "profile", "region"),
    [
        pytest.param(
            {}, "- (none is named: AWS chooses the credentials)", "eu-central-1 (the profile default)", id="nothing"
        ),
        pytest.param(
            {"AWS_PROFILE": "global"}, "global (AWS_PROFILE)", "us-west-2 (the profile global)", id="aws-profile"
        ),
        pytest.param(
            {"AWS_DEFAULT_REGION": "ap-south-1", "AWS_REGION": "us-east-1"},
            "- (none is named: AWS chooses the credentials)",
            "us-east-1 (AWS_REGION)",
            id="aws-region",
        ),
        pytest.param(
            {"IMAGE_MIRROR_GLOBAL_PROFILE": "no-such"},
            "no-such (IMAGE_MIRROR_GLOBAL_PROFILE)",
            "- (The config profile (no-such) could not be found)",
            id="an-unknown-profile",
        ),
    ],
)
def test_what_the_aws_cli_reads_is_named(
    environ: dict[str, str], profile: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert printed()[1] == f"Global: profile {profile}, region {region}, stack image-pulling (the default)"


def test_a_stack_is_named_by_the_file_of_sam_or_by_the_option(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text('[default.deploy.parameters]\nstack_name = "mine"\n')
    assert printed()[0].endswith("stack mine (samconfig.toml)")
    assert printed("--stack-name", "other")[0].endswith("stack other (--stack-name)")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param([], None, id="no-cluster"),
        pytest.param(
            ["--context", "shop"],
            "Cluster: context shop (--context), server https://10.0.0.1:6443 (of this context)",
            id="a-context",
        ),
        pytest.param(
            ["--kubeconfig", "kubeconfig"],
            "Cluster: kubeconfig kubeconfig (--kubeconfig), context here (the current one of kubeconfig), "
            "server https://10.0.0.1:6443 (of this context)",
            id="a-kubeconfig",
        ),
        pytest.param(["--context", "unknown"], "Cluster: context unknown (--context)", id="an-unknown-context"),
    ],
)
def test_a_cluster_is_named_with_its_server(arguments: list[str], line: str | None) -> None:
    assert printed(*arguments)[2:] == ([line] if line else [])
