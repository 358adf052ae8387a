"""How commands reach the two accounts and their stacks, and their messages if they cannot."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from image_mirror.cli import kubernetes
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError, describe_aws_error, reported
from image_mirror.cli.stacks import china_stack, global_stack, mirror_of
from support.cloud import REGISTRY
from support.operators import CHINA_OUTPUTS, TOKEN, Operated
from support.recorded import run


@pytest.mark.parametrize(
    ("environ", "account", "region"),
    [
        pytest.param({}, Account("china", "china"), "cn-northwest-1", id="the-profiles-own"),
        pytest.param({}, Account("china", "china", "cn-north-1"), "cn-north-1", id="the-option-comes-first"),
        pytest.param({"AWS_REGION": "cn-north-1"}, Account("global", "global"), "us-west-2", id="not-the-other-sides"),
        pytest.param({"AWS_REGION": "cn-north-1"}, Account("china"), "cn-north-1", id="of-the-environment"),
        pytest.param({"AWS_DEFAULT_REGION": "cn-north-1"}, Account("china"), "cn-north-1", id="by-its-older-name"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_the_region_is_the_options_or_the_profiles_or_the_environments(
    environ: dict[str, str], account: Account, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert account.region == region


@pytest.mark.parametrize(
    ("account", "words"),
    [
        pytest.param(
            Account("global", "china"), "cn-northwest-1 is not outside China; give --global-profile", id="china"
        ),
        pytest.param(Account("china", "global"), "us-west-2 is not in China", id="global"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_a_profile_of_the_other_account_is_recognised_by_its_region(account: Account, words: str) -> None:
    with pytest.raises(NoAnswerError, match="account") as caught:
        account.client("dynamodb")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("option", "region", "words"),
    [
        pytest.param("--china-region", "us-west-2", "--china-region: us-west-2 is not in China", id="china"),
        pytest.param("--global-region", "cn-north-1", "--global-region: cn-north-1 is not outside China", id="global"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_an_option_with_a_region_of_the_other_side_is_wrong_input(option: str, region: str, words: str) -> None:
    result = run("doctor", option, region)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.usefixtures("operated")
def test_a_profile_of_the_other_side_leaves_a_command_without_an_answer() -> None:
    result = run("status", "--china-profile", "global")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "us-west-2 is not in China" in result.stderr


def test_a_wrong_rule_of_the_stack_is_reported_with_its_remedy(operated: Operated) -> None:
    operated.deploy(
        "sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, WebhookToken=TOKEN, MirrorRules="gcr.io ="
    )
    result = run("forget", "gcr.io/x:1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: china account (profile china): MirrorRules of the stack image-mirror: ")
    assert result.stderr.endswith("; deploy it again with the rule corrected\n")


@pytest.mark.usefixtures("operated")
@pytest.mark.parametrize(
    ("account", "words"),
    [
        pytest.param(
            Account("china"),
            "china account: no region is set; give --china-profile, or set IMAGE_MIRROR_CHINA_PROFILE, or else "
            "--china-region",
            id="china",
        ),
        pytest.param(
            Account("global"),
            "global account: no region is set; give --global-profile, or set IMAGE_MIRROR_GLOBAL_PROFILE, or else "
            "--global-region",
            id="global",
        ),
        pytest.param(
            Account("china", "bare"),
            "china account (profile bare): no region is set; set it in the profile, or give --china-region",
            id="a-profile-without-one",
        ),
    ],
)
def test_no_region_anywhere_names_what_gives_one(
    account: Account, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    (tmp_path / "bare").write_text("[profile bare]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "bare"))
    with pytest.raises(NoAnswerError) as caught:
        _ = account.region
    assert str(caught.value) == words


def test_a_side_without_credentials_names_its_own_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(NoAnswerError, match="no credentials are found; give --global-profile, or set IMAGE_MIRROR_"):
        Account("global", None, "us-west-2").client("sts")


def test_the_version_is_that_of_the_distribution() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"image-mirror {version('image-mirror')}\n")


@pytest.mark.usefixtures("operated")
def test_the_stack_says_what_commands_need() -> None:
    stack = china_stack(Account("china", "china"), None)
    assert stack.output("ImageListTableName") == "ImageListTable"
    mirror = mirror_of(stack)
    assert (mirror.registry, mirror.prefix) == (REGISTRY, "mirror")
    assert [str(rule) for rule in mirror.rules.entries][:2] == ["docker.io", "gcr.io"]
    assert global_stack(Account("global", "global"), "image-pulling").output("GlobalRegion") == "us-west-2"


def test_the_stacks_name_is_samconfigs_where_there_is_one(
    operated: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operated.deploy("sam-template.yaml", "cn-northwest-1", "other", {**CHINA_OUTPUTS, "GlobalSecret": "Other"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samconfig.toml").write_text('[default.deploy.parameters]\nstack_name = "other"\n')
    account = Account("china", "china")
    assert china_stack(account, None).output("GlobalSecret") == "Other"
    assert china_stack(account, "image-mirror").output("GlobalSecret") == "GlobalAKSK"


@pytest.mark.usefixtures("operated")
def test_a_missing_stack_is_reported_with_the_options_that_name_another() -> None:
    with pytest.raises(NoAnswerError) as caught:
        china_stack(Account("china", "china"), "nowhere")
    assert "no stack 'nowhere' in cn-northwest-1" in str(caught.value)
    assert "--stack-name" in str(caught.value)
    assert "--china-region" in str(caught.value)


def test_a_missing_output_is_reported_as_an_older_release(operated: Operated) -> None:
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", {"APIGatewayURL": "https://x"})
    with pytest.raises(
        NoAnswerError, match="no output ImageListTableName: it is of an older release or not of this project"
    ):
        china_stack(Account("china", "china"), None).output("ImageListTableName")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("AccessDenied", "ask for this permission", id="denied"),
        pytest.param("InvalidClientTokenId", "does not accept this profile's access key", id="wrong-key"),
        pytest.param("ExpiredToken", "log in again", id="expired"),
        pytest.param("Throttling", "try again in a minute", id="throttled"),
        pytest.param("ResourceNotFoundException", "`image-mirror doctor` may show what is wrong", id="of-no-remedy"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_a_refusal_names_the_account_and_the_remedy(code: str, words: str, refuse: Callable[..., None]) -> None:
    refuse("cloudformation", "DescribeStacks", code, "No.")
    with pytest.raises(ClientError) as caught:
        china_stack(Account("china", "china"), None)
    message = describe_aws_error(caught.value) or ""
    assert message.startswith(f"china account (profile china): DescribeStacks: {code}: No; ")
    assert words in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"IMAGE_MIRROR_X": "no-such"}, "config profile (no-such) could not be found", id="no-such-profile"
        ),
        pytest.param({"AWS_ENDPOINT_URL": "http://localhost:1"}, "check the network", id="no-network"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_a_command_without_an_answer_ends_with_one_line_and_3(
    changes: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = changes.pop("IMAGE_MIRROR_X", "china")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(typer.Exit) as ended:
        reported(lambda: china_stack(Account("china", profile), None))()
    printed = capsys.readouterr()
    assert (ended.value.exit_code, printed.out, printed.err.count("\n")) == (3, "", 1)
    assert words in printed.err


def test_control_characters_in_an_error_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def spoilt() -> None:
        raise NoAnswerError("the stack \x1b[2J\nx")

    with pytest.raises(typer.Exit):
        reported(spoilt)()
    assert capsys.readouterr().err == "Error: the stack \\x1b[2J\\nx\n"


def test_a_mistake_of_our_own_is_not_hidden() -> None:
    def mistaken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        reported(mistaken)()
    assert describe_aws_error(KeyError("x")) is None


def test_kubectl_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec sleep infinity\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(kubernetes, "_WITHIN", 0.5)
    asked = "`kubectl get pods --all-namespaces '--field-selector=status.phase!=Succeeded,status.phase!=Failed'"
    with pytest.raises(NoAnswerError) as caught:
        kubernetes.Cluster(context="my shop").pods()
    assert f"kubectl has not ended within 0.5 s; run {asked} '--context=my shop'`; if it waits" in str(caught.value)


def test_kubectl_that_fails_is_quoted_with_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho refused >&2\nexit 1\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NoAnswerError) as caught:
        kubernetes.Cluster(Path("my config"), "shop").version()
    assert caught.value.cause == "the cluster (my config, context shop): refused"
    asked = "`kubectl get --raw=/version '--kubeconfig=my config' --context=shop`"
    assert caught.value.remedy == f"run {asked} to see the error"


def test_the_list_of_commands_is_whole_and_in_the_order_in_which_an_operator_meets_them() -> None:
    listed = run("--help").stdout.partition("Commands:")[2]
    lines = [line.split(None, 1) for line in listed.strip().splitlines()]
    first = "templates connect webhook-config doctor selftest preview warm pods nudge"
    then = "status retry forget prune demo version"
    assert [name for name, _ in lines] == f"{first} {then}".split()
    assert all(line.endswith(".") and not line.endswith("...") for _, line in lines)


def test_a_proxys_page_instead_of_aws_is_reported_without_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    def answered_by_a_proxy() -> None:
        raise ResponseParserError("<html>the whole page</html>")

    with pytest.raises(typer.Exit) as ended:
        reported(answered_by_a_proxy)()
    assert ended.value.exit_code == 3
    assert capsys.readouterr().err.startswith("Error: the answer is not from AWS, perhaps from a proxy")
