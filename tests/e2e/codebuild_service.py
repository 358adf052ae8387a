"""CodeBuild's API, StartBuild and BatchGetBuilds over HTTP, which runs the real buildspec for each build it accepts."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from servers import Answer, Request, serving

from buildspec_runner import Run

Json = dict[str, Any]
Build = Callable[[str, str], Run]


@dataclass
class CodeBuildService:
    """The running service: its `url`, the requests it accepted by token, and each build as BatchGetBuilds tells it."""

    url: str
    run: Build
    tokens: dict[str, str] = field(default_factory=dict)
    builds: dict[str, Json] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    def start_build(self, request: Json) -> Json:
        """Accept a build, or return the one that the token names already."""
        known = self.tokens.get(request["idempotencyToken"])
        if known is None:
            known = f"{request['projectName']}:{uuid.uuid4()}"
            self.tokens[request["idempotencyToken"]] = known
            self.builds[known] = {"id": known, "buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"}
            variables = {each["name"]: each["value"] for each in request["environmentVariablesOverride"]}
            thread = threading.Thread(target=self._work, args=(known, variables))
            self.threads.append(thread)
            thread.start()
        return {"build": self.builds[known]}

    def batch_get_builds(self, request: Json) -> Json:
        """Tell what each build came to."""
        found = [self.builds[build] for build in request["ids"] if build in self.builds]
        return {"builds": found, "buildsNotFound": [build for build in request["ids"] if build not in self.builds]}

    def _work(self, build: str, variables: dict[str, str]) -> None:
        run = self.run(variables["DOCKER_IMAGE"], variables["NEW_DOCKER_IMAGE"])
        exported = [{"name": name, "value": value} for name, value in run.exported.items()]
        ended: Json = {
            "phaseType": "BUILD",
            "phaseStatus": "SUCCEEDED" if run.exit_code == 0 else "FAILED",
            "contexts": [],
        }
        self.builds[build] = {
            "id": build,
            "buildStatus": ended["phaseStatus"],
            "currentPhase": "COMPLETED",
            "phases": [ended],
            "exportedEnvironmentVariables": exported,
        }


@contextmanager
def codebuild_service(run: Build) -> Iterator[CodeBuildService]:
    """Serve the API while the context lasts; `run` makes a copy of its first argument under its second."""

    def respond(request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        handle = {"StartBuild": service.start_build, "BatchGetBuilds": service.batch_get_builds}[operation]
        return Answer(200, json.dumps(handle(json.loads(request.body))).encode())

    service = CodeBuildService("", run)
    with serving(respond) as port:
        service.url = f"http://localhost:{port}"
        yield service
        for thread in service.threads:
            thread.join(60)
