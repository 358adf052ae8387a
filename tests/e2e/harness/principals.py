"""The calls of each principal of the stacks, and the decisions of its policies.

The functions' calls are recorded from the real handlers; the calls of Lambda, of CodeBuild and of a push are listed
here from AWS's documentation.
"""

from collections.abc import Iterable
from functools import cache

import yaml

from e2e.fakes.policies import Decision, Request, evaluate, grants
from e2e.harness.all_calls import KEY_ID, record_all_calls
from e2e.harness.authorization import has_resources, requests, resource_of
from e2e.harness.federated import GLOBALLY, IN_CHINA
from e2e.harness.recording import Call
from e2e.harness.stacks import CHINA, GLOBAL, Stack
from image_mirror.federation import AUDIENCE

CASES = {
    "as shipped": {},
    "copies expire": {"ExpireDays": "30"},
    "other accounts pull": {"PullAccounts": "111122223333, 444455556666"},
    "repositories have a key": {"RepositoryKmsKeyId": "1234abcd-12ab-34cd-56ef-1234567890ab"},
    "two lanes": {"GlobalFastProjectName": "ImagePullProjectFast"},
    "the accounts federate": IN_CHINA,
    "both, under other names": {
        "ExpireDays": "1",
        "PullAccounts": "111122223333",
        "RepositoryPrefix": "team/copies",
        "GlobalSecretName": "team/global-key",
        "GlobalFastProjectName": "ImagePullProjectFast",
        "RepositoryKmsKeyId": "mrk-1234abcd12ab34cd56ef1234567890ab",
    },
}
EVERYTHING, FEDERATED = "both, under other names", "the accounts federate"
UNUSED = {
    "dynamodb:ListStreams": "DynamoDB's guide names it, on the stream, in its policy for a function that reads one; by "
    "the reference the action has no resource, so that it grants nothing here",
}
PUSH = (
    *("BatchCheckLayerAvailability", "BatchGetImage", "CompleteLayerUpload", "InitiateLayerUpload", "PutImage"),
    "UploadLayerPart",
)
AUTH_ARN = "arn:aws:secretsmanager:us-west-2:210987654321:secret:registry/auth-AbCdEf"


def china(case: str = EVERYTHING, template: str = "sam-template.yaml") -> Stack:
    """Return China's stack with the parameters of one of CASES."""
    return Stack(template, CHINA, WebhookToken="t" * 32, **CASES[case])


def globally(case: str = EVERYTHING, template: str = "image-pulling.yaml", **parameters: str) -> Stack:
    """Return the global stack that belongs to China's stack in one of CASES, with these further parameters.

    It has the project of the fast lane if China's stack uses it, and federates if China's stack does.
    """
    given = {"RepositoryPrefix": CASES[case].get("RepositoryPrefix", "mirror"), "Region": CHINA.region}
    given["FastLane"] = "true" if CASES[case].get("GlobalFastProjectName") else "false"
    given |= GLOBALLY if CASES[case].get("GlobalIssuer") else {}
    return Stack(template, GLOBAL, **given | parameters)


@cache
def calls(case: str) -> tuple[Call, ...]:
    """Return each call that the two functions make, deployed as in one of CASES."""
    return tuple(record_all_calls(china(case), globally(case)))


def asked_by(principal: str, case: str) -> list[Request]:
    """Return the requests to IAM of the functions' calls by a role, or by the key KEY_ID."""
    return [request for call in calls(case) if call.principal == principal for request in requests(call)]


def problems(stack: Stack, principal: str, needed: Iterable[Request]) -> list[str]:
    """The permissions that a principal needs and lacks, and those that it has and does not need."""
    documents, wanted = stack.policies(principal), list(needed)
    found = [
        f"{request.action} on {request.resource}: {decision.value}"
        for request in wanted
        if (decision := evaluate(documents, request)) is not Decision.ALLOWED
    ]
    for grant in grants(documents):
        if "*" in grant.action or (grant.resource == "*" and has_resources(grant.action)):
            found.append(f"{grant.action} on {grant.resource}: wider than it has to be")
        elif grant.action not in UNUSED and not any(map(grant.covers, wanted)):
            found.append(f"{grant.action} on {grant.resource}: granted and not used")
    return found


def asked_by_lambda(stack: Stack, function: str) -> list[Request]:
    """The requests of the Lambda service with the function's role: its log, its stream, its dead letters."""
    properties = stack.properties(function)
    log = {"LogGroupName": properties["LoggingConfig"]["LogGroup"], "LogStreamName": "2026/11/24/[$LATEST]5f"}
    found = [Request(each, resource_of(each, CHINA, **log)) for each in ("logs:CreateLogStream", "logs:PutLogEvents")]
    for event in properties.get("Events", {}).values():
        if event["Type"] == "DynamoDB":
            actions = ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator")
            found += [Request(action, event["Properties"]["Stream"]) for action in actions]
            failed = event["Properties"]["DestinationConfig"]["OnFailure"]
            assert failed["Type"] == "SQS"
            found.append(Request("sqs:SendMessage", failed["Destination"]))
    return found


def asked_by_a_push(case: str) -> list[Request]:
    """The requests of an image's push, by ECR's guide: a login, and PUSH on the repository."""
    repository = CASES[case].get("RepositoryPrefix", "mirror") + "/gcr.io/team/app"
    pushed = [Request(f"ecr:{name}", resource_of(f"ecr:{name}", CHINA, RepositoryName=repository)) for name in PUSH]
    return [Request("ecr:GetAuthorizationToken", resource_of("ecr:GetAuthorizationToken", CHINA)), *pushed]


def asked_by_a_build(stack: Stack) -> list[Request]:
    """The requests with the project's role: CodeBuild's log and the variables' secrets, and a token for the push."""
    project = stack.properties("CodeBuildProject")
    group = project["LogsConfig"]["CloudWatchLogs"]["GroupName"]
    log = {"LogGroupName": group, "LogStreamName": "5f0c"}
    found = [Request(each, resource_of(each, GLOBAL, **log)) for each in ("logs:CreateLogStream", "logs:PutLogEvents")]
    buildspec = yaml.safe_load(project["Source"]["BuildSpec"])
    read = "secretsmanager:GetSecretValue"
    names = {entry.split(":")[0] for entry in buildspec["env"].get("secrets-manager", {}).values()}
    secrets = [resource_of(read, GLOBAL, SecretId=f"{name}-AbCdEf") for name in names]
    variables = project["Environment"]["EnvironmentVariables"]
    secrets += [variable["Value"] for variable in variables if variable.get("Type") == "SECRETS_MANAGER"]
    found += [Request(read, secret) for secret in secrets]
    role = next(each["Value"] for each in variables if each["Name"] == "CHINA_PUSH_ROLE_ARN")
    token = {"Audience": [AUDIENCE], "DurationSeconds": 300, "SigningAlgorithm": "ES384"}
    return found + (requests(Call("CodeBuildRole", GLOBAL.region, "sts", "GetWebIdentityToken", token)) if role else [])


def needs(stack: Stack, principal: str, case: str = EVERYTHING) -> list[Request]:
    """All requests of one principal of a stack."""
    if principal in ("ImagePushUser", "PushRole"):
        return asked_by_a_push(case)
    if principal == "CodeBuildRole":
        return asked_by_a_build(stack)
    if principal == "StartRole":
        return asked_by(principal, case)
    if principal == "ImagePullUser":
        return asked_by(KEY_ID, case)
    functions = [name for name in ("ApiFunction", "ReconcilerFunction") if stack.role_of(name) == principal]
    return asked_by(principal, case) + [each for name in functions for each in asked_by_lambda(stack, name)]
