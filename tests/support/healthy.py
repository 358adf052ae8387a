"""The answers of AWS and the webhook to doctor in a healthy installation; each test changes one of them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.accounts import SharedAccount
from image_mirror.cli.doctor.keys import Absent
from image_mirror.cli.doctor.triggers import RATE, STREAM_FILTER, ecr_pattern
from image_mirror.cli.stacks import Stack
from image_mirror.review import Json
from image_mirror.slots import State
from image_mirror.state_item import state_item
from support.lifecycle_policies import RELEASED
from support.operators import (
    AUTH_SECRET,
    CHINA_OUTPUTS,
    FAST_PROJECT,
    GLOBAL_OUTPUTS,
    PULL_USER,
    PUSH_USER,
    TOKEN,
    Reply,
)
from support.templates import carry_out, load_template, parameters_of

ACCOUNT = "123456789012"
API, RECONCILER = "image-mirror-ApiFunction-1A2B3C", "image-mirror-ReconcilerFunction-1A2B3C"
SCHEDULE, HINTS = "image-mirror-ReconcilerFunctionEveryMinute-1A2B3C", "image-mirror-ReconcilerFunctionEcrHints-1A2B3C"
_LAMBDA = f"arn:aws-cn:lambda:cn-northwest-1:{ACCOUNT}:function:"
_RULE = f"arn:aws-cn:events:cn-northwest-1:{ACCOUNT}:rule/"
_ROLE = f"arn:aws-cn:iam::{ACCOUNT}:role/image-mirror-"
_STREAM = f"arn:aws-cn:dynamodb:cn-northwest-1:{ACCOUNT}:table/ImageListTable/stream/2026-11-24T19:25:00.000"
_POLICY = json.dumps({"rules": []})
_NOT_FOUND = {"Error": {"Code": "ResourceNotFoundException", "Message": "It is not there."}}


def _functions() -> dict[str, Json | None]:
    return {
        name: {
            "Configuration": {
                "FunctionName": name,
                "FunctionArn": _LAMBDA + name,
                "Role": f"{_ROLE}{role}-1A2B3C",
                "State": "Active",
                "LastUpdateStatus": "Successful",
            }
        }
        for name, role in ((API, "WebhookRole"), (RECONCILER, "ReconcilerRole"))
    }


def _mapping() -> Json:
    return {
        "UUID": "e1b2c3d4-0000-4000-8000-000000000000",
        "EventSourceArn": _STREAM,
        "FunctionArn": _LAMBDA + RECONCILER,
        "State": "Enabled",
        "LastProcessingResult": "OK",
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps(STREAM_FILTER)}]},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }


def _rules() -> dict[str, Json]:
    triggers = ((SCHEDULE, {"ScheduleExpression": RATE}), (HINTS, {"EventPattern": json.dumps(ecr_pattern("mirror"))}))
    return {name: {"Name": name, "Arn": _RULE + name, "State": "ENABLED", **trigger} for name, trigger in triggers}


def _policy() -> Json:
    return {
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "lambda:InvokeFunction",
                "Resource": _LAMBDA + RECONCILER,
                "Condition": {"ArnLike": {"AWS:SourceArn": _RULE + rule}},
            }
            for rule in (SCHEDULE, HINTS)
        ]
    }


def _table() -> Json:
    properties = load_template("sam-template.yaml")["Resources"]["ImageListTable"]["Properties"]
    [index] = properties["GlobalSecondaryIndexes"]
    return {
        "TableStatus": "ACTIVE",
        "KeySchema": properties["KeySchema"],
        "GlobalSecondaryIndexes": [{**index, "IndexStatus": "ACTIVE"}],
        "StreamSpecification": {"StreamEnabled": True, **properties["StreamSpecification"]},
        "LatestStreamArn": _STREAM,
    }


def _project(logical_id: str) -> Json:
    template = load_template("image-pulling.yaml")
    properties = template["Resources"][logical_id]["Properties"]
    values = parameters_of(template, ChinaAccountId=ACCOUNT)
    settings = carry_out(properties, template, values, lambda name, _: f"arn:aws:x:::{name}")
    return {"environment": _lower(settings["Environment"]), "source": {"buildspec": settings["Source"]["BuildSpec"]}}


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: _lower(each) for name, each in value.items()}
    return [_lower(each) for each in value] if isinstance(value, list) else value


def _stack(side: str, name: str, template: str, outputs: dict[str, str], **parameters: str) -> Stack:
    given = parameters_of(load_template(template), **parameters)
    return Stack(Account(side, side), name, "UPDATE_COMPLETE", dict(outputs), given)


@dataclass
class Answers:
    """All answers. `keys` is by user, `metrics` by function and metric; `denied` has the actions that IAM denies.

    `key_errors` is by the account that a key is for: a code and a message.
    """

    china: Stack = field(
        default_factory=lambda: _stack(
            *("china", "image-mirror", "sam-template.yaml", CHINA_OUTPUTS),
            WebhookToken=TOKEN,
            GlobalFastProjectName=FAST_PROJECT,
        )
    )
    global_side: Stack = field(
        default_factory=lambda: _stack(
            *("global", "image-pulling", "image-pulling.yaml", GLOBAL_OUTPUTS | {"FastProjectName": FAST_PROJECT}),
            ChinaAccountId=ACCOUNT,
            RegistryAuthSecretArn=AUTH_SECRET,
        )
    )
    resources: dict[str, str] = field(
        default_factory=lambda: {
            "ApiFunction": API,
            "ReconcilerFunction": RECONCILER,
            "ReconcilerFunctionEveryMinute": SCHEDULE,
            "ReconcilerFunctionEcrHints": HINTS,
        }
    )
    secrets: dict[str, str | Absent] = field(
        default_factory=lambda: {
            "GlobalAKSK": json.dumps(
                {"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": "AKIAGLOBALEXAMPLE001", "G_SECRET_KEY": "global/secret"}
            ),
            GLOBAL_OUTPUTS["ImagePullSecretArn"]: json.dumps(
                {"Region": "cn-northwest-1", "AccessKey": "AKIACHINAEXAMPLE0001", "AccessSecretKey": "china/secret"}
            ),
            AUTH_SECRET: json.dumps({"auths": {"ghcr.io": {"username": "robot", "password": "logins/secret"}}}),
        }
    )
    keys: dict[str, list[Json] | None] = field(
        default_factory=lambda: {PULL_USER: [key("AKIAGLOBALEXAMPLE001")], PUSH_USER: [key("AKIACHINAEXAMPLE0001")]}
    )
    repositories: dict[str, str | None] = field(
        default_factory=lambda: {
            "mirror/docker.io/library/nginx": None,
            "mirror/gcr.io/of/older/release": RELEASED,
            "mirrors/not/ours": _POLICY,
            "team/app": _POLICY,
        }
    )
    """Each repository in China with its lifecycle policy."""
    used: Json = field(default_factory=lambda: {"LastUsedDate": datetime.now(UTC), "ServiceName": "codebuild"})
    key_errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    project: Json | None = field(default_factory=lambda: _project("CodeBuildProject"))
    fast_project: Json | None = field(default_factory=lambda: _project("FastCodeBuildProject"))
    builds: list[Json] = field(default_factory=list)
    quota: float | None = 20
    fast_quota: float | None = 1
    table: Json | None = field(default_factory=_table)
    due: list[tuple[str, str, int]] = field(default_factory=list)
    state: State | None = field(default_factory=lambda: State(at=0))
    statuses: Counter[str] = field(default_factory=Counter)
    functions: dict[str, Json | None] = field(default_factory=_functions)
    policy: Json = field(default_factory=_policy)
    mappings: list[Json] = field(default_factory=lambda: [_mapping()])
    rules: dict[str, Json] = field(default_factory=_rules)
    targets: list[Json] = field(default_factory=lambda: [{"Id": "target", "Arn": _LAMBDA + RECONCILER}])
    metrics: dict[tuple[str, str], list[float]] = field(
        default_factory=lambda: {(API, "Invocations"): [12.0], (RECONCILER, "Invocations"): [5.0, 5.0]}
    )
    concurrency: int = 1000
    letters: int | None = 0
    denied: set[str] = field(default_factory=set)

    def set(self, **values: Any) -> None:
        """Set fields."""
        for name, value in values.items():
            setattr(self, name, value)

    def change_china(self, **values: Any) -> None:
        """Change China's stack: its status, outputs or single parameters."""
        self.china = _changed(self.china, values)

    def change_global(self, **values: Any) -> None:
        """Change the global stack in the same way."""
        self.global_side = _changed(self.global_side, values)

    def give(self, secret: str, **entries: str) -> None:
        """Change entries of a secret."""
        text = self.secrets[secret]
        assert isinstance(text, str)
        self.secrets[secret] = json.dumps(json.loads(text) | entries)

    def settings(self) -> Json:
        """Return Lambda's GetAccountSettings."""
        return {
            "AccountLimit": dict.fromkeys(("ConcurrentExecutions", "UnreservedConcurrentExecutions"), self.concurrency)
        }

    def queue(self) -> Json | None:
        """Return the attributes of the dead-letter queue."""
        return None if self.letters is None else {"ApproximateNumberOfMessages": str(self.letters)}

    def simulated(self, actions: list[str]) -> list[Json]:
        """Return IAM's EvaluationResults."""
        decisions = {each: "implicitDeny" if each in self.denied else "allowed" for each in actions}
        return [{"EvalActionName": action, "EvalDecision": decision} for action, decision in decisions.items()]

    def account(self, side: str) -> SharedAccount:
        """Return an account, china or global, whose calls get these answers without any network."""
        return _Account(side, side, answers=self)

    def call(self, side: str, operation: str, asked: Json, key: AccessKey | None) -> Json:
        """Answer a call of botocore, signed with `key` where one is given. Raises ClientError."""
        if key:
            if side in self.key_errors:
                raise _error(operation, *self.key_errors[side])
            return {}
        found = self._called(side, operation, asked)
        if found is None:
            raise _error(operation, *_ABSENT.get(operation, ("ResourceNotFoundException", "It is not there.")))
        return found

    def _called(self, side: str, operation: str, asked: Json) -> Json | None:
        """Answer a call; None means that the resource does not exist."""
        match operation:
            case "describe_stacks":
                return _described(self.china if side == "china" else self.global_side, asked["StackName"])
            case "list_stack_resources":
                return {"StackResourceSummaries": self._summaries()}
            case "describe_table":
                return self.table and {"Table": self.table}
            case "query":
                return {
                    "Items": [
                        {"repo": {"S": repo}, "tag": {"S": tag}, "due_at": {"N": str(due_at)}}
                        for repo, tag, due_at in self.due
                    ]
                }
            case "batch_get_item":
                [name] = asked["RequestItems"]
                states = zip(asked["RequestItems"][name]["Keys"], self.statuses.elements(), strict=False)
                return {"Responses": {name: [{**key, "status": {"S": state}} for key, state in states]}}
            case "get_item":
                return {"Item": state_item(self.state)} if self.state else {}
            case "get_function":
                return self.functions[asked["FunctionName"]]
            case "get_policy":
                return {"Policy": json.dumps(self.policy)}
            case "list_event_source_mappings":
                return {"EventSourceMappings": self.mappings}
            case "get_account_settings":
                return self.settings()
            case "describe_rule":
                return self.rules.get(asked["Name"])
            case "list_targets_by_rule":
                return {"Targets": self.targets}
            case "get_metric_data":
                metrics = [each["MetricStat"]["Metric"] for each in asked["MetricDataQueries"]]
                named = [(each["Dimensions"][0]["Value"], each["MetricName"]) for each in metrics]
                return {"MetricDataResults": list(self._results(named))}
            case "get_queue_attributes":
                attributes = self.queue()
                return attributes and {"Attributes": attributes}
            case "simulate_principal_policy":
                [resource] = asked["ResourceArns"]
                return self._evaluated(asked["ActionNames"], resource)
            case "get_secret_value":
                text = self.secrets[asked["SecretId"]]
                if text is Absent.MARKED:
                    raise _error(operation, "InvalidRequestException", "It was marked for deletion.")
                return None if text is Absent.GONE else {"SecretString": text}
            case "list_access_keys":
                keys = self.keys[asked["UserName"]]
                return None if keys is None else {"AccessKeyMetadata": keys}
            case "get_access_key_last_used":
                return {"AccessKeyLastUsed": self.used}
            case "batch_get_projects":
                return self._projects(asked)
            case "list_builds_for_project":
                return self._list_builds(asked) if self.project else None
            case "batch_get_builds":
                return self._get_builds(asked)
            case "describe_repositories":
                return {"repositories": [{"repositoryName": name} for name in self.repositories]}
            case "get_lifecycle_policy":
                policy = self.repositories[asked["repositoryName"]]
                return None if policy is None else {"lifecyclePolicyText": policy}
            case "get_service_quota":
                value = self._quota(asked)
                return None if value is None else {"Quota": {"Value": value}}
        raise AssertionError(f"{operation} is not answered")

    def replies(self) -> Iterator[tuple[str, str, Reply]]:
        """Yield the operations that moto lacks: service, operation, and a function from parameters to the answer."""
        both = [(name, metric) for name in (API, RECONCILER) for metric in _METRICS]
        yield "cloudformation", "ListStackResources", lambda _: {"StackResourceSummaries": self._summaries()}
        yield "lambda", "GetFunction", lambda asked: self.functions.get(asked["path"].rpartition("/")[2]) or _NOT_FOUND
        yield "lambda", "GetPolicy", lambda _: {"Policy": json.dumps(self.policy)}
        yield "lambda", "ListEventSourceMappings", lambda _: {"EventSourceMappings": self.mappings}
        yield "lambda", "GetAccountSettings", lambda _: self.settings()
        yield "events", "DescribeRule", lambda asked: self.rules.get(asked["Name"], _NOT_FOUND)
        yield "events", "ListTargetsByRule", lambda _: {"Targets": self.targets}
        yield "cloudwatch", "GetMetricData", lambda _: {"MetricDataResults": list(self._results(both))}
        yield "sqs", "GetQueueAttributes", lambda _: {"Attributes": self.queue()}
        yield "service-quotas", "GetServiceQuota", lambda asked: {"Quota": {"Value": self._quota(asked)}}
        yield "iam", "SimulatePrincipalPolicy", self._simulate
        yield "codebuild", "BatchGetProjects", self._projects
        yield "codebuild", "ListBuildsForProject", self._list_builds
        yield "codebuild", "BatchGetBuilds", self._get_builds

    def _projects(self, asked: Json) -> Json:
        projects = {GLOBAL_OUTPUTS["ProjectName"]: self.project, FAST_PROJECT: self.fast_project}
        return {"projects": [found for name in asked["names"] if (found := projects[name])]}

    def _quota(self, asked: Json) -> float | None:
        return {"L-9D07B6EF": self.quota, "L-1DFDD5F9": self.fast_quota}[asked["QuotaCode"]]

    def _summaries(self) -> list[Json]:
        names = ("LogicalResourceId", "PhysicalResourceId")
        return [dict(zip(names, each, strict=True)) for each in self.resources.items()]

    def _results(self, asked: list[tuple[str, str]]) -> Iterator[Json]:
        for number, each in enumerate(asked):
            values = self.metrics.get(each, [])
            times = [datetime.now(UTC) - timedelta(minutes=5)] * len(values)
            yield {"Id": f"m{number}", "Timestamps": times, "Values": values, "StatusCode": "Complete"}

    def _list_builds(self, asked: Json) -> Json:
        """Return the first page. Like CodeBuild, refuse sorting if there are more builds than fit on one page."""
        ids = [each["id"] for each in self.builds]
        if "sortOrder" in asked and len(ids) > _PAGE:
            return {"Error": {"Code": "InvalidInputException", "Message": "Too many builds to sort."}}
        if self.project is None:
            return _NOT_FOUND
        return {"ids": ids[:_PAGE], **({"nextToken": "more"} if len(ids) > _PAGE else {})}

    def _get_builds(self, asked: Json) -> Json:
        assert len(asked["ids"]) <= _PAGE
        return {"builds": [each for each in self.builds if each["id"] in asked["ids"]]}

    def _simulate(self, asked: Json) -> Json:
        actions = [value for name, value in asked.items() if name.startswith("ActionNames.member.")]
        return self._evaluated(actions, asked["ResourceArns.member.1"])

    def _evaluated(self, actions: list[str], resource: str) -> Json:
        assert resource.endswith(f"{ACCOUNT}:repository/mirror/image-mirror-doctor")
        return {"EvaluationResults": self.simulated(actions)}


@dataclass(frozen=True)
class _Account(SharedAccount):
    answers: Answers = field(default_factory=Answers)

    def client(self, service: str, key: AccessKey | None = None) -> Any:  # noqa: ARG002 - the real one takes it
        return _Client(self, key)


@dataclass(frozen=True)
class _Client:
    """A client of any service: the operations that doctor calls have different names in each."""

    account: _Account
    key: AccessKey | None

    def __getattr__(self, operation: str) -> Callable[..., Json]:
        return lambda **asked: self.account.answers.call(self.account.side, operation, asked, self.key)

    def get_paginator(self, operation: str) -> Any:
        return _Paginator(getattr(self, operation))


@dataclass(frozen=True)
class _Paginator:
    call: Callable[..., Json]

    def paginate(self, **asked: Any) -> list[Json]:
        return [self.call(**asked)]


def _error(operation: str, code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


# AWS's errors for missing resources, for operations whose error is not ResourceNotFoundException.
_ABSENT = {
    "get_lifecycle_policy": ("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist."),
    "get_queue_attributes": ("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."),
    "get_service_quota": (
        "NoSuchResourceException",
        "The quota does not exist.",
    ),
    "list_access_keys": ("NoSuchEntity", "The user cannot be found."),
    "get_secret_value": ("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
}


def _described(stack: Stack, name: str) -> Json:
    assert name == stack.name

    def listed(kind: str, values: dict[str, str]) -> list[Json]:
        return [{f"{kind}Key": key, f"{kind}Value": value} for key, value in values.items()]

    outputs, parameters = listed("Output", dict(stack.outputs)), listed("Parameter", dict(stack.parameters))
    return {"Stacks": [{"StackStatus": stack.status, "Outputs": outputs, "Parameters": parameters}]}


_PAGE = 100  # builds
_METRICS = ("Invocations", "Errors", "Throttles", "IteratorAge")


def key(key_id: str, *, days: int = 3, status: str = "Active") -> Json:
    """Return what ListAccessKeys says of a key."""
    return {"AccessKeyId": key_id, "Status": status, "CreateDate": datetime.now(UTC) - timedelta(days=days, hours=1)}


def _changed(stack: Stack, values: dict[str, Any]) -> Stack:
    fields = {name: values.pop(name) for name in ("status", "outputs") if name in values}
    return replace(stack, **fields, parameters={**stack.parameters, **values})
