"""Switches the fast lane on: a build there as a probe, and when that has succeeded an update of China's stack.

The fast lane is a second CodeBuild project, on Lambda compute, and it only makes copies start sooner. Not every account
may run builds there. So the stack in China uses it only after a build has run and has logged in to ECR. Whatever fails
here leaves the one lane as it is, and is no error of the command.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import DENIED, code_of
from image_mirror.build_result import read_build
from image_mirror.cli import agreement, stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.output import say
from image_mirror.cli.remedies import FAST_QUOTA, aws_of, raise_quota
from image_mirror.cli.stacks import FAST_PARAMETER, Stack, offered_fast_project, used_fast_project
from image_mirror.cli.terminal import delayed_interrupt, waiting

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient
    from types_boto3_codebuild.type_defs import EnvironmentVariableTypeDef

_PROBE: "EnvironmentVariableTypeDef" = {"name": "COPY_PROBE", "value": "login", "type": "PLAINTEXT"}
"""With this variable, buildspec/copy.py logs in to ECR and ends."""
_PROBED = "PROBED"
_PAUSE = 3.0  # seconds between two looks
_LONGEST_PROBE = 300.0  # seconds: a build there starts in seconds, and installs for less than a minute
_LONGEST_UPDATE = 600.0  # seconds: only the variables of two functions change
_BEFORE_START = ("SUBMITTED", "QUEUED")
_WANTED = 10  # builds at once
# The template has roles without names, and SAM's transform.
_CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")
_UPDATED = ("UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
_AGAIN = "run this again"
_BY_HAND = "docs/by-hand.md"
_NOTHING_TO_DO = "No updates are to be performed"


class NotSwitchedOnError(Exception):
    """The fast lane stays off. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What to do: use `project` as the fast lane, None for nothing. `note` says what does not fit, None for nothing."""

    project: str | None = None
    note: str | None = None

    def steps(self, china: Stack) -> Iterator[str]:
        """Yield as lines for people what is to be done, in this order."""
        if self.project:
            yield f"fast lane: start a build of {self.project} that only logs in to ECR, as a probe (at most 5 minutes)"
            yield (
                f"fast lane: when it has succeeded, set {FAST_PARAMETER}={self.project} in the stack {china.name} "
                "(china), and change nothing else there"
            )


def plan(china: Stack, global_side: Stack) -> LanePlan:
    """Decide whether the fast lane is to be switched on."""
    offered, used = offered_fast_project(global_side), used_fast_project(china)
    if fault := agreement.fast_lane_fault(china, global_side):
        return LanePlan(note=f"{fault.found}; {fault.remedy}")
    if offered and used is None:
        cause = f"the stack {china.name} is of an older release, which has one lane only"
        return LanePlan(note=f"{china.account}: {cause}; deploy this release there first, then {_AGAIN}")
    return LanePlan(project=None if used else offered)


def switch_on(project: str, china: Stack, global_side: Stack, report: Callable[[str], None]) -> None:
    """Start the probe and wait for it; then update China's stack and wait for that.

    `report` is called with each step that was done. Raises NotSwitchedOnError. After Ctrl-C, what had begun is stopped
    or named on standard error.
    """
    _probe(project, global_side, report)
    _update(project, china, report)


def _probe(project: str, global_side: Stack, report: Callable[[str], None]) -> None:
    account = global_side.account
    build: Mapping[str, Any] = {}
    try:
        codebuild: CodeBuildClient = account.client("codebuild")
        try:
            # If Ctrl-C ended the call before its answer is read, nobody would know the build.
            with delayed_interrupt():
                build = codebuild.start_build(
                    projectName=project, environmentVariablesOverride=[_PROBE], idempotencyToken=str(uuid.uuid4())
                )["build"]
            report(f"fast lane: started the probe {build['id']}; it has 5 minutes")
            build = _ended(codebuild, build, report)
        except BaseException:  # Ctrl-C too
            if build:
                say(_stopped(codebuild, build["id"]))
            raise
    except no_answer_errors() as error:
        raise NotSwitchedOnError(f"{why_no_answer(error)}; {_after_refusal(error, account)}") from error
    if build["buildStatus"] == "IN_PROGRESS":
        phase = build.get("currentPhase")
        remedy = _more_builds(account) if phase in _BEFORE_START else f"later, {_AGAIN}"
        stopped = _stopped(codebuild, build["id"])
        raise NotSwitchedOnError(f"the probe was still {phase} after 5 minutes; {stopped}; {remedy}")
    if cause := why_unfit(build):
        raise NotSwitchedOnError(f"the probe {build['id']} failed: {cause}; when that is corrected, {_AGAIN}")
    report("fast lane: the probe has logged in to ECR")


def _ended(codebuild: "CodeBuildClient", build: Mapping[str, Any], report: Callable[[str], None]) -> Mapping[str, Any]:
    """Wait until the build has ended, or its time is over, and return it as it is then."""
    deadline, phase = time.monotonic() + _LONGEST_PROBE, None
    while build["buildStatus"] == "IN_PROGRESS" and time.monotonic() < deadline:
        if phase != build.get("currentPhase"):
            phase = build.get("currentPhase")
            report(f"fast lane: the probe is {phase}")
        time.sleep(_PAUSE)
        # A build that has just been started can be unknown for a moment.
        build = next(iter(codebuild.batch_get_builds(ids=[build["id"]])["builds"]), build)
    return build


def why_unfit(build: Mapping[str, Any]) -> str | None:
    """Return why a probe that has ended does not show that copies can be made there; None if it does."""
    if build["buildStatus"] != "SUCCEEDED":
        return read_build(build).reason
    exported = {each.get("name"): each.get("value") for each in build.get("exportedEnvironmentVariables", ())}
    result = exported.get("COPY_RESULT")
    return None if result == _PROBED else f"its COPY_RESULT is {result or 'missing'}, not {_PROBED}"


def _stopped(codebuild: "CodeBuildClient", build_id: str) -> str:
    """Stop the probe, and return what became of it."""
    try:
        codebuild.stop_build(id=build_id)
    except no_answer_errors() as error:
        return f"the probe {build_id} could not be stopped ({why_no_answer(error)}), but it ends by itself"
    return f"the probe {build_id} is stopped"


def _after_refusal(error: Exception, account: Account) -> str:
    """Return what to do after AWS has refused a call for the probe."""
    code = code_of(error) if isinstance(error, ClientError) else ""
    if code == "AccountLimitExceededException":
        return _more_builds(account)
    return f"or see {_BY_HAND}" if code in DENIED else f"then {_AGAIN}"


def _more_builds(account: Account) -> str:
    return f"ask for builds on Lambda compute: {raise_quota(aws_of(account), FAST_QUOTA, _WANTED)}; then {_AGAIN}"


def _update(project: str, china: Stack, report: Callable[[str], None]) -> None:
    kept = [{"ParameterKey": each, "UsePreviousValue": True} for each in china.parameters if each != FAST_PARAMETER]
    try:
        china.account.client("cloudformation").update_stack(
            StackName=china.name,
            UsePreviousTemplate=True,
            Parameters=[*kept, {"ParameterKey": FAST_PARAMETER, "ParameterValue": project}],
            Capabilities=list(_CAPABILITIES),
        )
    except no_answer_errors() as error:
        # Somebody else may have made the same change while the probe ran.
        if _NOTHING_TO_DO not in str(error) or not _is_used_now(project, china):
            cause = f"the stack {china.name} is not updated: {why_no_answer(error)}"
            raise NotSwitchedOnError(f"{cause}; {_after_refusal(error, china.account)}") from error
    else:
        _wait_for_update(project, china, report)
    report(f"fast lane: the stack {china.name} (china) uses {project}")


def _wait_for_update(project: str, china: Stack, report: Callable[[str], None]) -> None:
    report(f"fast lane: began to update the stack {china.name} (china)")
    see = "see " + aws_of(china.account)("cloudformation", "describe-stack-events", "--stack-name", china.name)
    deadline = time.monotonic() + _LONGEST_UPDATE
    try:
        with waiting(f"Waiting for the update of the stack {china.name}, at most 10 minutes ..."):
            while True:
                time.sleep(_PAUSE)
                now = stacks.china_stack(china.account, china.name)
                if cause := why_not_updated(now, project):
                    raise NotSwitchedOnError(f"{cause}; {see}")
                if now.status in _UPDATED:
                    return
                if time.monotonic() >= deadline:
                    raise NotSwitchedOnError(f"the stack {china.name} is still {now.status} after 10 minutes; {see}")
    except KeyboardInterrupt:
        say(f"The update of the stack {china.name} goes on; {see}.")
        raise
    except no_answer_errors() as error:
        cause = f"the update of the stack {china.name} goes on, and its end is not known: {why_no_answer(error)}"
        raise NotSwitchedOnError(f"{cause}; {see}") from error


def why_not_updated(china: Stack, project: str) -> str | None:
    """Return why the update has failed; None if it is running or has succeeded."""
    if china.status in _UPDATED:
        is_now = used_fast_project(china) or "empty"
        return None if is_now == project else f"{FAST_PARAMETER} of the stack {china.name} is {is_now} after the update"
    if china.status.endswith("_IN_PROGRESS") and "ROLLBACK" not in china.status:
        return None
    return f"the update has failed: the stack {china.name} is {china.status}"


def _is_used_now(project: str, china: Stack) -> bool:
    try:
        return used_fast_project(stacks.china_stack(china.account, china.name)) == project
    except no_answer_errors():
        return False
