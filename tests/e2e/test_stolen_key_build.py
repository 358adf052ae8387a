"""What IAM cannot refuse to a stolen key, the build or the build's role refuses."""

import json
from pathlib import Path

import pytest

from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.authorization import actions, resource_of
from e2e.harness.principals import AUTH_ARN, globally
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.stolen_key import POLICY, POLICY_OF_ONE_ACCOUNT, request, variables
from support.buildspec_runner import ACCESS_KEY_ID, IMAGE, REGISTRY, SECRET_ACCESS_KEY, TARGET, CodeBuild, Run

ROLE = globally("as shipped", RegistryAuthSecretArn=AUTH_ARN).policies("CodeBuildRole")
READ = "secretsmanager:GetSecretValue"
DIGEST_TAG = "digest-sha256-" + "a" * 64
AUTH = json.dumps({"auths": {"docker.io": {"auth": "dXNlcjpodW50ZXIy"}}})
SECRET = json.dumps({"Region": CHINA.region, "AccessKey": ACCESS_KEY_ID, "AccessSecretKey": SECRET_ACCESS_KEY})


def assert_refused(run: Run) -> None:
    """Check that the build has failed at its check of the input, before any login and any copy."""
    assert (run.exported["COPY_RESULT"], run.exit_code) == ("BAD_INPUT", 40)
    assert {call.arguments[0] for call in run.calls} == {"curl"}


@pytest.mark.parametrize(
    ("image", "target"),
    [
        pytest.param("docker.io/evil/nginx:1", f"{REGISTRY}/mirror/docker.io/library/nginx:1", id="another's name"),
        pytest.param("docker.io/library/nginx:1", f"{REGISTRY}/mirror/docker.io/library/nginx:2", id="another tag"),
        pytest.param("evil.example/google-samples/hello-app:1.0", TARGET, id="the same path of another host"),
        pytest.param("gcr.io/a:1", f"{REGISTRY}/mirror/gcr.io/a:{DIGEST_TAG}", id="a digest's tag"),
        pytest.param(f"gcr.io/a:{DIGEST_TAG}", f"{REGISTRY}/mirror/gcr.io/a:{DIGEST_TAG}", id="a tag like a digest's"),
        pytest.param(IMAGE, TARGET.replace(CHINA.account, "user@evil.io"), id="twelve characters, no account"),
        pytest.param(IMAGE, f"{REGISTRY}/mirror/$(id)/{IMAGE}", id="a command"),
        pytest.param(f"{IMAGE}\n", TARGET, id="a line more"),
        pytest.param(f"--src-creds=a:b {IMAGE}", TARGET, id="an option"),
    ],
)
def test_no_image_can_be_put_under_another_s_name(tmp_path: Path, image: str, target: str) -> None:
    given = variables(DOCKER_IMAGE=image, NEW_DOCKER_IMAGE=target)
    assert evaluate(POLICY, request(environmentVariablesOverride=given)) is Decision.ALLOWED, "then IAM refuses it"
    assert_refused(CodeBuild(tmp_path).run(image, target))


def test_an_image_goes_to_its_own_destination(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run(IMAGE, TARGET)
    assert (run.exported["COPY_RESULT"], run.exit_code) == ("COPIED", 0)


def test_with_the_account_named_iam_refuses_every_other() -> None:
    for account in ("210987654321", "user@evil.io", "????????????"):
        given = variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=TARGET.replace(CHINA.account, account))
        assert evaluate(POLICY_OF_ONE_ACCOUNT, request(environmentVariablesOverride=given)) is Decision.DENIED


@pytest.mark.parametrize("kind", ["SECRETS_MANAGER", "PARAMETER_STORE"])
def test_iam_cannot_restrict_the_type_of_a_variable(kind: str) -> None:
    image, target = variables(DOCKER_IMAGE="ImagePullSecret", NEW_DOCKER_IMAGE=TARGET)
    asked = request(environmentVariablesOverride=[{**image, "type": kind}, target])
    assert evaluate(POLICY, asked) is Decision.ALLOWED, (
        "IAM denies it: the build's check below is no longer the only one"
    )


@pytest.mark.parametrize("text", [SECRET, ACCESS_KEY_ID, SECRET_ACCESS_KEY, CHINA.region, AUTH])
@pytest.mark.parametrize("variable", ["DOCKER_IMAGE", "NEW_DOCKER_IMAGE"])
def test_a_secret_for_a_name_is_refused_and_not_shown(tmp_path: Path, variable: str, text: str) -> None:
    run = CodeBuild(tmp_path, registry_auth=AUTH).run(**{variable: text})
    assert_refused(run)
    shown = run.output + str(run.exported) + str([call.arguments for call in run.calls])
    for secret in (text, SECRET_ACCESS_KEY, ACCESS_KEY_ID, "dXNlcjpodW50ZXIy"):
        assert secret not in shown


def test_the_build_reads_no_secret_or_parameter_but_its_own() -> None:
    for secret in (TARGET.partition(":")[0], "GlobalAKSK", "ImagePullSecret2"):
        asked = Request(READ, resource_of(READ, GLOBAL, SecretId=f"{secret}-AbCdEf"))
        assert evaluate(ROLE, asked) is Decision.NOT_ALLOWED
    assert {evaluate(ROLE, Request(action, "*")) for action in actions("ssm")} == {Decision.NOT_ALLOWED}


def test_a_debug_session_reaches_nothing() -> None:
    needed = actions("ssmmessages")
    assert "ssmmessages:CreateControlChannel" in needed
    assert {evaluate(ROLE, Request(action, "*")) for action in needed} == {Decision.NOT_ALLOWED}
