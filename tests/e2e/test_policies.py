"""Each role and user has the permissions for its calls, on the resources of these calls, and no other permissions."""

from pathlib import Path
from typing import Any

import pytest

from e2e.fakes.policies import Decision, grants
from e2e.harness.all_calls import KEY_ID
from e2e.harness.authorization import has_resources
from e2e.harness.principals import (
    AUTH_ARN,
    CASES,
    EVERYTHING,
    FEDERATED,
    UNUSED,
    calls,
    china,
    globally,
    needs,
    problems,
)
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.start_build import SET_BY_THE_RECONCILER
from support.templates import ROOT


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("principal", ["WebhookRole", "ReconcilerRole", "ImagePushUser"])
def test_in_china_each_role_has_the_permissions_of_its_calls_and_no_others(case: str, principal: str) -> None:
    assert problems(china(case), principal, needs(china(case), principal, case)) == []


@pytest.mark.parametrize("account", ["", CHINA.account], ids=["any account", "one account"])
@pytest.mark.parametrize("auth", ["", AUTH_ARN], ids=["no auth file", "an auth file"])
@pytest.mark.parametrize("principal", ["ImagePullUser", "CodeBuildRole"])
@pytest.mark.parametrize("case", ["as shipped", EVERYTHING])
def test_on_the_global_side_each_role_has_the_permissions_of_its_calls_and_no_others(
    case: str, principal: str, auth: str, account: str
) -> None:
    stack = globally(case, ChinaAccountId=account, RegistryAuthSecretArn=auth)
    assert problems(stack, principal, needs(stack, principal, case)) == []


@pytest.mark.parametrize("auth", ["", AUTH_ARN], ids=["no auth file", "an auth file"])
@pytest.mark.parametrize("principal", ["StartRole", "CodeBuildRole", "PushRole", "ReconcilerRole"])
def test_where_the_accounts_federate_each_role_has_the_permissions_of_its_calls_and_no_others(
    principal: str, auth: str
) -> None:
    in_china = principal in ("PushRole", "ReconcilerRole")
    stack = china(FEDERATED) if in_china else globally(FEDERATED, RegistryAuthSecretArn=auth)
    assert problems(stack, principal, needs(stack, principal, FEDERATED)) == []


@pytest.mark.parametrize("case", CASES)
def test_the_calls_are_those_of_two_roles_and_one_key_or_another_role(case: str) -> None:
    starter = "StartRole" if case == FEDERATED else KEY_ID
    principals = {call.principal for call in calls(case)}
    assert principals == {china().role_of("ApiFunction"), china().role_of("ReconcilerFunction"), starter}
    assert {call.region for call in calls(case) if call.principal == starter} == {GLOBAL.region}
    started = [call for call in calls(case) if call.operation == "StartBuild"]
    assert {frozenset(call.parameters) for call in started} == {SET_BY_THE_RECONCILER}


def test_each_exception_is_still_needed() -> None:
    granted = {grant.action for name in ("WebhookRole", "ReconcilerRole") for grant in grants(china().policies(name))}
    assert set(UNUSED) <= granted
    assert not any(map(has_resources, UNUSED)), "the reason is no longer true"


NOT_ALLOWED, DENIED = Decision.NOT_ALLOWED.value, Decision.DENIED.value
WIDE, IDLE = "wider than it has to be", "granted and not used"
TABLE_ARN = "Resource: !GetAtt ImageListTable.Arn"
OTHER_TABLE = "Resource: !Sub arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/Other"
KEY = "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/${RepositoryKmsKeyId}"
COPIES = "repository/${RepositoryPrefix}/*"
EXPIRY = "!If [CopiesExpire, ecr:BatchDeleteImage, !Ref AWS::NoValue]"
PULLING = "!If [OtherAccountsPull, ecr:SetRepositoryPolicy, !Ref AWS::NoValue]"
ANY_COPY = "????????????.dkr.ecr.${Region}.amazonaws.com.cn/${RepositoryPrefix}/*"
STARTING = "Action: [codebuild:StartBuild, codebuild:BatchGetBuilds]"
PROJECT = "- !GetAtt CodeBuildProject.Arn"
FAST_PROJECT = "!GetAtt FastCodeBuildProject.Arn"
FAST_LANE = f"!If [HasFastLane, {FAST_PROJECT}, !Ref AWS::NoValue]"
OWN_SECRET = "- !If [KeyPushes, !Ref ECRSecertManager, !Ref AWS::NoValue]"
OTHER_PROJECT = "- !Sub arn:${AWS::Partition}:codebuild:${AWS::Region}:${AWS::AccountId}:project/Other"


def slip(resource: str, old: str, new: str, problem: str, id: str, case: str = EVERYTHING) -> Any:  # noqa: A002
    return pytest.param(resource, old, new, problem, case, id=f"{resource}: {id}")


@pytest.mark.parametrize(
    ("resource", "old", "new", "problem", "case"),
    [
        slip("WebhookRole", TABLE_ARN, OTHER_TABLE, NOT_ALLOWED, "another table"),
        slip("WebhookRole", TABLE_ARN, 'Resource: "*"', WIDE, "every table"),
        slip("WebhookRole", ", dynamodb:PutItem", "", NOT_ALLOWED, "no PutItem"),
        slip("WebhookRole", "dynamodb:PutItem", "dynamodb:PutItem, dynamodb:Scan", IDLE, "a scan"),
        slip("WebhookRole", "dynamodb:PutItem", '"dynamodb:*"', WIDE, "every action"),
        slip("WebhookRole", "!GetAtt WebhookLogs", "!GetAtt ReconcilerLogs", NOT_ALLOWED, "the other's log"),
        slip("ReconcilerRole", TABLE_ARN, OTHER_TABLE, NOT_ALLOWED, "another table"),
        slip("ReconcilerRole", ", dynamodb:DeleteItem", "", NOT_ALLOWED, "no DeleteItem"),
        slip("ReconcilerRole", "/index/DueIndex", "/index/Due", NOT_ALLOWED, "another index"),
        slip("ReconcilerRole", "/index/DueIndex", "", NOT_ALLOWED, "the table for its index"),
        slip("ReconcilerRole", "/stream/*", "", NOT_ALLOWED, "the table for its stream"),
        slip("ReconcilerRole", "dynamodb:GetRecords, ", "", NOT_ALLOWED, "no GetRecords"),
        slip("ReconcilerRole", "-??????", "", NOT_ALLOWED, "a secret's name without its ending"),
        slip("ReconcilerRole", "${GlobalSecretName}", "GlobalAKSK", NOT_ALLOWED, "one name of the secret"),
        slip("ReconcilerRole", COPIES, "repository/mirror/*", NOT_ALLOWED, "one prefix"),
        slip("ReconcilerRole", COPIES, "repository/${RepositoryPrefix}", NOT_ALLOWED, "the prefix as a repository"),
        slip("ReconcilerRole", "${AWS::Partition}:ecr", "aws:ecr", NOT_ALLOWED, "another partition"),
        slip("ReconcilerRole", "- ecr:TagResource", "", NOT_ALLOWED, "no TagResource"),
        slip("ReconcilerRole", "- ecr:DescribeImages", "", NOT_ALLOWED, "no DescribeImages"),
        slip("ReconcilerRole", f"- {EXPIRY}", "", NOT_ALLOWED, "no BatchDeleteImage"),
        slip("ReconcilerRole", "- ecr:DeleteLifecyclePolicy", "", NOT_ALLOWED, "no DeleteLifecyclePolicy"),
        slip("ReconcilerRole", EXPIRY, "ecr:BatchDeleteImage", IDLE, "expiry unasked for", "other accounts pull"),
        slip("ReconcilerRole", PULLING, "ecr:SetRepositoryPolicy", IDLE, "pulls unasked for", "copies expire"),
        slip(
            "ReconcilerRole",
            "OtherAccountsPull",
            "CopiesExpire",
            NOT_ALLOWED,
            "conditions mixed up",
            "other accounts pull",
        ),
        slip("ReconcilerRole", f"!Sub {KEY}", '"*"', WIDE, "every key"),
        slip("ReconcilerRole", "key/${RepositoryKmsKeyId}", "alias/${RepositoryKmsKeyId}", NOT_ALLOWED, "an alias"),
        slip("ReconcilerRole", "Action: kms:CreateGrant", "Action: kms:Decrypt", NOT_ALLOWED, "no grant"),
        slip("ReconcilerRole", '"true"', '"false"', NOT_ALLOWED, "a grant by nobody"),
        slip("ReconcilerRole", "- ecr:CreateRepository", "- ecr:*Repository", WIDE, "every repository action"),
        slip("ReconcilerRole", "!GetAtt DeadLetters.Arn", OTHER_TABLE[10:], NOT_ALLOWED, "no dead letters"),
        slip("ImagePushUser", "- ecr:PutImage", "", NOT_ALLOWED, "no PutImage"),
        slip("ImagePushUser", COPIES, "repository/mirrored/*", NOT_ALLOWED, "another prefix"),
        slip(
            "ImagePushUser",
            "!Sub arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:" + COPIES,
            '"*"',
            WIDE,
            "all",
        ),
        slip("StartCopies", PROJECT, OTHER_PROJECT, NOT_ALLOWED, "another project"),
        slip("StartCopies", PROJECT, '- "*"', WIDE, "every project"),
        slip("StartCopies", FAST_PROJECT, "!Ref AWS::NoValue", NOT_ALLOWED, "no fast lane"),
        slip("StartCopies", FAST_LANE, FAST_PROJECT, IDLE, "a fast lane that nobody uses", "copies expire"),
        slip("StartCopies", STARTING, "Action: codebuild:StartBuild", NOT_ALLOWED, "no BatchGetBuilds"),
        slip("StartCopies", STARTING, STARTING[:-1] + ", codebuild:UpdateProject]", IDLE, "changes of the project"),
        slip("StartCopies", "[DOCKER_IMAGE, ", "[", DENIED, "a variable less"),
        slip("StartCopies", ANY_COPY, ANY_COPY.replace("${RepositoryPrefix}", "mirror"), DENIED, "one prefix"),
        slip("ReconcilerRole", "[image-mirror]", "[sts.amazonaws.com]", NOT_ALLOWED, "another audience", FEDERATED),
        slip("ReconcilerRole", '"300"', '"299"', NOT_ALLOWED, "too short a token", FEDERATED),
        slip("ReconcilerRole", "ES384", "RS256", NOT_ALLOWED, "another algorithm", FEDERATED),
        slip("ReconcilerRole", "GetWebIdentityToken", "*", WIDE, "all of STS", FEDERATED),
        slip("PushRole", "- ecr:PutImage", "", NOT_ALLOWED, "no PutImage", FEDERATED),
        slip("CodeBuildRole", "[image-mirror]", "[other]", NOT_ALLOWED, "another audience", FEDERATED),
        slip("CodeBuildRole", OWN_SECRET, "", NOT_ALLOWED, "no key for China"),
        slip("CodeBuildRole", OWN_SECRET, '- "*"', WIDE, "every secret"),
        slip(
            "CodeBuildRole", "!GetAtt BuildLogs.Arn", "!Sub arn:aws:logs:*:*:log-group:other:*", NOT_ALLOWED, "no log"
        ),
    ],
)
def test_a_mistake_in_a_policy_is_found(
    tmp_path: Path, resource: str, old: str, new: str, problem: str, case: str
) -> None:
    in_china = f"\n  {resource}:\n" in (ROOT / "sam-template.yaml").read_text()
    path = tmp_path / "template.yaml"
    text = (ROOT / ("sam-template.yaml" if in_china else "image-pulling.yaml")).read_text()
    head, name, rest = text.partition(f"\n  {resource}:\n")
    body, after = rest[: rest.index("PolicyDocument")], rest[rest.index("PolicyDocument") :]
    assert old in after
    path.write_text(head + name + body + after.replace(old, new, 1))
    stack = china(case, str(path)) if in_china else globally(case, str(path))
    principal = "ImagePullUser" if resource == "StartCopies" else resource
    assert any(problem in each for each in problems(stack, principal, needs(stack, principal, case)))
