"""Judges the two stacks: that each is whole and of this release, that its rules are some, and that both fit. Pure."""

from collections.abc import Iterator, Sequence

from image_mirror.cli import agreement
from image_mirror.cli.doctor.findings import Finding, fail, fine, unless, warn
from image_mirror.cli.remedies import aws_of, deploy_china
from image_mirror.cli.stacks import Stack
from image_mirror.rules import RuleError, parse_rules

CHINA_STACK, GLOBAL_STACK, RULES, AGREEMENT = "china stack", "global stack", "MirrorRules", "both stacks"

# What this release's templates have, and doctor and the other commands read.
CHINA_OUTPUTS = (
    "APIGatewayURL",
    "CopiesPrefix",
    "DashboardName",
    "DeadLetterQueueUrl",
    "GlobalSecret",
    "ImageListTableName",
    "ImagePushUserName",
    "ReconcilerLogGroup",
    "WebhookLogGroup",
)
GLOBAL_OUTPUTS = ("BuildLogGroup", "GlobalRegion", "ImagePullSecretArn", "ImagePullUserName", "ProjectName")
_SOUND = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")


def judge_stack(topic: str, stack: Stack, outputs: Sequence[str]) -> Sequence[Finding]:
    """Judge one stack by its status and by the outputs that this release gives it."""
    where = f"{stack.name} in {stack.account.region}"

    def faults() -> Iterator[Finding]:
        if stack.status not in _SOUND:
            yield _unsound(topic, stack, f"{where} is {stack.status}")
        missing = [name for name in outputs if name not in stack.outputs]
        if missing and stack.status in _SOUND:
            yield fail(
                topic,
                f"{where} lacks the outputs {', '.join(missing)}: it is an older release's, or none of this project's",
                "deploy both stacks from the same checkout, as the README says under Deploy, or name the right one",
            )

    return unless(faults(), fine(topic, f"{where} is {stack.status}"))


def judge_rules(china: Stack) -> Sequence[Finding]:
    """Judge the rules, of which CloudFormation takes any text. Raises NoAnswerError where the stack has none."""
    try:
        parse_rules(china.parameter("MirrorRules"))
    except RuleError as error:
        whole = 'MirrorRules="<all rules, this one corrected>"'
        return [fail(RULES, f"{error}; so no pod is rewritten and nothing is copied", deploy_china(china, whole))]
    return [fine(RULES, "each rule is understood")]


def judge_agreement(china: Stack, world: Stack) -> Sequence[Finding]:
    """Judge whether both stacks fit together. Raises NoAnswerError where a stack lacks what is compared."""
    account, prefix = china.output("CopiesPrefix").partition(".")[0], china.parameter("RepositoryPrefix")
    faults = [
        (fail if each.stops_copies else warn)(AGREEMENT, each.found, each.remedy)
        for each in agreement.faults(china, world)
    ]
    return unless(faults, fine(AGREEMENT, f"both mean account {account}, {china.account.region} and {prefix}/"))


def _unsound(topic: str, stack: Stack, found: str) -> Finding:
    events = aws_of(stack.account)("cloudformation", "describe-stack-events", "--stack-name", stack.name)
    if stack.status == "UPDATE_ROLLBACK_COMPLETE":
        return warn(
            topic,
            f"{found}: its last update was undone, and it is what it was before",
            f"see the first failure in {events}, mend it, and deploy again",
        )
    if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
        return warn(topic, found, "wait until it has ended, then run this again")
    if stack.status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        kept = " (and the empty table that is kept)" if topic == CHINA_STACK else ""
        return fail(
            topic,
            f"{found}: its creation was undone",
            f"see the first failure in {events}, mend it, delete the stack{kept}, deploy again",
        )
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        go_on = aws_of(stack.account)("cloudformation", "continue-update-rollback", "--stack-name", stack.name)
        return fail(
            topic,
            f"{found}: its last update could be undone in part only, and it takes no other",
            f"see the first failure in {events}, mend it, then {go_on}, wait, and deploy again",
        )
    if stack.status == "DELETE_FAILED":
        return fail(
            topic,
            f"{found}: a part of it is deleted, and it takes no update",
            f"see the first failure in {events}, mend it, delete the stack again, then deploy it",
        )
    return fail(topic, found, f"see the first failure in {events}, mend it, and deploy again")
