"""Reads the result of a build from an entry of BatchGetBuilds. Pure.

The buildspec exports COPY_RESULT and COPY_REASON. Where the export is missing, the exit code of its command, which
CodeBuild puts into the failed phase's message, says the same.
"""

import re
from collections.abc import Mapping
from typing import Any

from image_mirror.record import OUT_OF_TIME, TIMED_OUT, Build, BuildResult

EXIT_CODES = {
    1: "UNEXPLAINED",
    29: "RATE_LIMITED",
    40: "BAD_INPUT",
    41: "TARGET_LOGIN",
    43: "DENIED",
    44: "NOT_FOUND",
    45: "REFUSED",
    46: "TOO_LARGE",
    50: "UNREACHABLE",
    51: "STALLED",
    52: OUT_OF_TIME,
}
"""The buildspec's exit codes and the COPY_RESULT that each one means, if the result is not exported.

AUTH_FILE has the code of TARGET_LOGIN, and TARGET_BUSY and TARGET_DENIED that of UNREACHABLE: they are waits too, and
earlier releases know these codes.
"""

_COSTS = {
    **dict.fromkeys(("NOT_FOUND", "DENIED", "BAD_INPUT", OUT_OF_TIME), BuildResult.REFUSED),
    **dict.fromkeys(
        (
            "RATE_LIMITED",
            "UNREACHABLE",
            "AUTH_FILE",
            "TARGET_LOGIN",
            "TARGET_BUSY",
            "TARGET_DENIED",
            "STALLED",
            "UNEXPLAINED",
        ),
        BuildResult.DELAYED,
    ),
    **dict.fromkeys(("REFUSED", "TOO_LARGE"), BuildResult.ENDED),
}
"""What a build without a copy costs, by its COPY_RESULT. In a row, STALLED and UNEXPLAINED cost more (lifecycle.py)."""
_OF_A_KEY = "TARGET_LOGIN"  # no build can log in to ECR; after a login that worked, ECR's refusal is TARGET_DENIED
# Phases before the first command: their failures say nothing about the source.
_BEFORE_COMMANDS = frozenset(("SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE"))
_QUEUED = ("SUBMITTED", "QUEUED")
_LONGEST_REASON = 400
_EXIT = re.compile(r"exit status (\d+)")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")

UNKNOWN = Build(BuildResult.DELAYED, "CodeBuild knows no such build; it is started again")
"""The result of a build that BatchGetBuilds does not find."""


def read_build(build: Mapping[str, Any]) -> Build:
    """Return the result of one entry of BatchGetBuilds' `builds`."""
    status = build.get("buildStatus")
    if status == "IN_PROGRESS":
        started_at = int(build["startTime"].timestamp() * 1000) if "startTime" in build else 0
        return Build(BuildResult.RUNNING, queued=build.get("currentPhase") in _QUEUED, started_at=started_at)
    exported = {pair.get("name"): str(pair.get("value")) for pair in build.get("exportedEnvironmentVariables", ())}
    if status == "SUCCEEDED":
        return _copied(exported)
    phase, message = _failed_phase(build)
    if status == "FAULT":
        return _delay(f"CodeBuild failed: {message}")
    if phase in _BEFORE_COMMANDS:
        # The buildspec's secrets are read before its first command.
        key = "secrets manager" in message.lower() or "secretsmanager" in message.lower()
        return _delay(f"the build {_VERBS.get(str(status), 'failed')} in phase {phase}: {message}", key=key)
    if status == "TIMED_OUT":
        return Build(BuildResult.REFUSED, "the build ran out of time; BuildTimeoutMinutes allows more", code=TIMED_OUT)
    if status == "STOPPED":
        return _refusal("the build was stopped by hand")
    result = exported.get("COPY_RESULT")
    if result == "COPIED":
        return _copied(exported)  # even if something failed afterwards
    if result not in _COSTS:
        exit_code = _EXIT.search(message)
        result = EXIT_CODES.get(int(exit_code[1])) if exit_code else None
    code = str(result or "UNEXPLAINED")
    reason = exported.get("COPY_REASON") or message
    return Build(_COSTS[code], _one_line(f"{code}: {reason}"), code == _OF_A_KEY, code)


_VERBS = {"TIMED_OUT": "ran out of time", "STOPPED": "was stopped"}


def _failed_phase(build: Mapping[str, Any]) -> tuple[str, str]:
    """Return the type of the phase that did not succeed and its messages as one line."""
    for phase in build.get("phases", ()):
        if phase.get("phaseStatus", "SUCCEEDED") not in ("SUCCEEDED", "IN_PROGRESS"):
            messages = (context.get("message", "") for context in phase.get("contexts", ()))
            return str(phase.get("phaseType")), " ".join(filter(None, messages)) or "no message"
    return str(build.get("currentPhase")), "no message"


def _copied(exported: Mapping[Any, str]) -> Build:
    """Return the result of a build with a copy. An older global stack exports neither digest nor signatures."""
    digest = exported.get("COPY_DIGEST", "")
    signatures = _one_line(exported.get("COPY_SIGNATURES", ""))
    return Build(BuildResult.COPIED, digest=digest if _DIGEST.fullmatch(digest) else "", signatures=signatures)


def _refusal(reason: str) -> Build:
    return Build(BuildResult.REFUSED, _one_line(reason))


def _delay(reason: str, *, key: bool = False) -> Build:
    return Build(BuildResult.DELAYED, _one_line(reason), key)


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:_LONGEST_REASON]
