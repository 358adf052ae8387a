"""The tests' own CodeBuild API: an error in one of its builds must make a test fail."""

import threading
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from e2e.fakes.codebuild_service import CodeBuildService, Json, OverdueError, Project, RefusedError, codebuild_service
from image_mirror.build_result import read_build
from image_mirror.record import Build, BuildResult
from support.buildspec_runner import FAST, MAIN, Run, resolve, template

COPIED = Run(None, 0, {"COPY_RESULT": "COPIED"}, "", ())
NAMES = {MAIN: "ImagePullProject", FAST: "ImagePullProjectFast"}


def request(token: str = "token", project: str = "ImagePullProject", **more: Any) -> Json:
    variables = [{"name": "DOCKER_IMAGE", "value": "from"}, {"name": "NEW_DOCKER_IMAGE", "value": "to"}]
    return {"projectName": project, "environmentVariablesOverride": variables, "idempotencyToken": token, **more}


def shipped(name: str, run: Callable[[str, str], Run] = lambda *_: COPIED, **changes: Any) -> Project:
    """Return a project of the template, with a quota of one build."""
    properties = resolve(template()["Resources"][name]["Properties"])
    return Project(NAMES[name], run, properties | changes, quota=1)


def started(service: CodeBuildService, *given: Any, **more: Any) -> str:
    build: str = service.start_build(request(*given, **more))["build"]["id"]
    return build


def test_a_repeated_token_starts_no_second_build() -> None:
    asked: list[tuple[str, str]] = []

    def run(image: str, destination: str) -> Run:
        asked.append((image, destination))
        return COPIED

    with codebuild_service(shipped(MAIN, run)) as service:
        first, second = (started(service) for _ in range(2))
        service.wait()
        assert first == second
        assert asked == [("from", "to")]
        [build] = service.batch_get_builds({"ids": [first]})["builds"]
        assert read_build(build) == Build(BuildResult.COPIED)


def test_a_token_that_was_used_for_another_project_is_refused() -> None:
    with codebuild_service(shipped(MAIN), shipped(FAST)) as service:
        started(service, "token")
        with pytest.raises(RefusedError, match="InvalidInputException: the token was used with other parameters"):
            started(service, "token", "ImagePullProjectFast")
        assert service.of("ImagePullProjectFast") == []


def test_a_failed_build_says_which_command_failed_and_how() -> None:
    with codebuild_service(shipped(MAIN, lambda *_: Run("copy", 44, {}, "", ()))) as service:
        build = started(service)
        service.wait()
        message = "Error while executing command: copy. Reason: exit status 44"
        assert read_build(service.builds[build]) == Build(
            BuildResult.REFUSED, f"NOT_FOUND: {message}", code="NOT_FOUND"
        )


def test_a_build_that_raises_is_a_fault_and_raises_when_the_service_ends() -> None:
    def run(image: str, destination: str) -> Run:
        raise RuntimeError(f"{image} is not to be had for {destination}")

    def build() -> None:
        with codebuild_service(shipped(MAIN, run)) as service:
            name = started(service)
            service.threads[0].join(60)
            results.append(read_build(service.builds[name]))

    results: list[Build] = []
    with pytest.raises(RuntimeError, match="from is not to be had for to"):
        build()
    fault = "CodeBuild failed: RuntimeError: from is not to be had for to"
    assert results == [Build(BuildResult.DELAYED, fault)]


# ---- two projects ----


def test_each_project_has_a_quota_and_a_queue_of_its_own() -> None:
    over = threading.Event()
    entered = {name: threading.Event() for name in NAMES.values()}

    def running(name: str) -> Callable[[str, str], Run]:
        def run(*_: str) -> Run:
            entered[name].set()
            assert over.wait(60)
            return COPIED

        return run

    with codebuild_service(*(shipped(name, running(NAMES[name])) for name in NAMES)) as service:
        try:
            for name in NAMES.values():
                started(service, f"{name} first", name)
                assert entered[name].wait(60), "it has left the queue"
                for number in range(5):
                    started(service, f"{name} {number}", name)
                assert (len(service.of(name, "BUILD")), len(service.of(name, "QUEUED"))) == (1, 5)
                with pytest.raises(RefusedError, match="AccountLimitExceededException: Cannot have more than 5 builds"):
                    started(service, f"{name} one more", name)
        finally:
            over.set()
        service.wait()
        assert {build["buildStatus"] for build in service.builds.values()} == {"SUCCEEDED"}
        assert len(service.builds) == 12


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        pytest.param({"TimeoutInMinutes": 60}, "timeoutInMinutes", id="a time-out"),
        pytest.param({"QueuedTimeoutInMinutes": 480}, "queuedTimeoutInMinutes", id="a time-out in the queue"),
        pytest.param({"Cache": {"Type": "LOCAL"}}, "cache", id="a cache"),
        pytest.param(
            {"Environment": {"Type": "LINUX_LAMBDA_CONTAINER", "PrivilegedMode": True}},
            "privilegedMode",
            id="privileged",
        ),
    ],
)
def test_lambda_compute_refuses_settings_that_it_does_not_have(changes: Json, refused: str) -> None:
    with pytest.raises(RefusedError, match=f"InvalidInputException: Cannot specify {refused} for lambda compute"):
        shipped(FAST, **changes)


@pytest.mark.parametrize("override", [{"timeoutInMinutesOverride": 20}, {"privilegedModeOverride": True}], ids=str)
def test_lambda_compute_refuses_the_same_settings_of_a_build(override: Json) -> None:
    with codebuild_service(shipped(MAIN), shipped(FAST)) as service:
        with pytest.raises(RefusedError, match="for lambda compute"):
            started(service, "fast", "ImagePullProjectFast", **override)
        started(service, "main", "ImagePullProject", **override)
        service.wait()
        assert list(map(service.builds.get, service.of("ImagePullProjectFast"))) == []


@pytest.mark.parametrize(("minutes", "timed_out"), [(16, ["ImagePullProjectFast"]), (241, sorted(NAMES.values()))])
def test_a_build_ends_at_the_limit_of_its_project(minutes: float, timed_out: list[str]) -> None:
    """On Lambda compute a build has 15 minutes; the other project has 240."""

    def run(limit: float) -> Callable[[str, str], Run]:
        def build(*_: str) -> Run:
            if minutes > limit:
                raise OverdueError(minutes)
            return COPIED

        return build

    with codebuild_service(shipped(MAIN, run(240)), shipped(FAST, run(15))) as service:
        for name in NAMES.values():
            started(service, name, name)
        service.wait()
        ended = {each: build["buildStatus"] for each, build in service.builds.items()}
        assert sorted(each.partition(":")[0] for each, status in ended.items() if status == "TIMED_OUT") == timed_out


def test_a_build_that_would_be_overdue_elsewhere_is_a_fault_of_the_test() -> None:
    def run(*_: str) -> Run:
        raise OverdueError(16)

    def build() -> None:
        with codebuild_service(shipped(MAIN, run)) as service:
            started(service)

    with pytest.raises(OverdueError, match="16 minutes"):
        build()


def test_one_build_of_a_project_that_the_key_may_not_ask_for_refuses_the_whole_call() -> None:
    with codebuild_service(shipped(MAIN), shipped(FAST)) as service:
        main, fast = started(service, "1"), started(service, "2", "ImagePullProjectFast")
        service.wait()
        keys: Json = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        codebuild = boto3.client("codebuild", region_name="us-west-2", endpoint_url=service.url, **keys)
        assert [each["id"] for each in codebuild.batch_get_builds(ids=[main, fast])["builds"]] == [main, fast]
        service.denied.add("ImagePullProjectFast")
        for ids in ([main, fast], [fast], [main, "ImagePullProjectFast:none"]):
            with pytest.raises(ClientError, match=r"AccessDeniedException.* project/ImagePullProjectFast"):
                codebuild.batch_get_builds(ids=ids)
        assert [each["id"] for each in codebuild.batch_get_builds(ids=[main])["builds"]] == [main]
        with pytest.raises(ClientError, match="AccessDeniedException"):
            codebuild.start_build(**request("3", "ImagePullProjectFast"))


def test_a_project_that_there_is_not_is_not_found() -> None:
    with (
        codebuild_service(shipped(MAIN)) as service,
        pytest.raises(RefusedError, match="ResourceNotFoundException"),
    ):
        started(service, "token", "ImagePullProjectFast")
