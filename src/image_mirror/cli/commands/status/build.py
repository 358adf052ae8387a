"""One build in full, from CodeBuild and its log in the global account."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError, remedy

LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a build; `seconds` is None while it is running."""

    phase: str
    status: str
    seconds: int | None
    message: str | None


@dataclass(frozen=True, slots=True)
class BuildDetails:
    """One build: its phases in order, the place of its log, and the log's last lines."""

    build: str
    status: str
    phases: list[Phase]
    log_group: str | None
    log_stream: str | None
    log: list[str]


def read_details(build: Mapping[str, Any]) -> BuildDetails:
    """Read one entry of BatchGetBuilds' `builds`. It contains everything except the log's lines."""
    logs = build.get("logs") or {}
    return BuildDetails(
        build=build["id"],
        status=build.get("buildStatus", "UNKNOWN"),
        phases=[_phase(each) for each in build.get("phases", ())],
        log_group=logs.get("groupName"),
        log_stream=logs.get("streamName"),
        log=[],
    )


def ask(account: Account, build_id: str) -> tuple[BuildDetails | None, str | None]:
    """Ask the global account about a build. Return the build or None, and what is missing and why; never raises."""
    try:
        answer = account.client("codebuild").batch_get_builds(ids=[build_id])
    except (BotoCoreError, ClientError, NoAnswerError) as error:
        return None, _why(error)
    if not answer["builds"]:
        return None, f"{account}: CodeBuild in {account.region} has no build {build_id}; is this the right account?"
    details = read_details(answer["builds"][0])
    if not details.log_group or not details.log_stream:
        is_running = details.status == "IN_PROGRESS"
        return (
            details,
            "the build has no log yet" if is_running else "the build has ended, and CodeBuild has no log of it",
        )
    try:
        events = account.client("logs").get_log_events(
            logGroupName=details.log_group, logStreamName=details.log_stream, limit=LOG_LINES, startFromHead=False
        )["events"]
    except (BotoCoreError, ClientError) as error:
        return details, _why(error)
    lines = [line for event in events for line in event["message"].splitlines()]
    return replace(details, log=lines[-LOG_LINES:]), None


def _phase(phase: Mapping[str, Any]) -> Phase:
    messages = (context.get("message") for context in phase.get("contexts") or ())
    return Phase(
        phase=str(phase.get("phaseType")),
        status=str(phase.get("phaseStatus", "IN_PROGRESS")),
        seconds=phase.get("durationInSeconds"),
        message=" ".join(filter(None, messages)) or None,
    )


def _why(error: BotoCoreError | ClientError | NoAnswerError) -> str:
    return str(error) if isinstance(error, NoAnswerError) else remedy(error)
