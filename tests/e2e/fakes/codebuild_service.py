"""CodeBuild's API over HTTP (starts, looks, lists and stops); it runs the real buildspec for each accepted build."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.fakes import lambda_compute
from e2e.fakes.servers import Answer, Request, serving
from support.buildspec_runner import Run

Json = dict[str, Any]
Build = Callable[..., Run]


class RefusedError(Exception):
    """CodeBuild refuses a request with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class OverdueError(Exception):
    """Raised by a build that would take this many minutes, more than its project allows."""

    def __init__(self, minutes: float) -> None:
        super().__init__(f"the build takes {minutes:g} minutes")
        self.minutes = minutes


@dataclass(frozen=True)
class Project:
    """A project: what runs a build, and its properties in CloudFormation.

    `run` copies the image of its first argument to its second; further variables of a build are arguments by name.

    `quota` is how many builds the account may run at once with this compute; five times as many wait in its queue.
    Raises RefusedError for properties that CodeBuild refuses.
    """

    name: str
    run: Build
    properties: Json = field(default_factory=dict)
    quota: int = 20

    def __post_init__(self) -> None:
        self.check({})

    @property
    def minutes(self) -> float:
        """How long a build may take."""
        on_lambda = lambda_compute.is_lambda(self.properties)
        return lambda_compute.MINUTES if on_lambda else float(self.properties.get("TimeoutInMinutes", 60))

    def environment(self, variables: Mapping[str, str]) -> Json:
        """Return the environment of a build that overrides these variables, as BatchGetBuilds returns it."""
        listed = self.properties.get("Environment", {}).get("EnvironmentVariables", ())
        given = {each["Name"]: str(each["Value"]) for each in listed} | dict(variables)
        return {"environmentVariables": [{"name": name, "value": value} for name, value in given.items()]}

    def check(self, request: Json) -> None:
        """Check what a StartBuild changes for its build. Raises RefusedError."""
        refused = lambda_compute.refusal(self.properties, request)
        if refused:
            raise RefusedError("InvalidInputException", refused)


@dataclass
class CodeBuildService:
    """The running service: its `url`, the accepted requests by token, and each build as BatchGetBuilds returns it.

    A request about a project in `denied` is refused as by the caller's policy. `errors` has exceptions of builds: these
    are faults of the test and not of the buildspec.
    """

    url: str
    projects: Mapping[str, Project]
    denied: set[str] = field(default_factory=set)
    tokens: dict[str, tuple[Json, str]] = field(default_factory=dict)
    builds: dict[str, Json] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = {name: threading.Semaphore(each.quota) for name, each in self.projects.items()}
        self._lock = threading.Lock()

    def start_build(self, request: Json) -> Json:
        """Accept a build, or return the existing one of the same token. Raises RefusedError."""
        name = request["projectName"]
        self._authorize("StartBuild", name)
        if name not in self.projects:
            raise RefusedError("ResourceNotFoundException", f"Project cannot be found: {name}")
        project = self.projects[name]
        project.check(request)
        token = request.get("idempotencyToken") or str(uuid.uuid4())  # a request without one always starts a build
        with self._lock:
            first, known = self.tokens.get(token, (request, ""))
            if first != request:
                raise RefusedError("InvalidInputException", "the token was used with other parameters")
            if not known:
                if len(self.of(name, "QUEUED")) >= 5 * project.quota:
                    most = f"Cannot have more than {5 * project.quota} builds in queue for the account"
                    raise RefusedError("AccountLimitExceededException", most)
                known = f"{name}:{uuid.uuid4()}"
                self.tokens[token] = request, known
                variables = {each["name"]: each["value"] for each in request["environmentVariablesOverride"]}
                self.builds[known] = {
                    "id": known,
                    "buildStatus": "IN_PROGRESS",
                    "currentPhase": "QUEUED",
                    "startTime": time.time(),
                    "initiator": "emulated",
                    "environment": project.environment(variables),
                }
                thread = threading.Thread(target=self._work, args=(project, known, variables), daemon=True)
                self.threads.append(thread)
                thread.start()
        return {"build": self.builds[known]}

    def batch_get_builds(self, request: Json) -> Json:
        """Answer BatchGetBuilds. Raises RefusedError if one of the builds is of a project that is denied."""
        for build in request["ids"]:
            self._authorize("BatchGetBuilds", build.partition(":")[0])
        found = [self.builds[build] for build in request["ids"] if build in self.builds]
        return {"builds": found, "buildsNotFound": [build for build in request["ids"] if build not in self.builds]}

    def list_builds_for_project(self, request: Json) -> Json:
        """Answer ListBuildsForProject: the latest first, on one page."""
        self._authorize("ListBuildsForProject", request["projectName"])
        return {"ids": self.of(request["projectName"])[::-1]}

    def stop_build(self, request: Json) -> Json:
        """Stop a build, if it has not ended. What runs it is not ended by that."""
        name = request["id"]
        self._authorize("StopBuild", name.partition(":")[0])
        if name not in self.builds:
            raise RefusedError("ResourceNotFoundException", f"Build cannot be found: {name}")
        self._end(name, "STOPPED", "", {})
        return {"build": self.builds[name]}

    def of(self, project: str, phase: str | None = None) -> list[str]:
        """Return the builds of a project, all or those in a phase."""
        found = [(name, build["currentPhase"]) for name, build in list(self.builds.items())]
        return [name for name, now in found if name.startswith(f"{project}:") and phase in (None, now)]

    def wait(self) -> None:
        """Wait until all builds have ended. Raises an exception of a build."""
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads), "a build does not end"
        if self.errors:
            raise self.errors[0]

    def _authorize(self, operation: str, project: str) -> None:
        if project in self.denied:
            action = f"codebuild:{operation} on resource: project/{project}"
            raise RefusedError("AccessDeniedException", f"the user is not authorized to perform: {action}")

    def _work(self, project: Project, build: str, variables: dict[str, str]) -> None:
        with self._slots[project.name]:
            with self._lock:
                if self.builds[build]["buildStatus"] != "IN_PROGRESS":
                    return
                self.builds[build] |= {"currentPhase": "BUILD", "began": time.time()}
            try:
                image, target = (variables.pop(name, "") for name in ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE"))
                run = project.run(image, target, **variables)
            except OverdueError as overdue:
                if overdue.minutes > project.minutes:
                    message = f"Build timed out after {project.minutes:g} minutes"
                    self._end(build, "TIMED_OUT", message, {})
                else:
                    self._fail(build, overdue)
            except BaseException as error:  # noqa: BLE001 - a skip and a failed test are among them; `wait` raises it
                self._fail(build, error)
            else:
                self._conclude(build, run)

    def _conclude(self, build: str, run: Run) -> None:
        if run.exit_code == 0:
            self._end(build, "SUCCEEDED", "", run.exported)
        else:
            message = f"Error while executing command: {run.failed_command}. Reason: exit status {run.exit_code}"
            self._end(build, "FAILED", message, run.exported)

    def _fail(self, build: str, error: BaseException) -> None:
        self.errors.append(error)
        self._end(build, "FAULT", f"{type(error).__name__}: {error}", {})

    def _end(self, build: str, status: str, message: str, exported: Mapping[str, str]) -> None:
        """End a build. One that was stopped stays so."""
        with self._lock:
            if self.builds[build]["buildStatus"] == "IN_PROGRESS":
                self.builds[build] = _ended(self.builds[build], status, message, exported)


def _ended(build: Json, status: str, message: str, exported: Mapping[str, str]) -> Json:
    """Return a build that has ended in its phase BUILD, as BatchGetBuilds returns it."""
    now = time.time()
    began = build.pop("began", now)
    queued = {"phaseType": "QUEUED", "phaseStatus": "SUCCEEDED", "startTime": build["startTime"], "endTime": began}
    contexts = [{"message": message}] if message else []
    phase = {"phaseType": "BUILD", "phaseStatus": status, "contexts": contexts, "startTime": began, "endTime": now}
    return build | {
        "buildStatus": status,
        "currentPhase": "COMPLETED",
        "phases": [queued, phase],
        "exportedEnvironmentVariables": [{"name": name, "value": value} for name, value in exported.items()],
    }


Respond = Callable[[Request], Answer]


@contextmanager
def codebuild_service(
    *projects: Project, checked: Callable[[Respond], Respond] = lambda respond: respond
) -> Iterator[CodeBuildService]:
    """Serve the API for these projects while the context is active; `checked` puts a check before each answer.

    At its end the context waits for all builds, and raises an exception of a build.
    """

    def respond(request: Request) -> Answer:
        operation = request.headers["x-amz-target"].partition(".")[2]
        handle = {
            "StartBuild": service.start_build,
            "BatchGetBuilds": service.batch_get_builds,
            "ListBuildsForProject": service.list_builds_for_project,
            "StopBuild": service.stop_build,
        }[operation]
        try:
            return Answer(200, json.dumps(handle(json.loads(request.body))).encode())
        except RefusedError as refused:
            return Answer(400, json.dumps({"__type": refused.code, "message": refused.message}).encode())

    service = CodeBuildService("", {each.name: each for each in projects})
    with serving(checked(respond)) as port:
        service.url = f"http://localhost:{port}"
        try:
            yield service
        finally:
            service.wait()
