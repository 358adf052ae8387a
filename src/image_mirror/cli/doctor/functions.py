"""The two functions: their state, runs, permissions in ECR, and the account's concurrency."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial

from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, fail, fetch, fine, unless, warn
from image_mirror.cli.doctor.stacks import china_stack, resource_name, resources
from image_mirror.cli.remedies import RESTORE, aws_of, log_of
from image_mirror.cli.stacks import Stack
from image_mirror.review import Json

WEBHOOK, RECONCILER = "webhook function", "reconciler function"
ROOM, PERMISSIONS = "Lambda concurrency", "ECR permissions"

PUSHING = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
"""The permissions that the push user needs in a repository."""

_API_ID, _RECONCILER_ID = "ApiFunction", "ReconcilerFunction"  # logical IDs in China's template
_NEW_ACCOUNT = 10  # concurrent executions; others have 1,000
_HOUR, _RECENTLY = timedelta(hours=1), timedelta(minutes=15)
_PERIOD = timedelta(minutes=5)
_SUMS = ("Invocations", "Errors", "Throttles")
_AGE = "IteratorAge"


def _function(context: Context, logical_id: str) -> Json | None:
    """Return what GetFunction says, None if there is no such function."""
    name = resource_name(context, logical_id)
    return or_none(lambda: context.china_account.client("lambda").get_function(FunctionName=name))


webhook_function = Fetch(WEBHOOK, lambda context: _function(context, _API_ID))
reconciler_function = Fetch(RECONCILER, lambda context: _function(context, _RECONCILER_ID))


def reconciler_name(context: Context) -> str:
    """Wait for the reconciler's name. Raises UnansweredError, NoAnswerError."""
    return resource_name(context, _RECONCILER_ID)


def judge_function(topic: str, function: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge a function by what GetFunction says."""
    if function is None:
        return [fail(topic, "it does not exist", RESTORE)]
    made = function["Configuration"]
    name = made["FunctionName"]
    state, update = made.get("State", "Active"), made.get("LastUpdateStatus", "Successful")
    reserved = function.get("Concurrency", {}).get("ReservedConcurrentExecutions")

    def faults() -> Iterator[CheckResult]:
        if state not in ("Active", "Inactive"):  # Lambda starts an inactive one when it is called
            why = made.get("StateReason", "no reason is given")
            (judged, then) = (warn, "wait, then run this again") if state == "Pending" else (fail, RESTORE)
            yield judged(topic, f"{name} is {state}: {why}", then)
        if update not in ("Successful", "InProgress"):
            why = made.get("LastUpdateStatusReason", "no reason is given")
            yield fail(topic, f"the last update of {name}: {update}: {why}", RESTORE)
        if reserved == 0:
            lift = aws_of(china.account)("lambda", "delete-function-concurrency", "--function-name", name)
            yield fail(topic, f"{name} is stopped: its reserved concurrency is 0", lift)

    kept = "" if reserved is None else f", {reserved} executions reserved for it"
    return unless(faults(), fine(topic, f"{name} is {state}{kept}"))


@fetch(None)
def metrics(context: Context) -> Mapping[tuple[str, str], Sequence[float]]:
    """Return by function and metric: the sums of the last hour, and the largest IteratorAge of the last 15 minutes."""
    # Only of functions that exist: a missing one must not hide the metrics of the other.
    names = [name for each in (_API_ID, _RECONCILER_ID) if (name := context.answer(resources).get(each))]
    if not names:
        return {}
    wanted = [(name, metric) for name in names for metric in (*_SUMS, _AGE)]
    answer = context.china_account.client("cloudwatch").get_metric_data(
        StartTime=context.now - _HOUR,
        EndTime=context.now,
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
        since = context.now - (_HOUR if metric in _SUMS else _RECENTLY) - _PERIOD
        points = zip(result["Timestamps"], result["Values"], strict=True)
        found[name, metric] = [value for timestamp, value in points if timestamp >= since]
    return found


def _runs(context: Context, logical_id: str) -> Mapping[str, float]:
    """Return the sums of a function's metrics over the last hour."""
    found = context.answer(metrics)
    name = resource_name(context, logical_id)
    return {metric: sum(found.get((name, metric), ())) for metric in _SUMS}


webhook_runs = Fetch(None, lambda context: _runs(context, _API_ID))
reconciler_runs = Fetch(None, lambda context: _runs(context, _RECONCILER_ID))


@fetch(None)
def stream_ages(context: Context) -> Sequence[float]:
    """Return the ages, in milliseconds, of the stream's records when the reconciler read them.

    One value for each period of the last 15 minutes.
    """
    found = context.answer(metrics)
    return found.get((reconciler_name(context), _AGE), ())


def judge_runs(topic: str, log_output: str, sums: Mapping[str, float], china: Stack) -> Sequence[CheckResult]:
    """Judge a function by CloudWatch's sums of the last hour; the output `log_output` names its log group."""
    log = log_of(china, log_output)
    runs, errors, throttles = (int(sums.get(name, 0)) for name in _SUMS)

    def faults() -> Iterator[CheckResult]:
        if errors:
            yield warn(topic, f"{errors} of {runs} runs in the last hour ended in an error", f"see its log: {log}")
        if throttles:
            yield warn(
                topic,
                f"Lambda throttled {throttles} runs in the last hour",
                "remove its reserved concurrency, if any; else request more under Service Quotas (Lambda, Concurrent "
                "executions)",
            )
        if topic == RECONCILER and not runs:
            yield warn(
                topic,
                "it did not run in the last hour, though the schedule calls it each minute",
                "see the result about the schedule; after a first deployment, wait five minutes",
            )

    return unless(faults(), fine(topic, f"{runs} runs in the last hour, none ended in an error"))


@fetch(ROOM)
def account_settings(context: Context) -> Json:
    """Return what Lambda says of the account's limits."""
    found: Json = context.china_account.client("lambda").get_account_settings()
    return found


def judge_room(settings: Json) -> Sequence[CheckResult]:
    """Judge what GetAccountSettings says of the account's limit."""
    limit = settings["AccountLimit"]
    total, free = limit["ConcurrentExecutions"], limit.get("UnreservedConcurrentExecutions", 0)
    if total <= _NEW_ACCOUNT:
        return [
            warn(
                ROOM,
                f"this account runs {total} functions at once: a rollout of hundreds of pods needs more",
                "request 1,000 under Service Quotas (Lambda, Concurrent executions), or from AWS China's support",
            )
        ]
    return [fine(ROOM, f"{total} functions at once, {free} of them not reserved")]


def creating(expire_days: str, pull_accounts: str) -> tuple[str, ...]:
    """Return the permissions that the reconciler's role needs in a repository, by two parameters of China's stack."""
    return (
        *("ecr:CreateRepository", "ecr:TagResource", "ecr:DescribeImages"),
        *("ecr:GetLifecyclePolicy", "ecr:DeleteLifecyclePolicy"),
        *(("ecr:BatchDeleteImage",) if expire_days != "0" else ()),
        *(("ecr:SetRepositoryPolicy",) if pull_accounts else ()),
    )


@fetch(PERMISSIONS)
def simulated(context: Context) -> Mapping[str, Sequence[Json]]:
    """Return what IAM's simulator says about each action that the push user and the reconciler's role need."""
    stack = context.answer(china_stack)
    registry, _, prefix = stack.output("CopiesPrefix").partition("/")
    number = registry.partition(".")[0]
    below = f"arn:aws-cn:ecr:{stack.account.region}:{number}:repository/{prefix}image-mirror-doctor"
    actions = creating(stack.parameter("ExpireDays"), stack.parameter("PullAccounts"))
    user = stack.output("ImagePushUserName")
    asked: dict[str, tuple[str, Sequence[str]]] = {user: (f"arn:aws-cn:iam::{number}:user/{user}", PUSHING)}
    if found := context.answer(reconciler_function):
        asked["the reconciler's role"] = (found["Configuration"]["Role"], actions)

    def simulate(principal: str, actions: Sequence[str]) -> Sequence[Json]:
        answer = stack.account.client("iam").simulate_principal_policy(
            PolicySourceArn=principal, ActionNames=list(actions), ResourceArns=[below]
        )
        results: Sequence[Json] = answer["EvaluationResults"]
        return results

    return {who: simulate(*what) for who, what in asked.items()}


def judge_permissions(results: Mapping[str, Sequence[Json]]) -> Sequence[CheckResult]:
    """Judge what SimulatePrincipalPolicy says about the push user and the reconciler's role, given by their names."""
    denied = [
        fail(
            PERMISSIONS,
            f"{who} may not {result['EvalActionName']} ({result['EvalDecision']})",
            f"{RESTORE}; if neither helps, a permissions boundary or an organisation's policy denies it",
        )
        for who, evaluated in results.items()
        for result in evaluated
        if result["EvalDecision"] != "allowed"
    ]
    count = sum(map(len, results.values()))
    return unless(denied, fine(PERMISSIONS, f"IAM allows the {count} actions that {' and '.join(results)} need"))


CHECKS = (
    Check(WEBHOOK, partial(judge_function, WEBHOOK), (webhook_function, china_stack)),
    Check(WEBHOOK, partial(judge_runs, WEBHOOK, "WebhookLogGroup"), (webhook_runs, china_stack)),
    Check(RECONCILER, partial(judge_function, RECONCILER), (reconciler_function, china_stack)),
    Check(RECONCILER, partial(judge_runs, RECONCILER, "ReconcilerLogGroup"), (reconciler_runs, china_stack)),
    Check(ROOM, judge_room, (account_settings,)),
    Check(PERMISSIONS, judge_permissions, (simulated,)),
)
