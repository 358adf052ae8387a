"""Carries out the steps until the accounts federate: one after another, and after each it is read again what there is.

So whatever ends it, the next run continues with the step that is left. A role that is not proven is not used: only the
parameter that switches it on is taken back.
"""

import time
from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import no_answer_errors
from image_mirror.cli.federation.examine import again, ask_reconciler, named
from image_mirror.cli.federation.plan import PUSH_PARAMETER, START_PARAMETER, Action, Answer, Found, Side, Step, steps
from image_mirror.cli.keys.plan import NeedsAttentionError
from image_mirror.cli.probe_builds import NotProvenError, prove
from image_mirror.cli.remedies import FAST_QUOTA, MAIN_QUOTA, aws_of, raise_quota
from image_mirror.cli.stack_updates import AGAIN, NotUpdatedError, update
from image_mirror.cli.stacks import Stack, fast_project_in_use
from image_mirror.cli.terminal import waiting
from image_mirror.federation import AUDIENCE

_PAUSE = 5.0  # seconds between two looks
_IAM = 60.0  # seconds until a change of IAM is known everywhere
_LONGEST_PROBE = 10  # minutes: a build on EC2 compute waits for its machine, and installs
_LONGEST_FAST_PROBE = 5  # minutes: one on Lambda compute starts in seconds
_WANTED = 20  # builds at once
_ALREADY_ON = ("FeatureEnabled", "FeatureEnabledException")
Report = Callable[[str], None]


def carry_out(found: Found, report: Report) -> None:
    """Do all steps that are left; `report` is called with what was done. Raises NeedsAttentionError, NoAnswerError."""
    is_new = False
    # The operator may have thought about the plan for a long time. Meanwhile another stack can have made the provider.
    found = again(found, None)
    while left := steps(found):
        step = left[0]
        try:
            answer = _do(step, found, report, is_new=is_new)
        except NotUpdatedError as error:
            raise NeedsAttentionError(f"{step.side}: {error}") from error
        is_new = is_new or step.action in (Action.TRUST, Action.ADD_AUDIENCE, Action.SWITCH_ON)
        found = _after(step, found, answer)


def _do(step: Step, found: Found, report: Report, *, is_new: bool) -> Answer | None:
    side = found.china if step.side == found.china.name else found.world

    def tell(line: str) -> None:
        report(f"{step.side}: {line}")

    match step.action:
        case Action.SWITCH_ON:
            _switch_on(side, tell)
        case Action.ADD_AUDIENCE:
            _add_audience(step, side, tell)
        case Action.TRUST:
            update(side.stack, step.values, tell)
            tell(f"the stack {side.stack.name} trusts {step.values[side.trust.subject]}")
        case Action.USE_PUSH:
            _use_push(found, step, tell, tries=2 if is_new else 1)
        case Action.USE_START:
            return _use_start(found, step, tell)
    return None


def _after(step: Step, found: Found, answer: Answer | None) -> Found:
    """Return what there is after a step. Raises NeedsAttentionError if a minute later the step is still left."""
    deadline = time.monotonic() + _IAM
    while True:
        now = again(found, answer)
        left = steps(now)
        if not left or (left[0].action, left[0].side) != (step.action, step.side):
            return now
        if time.monotonic() >= deadline:
            raise NeedsAttentionError(f"a minute later, this is still to be done: {left[0].lines[0]}; {AGAIN}")
        time.sleep(_PAUSE)


def _switch_on(side: Side, tell: Report) -> None:
    try:
        side.stack.account.client("iam").enable_outbound_web_identity_federation()
    except ClientError as error:
        if code_of(error) not in _ALREADY_ON:
            raise named(error) from error
    tell("outbound identity federation is on")


def _add_audience(step: Step, side: Side, tell: Report) -> None:
    try:
        side.stack.account.client("iam").add_client_id_to_open_id_connect_provider(**step.values)
    except ClientError as error:
        raise named(error) from error
    tell(f"added the audience {AUDIENCE} to {step.values['OpenIDConnectProviderArn']}")


def _use_push(found: Found, step: Step, tell: Report, *, tries: int) -> None:
    """Prove the role by a build, then let all builds use it. The project is not changed before."""
    world, role = found.world.stack, step.values[PUSH_PARAMETER]
    account, project, given = world.account, world.output("ProjectName"), {"CHINA_PUSH_ROLE_ARN": role}
    more = f"ask for more builds: {raise_quota(aws_of(account), MAIN_QUOTA, _WANTED)}"
    while True:
        tries -= 1
        try:
            prove(project, account, given, minutes=_LONGEST_PROBE, more_builds=more, report=tell)
            break
        except NotProvenError as error:
            if error.has_failed and tries:
                tell("the probe failed; a new role can be unknown for a minute, so it is tried once more")
                continue
            if error.has_failed and found.world.value(PUSH_PARAMETER):
                _take_back(world, PUSH_PARAMETER, tell)
            raise NeedsAttentionError(f"builds do not use {role}: {error}") from error
    tell(f"the probe has logged in to ECR by {role}")
    if fast := fast_project_in_use(found.china.stack, world):
        _try_fast(fast, account, given, tell)
    update(world, step.values, tell)
    tell(f"builds push by {role}")


def _try_fast(project: str, account: Account, given: Mapping[str, str], tell: Report) -> None:
    """Try the role in the fast lane, which has another image with another AWS CLI. No copy depends on that lane."""
    more = f"ask for more builds there: {raise_quota(aws_of(account), FAST_QUOTA, _WANTED)}"
    try:
        prove(project, account, given, minutes=_LONGEST_FAST_PROBE, more_builds=more, report=tell)
    except NotProvenError as error:
        tell(f"the fast lane is not proven, and the other one makes the copies that fail there: {error}")
    else:
        tell(f"the probe of {project} has logged in to ECR by the role too")


def _use_start(found: Found, step: Step, tell: Report) -> Answer:
    """Let the reconciler use the role, and prove it. Where that fails, take it back."""
    china, role = found.china.stack, step.values[START_PARAMETER]
    is_set_now = any(found.china.value(name) != value for name, value in step.values.items())
    if is_set_now:
        update(china, step.values, tell)
    try:
        answer = _proven(china, role)
    except no_answer_errors():
        # A role that was in use before stays: nothing shows that it does not work.
        if is_set_now:
            _take_back(china, START_PARAMETER, tell)
        raise
    if answer.error is None and answer.role == role:
        tell(f"the reconciler calls CodeBuild by {role}")
        return answer
    _take_back(china, START_PARAMETER, tell)
    why = answer.error or f"it still uses {answer.role or 'the key'}"
    raise NeedsAttentionError(f"the reconciler does not use {role}: {why}; when that is corrected, {AGAIN}")


def _proven(china: Stack, role: str) -> Answer:
    """Ask the reconciler until it has called CodeBuild by `role`, for at most a minute."""
    deadline = time.monotonic() + _IAM
    with waiting("Waiting until the reconciler reaches CodeBuild by the role; this can take a minute ..."):
        while True:
            answer = ask_reconciler(china)
            if answer == Answer(role, None) or time.monotonic() >= deadline:
                return answer
            time.sleep(_PAUSE)


def _take_back(stack: Stack, parameter: str, tell: Report) -> None:
    """Set the parameter to empty. A failure is told, and is not the error that is raised."""
    try:
        update(stack, {parameter: ""}, tell)
    except NotUpdatedError as error:
        tell(f"{parameter} could not be taken back: {error}")
    else:
        tell(f"{parameter} of the stack {stack.name} is empty again")
