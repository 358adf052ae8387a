"""The two stacks: each is complete and of this release, the rules are valid, and both stacks fit together."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from image_mirror.cli import agreement, stacks
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, fail, fetch, fine, unless, warn
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.remedies import aws_of, deploy_china
from image_mirror.cli.stacks import Stack
from image_mirror.rules import RuleError, parse_rules

CHINA_STACK, GLOBAL_STACK, RULES, AGREEMENT = "china stack", "global stack", "MirrorRules", "both stacks"

# The outputs that doctor and the other commands read. The templates have more, for people.
CHINA_OUTPUTS = (
    "APIGatewayURL",
    "CopiesPrefix",
    "DeadLetterQueueUrl",
    "GlobalSecret",
    "ImageListTableName",
    "ImagePushUserName",
    "ReconcilerLogGroup",
    "SwapWhenRoutes",
    "WebhookLogGroup",
)
GLOBAL_OUTPUTS = ("GlobalRegion", "ImagePullSecretArn", "ImagePullUserName", "ProjectName")
_KEYS, _USERS = "AccessKeyUsers", ("ImagePushUserName", "ImagePullUserName")
_SOUND = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")


@fetch(CHINA_STACK)
def china_stack(context: Context) -> Stack:
    """Return China's stack."""
    stack = stacks.china_stack(context.china_account, context.stack_name)
    token = urlsplit(stack.outputs.get("APIGatewayURL", "")).path.strip("/")
    context.hide(token)
    return stack


@fetch(GLOBAL_STACK)
def global_stack(context: Context) -> Stack:
    """Return the global stack."""
    return stacks.global_stack(context.global_account, context.global_stack_name)


@fetch(None)
def resources(context: Context) -> Mapping[str, str]:
    """Return the names (physical IDs) of the resources of China's stack by their logical IDs."""
    stack = context.answer(china_stack)
    pages = stack.account.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack.name)
    found = (each for page in pages for each in page["StackResourceSummaries"])
    return {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in found}


def resource_name(context: Context, logical_id: str) -> str:
    """Wait for the name of a resource of China's stack. Raises UnansweredError, NoAnswerError."""
    name = context.answer(resources).get(logical_id)
    if not name:
        raise NoAnswerError(f"the stack has no {logical_id}: it is of another release", "deploy it again")
    return name


def judge_stack(topic: str, outputs: Sequence[str], stack: Stack) -> Sequence[CheckResult]:
    """Judge one stack by its status and by the outputs that a stack of this release has."""
    where = f"{stack.name} in {stack.account.region}"

    def faults() -> Iterator[CheckResult]:
        if stack.status not in _SOUND:
            yield _unsound(topic, stack, f"{where} is {stack.status}")
        expected = [name for name in outputs if name not in _USERS or stack.parameters.get(_KEYS) != "false"]
        missing = [name for name in expected if name not in stack.outputs]
        if missing and stack.status in _SOUND:
            yield fail(
                topic,
                f"{where} lacks the outputs {', '.join(missing)}: it is of an older release or not of this project",
                "deploy both stacks from the same checkout, as docs/install.md says, or name the right one",
            )

    return unless(faults(), fine(topic, f"{where} is {stack.status}"))


def judge_rules(china: Stack) -> Sequence[CheckResult]:
    """Judge the rules: CloudFormation accepts any text as rules. Raises NoAnswerError if the stack has none."""
    try:
        parse_rules(china.parameter("MirrorRules"))
    except RuleError as error:
        whole = 'MirrorRules="<all rules, this one corrected>"'
        return [fail(RULES, f"{error}; so no pod is rewritten and nothing is copied", deploy_china(china, whole))]
    return [fine(RULES, "each rule is understood")]


def judge_agreement(china: Stack, global_side: Stack) -> Sequence[CheckResult]:
    """Judge whether both stacks fit together. Raises NoAnswerError if a stack lacks what is compared."""
    account, prefix = china.output("CopiesPrefix").partition(".")[0], china.parameter("RepositoryPrefix")
    faults = [
        (fail if each.stops_copies else warn)(AGREEMENT, each.found, each.remedy)
        for each in agreement.faults(china, global_side)
    ]
    return unless(faults, fine(AGREEMENT, f"both use account {account}, {china.account.region} and {prefix}/"))


def _unsound(topic: str, stack: Stack, found: str) -> CheckResult:
    events = aws_of(stack.account)("cloudformation", "describe-stack-events", "--stack-name", stack.name)
    if stack.status == "UPDATE_ROLLBACK_COMPLETE":
        return warn(
            topic,
            f"{found}: its last update failed and was rolled back",
            f"see the first failure in {events}, fix it, and deploy again",
        )
    if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
        return warn(topic, found, "wait until it has ended, then run this again")
    if stack.status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        kept = " (and the empty table that is kept)" if topic == CHINA_STACK else ""
        return fail(
            topic,
            f"{found}: its creation failed and was rolled back",
            f"see the first failure in {events}, fix it, delete the stack{kept}, deploy again",
        )
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        go_on = aws_of(stack.account)("cloudformation", "continue-update-rollback", "--stack-name", stack.name)
        return fail(
            topic,
            f"{found}: its rollback failed; it accepts no update until that is finished",
            f"see the first failure in {events}, fix it, then {go_on}, wait, and deploy again",
        )
    if stack.status == "DELETE_FAILED":
        return fail(
            topic,
            f"{found}: it is partly deleted and accepts no update",
            f"see the first failure in {events}, fix it, delete the stack again, then deploy it",
        )
    return fail(topic, found, f"see the first failure in {events}, fix it, and deploy again")


CHECKS = (
    Check(CHINA_STACK, partial(judge_stack, CHINA_STACK, CHINA_OUTPUTS), (china_stack,), required=True),
    Check(GLOBAL_STACK, partial(judge_stack, GLOBAL_STACK, GLOBAL_OUTPUTS), (global_stack,), required=True),
    Check(RULES, judge_rules, (china_stack,)),
    Check(AGREEMENT, judge_agreement, (china_stack, global_stack)),
)
