"""`image-mirror connect` and `webhook-config` after the README's deployment, run as an operator runs them.

moto then accepts only calls that are signed with a key in its IAM.
"""

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from e2e.fakes.codebuild_service import CodeBuildService, Project, codebuild_service
from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, cloud
from e2e.harness.processes import free_port
from e2e.harness.sam import Json, Region, Sam
from e2e.harness.stacks import CHINA
from image_mirror.aws import AccessKey, CallLimits, connect
from image_mirror.global_access import GlobalAccount, SecretKey
from support.buildspec_runner import FAST, CodeBuild, Reply
from support.operators import FAST_PROJECT

pytest_plugins = ["e2e.harness.deployed"]

OPERATOR = "operator"
ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
LIMITS = CallLimits(connect=5, read=30, attempts=1)
USERS = (("cn-northwest-1", STACK, "ImagePushUserName"), ("us-west-2", GLOBAL_STACK, "ImagePullUserName"))
BUILD = "ImagePullProject:00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Deployed:
    """Both stacks without keys, and the settings with which the operator's commands reach them."""

    china: Region
    global_region: Region
    checkout: Checkout
    environment: dict[str, str]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "image_mirror.cli", *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command while moto checks each of its calls; it must print no key."""
        with self.guarded():
            process = self.start(*arguments)
            out, err = process.communicate(timeout=120)
        for key in (*self.push(), *self.pull()):
            assert not key or key not in out + err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def secret(self, region: Region, name: str) -> Json:
        try:
            answer = region.client("secretsmanager").get_secret_value(SecretId=name)
        except ClientError:
            return {}
        found: Json = json.loads(answer["SecretString"])
        return found

    def push(self) -> tuple[str, str]:
        found = self.secret(self.global_region, "ImagePullSecret")
        return found["AccessKey"], found["AccessSecretKey"]

    def pull(self) -> tuple[str, str]:
        found = self.secret(self.china, "GlobalAKSK")
        return found.get("G_ACCESS_KEY", ""), found.get("G_SECRET_KEY", "")

    def keys(self) -> list[list[str]]:
        """The access key IDs of the users: of the one that pushes and of the one that starts builds."""
        found = []
        for region, stack, output in USERS:
            place = Region(self.checkout.endpoint, region)
            answer = place.client("iam").list_access_keys(UserName=place.outputs(stack)[output])
            found.append([key["AccessKeyId"] for key in answer["AccessKeyMetadata"]])
        return found

    def given(self) -> list[list[str]]:
        """The access key IDs in the secrets, in the same order."""
        return [[self.push()[0]], [self.pull()[0]]]

    def deploy_global(self, *parameters: str) -> Region:
        """Deploy the global stack without a key, as "aws cloudformation deploy" does."""
        given = (f"Region={self.china.name}", f"ChinaAccountId={CHINA.account}", *parameters)
        template = ("--template-file", "image-pulling.yaml", "--stack-name", GLOBAL_STACK)
        return self.checkout.deploy(self.global_region.name, *template, "--parameter-overrides", *given)

    def signed_secrets(self) -> Any:
        """China's Secrets Manager, with the operator's key."""
        config = configparser.ConfigParser()
        config.read(self.environment["AWS_CONFIG_FILE"])
        key = {name: config["profile china"][name] for name in ("aws_access_key_id", "aws_secret_access_key")}
        make: Any = boto3.client
        return make("secretsmanager", region_name=self.china.name, endpoint_url=self.checkout.endpoint, **key)

    def codebuild(self, key: AccessKey) -> Any:
        """CodeBuild, called like the reconciler does."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", self.checkout.endpoint)
            client = connect("codebuild", LIMITS, key)
        client.meta.events.register("after-call", _with_its_code)
        return client

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Make moto check each call's signature and action while the context is active."""
        _post(self.checkout.endpoint, "0")
        try:
            yield
        finally:
            _post(self.checkout.endpoint, "inf")


def _post(endpoint: str, count: str) -> None:
    """Make moto check all requests after the first `count`."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=count.encode(), headers=plain)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@pytest.fixture(scope="module")
def deployed(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The built stacks, deployed as the README says, to an AWS that no other test uses."""
    folder, port = tmp_path_factory.mktemp("connect"), free_port()
    endpoint = f"http://localhost:{port}"
    with cloud(port, folder / "cloud.log"):
        own = Checkout(built.folder, Sam(built.folder, endpoint, built.python), endpoint, built.python)
        china = own.deploy_china("cn-northwest-1")
        global_region = Region(endpoint, "us-west-2")
        profiles = "".join(_profile(side, region) for side, region in (("china", china), ("global", global_region)))
        (folder / "config").write_text(profiles)
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment = outside | {
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": endpoint,
            "PYTHONUNBUFFERED": "1",
        }
        found = Deployed(china, global_region, own, environment)
        found.deploy_global("FastLane=false")
        # moto looks only for policies on "*", so these users may do everything. test_policies.py tests their policies.
        for region, stack, output in USERS:
            place = Region(endpoint, region)
            user = place.outputs(stack)[output]
            place.client("iam").put_user_policy(UserName=user, PolicyName="all", PolicyDocument=ALL)
        yield found


def _profile(side: str, region: Region) -> str:
    """Make an operator in an account, and return the operator's profile."""
    iam = region.client("iam")
    iam.create_user(UserName=OPERATOR)
    iam.put_user_policy(UserName=OPERATOR, PolicyName="all", PolicyDocument=ALL)
    key = iam.create_access_key(UserName=OPERATOR)["AccessKey"]
    return (
        f"[profile {side}]\nregion = {region.name}\naws_access_key_id = {key['AccessKeyId']}\n"
        f"aws_secret_access_key = {key['SecretAccessKey']}\n"
    )


PROFILES = ("--china-profile", "china", "--global-profile", "global")


def test_from_two_stacks_without_a_key_to_rotated_keys(deployed: Deployed) -> None:
    """One long test, because each step needs the one before."""
    assert deployed.keys() == [[], []]
    first = deployed.run("connect", *PROFILES)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith(
        "Both accounts are connected; `image-mirror selftest` copies a small image to show it.\n"
    )
    assert deployed.keys() == deployed.given()
    assert deployed.secret(deployed.global_region, "ImagePullSecret")["Region"] == "cn-northwest-1"
    assert deployed.secret(deployed.china, "GlobalAKSK")["G_AWS_REGION"] == "us-west-2"

    # An update of the global stack without new parameters does not change the key.
    deployed.deploy_global("BuildTimeoutMinutes=60")
    second = deployed.run("connect", *PROFILES)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.endswith("Both accounts are connected; there is nothing to change.\n")

    # The reconciler's own code continues during a rotation, with the key that it has read before.
    operator, old, ids = deployed.signed_secrets(), deployed.pull(), deployed.keys()
    account = GlobalAccount(SecretKey(operator, "GlobalAKSK", time.monotonic), deployed.codebuild)
    with deployed.guarded():
        assert _no_build(account) == []
    rotated = deployed.run("connect", "--rotate", *PROFILES)
    assert (rotated.returncode, rotated.stderr) == (0, "")
    assert deployed.keys() == deployed.given()
    assert not {*ids[0], *ids[1]} & {*deployed.keys()[0], *deployed.keys()[1]}
    with deployed.guarded():
        assert _no_build(account) == []
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            deployed.codebuild(AccessKey("us-west-2", *old)).batch_get_builds(ids=[BUILD])


@pytest.mark.parametrize("word", ["created key", "current key is now", "deleted key"])
def test_ctrl_c_at_any_moment_leaves_what_works_and_the_next_run_goes_on(deployed: Deployed, word: str) -> None:
    assert deployed.run("connect", *PROFILES).returncode == 0
    before = deployed.keys()
    process = deployed.start("connect", "--rotate", *PROFILES)
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].endswith("To continue, run the same command.")
    assert "Traceback" not in errors
    assert deployed.run("connect", *PROFILES).stdout.count(" works: ") == 2
    ended = deployed.run("connect", "--rotate", *PROFILES)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert deployed.keys() == deployed.given()
    assert not {*before[0], *before[1]} & {*deployed.keys()[0], *deployed.keys()[1]}


def test_the_fast_lane_is_switched_on_after_the_shipped_build_has_logged_in_there(
    deployed: Deployed, tmp_path: Path
) -> None:
    assert deployed.run("connect", *PROFILES).returncode == 0
    settings = deployed.china.function(STACK, "ReconcilerFunction")["Environment"]["Variables"]
    assert settings["G_FAST_PROJECT_NAME"] == ""
    deployed.deploy_global("FastLane=true")
    project = deployed.global_region.outputs(GLOBAL_STACK)["FastProjectName"]
    planned = deployed.run("connect", "--dry-run", *PROFILES)
    assert f"set GlobalFastProjectName={project} in the stack {STACK} (china)" in planned.stdout

    # A build that cannot log in leaves one lane.
    with lane(deployed, CodeBuild(tmp_path, project=FAST, replies={"aws ecr": Reply(status=255)})):
        done = deployed.run("connect", *PROFILES)
    assert done.returncode == 0
    assert done.stderr.startswith("Note: copies are made in one lane, and the fast lane is not used: the probe ")
    assert "failed: TARGET_LOGIN: " in done.stderr
    assert deployed.china.function(STACK, "ReconcilerFunction")["Environment"]["Variables"] == settings

    with lane(deployed, CodeBuild(tmp_path, project=FAST)) as service:
        done = deployed.run("connect", *PROFILES)
        assert [each.partition(":")[0] for each in service.builds] == [project]
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"fast lane: the stack {STACK} (china) uses {project}\n")
    expected = settings | {"G_FAST_PROJECT_NAME": project}
    for function in ("ReconcilerFunction", "ApiFunction"):
        assert deployed.china.function(STACK, function)["Environment"]["Variables"] == expected
    again = deployed.run("connect", *PROFILES)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.endswith("Both accounts are connected; there is nothing to change.\n")

    # A later deployment of another parameter keeps it; then the project is removed, and the remedy is as printed.
    deployed.checkout.deploy(deployed.china.name, "--parameter-overrides", "RefreshHours=12")
    settings = deployed.china.function(STACK, "ReconcilerFunction")["Environment"]["Variables"]
    assert (settings["G_FAST_PROJECT_NAME"], settings["REFRESH_HOURS"]) == (project, "12")
    deployed.deploy_global("FastLane=false")
    done = deployed.run("connect", *PROFILES)
    assert f"Note: China's GlobalFastProjectName is {project}, the global stack has no fast lane" in done.stderr
    [remedy] = re.findall("`(sam deploy .*)`", done.stderr)
    assert shlex.split(remedy)[-1] == 'GlobalFastProjectName=""'
    deployed.checkout.deploy(deployed.china.name, *shlex.split(remedy)[-2:])
    assert deployed.run("connect", *PROFILES).stderr == ""


@contextmanager
def lane(deployed: Deployed, codebuild: CodeBuild) -> Iterator[CodeBuildService]:
    """Run the builds of the fast lane with `codebuild`, and let the operator's CodeBuild be the one that runs them."""
    with codebuild_service(Project("ImagePullProject", codebuild.run), Project(FAST_PROJECT, codebuild.run)) as service:
        deployed.environment["AWS_ENDPOINT_URL_CODEBUILD"] = service.url
        yield service
    del deployed.environment["AWS_ENDPOINT_URL_CODEBUILD"]


def test_the_configuration_has_the_url_of_the_deployed_stack(deployed: Deployed) -> None:
    done = deployed.run("webhook-config", "--china-profile", "china")
    assert (done.returncode, done.stderr) == (0, "")
    [webhook] = yaml.safe_load(done.stdout)["webhooks"]
    assert webhook["clientConfig"] == {"url": deployed.china.outputs(STACK)["APIGatewayURL"]}


def _with_its_code(parsed: Json, **_: object) -> None:
    """Read an error's code from the XML in which moto answers a service that uses JSON."""
    found = re.search("<Code>(.+)</Code>", parsed.get("Error", {}).get("Message", ""))
    if found:
        parsed["Error"]["Code"] = found[1]


def _no_build(account: GlobalAccount) -> list[Any]:
    return list(account.call("BatchGetBuilds", lambda codebuild: codebuild.batch_get_builds(ids=[BUILD]))["builds"])
