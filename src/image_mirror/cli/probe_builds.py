"""Runs a build as a probe: it logs in to ECR in China, copies nothing, and ends."""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.build_result import read_build
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.output import say
from image_mirror.cli.stack_updates import AGAIN, after_refusal
from image_mirror.cli.terminal import delayed_interrupt

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient

_PROBE = {"COPY_PROBE": "login"}
"""With this variable, buildspec/copy.py logs in to ECR and ends."""
_PROBED = "PROBED"
_PAUSE = 3.0  # seconds between two looks
_BEFORE_START = ("SUBMITTED", "QUEUED")


class NotProvenError(Exception):
    """No probe has succeeded. The message says why, and what to do.

    `has_failed` says that a probe ran and failed, not that none could be run to its end.
    """

    def __init__(self, text: str, *, has_failed: bool = False) -> None:
        super().__init__(text)
        self.has_failed = has_failed


def prove(
    project: str,
    account: Account,
    variables: Mapping[str, str],
    *,
    minutes: int,
    more_builds: str,
    report: Callable[[str], None],
) -> None:
    """Start a probe of `project` with these variables, and wait for its success. Raises NotProvenError.

    `report` is called with each step. `more_builds` is what to do if the account may run no such build. A probe whose
    time is over is stopped, and after Ctrl-C too: a note on standard error says what became of it.
    """
    build: Mapping[str, Any] = {}
    given = [{"name": name, "value": value, "type": "PLAINTEXT"} for name, value in {**_PROBE, **variables}.items()]
    try:
        codebuild = account.client("codebuild")
        try:
            # If Ctrl-C ended the call before its answer is read, nobody would know the build.
            with delayed_interrupt():
                build = codebuild.start_build(
                    projectName=project, environmentVariablesOverride=given, idempotencyToken=str(uuid.uuid4())
                )["build"]
            report(f"started the probe {build['id']}; it has {minutes} minutes")
            build = _ended(codebuild, build, minutes * 60, report)
        except BaseException:  # Ctrl-C too
            if build:
                say(_stopped(codebuild, build["id"]))
            raise
    except no_answer_errors() as error:
        is_full = isinstance(error, ClientError) and code_of(error) == "AccountLimitExceededException"
        remedy = f"{more_builds}; then {AGAIN}" if is_full else after_refusal(error)
        raise NotProvenError(f"{why_no_answer(error)}; {remedy}") from error
    if build["buildStatus"] == "IN_PROGRESS":
        phase = build.get("currentPhase")
        remedy = f"{more_builds}; then {AGAIN}" if phase in _BEFORE_START else f"later, {AGAIN}"
        stopped = _stopped(codebuild, build["id"])
        raise NotProvenError(f"the probe was still {phase} after {minutes} minutes; {stopped}; {remedy}")
    if cause := why_unfit(build):
        text = f"the probe {build['id']} failed: {cause}; when that is corrected, {AGAIN}"
        raise NotProvenError(text, has_failed=True)


def _ended(
    codebuild: "CodeBuildClient", build: Mapping[str, Any], seconds: float, report: Callable[[str], None]
) -> Mapping[str, Any]:
    """Wait until the build has ended, or its time is over, and return it as it is then."""
    deadline, phase = time.monotonic() + seconds, None
    while build["buildStatus"] == "IN_PROGRESS" and time.monotonic() < deadline:
        if phase != build.get("currentPhase"):
            phase = build.get("currentPhase")
            report(f"the probe is {phase}")
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
