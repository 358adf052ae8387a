"""The builds that began with a key which is to be removed, and may still need it."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient

_LONGEST_QUEUE = timedelta(minutes=480)  # the project's QueuedTimeoutInMinutes
# A build reads the project's secrets when it begins to run, and so not while it is in these.
_BEFORE_SECRETS = ("SUBMITTED", "QUEUED")


def underway_since(codebuild: "CodeBuildClient", project: str, before: datetime, longest_build: timedelta) -> list[str]:
    """Return the IDs of the builds that began before `before` and run; they may have read a secret as it was then."""
    found: list[str] = []
    # The latest come first; with more than 100 builds, asking for that order is an error.
    for page in codebuild.get_paginator("list_builds_for_project").paginate(projectName=project):
        builds = codebuild.batch_get_builds(ids=page["ids"])["builds"] if page["ids"] else []
        found += [
            build["id"]
            for build in builds
            if build["buildStatus"] == "IN_PROGRESS"
            and build.get("currentPhase") not in _BEFORE_SECRETS
            and build["startTime"] <= before
        ]
        # Whatever is older has run out of time.
        if any(build["startTime"] < before - longest_build - _LONGEST_QUEUE for build in builds):
            break
    return found


def still_underway(codebuild: "CodeBuildClient", ids: list[str]) -> list[str]:
    """Return those of `ids` that have not ended."""
    # BatchGetBuilds takes a hundred.
    pages = (ids[start : start + 100] for start in range(0, len(ids), 100))
    builds = (build for page in pages for build in codebuild.batch_get_builds(ids=page)["builds"])
    return [build["id"] for build in builds if build["buildStatus"] == "IN_PROGRESS"]
