"""The fast lane: whether China's stack uses it, its project, and how many builds the account may run there at once.

Copies are also made without it. So nothing here has failed, and where the lane is not used nothing is a warning either.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from image_mirror.cli.doctor.codebuild import (
    RESTORE,
    global_aws,
    no_quota,
    project_faults,
    quota_of,
    setting_faults,
    variables_of,
)
from image_mirror.cli.doctor.dynamodb import States, due_states
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, State, fetch, fine, now, unless, warn
from image_mirror.cli.doctor.stacks import china_stack, global_stack
from image_mirror.cli.output import milliseconds, moment
from image_mirror.cli.remedies import FAST_QUOTA, AwsCommand, log_of, raise_quota
from image_mirror.cli.stacks import Stack, fast_project_in_use, offered_fast_project, used_fast_project
from image_mirror.record import Status
from image_mirror.review import Json
from image_mirror.slots import State as LaneState
from image_mirror.state_item import StateItem

LANE, PROJECT, QUOTA = "fast lane", "fast project", "fast build quota"

ENVIRONMENT = ("LINUX_LAMBDA_CONTAINER", "BUILD_LAMBDA_2GB")
"""The type and the compute type of the project's builds, of which the quota is looked at."""
_WANTED = 10  # builds at once, if fewer copies wait


@fetch(LANE)
def lane_state(context: Context) -> LaneState | None:
    """Return the reconciler's state, None if there is none or the lane is not used."""
    stack = context.answer(china_stack)
    if fast_project_in_use(stack, context.answer(global_stack)) is None:
        return None
    return StateItem(stack.account.client("dynamodb"), stack.output("ImageListTableName")).read()


def judge_lane(state: LaneState | None, china: Stack, global_side: Stack, now: datetime) -> Sequence[CheckResult]:
    """Say whether the lane is used. Stacks that differ are the subject of another check."""
    offered, used = offered_fast_project(global_side), used_fast_project(china)
    if used and used != offered:
        return []
    if offered is None:
        return [fine(LANE, f"there is none: the stack {global_side.name} has no project for it")]
    if used is None:
        return [fine(LANE, f"not used: the stack {china.name} is of an older release")]
    if not used:
        return [fine(LANE, f"not used, although {offered} is there: `image-mirror connect` switches it on")]
    clock = milliseconds(now)
    if state and state.fast_is_off(clock):
        return [
            warn(
                LANE,
                f"off until {moment(state.fast_off_until, clock)}, because CodeBuild refused or did not answer "
                f"calls for {used}, or builds there failed without a reason or did not end; until then all copies are "
                "made in the other lane",
                "if it happens again, deploy both stacks again, and look for the reason in the log: "
                f"{log_of(china, 'ReconcilerLogGroup')}",
            )
        ]
    return [fine(LANE, f"copies are also made in {used}")]


@fetch(PROJECT)
def fast_project(context: Context) -> Json | None:
    """Return what BatchGetProjects says of the project, None if there is none or the lane is not used."""
    stack = context.answer(global_stack)
    name = fast_project_in_use(context.answer(china_stack), stack)
    found = stack.account.client("codebuild").batch_get_projects(names=[name])["projects"] if name else []
    return found[0] if found else None


def judge_project(project: Json | None, china: Stack, global_side: Stack) -> Sequence[CheckResult]:
    """Compare the project with the template, if the lane is used."""
    name = fast_project_in_use(china, global_side)
    if name is None:
        return []

    def faults() -> Iterator[CheckResult]:
        for each in project_faults(PROJECT, name, project, china):
            yield warn(PROJECT, each.found, each.remedy or RESTORE)
        if project is None:
            return
        environment = project["environment"]
        is_now = (environment.get("type"), environment.get("computeType"))
        if is_now != ENVIRONMENT:
            yield warn(PROJECT, f"{name} runs on {' '.join(map(str, is_now))}, not on {' '.join(ENVIRONMENT)}", RESTORE)
        if variables_of(project).get("FAST_LANE") != "true":
            yield warn(PROJECT, f"{name} has no variable FAST_LANE=true: a slow copy counts as refused", RESTORE)

    return unless(faults(), fine(PROJECT, f"{name} matches the template"))


@fetch(QUOTA)
def fast_quota(context: Context) -> float | None:
    """Return how many builds the account may run at once in the lane; None if that is not known or there is no lane."""
    offered = offered_fast_project(context.answer(global_stack))
    return quota_of(context, FAST_QUOTA) if offered else None


def judge_quota(
    value: float | None, aws: AwsCommand, china: Stack, global_side: Stack, states: States | None
) -> Sequence[CheckResult]:
    """Compare the applied quota with FastBuildQuota, and with how many copies wait in the table.

    AWS gives an account one such build by default, so one is no reason for a warning.
    """
    if offered_fast_project(global_side) is None:
        return []
    if value is None:
        return [no_quota(QUOTA)]
    waiting = list((states or {}).values()).count(Status.REQUESTED)
    found, more = f"{value:.0f} builds at once (Linux Lambda/2GB)", raise_quota(aws, FAST_QUOTA, max(_WANTED, waiting))
    sound = CheckResult(QUOTA, State.OK, found, more if value <= 1 else None)
    if fast_project_in_use(china, global_side) is None:
        return [sound]
    if value < 1:
        return [warn(QUOTA, f"{found}: no copy is made in the fast lane", more)]

    def faults() -> Iterator[CheckResult]:
        if waiting > max(value, _WANTED):
            yield warn(QUOTA, f"{found}, and {waiting} copies wait: no more are made there at the same time", more)
        yield from setting_faults(QUOTA, found, value, china, "FastBuildQuota")

    return unless(faults(), sound)


CHECKS = (
    Check(LANE, judge_lane, (lane_state, china_stack, global_stack, now)),
    Check(PROJECT, judge_project, (fast_project, china_stack, global_stack)),
    Check(QUOTA, judge_quota, (fast_quota, global_aws, china_stack, global_stack), helps=(due_states,)),
)
