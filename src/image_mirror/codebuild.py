"""The builds that make copies: started and looked up in the global account."""

import re
from collections.abc import Sequence

from image_mirror.build_result import UNKNOWN, read_build
from image_mirror.global_access import GlobalAccount
from image_mirror.record import Build, Record, idempotency_token

MOST_BUILDS = 100  # BatchGetBuilds
_BUILD = re.compile("[A-Za-z0-9-]{1,100}")  # what follows the project's name in a build's ID


class Builds:
    """Starts builds of one project, and looks up their results."""

    def __init__(self, account: GlobalAccount, project: str) -> None:
        self._account = account
        self._project = project

    def start(self, record: Record) -> str:
        """Start the build that makes `record`'s copy, whose repository must exist, and return the build's ID.

        All parameters follow from the record alone: a repeated call within five minutes finds the same build.
        Raises DelayedError.
        """
        variables = {"DOCKER_IMAGE": record.source, "NEW_DOCKER_IMAGE": record.destination}
        answer = self._account.call(
            "StartBuild",
            lambda codebuild: codebuild.start_build(
                projectName=self._project,
                environmentVariablesOverride=[
                    {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
                ],
                idempotencyToken=idempotency_token(record),
            ),
        )
        return answer["build"]["id"]

    def look_up(self, build_ids: Sequence[str]) -> dict[str, Build]:
        """Return the state of each build; at most 100. Raises DelayedError."""
        # AWS would refuse the whole call for a build of another project, from before a change of the parameters, or for
        # a text that somebody has written by hand.
        project = f"{self._project}:"
        ours = [each for each in build_ids if each.startswith(project) and _BUILD.fullmatch(each, len(project))]
        if not ours:
            return dict.fromkeys(build_ids, UNKNOWN)
        answer = self._account.call("BatchGetBuilds", lambda codebuild: codebuild.batch_get_builds(ids=ours))
        return dict.fromkeys(build_ids, UNKNOWN) | {build["id"]: read_build(build) for build in answer["builds"]}
