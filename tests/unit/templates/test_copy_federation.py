"""A build that pushes with a role in China: its token, the login with it, and what it says when the exchange fails."""

import json
from pathlib import Path
from typing import Any

import pytest

from image_mirror.federation import AUDIENCE
from support.buildspec_runner import (
    FAST,
    PASSWORD,
    PROJECTS,
    PUSH_ROLE,
    SOURCE_DIGEST,
    TARGET,
    TOKEN,
    CodeBuild,
    Reply,
    Run,
)
from support.copy_program import PROGRAM

ISSUER = "https://2222.tokens.sts.global.api.aws"
ROLE = {"ChinaPushRoleArn": PUSH_ROLE, "ChinaIssuer": "1111.tokens.sts.global.api.aws"}
OWN = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/of-the-build-role", "AWS_REGION": "us-west-2"}


def assert_ended(run: Run, result: str, reason: str) -> None:
    assert run.exported["COPY_RESULT"] == result, run.output
    assert reason in run.exported["COPY_REASON"]


@pytest.mark.parametrize("project", PROJECTS)
def test_a_build_with_a_role_logs_in_without_a_key(tmp_path: Path, project: str) -> None:
    run = CodeBuild(tmp_path, parameters=ROLE, secret={}, project=project).run()
    assert_ended(run, "COPIED", "the copy is in ECR")
    [ask], [login] = run.called("aws sts"), run.called("aws ecr")
    assert ask.arguments[2:] == (
        *("get-web-identity-token", "--audience", AUDIENCE, "--signing-algorithm", "ES384"),
        *("--query", "WebIdentityToken", "--output", "text", "--duration-seconds", "300"),
    )
    assert {name: ask.environment[name] for name in OWN} == OWN, "its own role, in its own region"
    assert login.arguments[2:] == ("get-login-password", "--region", "cn-northwest-1")
    given = {name: value for name, value in login.environment.items() if name.startswith("AWS_")}
    assert given == {
        "AWS_ROLE_ARN": PUSH_ROLE,
        "AWS_ROLE_SESSION_NAME": AUDIENCE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": given["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "AWS_REGION": "cn-northwest-1",
        "AWS_DEFAULT_REGION": "cn-northwest-1",
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
    }
    assert json.loads(login.files["token.json"]) == ["600", TOKEN], "its mode and its text"
    assert not Path(given["AWS_WEB_IDENTITY_TOKEN_FILE"]).exists()


def test_no_argument_no_other_program_and_no_log_has_the_token(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, parameters=ROLE, secret={}).run()
    for call in run.calls:
        assert not any(secret in argument for secret in (TOKEN, PASSWORD) for argument in call.arguments)
        assert not any(TOKEN in value for value in call.environment.values()), call.program
        if call.arguments[0] != "aws":
            assert not any(name.startswith("AWS_") for name in call.environment), call.program
    assert not any(secret in run.output + str(run.exported) for secret in (TOKEN, PASSWORD))


@pytest.mark.parametrize("environment", [{}, {"CHINA_PUSH_ROLE_ARN": ""}])
def test_a_build_without_a_role_asks_for_no_token(tmp_path: Path, environment: dict[str, str]) -> None:
    run = CodeBuild(tmp_path).run(**environment)
    assert_ended(run, "COPIED", "the copy is in ECR")
    assert run.called("aws sts") == []
    assert "AWS_ROLE_ARN" not in run.called("aws ecr")[0].environment


def test_an_operator_s_probe_tests_a_role_before_builds_use_it(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, project=FAST).run("", "", COPY_PROBE="login", CHINA_PUSH_ROLE_ARN=PUSH_ROLE)
    assert_ended(run, "PROBED", "the login to ECR in China succeeds")
    assert run.called("aws ecr")[0].environment["AWS_ROLE_ARN"] == PUSH_ROLE


def refused(code: str, operation: str, message: str = "message") -> Reply:
    return Reply(stderr=f"\nAn error occurred ({code}) when calling the {operation} operation: {message}\n", status=254)


TOKEN_OF = "GetWebIdentityToken"
EXCHANGE = "AssumeRoleWithWebIdentity"
TOO_OLD_1 = (
    "usage: aws [options]\n\naws: error: argument operation: Invalid choice, valid choices are:\n\nassume-role\n"
)
TOO_OLD_2 = (
    "\naws: [ERROR]: An error occurred (ParamValidation): argument operation: Found invalid choice 'get-web-id'\n"
)


@pytest.mark.parametrize(
    ("program", "reply", "result", "reason"),
    [
        pytest.param(
            "aws sts",
            refused("OutboundWebIdentityFederationDisabledException", TOKEN_OF, "not enabled for this account"),
            *("TARGET_LOGIN", "OutboundWebIdentityFederationDisabledException"),
            id="federation is off",
        ),
        pytest.param(
            "aws sts", refused("AccessDenied", TOKEN_OF, "no policy"), "TARGET_LOGIN", TOKEN_OF, id="may not ask"
        ),
        pytest.param(
            "aws sts",
            Reply(stderr=TOO_OLD_1, status=252),
            *(
                "TARGET_LOGIN",
                "the build's image is too old: it does not know aws sts get-web-identity-token",
            ),
            id="an old AWS CLI",
        ),
        pytest.param("aws sts", Reply(stderr=TOO_OLD_2, status=252), "TARGET_LOGIN", "too old", id="an old version 2"),
        pytest.param("aws sts", refused("Throttling", TOKEN_OF), "TARGET_BUSY", "Throttling", id="throttled"),
        pytest.param(
            "aws sts",
            Reply(stderr='Could not connect to the endpoint URL: "https://sts.us-west-2.amazonaws.com/"', status=255),
            *("UNREACHABLE", "Could not connect"),
            id="STS does not answer",
        ),
        pytest.param(
            "aws sts", Reply(), "TARGET_LOGIN", "aws sts get-web-identity-token printed nothing", id="nothing"
        ),
        pytest.param(
            "aws ecr",
            refused("InvalidIdentityToken", EXCHANGE, f"No OpenIDConnect provider found in your account for {ISSUER}"),
            *("TARGET_LOGIN", "No OpenIDConnect provider"),
            id="no provider",
        ),
        pytest.param(
            "aws ecr",
            refused("InvalidIdentityToken", EXCHANGE, "Couldn't retrieve verification key from your identity provider"),
            *("UNREACHABLE", "verification key"),
            id="the issuer's keys do not answer STS",
        ),
        pytest.param(
            "aws ecr", refused("IDPCommunicationError", EXCHANGE), "UNREACHABLE", "IDPCommunication", id="nor does it"
        ),
        pytest.param(
            "aws ecr",
            refused("AccessDenied", EXCHANGE, f"Not authorized to perform sts:{EXCHANGE}"),
            *("TARGET_LOGIN", "Not authorized"),
            id="trust refused",
        ),
        pytest.param(
            "aws ecr",
            refused("ExpiredTokenException", EXCHANGE, "Token expired: current date/time 2 must be before 1"),
            *("UNREACHABLE", "Token expired"),
            id="expired on its way",
        ),
        pytest.param(
            "aws ecr",
            refused("AccessDeniedException", "GetAuthorizationToken", "not authorized to perform"),
            *("TARGET_LOGIN", "GetAuthorizationToken"),
            id="the role may not log in",
        ),
    ],
)
def test_each_failure_is_told_apart_and_no_key_is_used_instead(
    tmp_path: Path, program: str, reply: Reply, result: str, reason: str
) -> None:
    run = CodeBuild(tmp_path, parameters=ROLE, secret={}, replies={program: reply}).run()
    assert_ended(run, result, reason)
    assert not run.called("crane copy")
    assert not any("AWS_ACCESS_KEY_ID" in call.environment for call in run.calls)


def test_a_token_that_would_outlive_the_build_s_session_is_asked_for_once_more(tmp_path: Path) -> None:
    reply = refused("SessionDurationEscalationException", TOKEN_OF)
    escalation = Reply(stdout=f"{TOKEN}\n", stderr=reply.stderr, once=True)
    run = CodeBuild(tmp_path, parameters=ROLE, secret={}, replies={"aws sts": escalation}).run()
    assert_ended(run, "COPIED", "the copy is in ECR")
    assert [call.arguments[-1] for call in run.called("aws sts")] == ["300", "60"]


EXPIRED = (
    f"Error: PUT https://{TARGET.partition('/')[0]}/v2/mirror/x/manifests/1.0: DENIED: Your authorization token has "
    "expired. Reauthenticate and try again.\n"
)


WITHOUT_WORDS = (
    f"Error: HEAD https://{TARGET.partition('/')[0]}/v2/mirror/x/blobs/sha256:0: unexpected status code 403 Forbidden "
    "(HEAD responses have no body, use GET for details)\n"
)


@pytest.mark.parametrize("said", [EXPIRED, WITHOUT_WORDS], ids=["with its reason", "at a HEAD"])
@pytest.mark.parametrize("parameters", [ROLE, {}], ids=["a role", "a key"])
def test_a_login_that_expires_in_the_middle_of_a_copy_is_renewed(
    tmp_path: Path, parameters: dict[str, str], said: str
) -> None:
    once = Reply(stderr=said, once=True)
    run = CodeBuild(tmp_path, parameters=parameters, replies={"crane copy": once}).run()
    assert_ended(run, "COPIED", "the copy is in ECR")
    assert (len(run.called("aws ecr")), len(run.called("crane copy"))) == (2, 2)
    assert len(run.called("aws sts")) == (2 if parameters else 0)


@pytest.mark.parametrize(
    ("said", "reason"),
    [(EXPIRED, "has expired"), (WITHOUT_WORDS, "403 Forbidden")],
    ids=["with its reason", "at a HEAD"],
)
def test_a_login_that_stays_refused_is_renewed_once(tmp_path: Path, said: str, reason: str) -> None:
    run = CodeBuild(tmp_path, parameters=ROLE, replies={"crane copy": Reply(stderr=said, status=1)}).run()
    assert_ended(run, "TARGET_DENIED", reason)
    assert (len(run.called("aws ecr")), len(run.called("crane copy"))) == (2, 2)


def test_a_source_that_speaks_of_an_expired_login_gets_no_other_one(tmp_path: Path) -> None:
    said = EXPIRED.replace(TARGET.partition("/")[0], "gcr.io")
    run = CodeBuild(tmp_path, parameters=ROLE, replies={"crane copy": Reply(stderr=said, status=1)}).run()
    assert run.exported["COPY_RESULT"] == "DENIED"
    assert len(run.called("aws ecr")) == 1


def test_a_long_copy_renews_its_login_each_time_that_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session ends after an hour, and it is not known whether ECR's login ends with it."""
    logins: list[float] = []
    copies = [EXPIRED, EXPIRED, EXPIRED, ""]
    environment = {
        "MAX_IMAGE_GIGABYTES": "40",
        "BUILD_TIMEOUT_MINUTES": "240",
        "CHINA_PUSH_ROLE_ARN": PUSH_ROLE,
        "CRANE": "crane",
        "DOCKER_IMAGE": "gcr.io/google-samples/hello-app:1.0",
        "NEW_DOCKER_IMAGE": TARGET,
        "TARGET_REGISTRY": TARGET.partition("/")[0],
        "REPOSITORY_PREFIX": "mirror",
        "WITH_SIGNATURES": "false",
    }
    build = PROGRAM.Build(environment, tmp_path)
    now = [build.began]

    def run(*command: str, **_: Any) -> tuple[int, str, str]:
        if command[1] != "copy":
            return (0, f"{SOURCE_DIGEST}\n", "") if command[2] != TARGET else (1, "", "")
        now[0] += 3600
        error = copies.pop(0)
        return (1 if error else 0), "", error

    def log_in(_: Any) -> str:
        logins.append(now[0] - build.began)
        return PASSWORD

    monkeypatch.setattr(PROGRAM.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(PROGRAM, "ecr_password", log_in)
    monkeypatch.setattr(build, "run", run)
    with pytest.raises(PROGRAM.Ended) as ended:
        PROGRAM.copy_image(build)
    assert ended.value.result == "COPIED"
    assert logins == [0, 3600, 7200, 10800]


def test_the_program_asks_for_the_audience_that_the_package_uses() -> None:
    assert PROGRAM.AUDIENCE == AUDIENCE
