"""The builds that make copies: started and looked up in the global account."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from image_mirror.build_result import UNKNOWN, read_build
from image_mirror.global_access import GlobalAccount
from image_mirror.record import Build, Lane, Record, idempotency_token

if TYPE_CHECKING:
    from types_boto3_codebuild.type_defs import BatchGetBuildsOutputTypeDef

MOST_BUILDS = 100  # BatchGetBuilds
NO_BUILD = "00000000-0000-0000-0000-000000000000"
"""What follows the project's name in the ID of a build that does not exist."""
_BUILD = re.compile("[A-Za-z0-9-]{1,100}")  # what follows the project's name in a build's ID


class Builds:
    """Starts builds of the project of each lane, and looks up their results."""

    def __init__(self, account: GlobalAccount, project: str, fast_project: str = "") -> None:
        """Take the account, and the projects of the main lane and the fast lane; "" if there is no fast lane.

        One project for both is one lane: the name of a build's project is all that says in which lane it is.
        """
        self._account = account
        self._projects = {Lane.MAIN: project} | ({Lane.FAST: fast_project} if fast_project not in ("", project) else {})

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes that there are."""
        return list(self._projects)

    def lane_of(self, build_id: str) -> Lane:
        """Return the lane of a build; the main lane for one of another project too."""
        is_fast = Lane.FAST in self._projects and build_id.startswith(f"{self._projects[Lane.FAST]}:")
        return Lane.FAST if is_fast else Lane.MAIN

    def start(self, record: Record) -> str:
        """Start the build that makes `record`'s copy in its lane, and return the build's ID. The repository must exist.

        All parameters follow from the record alone: a repeated call within five minutes finds the same build.
        Raises DelayedError.
        """
        variables = {"DOCKER_IMAGE": record.source, "NEW_DOCKER_IMAGE": record.destination}
        answer = self._account.call(
            "StartBuild",
            lambda codebuild: codebuild.start_build(
                projectName=self._projects[record.lane or Lane.MAIN],
                environmentVariablesOverride=[
                    {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
                ],
                idempotencyToken=idempotency_token(record),
            ),
        )
        return answer["build"]["id"]

    def look_up(self, build_ids: Sequence[str]) -> dict[str, Build]:
        """Return the state of each build; one to 100, all of one lane. Raises DelayedError."""
        # AWS would refuse the whole call for a build of another project, from before a change of the parameters, or for
        # a text that somebody has written by hand.
        project = f"{self._projects[self.lane_of(build_ids[0])]}:"
        ours = [each for each in build_ids if each.startswith(project) and _BUILD.fullmatch(each, len(project))]
        if not ours:
            return dict.fromkeys(build_ids, UNKNOWN)
        answer = self._ask(ours)
        return dict.fromkeys(build_ids, UNKNOWN) | {build["id"]: read_build(build) for build in answer["builds"]}

    def check(self) -> None:
        """Ask the main lane for a build that does not exist. Raises DelayedError, with `key` if the key is refused."""
        self._ask([f"{self._projects[Lane.MAIN]}:{NO_BUILD}"])

    def _ask(self, build_ids: Sequence[str]) -> "BatchGetBuildsOutputTypeDef":
        return self._account.call("BatchGetBuilds", lambda codebuild: codebuild.batch_get_builds(ids=build_ids))
