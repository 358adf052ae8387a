"""The tests' own CodeBuild API: an error in one of its builds must make a test fail."""

import pytest

from e2e.fakes.codebuild_service import Json, codebuild_service
from image_mirror.build_result import read_build
from image_mirror.record import Build, BuildResult
from support.buildspec_runner import Run

REQUEST: Json = {
    "projectName": "ImagePullProject",
    "environmentVariablesOverride": [
        {"name": "DOCKER_IMAGE", "value": "from"},
        {"name": "NEW_DOCKER_IMAGE", "value": "to"},
    ],
    "idempotencyToken": "token",
}


def test_a_repeated_token_starts_no_second_build() -> None:
    asked: list[tuple[str, str]] = []

    def run(image: str, destination: str) -> Run:
        asked.append((image, destination))
        return Run(None, 0, {"COPY_RESULT": "COPIED"}, "", ())

    with codebuild_service(run) as service:
        first, second = (service.start_build(REQUEST)["build"]["id"] for _ in range(2))
        service.wait()
        assert first == second
        assert asked == [("from", "to")]
        [build] = service.batch_get_builds({"ids": [first]})["builds"]
        assert read_build(build) == Build(BuildResult.COPIED)


def test_a_failed_build_says_which_command_failed_and_how() -> None:
    with codebuild_service(lambda *_: Run("copy", 44, {}, "", ())) as service:
        started = service.start_build(REQUEST)["build"]["id"]
        service.wait()
        message = "Error while executing command: copy. Reason: exit status 44"
        assert read_build(service.builds[started]) == Build(
            BuildResult.REFUSED, f"NOT_FOUND: {message}", code="NOT_FOUND"
        )


def test_a_build_that_raises_is_a_fault_and_raises_when_the_service_ends() -> None:
    def run(image: str, destination: str) -> Run:
        raise RuntimeError(f"{image} is not to be had for {destination}")

    def build() -> None:
        with codebuild_service(run) as service:
            started = service.start_build(REQUEST)["build"]["id"]
            service.threads[0].join(60)
            results.append(read_build(service.builds[started]))

    results: list[Build] = []
    with pytest.raises(RuntimeError, match="from is not to be had for to"):
        build()
    fault = "CodeBuild failed: RuntimeError: from is not to be had for to"
    assert results == [Build(BuildResult.DELAYED, fault)]
