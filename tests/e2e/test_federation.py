"""The roles of both shipped templates federate both ways and with nobody else, and their policies allow no more."""

import json
from typing import Any

import pytest

from e2e.fakes.federation import RefusedError, Session
from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.federated import BUILD, GLOBALLY, IN_CHINA, PUSH, RECONCILER, START, federation_of
from e2e.harness.stacks import CHINA, GLOBAL, Stack
from image_mirror.federation import AUDIENCE

PLAIN_CHINA = Stack("sam-template.yaml", CHINA, WebhookToken="t" * 32)
PLAIN_GLOBAL = Stack("image-pulling.yaml", GLOBAL, Region=CHINA.region)


def in_china(**parameters: str) -> Stack:
    return Stack("sam-template.yaml", CHINA, WebhookToken="t" * 32, **IN_CHINA | parameters)


def globally(**parameters: str) -> Stack:
    return Stack("image-pulling.yaml", GLOBAL, Region=CHINA.region, **GLOBALLY | parameters)


class Pair:
    """Both accounts, with the stacks as deployed."""

    def __init__(self, china: Stack | None = None, world: Stack | None = None) -> None:
        self.now = 1_800_000_000.0
        self.federation = federation_of(china or in_china(), world or globally(), lambda: self.now)
        self.china, self.world = self.federation.accounts

    def token(self, role: str, *audiences: str, algorithm: str = "ES384", seconds: int = 300) -> str:
        region = CHINA.region if role == RECONCILER else GLOBAL.region
        asked = self.federation.sign_in(role)
        return self.federation.get_web_identity_token(asked, region, audiences or [AUDIENCE], algorithm, seconds)[0]

    def exchange(self, source: str, target: str, seconds: int | None = None) -> Session:
        return self.federation.assume_role_with_web_identity(target, self.token(source), seconds)


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize(
    ("source", "target", "longest"),
    [pytest.param(RECONCILER, START, 3600, id="start"), pytest.param(BUILD, PUSH, 43200, id="push")],
)
def test_each_side_s_role_is_exchanged_for_the_other_side_s(pair: Pair, source: str, target: str, longest: int) -> None:
    assert pair.exchange(source, target).role_arn == target
    assert pair.exchange(source, target, longest).expires_at == pair.now + longest
    with pytest.raises(RefusedError, match="MaxSessionDuration"):
        pair.exchange(source, target, longest + 1)


@pytest.mark.parametrize(
    ("source", "target"),
    [pytest.param(RECONCILER, PUSH, id="china to itself"), pytest.param(BUILD, START, id="global to itself")],
)
def test_no_role_is_exchanged_within_its_own_account(pair: Pair, source: str, target: str) -> None:
    with pytest.raises(RefusedError, match="No OpenIDConnect provider"):
        pair.exchange(source, target)


@pytest.mark.parametrize(
    ("stacks", "source", "target"),
    [
        pytest.param(
            {"world": globally(ChinaReconcilerRoleArn=RECONCILER + "2")}, RECONCILER, START, id="another reconciler"
        ),
        pytest.param({"china": in_china(GlobalBuildRoleArn=BUILD + "2")}, BUILD, PUSH, id="another project's role"),
    ],
)
def test_another_role_of_the_same_account_is_refused(stacks: Any, source: str, target: str) -> None:
    with pytest.raises(RefusedError, match="Not authorized"):
        Pair(**stacks).exchange(source, target)


@pytest.mark.parametrize(
    ("audiences", "algorithm", "seconds"),
    [
        pytest.param(["sts.amazonaws.com"], "ES384", 300, id="another audience"),
        pytest.param([AUDIENCE, "another"], "ES384", 300, id="a second audience"),
        pytest.param([AUDIENCE], "RS256", 300, id="another algorithm"),
        pytest.param([AUDIENCE], "ES384", 301, id="longer than needed"),
    ],
)
@pytest.mark.parametrize("role", [RECONCILER, BUILD])
def test_no_role_may_ask_for_another_token(
    pair: Pair, role: str, audiences: list[str], algorithm: str, seconds: int
) -> None:
    with pytest.raises(RefusedError, match="AccessDenied"):
        pair.token(role, *audiences, algorithm=algorithm, seconds=seconds)


def test_a_stack_that_federates_may_not_read_a_key() -> None:
    for stack, name in ((in_china(), "ReconcilerRole"), (globally(), "CodeBuildRole")):
        assert not [document for document in stack.policies(name) if "secretsmanager" in json.dumps(document)]


def test_a_stack_that_does_not_federate_may_not_ask_for_a_token() -> None:
    for stack, name in ((PLAIN_CHINA, "ReconcilerRole"), (PLAIN_GLOBAL, "CodeBuildRole")):
        assert "sts:" not in json.dumps(stack.policies(name))


@pytest.mark.parametrize("name", ["StartRole", "PushRole", "ReconcilerRole", "CodeBuildRole"])
def test_no_session_may_take_another_role(name: str) -> None:
    stack = in_china() if name in ("PushRole", "ReconcilerRole") else globally()
    for action in ("sts:AssumeRole", "sts:TagGetWebIdentityToken", "sts:SetWebIdentityTokenScope", "iam:PassRole"):
        assert evaluate(stack.policies(name), Request(action, "*")) is Decision.NOT_ALLOWED
