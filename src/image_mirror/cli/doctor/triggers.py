"""What makes the reconciler run: the table's stream with its dead letters, the schedule, ECR's events."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.dynamodb import described_table
from image_mirror.cli.doctor.functions import reconciler_function, reconciler_name, stream_ages
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, fail, fetch, fine, unless, warn
from image_mirror.cli.doctor.stacks import china_stack, resource_name
from image_mirror.cli.remedies import RESTORE, aws_of, log_of, new_table
from image_mirror.cli.stacks import Stack
from image_mirror.record import MINUTE
from image_mirror.review import Json

STREAM, LAG, LETTERS, SCHEDULE, EVENTS = "stream mapping", "stream lag", "dead letters", "schedule", "ECR events"

STREAM_FILTER = {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"status": {"S": ["REQUESTED"]}}}}
"""The filter of the template's event source mapping: only records that are REQUESTED."""
RATE = "rate(1 minute)"

_LATE = MINUTE


def ecr_pattern(prefix: str) -> Json:
    """Return the pattern of the template's rule for ECR's events below `prefix`."""
    return {
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {
            "result": ["SUCCESS"],
            "action-type": ["PUSH", "DELETE"],
            "repository-name": [{"prefix": f"{prefix}/"}],
            "image-tag": [{"exists": True}],
        },
    }


@fetch(STREAM)
def mappings(context: Context) -> Sequence[Json]:
    """Return the reconciler's event source mappings."""
    name = reconciler_name(context)
    answer = or_none(lambda: context.china_account.client("lambda").list_event_source_mappings(FunctionName=name))
    return answer["EventSourceMappings"] if answer else []


def judge_mapping(mappings: Sequence[Json], table: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge the reconciler's event source mappings; one of them has to read the table's stream."""
    stream = table.get("LatestStreamArn") if table else None
    log = log_of(china, "ReconcilerLogGroup")
    mapping = next((each for each in mappings if stream and each.get("EventSourceArn") == stream), None)
    if mapping is None:
        return [_unread(mappings, table, china)]
    patterns = [each.get("Pattern", "") for each in mapping.get("FilterCriteria", {}).get("Filters", ())]
    enable = aws_of(china.account)("lambda", "update-event-source-mapping", "--enabled", "--uuid", mapping["UUID"])
    state, result = mapping.get("State", "unknown"), mapping.get("LastProcessingResult", "not known")

    def faults() -> Iterator[CheckResult]:
        if state in ("Disabled", "Disabling"):
            yield fail(STREAM, f"it is {state}: copies start a minute late", enable)
        elif state not in ("Enabled", "unknown"):
            yield warn(STREAM, f"it is {state}", "wait, then run this again")
        if result.upper().startswith("PROBLEM"):
            yield warn(STREAM, f"its last result: {result}", f"see the reconciler's log: {log}")
        if [_parsed(each) for each in patterns] != [STREAM_FILTER]:
            yield warn(STREAM, "its filter is not the template's: the reconciler runs too often or too late", RESTORE)
        if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
            yield warn(STREAM, "it does not report single failures: one bad record repeats its whole batch", RESTORE)

    return unless(faults(), fine(STREAM, f"it is {state}, its last result: {result}"))


def _unread(mappings: Sequence[Json], table: Json | None, china: Stack) -> CheckResult:
    """Return the result if no mapping reads the table's stream."""
    late, name = "copies start a minute late", china.output("ImageListTableName")
    if not mappings:
        return fail(STREAM, f"nothing reads the table's stream: {late}", RESTORE)
    if table and any(f":table/{name}/stream/" in each.get("EventSourceArn", "") for each in mappings):
        found = f"the reconciler reads an older stream of {name}, which was restored, or whose stream was turned off"
        return fail(STREAM, f"{found}: {late}", new_table(china))
    return fail(STREAM, f"the reconciler reads another table's stream: {late}", RESTORE)


def judge_lag(ages: Sequence[float]) -> Sequence[CheckResult]:
    """Judge how old, in milliseconds, the stream's records were when the reconciler read them."""
    if not ages:
        return [fine(LAG, "nothing was read in the last 15 minutes")]
    seconds = max(ages) / 1000
    if max(ages) > _LATE:
        return [
            warn(
                LAG,
                f"what is read from the stream is up to {seconds:.0f} seconds old",
                "see the results about the reconciler: its errors, and the account's concurrency",
            )
        ]
    return [fine(LAG, f"at most {seconds:.0f} seconds in the last 15 minutes")]


@fetch(LETTERS)
def letters(context: Context) -> Json | None:
    """Return the attributes of the queue of dead letters, None if there is no queue."""
    stack = context.answer(china_stack)
    queue, sqs = stack.output("DeadLetterQueueUrl"), stack.account.client("sqs")
    names = ["ApproximateNumberOfMessages"]
    return or_none(lambda: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"])


def judge_letters(attributes: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge the queue of stream batches that could not be handled."""
    queue, log = china.output("DeadLetterQueueUrl"), log_of(china, "ReconcilerLogGroup")
    if attributes is None:
        return [fail(LETTERS, "the queue does not exist", RESTORE)]
    count = int(attributes["ApproximateNumberOfMessages"])
    if count:
        purge = aws_of(china.account)("sqs", "purge-queue", "--queue-url", queue)
        return [
            warn(
                LETTERS,
                f"{count} batches of the stream could not be handled; the schedule still finds their records",
                f"see the reconciler's log of that time, with an earlier --since if needed: {log}; then {purge}",
            )
        ]
    return [fine(LETTERS, "none")]


Rule = tuple[Json | None, Sequence[Json]]
"""What DescribeRule says about an EventBridge rule (None if it does not exist), and its targets."""


def _rule(context: Context, logical_id: str) -> Rule:
    name = resource_name(context, logical_id)
    events = context.china_account.client("events")
    found = or_none(lambda: events.describe_rule(Name=name))
    return found, events.list_targets_by_rule(Rule=name)["Targets"] if found else []


# SAM makes these logical IDs from the names of the events in the template.
schedule = Fetch(SCHEDULE, lambda context: _rule(context, "ReconcilerFunctionEveryMinute"))
ecr_hints = Fetch(EVENTS, lambda context: _rule(context, "ReconcilerFunctionEcrHints"))


@fetch(None)
def reconciler_policy(context: Context) -> Json:
    """Return who may call the reconciler, as a policy; {} if nobody may."""
    name = reconciler_name(context)
    answer = or_none(lambda: context.china_account.client("lambda").get_policy(FunctionName=name))
    return json.loads(answer["Policy"]) if answer else {}


def judge_schedule(rule: Rule, policy: Json, function: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge the rule that calls the reconciler each minute."""
    return _judge_rule(SCHEDULE, RATE, rule, policy, function, china)


def judge_events(rule: Rule, policy: Json, function: Json | None, china: Stack) -> Sequence[CheckResult]:
    """Judge the rule that sends ECR's events to the reconciler."""
    return _judge_rule(EVENTS, ecr_pattern(china.parameter("RepositoryPrefix")), rule, policy, function, china)


def _judge_rule(
    topic: str, wanted: str | Json, found: Rule, policy: Json, called: Json | None, china: Stack
) -> Sequence[CheckResult]:
    """Judge an EventBridge rule: it must have `wanted`, which is a schedule's expression or a pattern.

    It must call `called`, the reconciler, and the reconciler's `policy` must allow that.
    """
    rule, targets = found
    function = called["Configuration"]["FunctionArn"] if called else ""
    without = "no copy is retried or checked" if topic == SCHEDULE else "copies are noticed a minute later"
    if rule is None:
        return [fail(topic, f"its rule does not exist: {without}", RESTORE)]
    name = rule["Name"]
    current: Any = rule.get("ScheduleExpression") if isinstance(wanted, str) else _parsed(rule.get("EventPattern", ""))

    def faults() -> Iterator[CheckResult]:
        if rule.get("State") != "ENABLED":
            enable = aws_of(china.account)("events", "enable-rule", "--name", name)
            yield fail(topic, f"{name} is {rule.get('State')}: {without}", enable)
        if current != wanted:
            shown = wanted if isinstance(wanted, str) else wanted["detail"]["repository-name"]
            yield fail(topic, f"{name} has {_shown(current)}, not {_shown(shown)}: {without}", RESTORE)
        if function not in [each["Arn"] for each in targets]:
            yield fail(topic, f"{name} does not call the reconciler: {without}", RESTORE)
        if not _lets(policy, rule["Arn"]):
            yield fail(topic, f"{name} may not call the reconciler: {without}", RESTORE)

    return unless(faults(), fine(topic, f"{name} is ENABLED and calls the reconciler"))


def _lets(policy: Json, rule: str) -> bool:
    for statement in policy.get("Statement", ()):
        principal = statement.get("Principal", {})
        sources = [each for each in statement.get("Condition", {}).values() for each in each.values()]
        if (
            statement.get("Effect") == "Allow"
            and isinstance(principal, dict)
            and principal.get("Service") == "events.amazonaws.com"
            and (not sources or rule in sources)
        ):
            return True
    return False


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "detail" in value:
        value = value["detail"].get("repository-name")
    return value if isinstance(value, str) else json.dumps(value)


CHECKS = (
    Check(STREAM, judge_mapping, (mappings, described_table, china_stack)),
    Check(LAG, judge_lag, (stream_ages,)),
    Check(LETTERS, judge_letters, (letters, china_stack)),
    Check(SCHEDULE, judge_schedule, (schedule, reconciler_policy, reconciler_function, china_stack)),
    Check(EVENTS, judge_events, (ecr_hints, reconciler_policy, reconciler_function, china_stack)),
)
