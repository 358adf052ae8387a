"""IAM's SimulatePrincipalPolicy, which moto lacks, by the project's own evaluator of policies."""

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.stacks import Stack

Json = dict[str, Any]
_ANSWERS = {
    Decision.ALLOWED: "allowed",
    Decision.DENIED: "explicitDeny",
    Decision.NOT_ALLOWED: "implicitDeny",
}


def principals(china: Stack, world: Stack) -> dict[str, Sequence[Any]]:
    """Return the policies of each role and user of both stacks, by the name at the end of its ARN."""
    found: dict[str, Sequence[Any]] = {}
    for stack in (china, world):
        for name, each in stack.template["Resources"].items():
            kind = each["Type"].rpartition("::")[2]
            if each["Type"] in ("AWS::IAM::Role", "AWS::IAM::User"):
                arn = stack.resolve({"Fn::GetAtt": [name, "Arn"]} if kind == "Role" else {"Ref": name})
                found[arn.rpartition("/")[2]] = stack.policies(name)
    return found


def simulated(policies: Mapping[str, Sequence[Any]], asked: Mapping[str, str]) -> Json:
    """Answer the form of one call, as `Account.client`'s answer after parsing."""
    documents = policies[asked["PolicySourceArn"].rpartition("/")[2]]
    context: dict[str, str | tuple[str, ...]] = {}
    for number in range(1, 100):
        entry = f"ContextEntries.member.{number}."
        if f"{entry}ContextKeyName" not in asked:
            break
        values = _members(asked, f"{entry}ContextKeyValues")
        is_list = asked[f"{entry}ContextKeyType"].endswith("List")
        context[asked[f"{entry}ContextKeyName"]] = tuple(values) if is_list else values[0]
    [resource] = _members(asked, "ResourceArns")
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": _ANSWERS[evaluate(documents, Request(action, resource, context))],
        }
        for action in _members(asked, "ActionNames")
    ]
    return {"EvaluationResults": results, "IsTruncated": False}


def _members(asked: Mapping[str, str], name: str) -> list[str]:
    found: list[str] = []
    while f"{name}.member.{len(found) + 1}" in asked:
        found.append(asked[f"{name}.member.{len(found) + 1}"])
    return found
