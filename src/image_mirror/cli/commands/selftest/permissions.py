"""What each role and user of the two stacks may and may not do, asked of IAM itself by SimulatePrincipalPolicy.

`table` is pure: it derives the requests and the intended decisions from the stacks' outputs and parameters. The tests
compare the same policies with what the functions call; here IAM's own evaluation of the deployed policies is compared,
with permissions boundaries and the organization's policies.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.doctor.accounts import ACTION, is_denied
from image_mirror.cli.doctor.functions import PUSHING
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.stacks import Stack, projects_of
from image_mirror.cli.terminal import bar
from image_mirror.federation import AUDIENCE
from image_mirror.table import DUE_INDEX, STATE_REPO

PERMISSIONS = "permissions"
OVERRIDES = (
    "codebuild:artifacts",
    "codebuild:autoRetryLimit",
    "codebuild:cache",
    "codebuild:encryptionKey",
    "codebuild:environment.certificate",
    "codebuild:environment.computeType",
    "codebuild:environment.fleet.fleetArn",
    "codebuild:environment.image",
    "codebuild:environment.imagePullCredentialsType",
    "codebuild:environment.privilegedMode",
    "codebuild:environment.registryCredential",
    "codebuild:environment.type",
    "codebuild:logsConfig",
    "codebuild:secondaryArtifacts",
    "codebuild:secondarySources",
    "codebuild:serviceRole",
    "codebuild:source",
    "codebuild:source.auth.resource",
    "codebuild:source.auth.type",
    "codebuild:source.buildStatusConfig.context",
    "codebuild:source.buildStatusConfig.targetUrl",
    "codebuild:source.buildspec",
    "codebuild:source.insecureSsl",
    "codebuild:source.location",
)
"""The condition keys of what a StartBuild must not change; image-pulling.yaml has a statement for each.

They are those of IAM's service authorization reference; the key of a whole object covers the keys of its parts.
`environment` itself is not here, because the two allowed variables set it.
"""
_VARIABLES = "codebuild:environment.environmentVariables.name"
_VALUE = "codebuild:environment.environmentVariables/{}.value"
_ORDINARY = ((_VARIABLES, ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE")),)
_NUMERIC = ("sts:DurationSeconds",)
_MOST_SHOWN = 3

Values = Mapping[str, str | tuple[str, ...]]
"""Condition values by key; a key that AWS lists as an array has a tuple."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A role or a user, with its name for people."""

    name: str
    arn: str


@dataclass(frozen=True, slots=True)
class Expected:
    """One request of a principal, and whether IAM must allow it."""

    principal: Principal
    action: str
    resource: str
    allowed: bool
    context: Values = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the request for people; of the context, what differs from an ordinary one."""
        odd = [f"{key}={value}" for key, value in self.context.items() if (key, value) not in _ORDINARY]
        return f"{self.action} on {self.resource}" + (f" with {', '.join(odd)}" if odd else "")


def table(china: Stack, world: Stack) -> list[Expected]:
    """Return what is asked, in the order of the principals. Raises NoAnswerError if a stack lacks an output."""
    return [*_of_china(china), *_of_world(china, world)]


def _of_china(china: Stack) -> Iterator[Expected]:
    prefix = china.output("CopiesPrefix").rstrip("/").partition("/")[2]
    place = f"{china.account.region}:{_account(china.output('ReconcilerRoleArn'))}"
    partition = _partition(china.output("ReconcilerRoleArn"))
    table_arn = f"arn:{partition}:dynamodb:{place}:table/{china.output('ImageListTableName')}"
    copies, others = (f"arn:{partition}:ecr:{place}:repository/{name}/selftest" for name in (prefix, f"not-{prefix}"))
    secret = f"arn:{partition}:secretsmanager:{place}:secret:"
    stored = f"{secret}{china.output('GlobalSecret')}-a1B2c3"

    webhook = Principal("webhook role", china.outputs.get("WebhookRoleArn", ""))
    if webhook.arn:
        for action in ("GetItem", "PutItem", "UpdateItem"):
            yield Expected(webhook, f"dynamodb:{action}", table_arn, True)
        for action in ("DeleteItem", "Scan"):
            yield Expected(webhook, f"dynamodb:{action}", table_arn, False)
        for action in ("CreateRepository", "PutImage", "BatchDeleteImage"):
            yield Expected(webhook, f"ecr:{action}", copies, False)
        yield Expected(webhook, "secretsmanager:GetSecretValue", stored, False)
        yield Expected(webhook, "sts:GetWebIdentityToken", "*", False, _token())

    reconciler = Principal("reconciler role", china.output("ReconcilerRoleArn"))
    for action in ("GetItem", "UpdateItem", "DeleteItem"):
        yield Expected(reconciler, f"dynamodb:{action}", table_arn, True)
    yield Expected(reconciler, "dynamodb:PutItem", table_arn, True, {"dynamodb:LeadingKeys": (STATE_REPO,)})
    yield Expected(reconciler, "dynamodb:PutItem", table_arn, False, {"dynamodb:LeadingKeys": (f"{prefix}/selftest",)})
    yield Expected(reconciler, "dynamodb:Scan", table_arn, False)
    yield Expected(reconciler, "dynamodb:Query", f"{table_arn}/index/{DUE_INDEX}", True)
    for action in ("CreateRepository", "TagResource", "DescribeImages"):
        yield Expected(reconciler, f"ecr:{action}", copies, True)
        yield Expected(reconciler, f"ecr:{action}", others, False)
    yield Expected(reconciler, "ecr:BatchDeleteImage", copies, china.parameters.get("ExpireDays", "0") != "0")
    yield Expected(reconciler, "ecr:SetRepositoryPolicy", copies, bool(china.parameters.get("PullAccounts")))
    for action in ("PutImage", "DeleteRepository"):
        yield Expected(reconciler, f"ecr:{action}", copies, False)
    federates = bool(china.parameters.get("GlobalStartRoleArn"))
    yield Expected(reconciler, "secretsmanager:GetSecretValue", stored, not federates)
    yield Expected(reconciler, "secretsmanager:GetSecretValue", f"{secret}another-a1B2c3", False)
    yield from _tokens(reconciler, allowed=federates)
    yield Expected(reconciler, "sts:AssumeRole", f"arn:{partition}:iam::{_account(reconciler.arn)}:role/any", False)

    for pusher in _both(china, "pushing", "ImagePushUserName", "PushRoleArn", reconciler.arn):
        yield Expected(pusher, "ecr:GetAuthorizationToken", "*", True)
        for action in PUSHING:
            yield Expected(pusher, action, copies, True)
            yield Expected(pusher, action, others, False)
        for action in ("BatchDeleteImage", "CreateRepository", "DeleteRepository", "SetRepositoryPolicy"):
            yield Expected(pusher, f"ecr:{action}", copies, False)
        for action in ("GetItem", "PutItem"):
            yield Expected(pusher, f"dynamodb:{action}", table_arn, False)
        yield Expected(pusher, "sts:GetWebIdentityToken", "*", False, _token())


def _of_world(china: Stack, world: Stack) -> Iterator[Expected]:
    build = Principal("build role", world.output("BuildRoleArn"))
    partition, account = _partition(build.arn), _account(build.arn)
    place = f"{world.account.region}:{account}"
    project, *_ = arns = [f"arn:{partition}:codebuild:{place}:project/{name}" for name in projects_of(world)]
    secret = f"arn:{partition}:secretsmanager:{place}:secret:another-a1B2c3"
    hosts = world.parameters.get("SourceRegistries", "*")
    host = "docker.io" if hosts == "*" else hosts.split(" ")[0].replace("*", "a")
    copies = china.output("CopiesPrefix")
    registry, _, prefix = copies.rstrip("/").partition("/")
    ordinary = _started(f"{host}/team/image:1", f"{copies}{host}/team/image:1")

    for starter in _both(world, "starting", "ImagePullUserName", "StartRoleArn", build.arn):
        for arn in arns:
            yield Expected(starter, "codebuild:StartBuild", arn, True, ordinary)
            yield Expected(starter, "codebuild:BatchGetBuilds", arn, True)
        for key in OVERRIDES:
            yield Expected(starter, "codebuild:StartBuild", project, False, {**ordinary, key: "true"})
        for name in ("BASH_ENV", "TARGET_REGISTRY", "CHINA_PUSH_ROLE_ARN", "COPY_PROBE"):
            more: Values = {_VARIABLES: ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE", name), _VALUE.format(name): "x"}
            yield Expected(starter, "codebuild:StartBuild", project, False, {**ordinary, **more})
        for destination in (f"{registry}/not-{prefix}/a:1", f"attacker.example.com/{prefix}/a:1"):
            elsewhere = _started(f"{host}/team/image:1", destination)
            yield Expected(starter, "codebuild:StartBuild", project, False, elsewhere)
        if hosts != "*":
            other = _started("attacker.example.com/image:1", f"{copies}attacker.example.com/image:1")
            yield Expected(starter, "codebuild:StartBuild", project, False, other)
        another = f"arn:{partition}:codebuild:{place}:project/another"
        yield Expected(starter, "codebuild:StartBuild", another, False, ordinary)
        for action in ("StopBuild", "UpdateProject", "StartBuildBatch"):
            yield Expected(starter, f"codebuild:{action}", project, False)
        yield Expected(starter, "iam:PassRole", build.arn, False)
        yield Expected(starter, "secretsmanager:GetSecretValue", secret, False)
        yield Expected(starter, "sts:GetWebIdentityToken", "*", False, _token())

    asks = any(world.parameters.get(name) for name in ("ChinaIssuer", "ChinaPushRoleArn"))
    yield from _tokens(build, allowed=asks)
    yield Expected(build, "secretsmanager:GetSecretValue", secret, False)
    yield Expected(build, "ssmmessages:CreateControlChannel", "*", False)
    yield Expected(build, "codebuild:StartBuild", project, False, ordinary)
    yield Expected(build, "sts:AssumeRole", f"arn:{partition}:iam::{account}:role/any", False)


def _both(stack: Stack, what: str, user: str, role: str, sibling: str) -> list[Principal]:
    """Return the user and the role that a stack has for one task; `sibling` is the ARN of another of its roles."""
    found = []
    if name := stack.outputs.get(user):
        found.append(Principal(f"{what} user", f"arn:{_partition(sibling)}:iam::{_account(sibling)}:user/{name}"))
    if arn := stack.outputs.get(role):
        found.append(Principal(f"{what} role", arn))
    return found


def _started(image: str, destination: str) -> dict[str, str | tuple[str, ...]]:
    """Return the condition values of a StartBuild with the two variables that a copy needs."""
    return {
        _VARIABLES: ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE"),
        _VALUE.format("DOCKER_IMAGE"): image,
        _VALUE.format("NEW_DOCKER_IMAGE"): destination,
    }


def _token(audience: str = AUDIENCE, seconds: int = 300, algorithm: str = "ES384") -> Values:
    return {
        "sts:IdentityTokenAudience": (audience,),
        "sts:DurationSeconds": str(seconds),
        "sts:SigningAlgorithm": algorithm,
    }


def _tokens(principal: Principal, *, allowed: bool) -> Iterator[Expected]:
    yield Expected(principal, "sts:GetWebIdentityToken", "*", allowed, _token())
    for other in (_token(audience="sts.amazonaws.com"), _token(seconds=3600), _token(algorithm="RS256")):
        yield Expected(principal, "sts:GetWebIdentityToken", "*", False, other)


def _partition(arn: str) -> str:
    return arn.split(":")[1]


def _account(arn: str) -> str:
    return arn.split(":")[4]


def judge(principal: str, answers: Iterable[tuple[Expected, str]]) -> Result:
    """Compare the decisions of IAM (EvalDecision) about one principal's requests with what is intended."""
    given = list(answers)
    wrong = [
        f"{each} must be {'allowed' if each.allowed else 'denied'}: IAM says {decision}"
        for each, decision in given
        if (decision == "allowed") is not each.allowed
    ]
    allowed = sum(each.allowed for each, _ in given)
    if not wrong:
        found = f"{principal}: IAM allows {allowed} requests and denies {len(given) - allowed}, as intended"
        return Result(PERMISSIONS, State.OK, found)
    more = f"; and {len(wrong) - _MOST_SHOWN} more" if len(wrong) > _MOST_SHOWN else ""
    remedy = (
        "if somebody has changed the policy, deploy the stack again; else look for a permissions boundary or a policy "
        "of the organization"
    )
    return Result(PERMISSIONS, State.FAILED, f"{principal}: {'; '.join(wrong[:_MOST_SHOWN])}{more}", remedy)


def check(china: Stack, world: Stack, expected: Sequence[Expected]) -> list[Result]:
    """Ask IAM about all requests. An account in which that is not permitted is skipped, with the reason."""
    results: list[Result] = []
    by_principal: dict[Principal, list[Expected]] = {}
    for each in expected:
        by_principal.setdefault(each.principal, []).append(each)
    with bar("Asking IAM", len(by_principal)) as advance:
        for stack in (china, world):
            refused: Result | None = None
            for principal, asked in by_principal.items():
                if principal.arn.startswith("arn:aws-cn:") is not (stack is china):
                    continue
                refused = refused or _asked(stack, principal, asked, results)
                advance(1)
            results += [refused] if refused else []
    if "WebhookRoleArn" not in china.outputs:
        found = "webhook role: the stack has no output WebhookRoleArn, because it is of an older release"
        results.append(Result(PERMISSIONS, State.SKIPPED, found, "deploy China's stack again"))
    return results


def _asked(stack: Stack, principal: Principal, asked: Sequence[Expected], results: list[Result]) -> Result | None:
    """Add the result about one principal to `results`; return a result if the account does not answer."""
    try:
        results.append(judge(principal.name, list(_simulated(stack.account.client("iam"), asked))))
    except no_answer_errors() as error:
        if isinstance(error, ClientError) and is_denied(error.response["Error"]):
            named = ACTION.search(error.response["Error"].get("Message", ""))
            action = named[1] if named else f"iam:{error.operation_name}"
            found = f"{stack.account}: not permitted ({action}), so its roles and users were not checked"
            return Result(PERMISSIONS, State.SKIPPED, found, f"ask for the permission {action}")
        return Result(PERMISSIONS, State.FAILED, f"{stack.account}: {why_no_answer(error)}")
    return None


def _simulated(iam: Any, asked: Sequence[Expected]) -> Iterator[tuple[Expected, str]]:
    """Yield the decision about each request; those with the same resource and context are one call."""
    calls: dict[str, list[Expected]] = {}
    for each in asked:
        calls.setdefault(f"{each.resource} {sorted(each.context.items())}", []).append(each)
    for some in calls.values():
        answer = iam.simulate_principal_policy(
            PolicySourceArn=some[0].principal.arn,
            ActionNames=[each.action for each in some],
            ResourceArns=[some[0].resource],
            ContextEntries=[_entry(key, value) for key, value in some[0].context.items()],
        )
        decisions = {each["EvalActionName"].lower(): each["EvalDecision"] for each in answer["EvaluationResults"]}
        yield from ((each, decisions.get(each.action.lower(), "nothing")) for each in some)


def _entry(key: str, value: str | tuple[str, ...]) -> dict[str, Any]:
    kind = "numeric" if key in _NUMERIC else "string"
    if isinstance(value, str):
        return {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": kind}
    return {"ContextKeyName": key, "ContextKeyValues": list(value), "ContextKeyType": f"{kind}List"}
