"""Changes parameters of a deployed stack and waits: the template and all other values stay as they are."""

import time
from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from image_mirror.aws_errors import DENIED, code_of
from image_mirror.cli import stacks
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.output import say
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import Stack
from image_mirror.cli.terminal import waiting

AGAIN = "run this again"
BY_HAND = "docs/by-hand.md"
_PAUSE = 3.0  # seconds between two looks
_LONGEST = 600.0  # seconds: only roles, policies and variables change
# The templates have roles without names, and China's has SAM's transform.
_CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
_UPDATED = ("UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
_NOTHING_TO_DO = "No updates are to be performed"


class NotUpdatedError(Exception):
    """The stack does not have the values. The message says why, and what to do."""


def update(stack: Stack, values: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Set these parameters of a stack, and wait for the end of the update. Raises NotUpdatedError.

    `report` is called when the update has begun. After Ctrl-C the update continues, and a note on standard error says
    so.
    """
    kept = [{"ParameterKey": each, "UsePreviousValue": True} for each in stack.parameters if each not in values]
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]
    try:
        stack.account.client("cloudformation").update_stack(
            StackName=stack.name,
            UsePreviousTemplate=True,
            Parameters=[*kept, *given],
            Capabilities=list(_CAPABILITIES),
        )
    except no_answer_errors() as error:
        # Somebody else may have made the same change meanwhile.
        if _NOTHING_TO_DO not in str(error) or not _has_now(stack, values):
            cause = f"the stack {stack.name} is not updated: {why_no_answer(error)}"
            raise NotUpdatedError(f"{cause}; {after_refusal(error)}") from error
    else:
        _wait(stack, values, report)


def after_refusal(error: Exception) -> str:
    """Return what to do after AWS has refused a call."""
    denied = isinstance(error, ClientError) and code_of(error) in DENIED
    return f"or see {BY_HAND}" if denied else f"then {AGAIN}"


def why_not_updated(stack: Stack, values: Mapping[str, str]) -> str | None:
    """Return why an update to these values has failed; None if it is running or has succeeded."""
    if stack.status in _UPDATED:
        wrong = next((name for name, value in values.items() if stack.parameters.get(name) != value), None)
        if wrong is None:
            return None
        return f"{wrong} of the stack {stack.name} is {stack.parameters.get(wrong) or 'empty'} after the update"
    if stack.status.endswith("_IN_PROGRESS") and "ROLLBACK" not in stack.status:
        return None
    return f"the update has failed: the stack {stack.name} is {stack.status}"


def _wait(stack: Stack, values: Mapping[str, str], report: Callable[[str], None]) -> None:
    report(f"began to update the stack {stack.name} ({stack.account.side})")
    see = "see " + aws_of(stack.account)("cloudformation", "describe-stack-events", "--stack-name", stack.name)
    deadline = time.monotonic() + _LONGEST
    try:
        with waiting(f"Waiting for the update of the stack {stack.name}, at most 10 minutes ..."):
            while True:
                time.sleep(_PAUSE)
                now = stacks.again(stack)
                if cause := why_not_updated(now, values):
                    raise NotUpdatedError(f"{cause}; {see}")
                # While CloudFormation cleans up, the stack has its values but accepts no other update.
                is_late = time.monotonic() >= deadline
                if now.status == "UPDATE_COMPLETE" or (is_late and now.status in _UPDATED):
                    return
                if is_late:
                    raise NotUpdatedError(f"the stack {stack.name} is still {now.status} after 10 minutes; {see}")
    except KeyboardInterrupt:
        say(f"The update of the stack {stack.name} continues; {see}.")
        raise
    except no_answer_errors() as error:
        cause = f"the update of the stack {stack.name} continues, and its end is not known: {why_no_answer(error)}"
        raise NotUpdatedError(f"{cause}; {see}") from error


def _has_now(stack: Stack, values: Mapping[str, str]) -> bool:
    try:
        now = stacks.again(stack).parameters
    except no_answer_errors():
        return False
    return all(now.get(name) == value for name, value in values.items())
