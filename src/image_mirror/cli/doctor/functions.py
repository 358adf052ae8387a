"""Judges the two functions, what they may do in ECR, and the account's room for them. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from image_mirror.cli.doctor.findings import Finding, fail, fine, unless, warn
from image_mirror.cli.remedies import RESTORE, AwsCommand
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
"""What the push user needs in a repository."""

_NEW_ACCOUNT = 10  # concurrent executions; others have 1,000


def judge_function(topic: str, function: Json | None, aws: AwsCommand) -> Sequence[Finding]:
    """Judge what GetFunction says, None where there is no such function."""
    if function is None:
        return [fail(topic, "it does not exist", RESTORE)]
    made = function["Configuration"]
    name = made["FunctionName"]
    state, update = made.get("State", "Active"), made.get("LastUpdateStatus", "Successful")
    reserved = function.get("Concurrency", {}).get("ReservedConcurrentExecutions")

    def faults() -> Iterator[Finding]:
        if state not in ("Active", "Inactive"):  # Lambda wakes an inactive one by itself
            why = made.get("StateReason", "no reason is given")
            (judged, then) = (warn, "wait, then run this again") if state == "Pending" else (fail, RESTORE)
            yield judged(topic, f"{name} is {state}: {why}", then)
        if update not in ("Successful", "InProgress"):
            why = made.get("LastUpdateStatusReason", "no reason is given")
            yield fail(topic, f"the last update of {name}: {update}: {why}", RESTORE)
        if reserved == 0:
            lift = aws("lambda", "delete-function-concurrency", "--function-name", name)
            yield fail(topic, f"{name} is stopped: its reserved concurrency is 0", lift)

    kept = "" if reserved is None else f", {reserved} executions reserved for it"
    return unless(faults(), fine(topic, f"{name} is {state}{kept}"))


def judge_runs(topic: str, sums: Mapping[str, float], log: str) -> Sequence[Finding]:
    """Judge a function's last hour by CloudWatch's sums; `log` is the command that shows its log."""
    runs, errors, throttles = (int(sums.get(name, 0)) for name in ("Invocations", "Errors", "Throttles"))

    def faults() -> Iterator[Finding]:
        if errors:
            yield warn(topic, f"{errors} of {runs} runs of the last hour ended in an error", f"see its log: {log}")
        if throttles:
            yield warn(
                topic,
                f"Lambda turned {throttles} runs of the last hour away for want of concurrency",
                "lift what is reserved for it, if anything is; else ask for more under Service Quotas (Lambda, "
                "Concurrent executions)",
            )
        if topic == RECONCILER and not runs:
            yield warn(
                topic,
                "it did not run in the last hour, though the schedule calls it each minute",
                "see the finding about the schedule; after a first deployment, wait five minutes",
            )

    return unless(faults(), fine(topic, f"{runs} runs in the last hour, none ended in an error"))


def judge_room(settings: Json) -> Sequence[Finding]:
    """Judge what GetAccountSettings says of the account's limit."""
    limit = settings["AccountLimit"]
    total, free = limit["ConcurrentExecutions"], limit.get("UnreservedConcurrentExecutions", 0)
    if total <= _NEW_ACCOUNT:
        return [
            warn(
                ROOM,
                f"this account runs {total} functions at once: a rollout of hundreds of pods wants more",
                "ask for 1,000 under Service Quotas (Lambda, Concurrent executions), or of AWS China's support",
            )
        ]
    return [fine(ROOM, f"{total} functions at once, {free} of them not reserved")]


def creating(expire_days: str, pull_accounts: str) -> tuple[str, ...]:
    """Return what the reconciler's role needs in a repository, by two parameters of China's stack."""
    return (
        *("ecr:CreateRepository", "ecr:TagResource", "ecr:DescribeImages"),
        *(("ecr:PutLifecyclePolicy",) if expire_days != "0" else ()),
        *(("ecr:SetRepositoryPolicy",) if pull_accounts else ()),
    )


def judge_permissions(results: Mapping[str, Sequence[Json]]) -> Sequence[Finding]:
    """Judge what SimulatePrincipalPolicy says of each, the reconciler's role and the push user, by their names."""
    denied = [
        fail(
            PERMISSIONS,
            f"{who} may not {result['EvalActionName']} ({result['EvalDecision']})",
            f"{RESTORE}; where neither helps, a permissions boundary or an organisation's policy denies it",
        )
        for who, evaluated in results.items()
        for result in evaluated
        if result["EvalDecision"] != "allowed"
    ]
    count = sum(map(len, results.values()))
    return unless(denied, fine(PERMISSIONS, f"IAM allows the {count} actions that {' and '.join(results)} need"))
