"""The key in China's secret, and requests that a thief of the key may send."""

from typing import Any

from e2e.fakes.policies import Request
from e2e.harness.authorization import resource_of
from e2e.harness.principals import globally
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.start_build import start_build_context
from support.buildspec_runner import IMAGE, TARGET

Json = dict[str, Any]
START = "codebuild:StartBuild"
PROJECTS = tuple(resource_of(START, GLOBAL, ProjectName=name) for name in ("ImagePullProject", "ImagePullProjectFast"))
_STACK = {"FastLane": "true"}
POLICY = globally("as shipped", **_STACK).policies("ImagePullUser")
POLICY_OF_ONE_ACCOUNT = globally("as shipped", ChinaAccountId=CHINA.account, **_STACK).policies("ImagePullUser")


def variables(**given: str) -> list[Json]:
    """Return variables in the form of StartBuild."""
    return [{"name": name, "value": value, "type": "PLAINTEXT"} for name, value in given.items()]


def request(project: str = PROJECTS[0], **members: Any) -> Request:
    """Return the reconciler's request of StartBuild for one of PROJECTS, with `members` added or replaced."""
    both = variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=TARGET)
    given = {"environmentVariablesOverride": both, "idempotencyToken": "t" * 64}
    return Request(START, project, start_build_context(given | members))
