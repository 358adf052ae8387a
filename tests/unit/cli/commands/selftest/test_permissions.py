"""What `selftest` asks IAM, answered by the shipped policies; and its words where IAM's answer is another one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.principals import CASES, FEDERATED, china, globally
from e2e.harness.simulated import principals
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.stacks import Stack as Deployed
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.selftest.permissions import Expected, Principal, check, judge, table
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.stacks import Stack

OUTPUTS = {
    "china": (
        *("ReconcilerRoleArn", "WebhookRoleArn", "PushRoleArn", "ImagePushUserName", "ImageListTableName"),
        *("GlobalSecret", "CopiesPrefix"),
    ),
    "global": ("BuildRoleArn", "StartRoleArn", "ImagePullUserName", "ProjectName", "FastProjectName"),
}


def as_read(deployed: Deployed, side: str) -> Stack:
    """Return a stack as a command reads it."""
    account = Account(side, side, (CHINA if side == "china" else GLOBAL).region)
    parameters = {name: str(deployed._values[name]) for name in deployed.template["Parameters"]}
    return Stack(account, "stack", "CREATE_COMPLETE", deployed.outputs(*OUTPUTS[side]), parameters)


def asked(case: str, **parameters: str) -> tuple[list[Expected], dict[str, Any]]:
    """Return what is asked of the stacks in one of CASES, and the policies of their roles and users."""
    in_china, world = china(case), globally(case, **parameters)
    return table(as_read(in_china, "china"), as_read(world, "global")), principals(in_china, world)


@pytest.mark.parametrize(
    ("case", "parameters"),
    [
        *(pytest.param(case, {}, id=case) for case in CASES),
        pytest.param(FEDERATED, {"ChinaAccountId": CHINA.account}, id="the account in China is named"),
        pytest.param(
            "as shipped", {"SourceRegistries": "registry.k8s.io *.gcr.io quay.io:443"}, id="hosts are limited"
        ),
        pytest.param("as shipped", {"AccessKeyUsers": "false"}, id="no user"),
    ],
)
def test_the_shipped_policies_decide_each_request_as_intended(case: str, parameters: dict[str, str]) -> None:
    expected, policies = asked(case, **parameters)
    wrong = []
    for each in expected:
        documents = policies[each.principal.arn.rpartition("/")[2]]
        decision = evaluate(documents, Request(each.action, each.resource, each.context))
        if (decision is Decision.ALLOWED) is not each.allowed:
            wrong.append(f"{each.principal.name}: {each}: {decision.value}")
    assert wrong == []


def test_each_role_and_user_of_both_stacks_is_asked_about_something_that_it_may_and_may_not_do() -> None:
    expected, policies = asked(FEDERATED)
    for allowed in (True, False):
        of = {each.principal.arn.rpartition("/")[2] for each in expected if each.allowed is allowed}
        assert of == policies.keys()


_ROLE = Principal("reconciler role", "arn:aws-cn:iam::123456789012:role/r")
_MAY, _MAY_NOT = (
    Expected(_ROLE, "ecr:DescribeImages", "arn:a", True),
    Expected(_ROLE, "ecr:PutImage", "arn:a", False, {"aws:RequestedRegion": "cn-north-1"}),
)


@pytest.mark.parametrize(
    ("answers", "state", "found"),
    [
        pytest.param(
            [(_MAY, "allowed"), (_MAY_NOT, "implicitDeny")],
            State.OK,
            "reconciler role: IAM allows 1 requests and denies 1, as intended",
            id="as-intended",
        ),
        pytest.param(
            [(_MAY, "explicitDeny"), (_MAY_NOT, "explicitDeny")],
            State.FAILED,
            "reconciler role: ecr:DescribeImages on arn:a must be allowed: IAM says explicitDeny",
            id="a-policy-of-the-organization",
        ),
        pytest.param(
            [(_MAY, "allowed"), (_MAY_NOT, "allowed")],
            State.FAILED,
            "reconciler role: ecr:PutImage on arn:a with aws:RequestedRegion=cn-north-1 must be denied: IAM says "
            "allowed",
            id="too-much",
        ),
        pytest.param(
            [(_MAY, "nothing")] * 5,
            State.FAILED,
            "reconciler role: "
            + "; ".join(["ecr:DescribeImages on arn:a must be allowed: IAM says nothing"] * 3)
            + "; and 2 more",
            id="not-answered",
        ),
    ],
)
def test_the_result_names_what_is_decided_otherwise(
    answers: list[tuple[Expected, str]], state: State, found: str
) -> None:
    result = judge("reconciler role", answers)
    assert (result.state, result.found) == (state, found)


@pytest.mark.usefixtures("operated")
def test_an_account_that_may_not_be_asked_is_skipped_and_the_permission_is_named(
    refuse: Callable[..., None],
) -> None:
    refuse("iam", "SimulatePrincipalPolicy")
    stacks = as_read(china("as shipped"), "china"), as_read(globally("as shipped"), "global")
    in_china, world = check(*stacks, table(*stacks))
    assert (in_china.state, world.state) == (State.SKIPPED, State.SKIPPED)
    assert in_china.found == (
        "china account (profile china): not permitted (iam:SimulatePrincipalPolicy), so its roles and users were not "
        "checked"
    )
    assert in_china.remedy == "ask for the permission iam:SimulatePrincipalPolicy"


@pytest.mark.usefixtures("operated")
def test_a_stack_of_an_older_release_has_its_webhook_role_skipped(refuse: Callable[..., None]) -> None:
    refuse("iam", "SimulatePrincipalPolicy")
    in_china, world = as_read(china("as shipped"), "china"), as_read(globally("as shipped"), "global")
    older = replace(in_china, outputs={name: each for name, each in in_china.outputs.items() if "Webhook" not in name})
    expected = table(older, world)
    assert "webhook role" not in {each.principal.name for each in expected}
    last = check(older, world, expected)[-1]
    assert (last.state, last.remedy) == (State.SKIPPED, "deploy China's stack again")
