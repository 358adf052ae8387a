"""The calls to AWS that doctor makes: each returns what a judgement needs, None for what does not exist.

They raise what botocore raises.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from botocore.exceptions import ClientError

from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.project import QUOTA_CODE
from image_mirror.cli.doctor.table import DUE_WITHIN, MOST_DUE
from image_mirror.review import Json
from image_mirror.table import Records

T = TypeVar("T")

_ABSENT = frozenset(
    (
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchEntity",
        "NoSuchResourceException",
        "ResourceNotFoundException",
    )
)
_HOUR, _RECENTLY = timedelta(hours=1), timedelta(minutes=15)
_PERIOD = timedelta(minutes=5)
_SUMS = ("Invocations", "Errors", "Throttles")


def resources(account: Account, stack: str) -> Mapping[str, str]:
    """Return the names (physical IDs) of a stack's resources by their logical IDs."""
    pages = account.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    found = (each for page in pages for each in page["StackResourceSummaries"])
    return {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in found}


def described_table(account: Account, name: str) -> Json | None:
    """Return what DescribeTable says."""
    return or_none(lambda: account.client("dynamodb").describe_table(TableName=name)["Table"])


def due_next(account: Account, name: str, now: int) -> Sequence[tuple[str, str, int]]:
    """Return the records that are due next (repo, tag, due_at), the oldest first: one page of the index."""
    return list(islice(Records(account.client("dynamodb"), name).due(now + DUE_WITHIN), MOST_DUE))


def statuses(account: Account, name: str, keys: Iterable[tuple[str, str]]) -> Counter[str]:
    """Count records by their state."""
    wanted = [{"repo": {"S": repo}, "tag": {"S": tag}} for repo, tag in keys]
    if not wanted:
        return Counter()
    request = {"Keys": wanted, "ProjectionExpression": "#status", "ExpressionAttributeNames": {"#status": "status"}}
    answer = account.client("dynamodb").batch_get_item(RequestItems={name: request})
    return Counter(each.get("status", {}).get("S", "without a state") for each in answer["Responses"].get(name, ()))


def function(account: Account, name: str) -> Json | None:
    """Return what GetFunction says."""
    return or_none(lambda: account.client("lambda").get_function(FunctionName=name))


def function_policy(account: Account, name: str) -> Json:
    """Return who may call a function, as a policy; {} where nobody may."""
    answer = or_none(lambda: account.client("lambda").get_policy(FunctionName=name))
    return json.loads(answer["Policy"]) if answer else {}


def mappings(account: Account, name: str) -> Sequence[Json]:
    """Return a function's event source mappings."""
    answer = or_none(lambda: account.client("lambda").list_event_source_mappings(FunctionName=name))
    return answer["EventSourceMappings"] if answer else []


def rule(account: Account, name: str) -> tuple[Json | None, Sequence[Json]]:
    """Return what DescribeRule says of an EventBridge rule, and its targets."""
    events = account.client("events")
    found = or_none(lambda: events.describe_rule(Name=name))
    return found, events.list_targets_by_rule(Rule=name)["Targets"] if found else []


def metrics(account: Account, functions: Sequence[str], now: datetime) -> Mapping[tuple[str, str], Sequence[float]]:
    """Return by function and metric: the sums of the last hour, and IteratorAge's largest values of 15 minutes."""
    wanted = [(name, metric) for name in functions for metric in (*_SUMS, "IteratorAge")]
    answer = account.client("cloudwatch").get_metric_data(
        StartTime=now - _HOUR,
        EndTime=now,
        MetricDataQueries=[
            {
                "Id": f"m{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/Lambda",
                        "MetricName": metric,
                        "Dimensions": [{"Name": "FunctionName", "Value": name}],
                    },
                    "Period": int(_PERIOD.total_seconds()),
                    "Stat": "Sum" if metric in _SUMS else "Maximum",
                },
            }
            for number, (name, metric) in enumerate(wanted)
        ],
    )
    found: dict[tuple[str, str], Sequence[float]] = {}
    for result in answer["MetricDataResults"]:
        name, metric = wanted[int(result["Id"].removeprefix("m"))]
        since = now - (_HOUR if metric in _SUMS else _RECENTLY) - _PERIOD
        points = zip(result["Timestamps"], result["Values"], strict=True)
        found[name, metric] = [value for timestamp, value in points if timestamp >= since]
    return found


def account_settings(account: Account) -> Json:
    """Return what Lambda says of the account's limits."""
    found: Json = account.client("lambda").get_account_settings()
    return found


def letters(account: Account, queue: str) -> Json | None:
    """Return a queue's attributes."""
    names = ["ApproximateNumberOfMessages"]
    sqs = account.client("sqs")
    return or_none(lambda: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"])


def simulated(account: Account, principal: str, actions: Sequence[str], resource: str) -> Sequence[Json]:
    """Return what IAM's simulator says of each action of a role or a user (by its ARN) on `resource`."""
    answer = account.client("iam").simulate_principal_policy(
        PolicySourceArn=principal, ActionNames=list(actions), ResourceArns=[resource]
    )
    found: Sequence[Json] = answer["EvaluationResults"]
    return found


def project(account: Account, name: str) -> Json | None:
    """Return what BatchGetProjects says of one project."""
    found = account.client("codebuild").batch_get_projects(names=[name])["projects"]
    return found[0] if found else None


def latest_builds(account: Account, name: str) -> Sequence[Json] | None:
    """Return the latest builds of a project, at most a hundred: one page, and as many as BatchGetBuilds takes."""
    client = account.client("codebuild")
    # The latest come first; with more than 100 builds, asking for that order is an error.
    ids = or_none(lambda: client.list_builds_for_project(projectName=name)["ids"])
    if not ids:
        return ids
    found: Sequence[Json] = client.batch_get_builds(ids=ids)["builds"]
    return found


def build_quota(account: Account) -> float | None:
    """Return how many small Linux builds the account may run at once."""
    client = account.client("service-quotas")
    return or_none(lambda: client.get_service_quota(ServiceCode="codebuild", QuotaCode=QUOTA_CODE)["Quota"]["Value"])


def or_none(call: Callable[[], T]) -> T | None:
    """Return what `call` returns, or None where AWS says that what it is about does not exist."""
    try:
        return call()
    except ClientError as error:
        if error.response["Error"]["Code"] in _ABSENT:
            return None
        raise
