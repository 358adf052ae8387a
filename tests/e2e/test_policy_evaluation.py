"""The evaluator decides as AWS documents it for IAM."""

from typing import Any

import pytest

from e2e.fakes.policies import (
    Decision,
    Grant,
    Request,
    UnsupportedPolicyError,
    evaluate,
    evaluate_trust,
    grants,
    matches_action,
    matches_resource,
)

TABLE = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/T"
READ = Request("dynamodb:GetItem", TABLE)


def statement(effect: str = "Allow", action: Any = "dynamodb:GetItem", resource: Any = TABLE, **more: Any) -> Any:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def document(*statements: Any) -> Any:
    return {"Version": "2012-10-17", "Statement": list(statements)}


@pytest.mark.parametrize(
    ("statements", "decision"),
    [
        pytest.param([], Decision.NOT_ALLOWED, id="nothing"),
        pytest.param([statement()], Decision.ALLOWED, id="an allowance"),
        pytest.param([statement(), statement("Deny", resource="*")], Decision.DENIED, id="a denial wins"),
        pytest.param([statement("Deny"), statement()], Decision.DENIED, id="in whatever order"),
        pytest.param([statement(action="dynamodb:PutItem")], Decision.NOT_ALLOWED, id="another action"),
        pytest.param([statement(resource=TABLE + "/index/I")], Decision.NOT_ALLOWED, id="another resource"),
        pytest.param([statement(action=["a:B", "dynamodb:GetItem"], resource=[TABLE])], Decision.ALLOWED, id="lists"),
    ],
)
def test_what_is_not_allowed_is_refused_and_what_is_denied_is_never_allowed(
    statements: list[Any], decision: Decision
) -> None:
    assert evaluate([document(*statements)], READ) is decision
    assert evaluate([document(each) for each in statements], READ) is decision


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("dynamodb:GetItem", True),
        ("DynamoDB:getitem", True),
        ("dynamodb:Get*", True),
        ("dynamodb:GetIte?", True),
        ("*", True),
        ("dynamodb:GetIt", False),
        ("dynamodb:.etItem", False),
    ],
)
def test_actions_are_compared_without_case_and_by_wildcards(pattern: str, matches: bool) -> None:
    assert matches_action(pattern, "dynamodb:GetItem") == matches


SECRET = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a/Key-AbCdEf"


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        pytest.param(SECRET, True, id="itself"),
        pytest.param(SECRET[:-6] + "??????", True, id="six characters"),
        pytest.param(SECRET[:-6] + "?????", False, id="five"),
        pytest.param(SECRET[:-7], False, id="a name without its ending"),
        pytest.param(SECRET.lower(), False, id="case counts"),
        pytest.param(SECRET.replace("a/Key", "*"), True, id="a wildcard crosses a slash"),
        pytest.param("arn:*:secret:a/Key-AbCdEf", None, id="too few parts"),
        pytest.param("arn:aws-cn:secretsmanager:*:*:secret:a/*", True, id="a wildcard for a part"),
        pytest.param("arn:aws:secretsmanager:*:*:*", False, id="another partition"),
        pytest.param("*", True, id="everything"),
    ],
)
def test_resources_are_compared_part_by_part(pattern: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(UnsupportedPolicyError):
            matches_resource(pattern, SECRET)
    else:
        assert matches_resource(pattern, SECRET) == matches


def test_an_action_without_a_resource_is_allowed_on_everything_alone() -> None:
    assert matches_resource("*", "*")
    assert not matches_resource(TABLE, "*")


ONE, MANY = "svc:one", "svc:many"


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        pytest.param({"Null": {ONE: "false"}}, {ONE: "x"}, True, id="set"),
        pytest.param({"Null": {ONE: "false"}}, {}, False, id="not set"),
        pytest.param({"Null": {ONE: "true"}}, {}, True, id="must not be set"),
        pytest.param({"Null": {ONE: "true"}}, {ONE: "x"}, False, id="is set"),
        pytest.param({"Null": {ONE.upper(): "false"}}, {ONE: "x"}, True, id="keys have no case"),
        pytest.param({"Null": {ONE: "false", MANY: "false"}}, {ONE: "x"}, False, id="keys of a block are ANDed"),
        pytest.param({"StringEquals": {ONE: ["x", "y"]}}, {ONE: "y"}, True, id="one of two"),
        pytest.param({"StringEquals": {ONE: "x"}}, {ONE: "X"}, False, id="values have case"),
        pytest.param({"StringEquals": {ONE: "x*"}}, {ONE: "xy"}, False, id="equals knows no wildcard"),
        pytest.param({"StringEquals": {ONE: "x"}}, {}, False, id="equals of a missing key"),
        pytest.param({"StringNotEquals": {ONE: ["x", "y"]}}, {ONE: "y"}, False, id="not equals means none of them"),
        pytest.param({"StringNotEquals": {ONE: ["x", "y"]}}, {ONE: "z"}, True, id="none of them"),
        pytest.param({"StringLike": {ONE: "a?c/*"}}, {ONE: "abc/d/e"}, True, id="like"),
        pytest.param({"StringLike": {ONE: "a?c/*"}}, {ONE: "ac/d"}, False, id="a question mark is one character"),
        pytest.param({"StringLike": {ONE: "a.c"}}, {ONE: "abc"}, False, id="a full stop is itself"),
        pytest.param({"StringNotLike": {ONE: "a/*"}}, {ONE: "a/b"}, False, id="not like, and it is"),
        pytest.param({"StringNotLike": {ONE: "a/*"}}, {ONE: "b/a/"}, True, id="not like"),
        pytest.param({"StringNotLike": {ONE: "a/*"}}, {}, True, id="not like holds where the key is missing"),
        pytest.param({"ForAnyValue:StringNotEquals": {MANY: ["a", "b"]}}, {MANY: ("a", "c")}, True, id="one stranger"),
        pytest.param({"ForAnyValue:StringNotEquals": {MANY: ["a", "b"]}}, {MANY: ("a", "b")}, False, id="no stranger"),
        pytest.param({"ForAnyValue:StringNotEquals": {MANY: ["a"]}}, {}, False, id="any of nothing"),
        pytest.param({"ForAllValues:StringEquals": {MANY: ["a"]}}, {}, True, id="all of nothing"),
        pytest.param({"ForAllValues:StringEquals": {MANY: ["a"]}}, {MANY: ("a", "b")}, False, id="not all"),
        pytest.param({"NumericLessThanEquals": {ONE: "300"}}, {ONE: "300"}, True, id="at most"),
        pytest.param({"NumericLessThanEquals": {ONE: "300"}}, {ONE: "60"}, True, id="numbers, not texts"),
        pytest.param({"NumericLessThanEquals": {ONE: "300"}}, {ONE: "301"}, False, id="more"),
        pytest.param({"NumericLessThanEquals": {ONE: "300"}}, {}, False, id="no number"),
        pytest.param({"DateLessThan": {ONE: "2026-11-24T00:00:00Z"}}, {ONE: "2026-11-23T23:59:59Z"}, True, id="before"),
        pytest.param({"DateLessThan": {ONE: "2026-11-24T00:00:00Z"}}, {ONE: "2026-11-24T00:00:00Z"}, False, id="then"),
        pytest.param({"DateLessThan": {ONE: "2026-11-24T00:00:00Z"}}, {}, False, id="no date"),
        pytest.param({"StringLike": {ONE: "x"}, "Null": {MANY: "true"}}, {ONE: "x"}, True, id="blocks, both true"),
        pytest.param({"StringLike": {ONE: "y"}, "Null": {MANY: "true"}}, {ONE: "x"}, False, id="blocks, one false"),
    ],
)
def test_conditions_hold_as_documented(condition: Any, context: Any, holds: bool) -> None:
    request = Request(READ.action, READ.resource, context)
    allowed = evaluate([document(statement(Condition=condition))], request)
    assert allowed is (Decision.ALLOWED if holds else Decision.NOT_ALLOWED)
    denied = evaluate([document(statement(), statement("Deny", Condition=condition))], request)
    assert denied is (Decision.DENIED if holds else Decision.ALLOWED)


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param({"NotAction": "a:B"}, id="NotAction"),
        pytest.param({"Principal": "*"}, id="Principal"),
        pytest.param({"Effect": "Maybe"}, id="another effect"),
        pytest.param({"Condition": {"NumericEquals": {ONE: "1"}}}, id="another operator"),
        pytest.param({"Condition": {"ForNoValue:StringLike": {ONE: "1"}}}, id="another quantifier"),
        pytest.param({"Condition": {"StringLike": {MANY: "1"}}}, id="many values where one is compared"),
        pytest.param({"Condition": {"StringLike": {ONE: "${aws:username}"}}}, id="a policy variable"),
        pytest.param({"Condition": {"Null": {ONE: "no"}}}, id="neither true nor false"),
    ],
)
def test_what_the_evaluator_does_not_know_is_an_error(unknown: Any) -> None:
    with pytest.raises(UnsupportedPolicyError):
        evaluate([document({**statement(), **unknown})], Request(READ.action, TABLE, {ONE: "x", MANY: ("x",)}))


def test_grants_are_every_action_with_every_resource_that_is_allowed() -> None:
    policy = document(statement(action=["a:B", "a:C"], resource=["*", TABLE]), statement("Deny"))
    assert list(grants([policy])) == [Grant("a:B", "*"), Grant("a:B", TABLE), Grant("a:C", "*"), Grant("a:C", TABLE)]


PROVIDER = {"Federated": "arn:aws:iam::210987654321:oidc-provider/issuer.example"}


@pytest.mark.parametrize(
    ("principal", "action", "decision"),
    [
        pytest.param(PROVIDER, "sts:AssumeRoleWithWebIdentity", Decision.ALLOWED, id="the provider"),
        pytest.param(
            {"Service": "lambda.amazonaws.com"}, "sts:AssumeRoleWithWebIdentity", Decision.NOT_ALLOWED, id="other"
        ),
        pytest.param(PROVIDER, "sts:AssumeRole", Decision.NOT_ALLOWED, id="another action"),
    ],
)
def test_a_trust_policy_names_who_may_assume_the_role(principal: Any, action: str, decision: Decision) -> None:
    trust = {"Effect": "Allow", "Principal": PROVIDER, "Action": "sts:AssumeRoleWithWebIdentity"}
    assert evaluate_trust(document(trust), principal, Request(action, "*")) is decision


def test_a_trust_policy_s_conditions_and_denials_count() -> None:
    trust = {"Effect": "Allow", "Principal": PROVIDER, "Action": "sts:AssumeRoleWithWebIdentity"}
    condition = {"StringEquals": {"issuer.example:sub": "me"}}
    requests = [
        Request("sts:AssumeRoleWithWebIdentity", "*", {"issuer.example:sub": subject}) for subject in ("me", "you")
    ]
    decided = [evaluate_trust(document(trust | {"Condition": condition}), PROVIDER, each) for each in requests]
    assert decided == [Decision.ALLOWED, Decision.NOT_ALLOWED]
    denial = trust | {"Effect": "Deny"}
    assert evaluate_trust(document(trust, denial), PROVIDER, requests[0]) is Decision.DENIED
    with pytest.raises(UnsupportedPolicyError):
        evaluate_trust(document(statement()), PROVIDER, requests[0])
