"""Builds in CodeBuild and their logs, in the global account: one in full, what is new in it, and which ones queue."""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from image_mirror.build_result import read_build
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.status.records import Queued
from image_mirror.cli.errors import no_answer_errors, why_no_answer

LOG_LINES = 20
NO_LOG_YET = "the build has no log yet"
_MOST_EVENTS = 1_000  # in one look of the follower
_PATIENCE = 5.0  # seconds: a list is worth more than knowing which of its builds wait
_MOST_BUILDS = 100  # BatchGetBuilds
_BUILD = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{1,254}:[A-Za-z0-9-]{1,100}")


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

    @property
    def is_queued(self) -> bool:
        """Whether it waits in CodeBuild's queue."""
        latest = self.phases[-1].phase if self.phases else "SUBMITTED"
        return self.status == "IN_PROGRESS" and latest in ("SUBMITTED", "QUEUED")


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


class Builds:
    """Asks the global account about builds, again and again."""

    def __init__(self, account: Account) -> None:
        """Take the global account, which is not asked now."""
        self._account = account
        self._build = ""
        self._token: str | None = None
        self._clients: dict[str, Any] = {}

    def look(self, build_id: str) -> tuple[BuildDetails | None, str | None]:
        """Return the build or None, and what is missing and why.

        `log` has the lines that are new since the last look at this build, at first the last LOG_LINES.
        """
        if build_id != self._build:
            self._build, self._token = build_id, None
        account = self._account
        try:
            answer = self._client("codebuild").batch_get_builds(ids=[build_id])
        except no_answer_errors() as error:
            return None, why_no_answer(error)
        if not answer["builds"]:
            return None, f"{account}: CodeBuild in {account.region} has no build {build_id}; is this the right account?"
        details = read_details(answer["builds"][0])
        if not details.log_group or not details.log_stream:
            is_running = details.status == "IN_PROGRESS"
            return (
                details,
                NO_LOG_YET if is_running else "the build has ended, and CodeBuild has no log of it",
            )
        place = {"logGroupName": details.log_group, "logStreamName": details.log_stream}
        where: dict[str, Any] = {"startFromHead": False, "limit": LOG_LINES}
        if self._token:
            where = {"nextToken": self._token, "startFromHead": True, "limit": _MOST_EVENTS}
        try:
            events = self._client("logs").get_log_events(**place, **where)
        except no_answer_errors() as error:
            return details, why_no_answer(error)
        self._token = events.get("nextForwardToken") or self._token
        lines = [line for event in events["events"] for line in event["message"].splitlines()]
        return replace(details, log=lines if "nextToken" in where else lines[-LOG_LINES:]), None

    def queued(self, build_ids: Iterable[str]) -> tuple[Queued, str | None]:
        """Return which of the builds wait in CodeBuild's queue and which run, and why that is not known.

        It takes five seconds at most: a region that is lost must not hide the records.
        """
        # AWS would refuse the whole call for a text that somebody has written by hand.
        wanted = [each for each in dict.fromkeys(build_ids) if _BUILD.fullmatch(each)]
        found: dict[str, bool] = {}
        troubles: list[str] = []

        def read() -> None:
            try:
                for some in _hundreds(wanted):
                    answer = self._client("codebuild").batch_get_builds(ids=some)
                    found.update({build["id"]: read_build(build).queued for build in answer["builds"]})
            except no_answer_errors() as error:
                troubles.append(why_no_answer(error))

        if not wanted:
            return {}, None
        thread = threading.Thread(target=read, daemon=True)  # the command ends without it
        thread.start()
        thread.join(_PATIENCE)
        if thread.is_alive():
            return {}, f"{self._account}: no answer within {_PATIENCE:.0f} seconds"
        return found, troubles[0] if troubles else None

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._account.client(service)
        return self._clients[service]


def _hundreds(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _MOST_BUILDS):
        yield ids[start : start + _MOST_BUILDS]


def _phase(phase: Mapping[str, Any]) -> Phase:
    messages = (context.get("message") for context in phase.get("contexts") or ())
    return Phase(
        phase=str(phase.get("phaseType")),
        status=str(phase.get("phaseStatus", "IN_PROGRESS")),
        seconds=phase.get("durationInSeconds"),
        message=" ".join(filter(None, messages)) or None,
    )
