"""The real AWS CLI gets a token, exchanges it and logs in to ECR, by the policies of the shipped templates."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.fakes.federation import for_sessions, issuers_over_http, security_token_service
from e2e.fakes.policies import Request as Asked
from e2e.fakes.servers import Answer, Request
from e2e.harness.federated import BUILD, PUSH, credentials
from e2e.harness.processes import absent, program
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.test_federation import Pair
from support.copy_program import PROGRAM
from support.stolen import STOLEN

PASSWORD = "the-password-of-ecr"


class Login:
    """A build's login with the role, and the requests to ECR."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair, self.folder = pair, folder
        self.regions: list[str] = []
        self.url = ""

    def ecr(self, request: Request) -> Answer:
        """Answer GetAuthorizationToken."""
        self.regions.append(request.headers["authorization"].split("/")[2])
        token = {"authorizationToken": "QVdTOnRoZS1wYXNzd29yZC1vZi1lY3I=", "expiresAt": time.time() + 43200}
        return Answer(200, json.dumps({"authorizationData": [token]}).encode())

    def password(self, seconds: float = 3600) -> Any:
        """Log in as a build whose own session lasts so long."""
        session = self.pair.federation.sign_in(BUILD, seconds)
        environment = {
            "PATH": os.environ["PATH"],
            "MAX_IMAGE_GIGABYTES": "1",
            "BUILD_TIMEOUT_MINUTES": "60",
            "TARGET_REGION": CHINA.region,
            "CHINA_PUSH_ROLE_ARN": PUSH,
            "AWS_REGION": GLOBAL.region,
            "AWS_DEFAULT_REGION": GLOBAL.region,
            "AWS_ENDPOINT_URL": self.url,
        } | credentials(session)
        return PROGRAM.ecr_password(PROGRAM.Build(environment, self.folder))


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Login]:
    aws = program("aws", "pip install awscli")
    said = subprocess.run([aws, "sts", "get-web-identity-token"], capture_output=True, text=True, check=False).stderr
    if "--audience" not in said:
        absent(f"{aws} is too old for federation: pip install awscli")
    pair = Pair()
    pair.federation.clock = time.time
    found = Login(pair, tmp_path)
    asks = [Asked("ecr:GetAuthorizationToken", "*")]
    with (
        issuers_over_http(pair.federation),
        security_token_service(pair.federation, for_sessions(pair.federation, found.ecr, lambda _: asks)) as url,
    ):
        found.url = url
        yield found


def test_a_build_logs_in_without_any_key(login: Login) -> None:
    assert login.password() == PASSWORD
    assert login.pair.federation.calls == ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"]
    assert login.regions == [CHINA.region]
    [session] = [each for each in login.pair.federation.sessions.values() if each.role_arn == PUSH]
    assert session.expires_at - session.issued_at == STOLEN["a session of PushRole"].seconds[1]
    assert [path for path in login.folder.rglob("*") if path.is_file()] == [], "the AWS CLI keeps a session in HOME"


def test_a_build_whose_own_session_ends_soon_asks_for_a_shorter_token(login: Login) -> None:
    assert login.password(200) == PASSWORD
    assert login.pair.federation.calls == ["GetWebIdentityToken"] * 2 + ["AssumeRoleWithWebIdentity"]


def off(pair: Pair) -> None:
    pair.world.issuer = ""


def provider_deleted(pair: Pair) -> None:
    pair.china.providers.clear()


def trust_refused(pair: Pair) -> None:
    pair.china.roles[PUSH.partition(":role/")[2]].trust = {"Version": "2012-10-17", "Statement": []}


def may_not_ask(pair: Pair) -> None:
    pair.world.roles[BUILD.partition(":role/")[2]].policies = []


def may_not_log_in(pair: Pair) -> None:
    pair.china.roles[PUSH.partition(":role/")[2]].policies = []


def issuer_unreachable(pair: Pair) -> None:
    def fetch(url: str) -> bytes:
        raise OSError(url)

    pair.federation.fetch = fetch


@pytest.mark.parametrize(
    ("change", "result", "reason"),
    [
        pytest.param(off, "TARGET_LOGIN", "OutboundWebIdentityFederationDisabledException", id="off"),
        pytest.param(may_not_ask, "TARGET_LOGIN", "GetWebIdentityToken", id="the build's role may not ask"),
        pytest.param(provider_deleted, "TARGET_LOGIN", "No OpenIDConnect provider", id="no provider"),
        pytest.param(trust_refused, "TARGET_LOGIN", "Not authorized to perform sts:AssumeRole", id="trust refused"),
        pytest.param(issuer_unreachable, "UNREACHABLE", "verification key", id="the issuer's keys"),
        pytest.param(may_not_log_in, "TARGET_LOGIN", "ecr:GetAuthorizationToken", id="the push role may not log in"),
    ],
)
def test_what_the_aws_cli_says_is_told_apart(login: Login, change: Any, result: str, reason: str) -> None:
    change(login.pair)
    with pytest.raises(PROGRAM.Ended) as ended:
        login.password()
    assert ended.value.result == result
    assert reason in ended.value.reason
    assert login.regions == []


def test_a_session_that_has_expired_is_refused(login: Login) -> None:
    login.password()
    session = next(each for each in login.pair.federation.sessions.values() if each.role_arn == PUSH)
    assert datetime.fromtimestamp(session.expires_at) > datetime.fromtimestamp(time.time())
    login.pair.federation.clock = lambda: session.expires_at
    with pytest.raises(Exception, match="ExpiredToken"):
        login.pair.federation.caller(session.access_key_id, session.token)
