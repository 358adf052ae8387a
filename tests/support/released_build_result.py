"""How release 1.0.0 reads the result of a build. A new global stack can meet a reconciler of that release."""

import re
from collections.abc import Mapping
from typing import Any

from image_mirror.record import Build, BuildResult

EXIT_CODES = {
    29: "RATE_LIMITED",
    40: "BAD_INPUT",
    41: "TARGET_LOGIN",
    43: "DENIED",
    44: "NOT_FOUND",
    50: "UNREACHABLE",
}
"""The buildspec's exit codes and the COPY_RESULT that each one means."""

_REFUSALS = frozenset(("NOT_FOUND", "DENIED", "BAD_INPUT"))
_DELAYS = frozenset(("RATE_LIMITED", "UNREACHABLE", "TARGET_LOGIN"))
# Phases before the first command: their failures say nothing about the source.
_BEFORE_COMMANDS = frozenset(("SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE"))
_LONGEST_REASON = 400
_EXIT = re.compile(r"exit status (\d+)")

UNKNOWN = Build(BuildResult.DELAYED, "CodeBuild knows no such build; it is started again")
"""The result of a build that BatchGetBuilds does not find."""


def read_build(build: Mapping[str, Any]) -> Build:
    """Return the result of one entry of BatchGetBuilds' `builds`."""
    status = build.get("buildStatus")
    if status == "IN_PROGRESS":
        return Build(BuildResult.RUNNING)
    if status == "SUCCEEDED":
        return Build(BuildResult.COPIED)
    phase, message = _failed_phase(build)
    if status == "FAULT":
        return _delay(f"CodeBuild failed: {message}")
    if phase in _BEFORE_COMMANDS:
        # The buildspec's secrets are read before its first command.
        key = "secrets manager" in message.lower() or "secretsmanager" in message.lower()
        return _delay(f"the build {_VERBS.get(str(status), 'failed')} in phase {phase}: {message}", key=key)
    if status == "TIMED_OUT":
        return _refusal("the build ran out of time; BuildTimeoutMinutes allows more")
    if status == "STOPPED":
        return _refusal("the build was stopped by hand")
    exported = {pair.get("name"): pair.get("value") for pair in build.get("exportedEnvironmentVariables", ())}
    result = exported.get("COPY_RESULT")
    if result == "COPIED":
        return Build(BuildResult.COPIED)  # even if something failed afterwards
    if result not in _REFUSALS | _DELAYS:
        exit_code = _EXIT.search(message)
        result = EXIT_CODES.get(int(exit_code[1])) if exit_code else None
    reason = exported.get("COPY_REASON") or message
    if result is None:
        return _refusal(f"the build failed without a known reason: {reason}")
    if result in _REFUSALS:
        return _refusal(f"{result}: {reason}")
    return _delay(f"{result}: {reason}", key=result == "TARGET_LOGIN")


_VERBS = {"TIMED_OUT": "ran out of time", "STOPPED": "was stopped"}


def _failed_phase(build: Mapping[str, Any]) -> tuple[str, str]:
    """Return the type of the phase that did not succeed and its messages as one line."""
    for phase in build.get("phases", ()):
        if phase.get("phaseStatus", "SUCCEEDED") not in ("SUCCEEDED", "IN_PROGRESS"):
            messages = (context.get("message", "") for context in phase.get("contexts", ()))
            return str(phase.get("phaseType")), " ".join(filter(None, messages)) or "no message"
    return str(build.get("currentPhase")), "no message"


def _refusal(reason: str) -> Build:
    return Build(BuildResult.REFUSED, _one_line(reason))


def _delay(reason: str, *, key: bool = False) -> Build:
    return Build(BuildResult.DELAYED, _one_line(reason), key)


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:_LONGEST_REASON]
