"""Judges what makes the reconciler run: the table's stream, the schedule, ECR's events; and the dead letters. Pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from image_mirror.cli.doctor.findings import Finding, fail, fine, unless, warn
from image_mirror.cli.remedies import RESTORE, AwsCommand
from image_mirror.review import Json

STREAM, LAG, SCHEDULE, EVENTS, LETTERS = "stream mapping", "stream lag", "schedule", "ECR events", "dead letters"

STREAM_FILTER = {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"status": {"S": ["REQUESTED"]}}}}
"""The filter of the template's event source mapping: what is requested, and nothing else."""
RATE = "rate(1 minute)"

_LATE = 60_000  # milliseconds


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


def judge_mapping(mappings: Sequence[Json], stream: str | None, aws: AwsCommand, log: str) -> Sequence[Finding]:
    """Judge the reconciler's event source mappings; one of them has to read `stream`, the table's.

    `log` is the command that shows the reconciler's log.
    """
    mapping = next((each for each in mappings if stream and each.get("EventSourceArn") == stream), None)
    if mapping is None:
        found = "the reconciler reads another table's stream" if mappings else "nothing reads the table's stream"
        return [fail(STREAM, f"{found}: copies start a minute late", RESTORE)]
    patterns = [each.get("Pattern", "") for each in mapping.get("FilterCriteria", {}).get("Filters", ())]
    enable = aws("lambda", "update-event-source-mapping", "--enabled", "--uuid", mapping["UUID"])
    state, result = mapping.get("State", "unknown"), mapping.get("LastProcessingResult", "not known")

    def faults() -> Iterator[Finding]:
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


def judge_lag(ages: Sequence[float]) -> Sequence[Finding]:
    """Judge how old, in milliseconds, what was read from the stream lately was when it was read."""
    if not ages:
        return [fine(LAG, "nothing was read in the last 15 minutes")]
    seconds = max(ages) / 1000
    if max(ages) > _LATE:
        return [
            warn(
                LAG,
                f"what is read from the stream is up to {seconds:.0f} seconds old",
                "see the findings about the reconciler: its errors, and the account's concurrency",
            )
        ]
    return [fine(LAG, f"at most {seconds:.0f} seconds in the last 15 minutes")]


def judge_rule(
    topic: str,
    rule: Json | None,
    targets: Sequence[Json],
    function: str,
    policy: Json,
    wanted: str | Json,
    aws: AwsCommand,
) -> Sequence[Finding]:
    """Judge an EventBridge rule, None where there is none.

    It has to call `function` (its ARN), whose `policy` lets it, by `wanted`: a schedule's expression or a pattern.
    """
    without = "copies are not looked after" if topic == SCHEDULE else "copies are noticed a minute later"
    if rule is None:
        return [fail(topic, f"its rule does not exist: {without}", RESTORE)]
    name = rule["Name"]
    stands: Any = rule.get("ScheduleExpression") if isinstance(wanted, str) else _parsed(rule.get("EventPattern", ""))

    def faults() -> Iterator[Finding]:
        if rule.get("State") != "ENABLED":
            yield fail(topic, f"{name} is {rule.get('State')}: {without}", aws("events", "enable-rule", "--name", name))
        if stands != wanted:
            shown = wanted if isinstance(wanted, str) else wanted["detail"]["repository-name"]
            yield fail(topic, f"{name} has {_shown(stands)}, not {_shown(shown)}: {without}", RESTORE)
        if function not in [each["Arn"] for each in targets]:
            yield fail(topic, f"{name} does not call the reconciler: {without}", RESTORE)
        if not _lets(policy, rule["Arn"]):
            yield fail(topic, f"{name} may not call the reconciler: {without}", RESTORE)

    return unless(faults(), fine(topic, f"{name} is ENABLED and calls the reconciler"))


def judge_letters(attributes: Json | None, queue: str, aws: AwsCommand, log: str) -> Sequence[Finding]:
    """Judge the queue of stream batches that could not be handled, None where there is none."""
    if attributes is None:
        return [fail(LETTERS, "the queue does not exist", RESTORE)]
    count = int(attributes["ApproximateNumberOfMessages"])
    if count:
        purge = aws("sqs", "purge-queue", "--queue-url", queue)
        return [
            warn(
                LETTERS,
                f"{count} batches of the stream could not be handled; the schedule finds their records all the same",
                f"see the reconciler's log of that time, by --since further back if need be: {log}; then {purge}",
            )
        ]
    return [fine(LETTERS, "none")]


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
