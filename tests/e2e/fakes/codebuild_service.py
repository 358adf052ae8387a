"""CodeBuild's API over HTTP (StartBuild and BatchGetBuilds); it runs the real buildspec for each accepted build."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.fakes.servers import Answer, Request, serving
from support.buildspec_runner import Run

Json = dict[str, Any]
Build = Callable[[str, str], Run]


@dataclass
class CodeBuildService:
    """The running service: its `url`, the accepted requests by token, and each build as BatchGetBuilds returns it.

    `errors` has exceptions of builds: these are faults of the test and not of the buildspec.
    """

    url: str
    run: Build
    tokens: dict[str, str] = field(default_factory=dict)
    builds: dict[str, Json] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def start_build(self, request: Json) -> Json:
        """Accept a build, or return the existing one of the same token."""
        known = self.tokens.get(request["idempotencyToken"])
        if known is None:
            known = f"{request['projectName']}:{uuid.uuid4()}"
            self.tokens[request["idempotencyToken"]] = known
            self.builds[known] = {"id": known, "buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"}
            variables = {each["name"]: each["value"] for each in request["environmentVariablesOverride"]}
            thread = threading.Thread(target=self._work, args=(known, variables), daemon=True)
            self.threads.append(thread)
            thread.start()
        return {"build": self.builds[known]}

    def batch_get_builds(self, request: Json) -> Json:
        """Answer BatchGetBuilds."""
        found = [self.builds[build] for build in request["ids"] if build in self.builds]
        return {"builds": found, "buildsNotFound": [build for build in request["ids"] if build not in self.builds]}

    def wait(self) -> None:
        """Wait until all builds have ended. Raises an exception of a build."""
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads), "a build does not end"
        if self.errors:
            raise self.errors[0]

    def _work(self, build: str, variables: dict[str, str]) -> None:
        try:
            run = self.run(variables["DOCKER_IMAGE"], variables["NEW_DOCKER_IMAGE"])
        except BaseException as error:  # noqa: BLE001 - a skip and a failed test are among them; `wait` raises it
            self.errors.append(error)
            self.builds[build] = _ended(build, "FAULT", f"{type(error).__name__}: {error}", {})
            return
        if run.exit_code == 0:
            self.builds[build] = _ended(build, "SUCCEEDED", "", run.exported)
        else:
            message = f"Error while executing command: {run.failed_command}. Reason: exit status {run.exit_code}"
            self.builds[build] = _ended(build, "FAILED", message, run.exported)


def _ended(build: str, status: str, message: str, exported: Mapping[str, str]) -> Json:
    """Return a build that has ended in its phase BUILD, as BatchGetBuilds returns it."""
    phase = {"phaseType": "BUILD", "phaseStatus": status, "contexts": [{"message": message}] if message else []}
    return {
        "id": build,
        "buildStatus": status,
        "currentPhase": "COMPLETED",
        "phases": [phase],
        "exportedEnvironmentVariables": [{"name": name, "value": value} for name, value in exported.items()],
    }


@contextmanager
def codebuild_service(run: Build) -> Iterator[CodeBuildService]:
    """Serve the API while the context is active; `run` copies the image of its first argument to its second.

    At its end the context waits for all builds, and raises an exception of a build.
    """

    def respond(request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        handle = {"StartBuild": service.start_build, "BatchGetBuilds": service.batch_get_builds}[operation]
        return Answer(200, json.dumps(handle(json.loads(request.body))).encode())

    service = CodeBuildService("", run)
    with serving(respond) as port:
        service.url = f"http://localhost:{port}"
        try:
            yield service
        finally:
            service.wait()
