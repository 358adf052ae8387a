"""Judges the CodeBuild project, what it builds just now, and how many builds the account may run at once. Pure."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from image_mirror.cli.doctor.findings import Finding, fail, fine, skip, unless, warn
from image_mirror.cli.remedies import REVERT, AwsCommand
from image_mirror.review import Json

PROJECT, BUILDS, QUOTA = "project", "builds", "build quota"

QUOTA_CODE = "L-9D07B6EF"
"""Service Quotas' code of CodeBuild's "Concurrently running builds for Linux/Small environment"."""

_GIVEN = ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE")  # by each StartBuild
_EXPORTED = ("COPY_RESULT", "COPY_REASON")
_FIRST_FIT = 8  # aws/codebuild/standard: the skopeo of earlier ones lacks --preserve-digests
_STANDARD = "aws/codebuild/standard:"


def judge_project(name: str, project: Json | None, registry: str, prefix: str) -> Sequence[Finding]:
    """Judge the project, None where there is none, by the template; copies go to `registry` below `prefix`."""
    again = "deploy the global stack again from this release's image-pulling.yaml"
    restore = f"{again}; {REVERT}"
    if project is None:
        return [fail(PROJECT, f"there is no project {name}", restore)]
    environment = project["environment"]
    variables = {each["name"]: each["value"] for each in environment.get("environmentVariables", ())}

    def faults() -> Iterator[Finding]:
        if environment.get("privilegedMode"):
            yield warn(PROJECT, f"{name} runs privileged, which copying does not need", restore)
        missing = [each for each in (*_GIVEN, "TARGET_REGISTRY", "REPOSITORY_PREFIX") if each not in variables]
        if missing:
            yield fail(PROJECT, f"{name} has no variables {', '.join(missing)}", restore)
        target = variables.get("TARGET_REGISTRY", registry)
        if not fnmatchcase(registry, target):
            yield fail(PROJECT, f"{name} copies to {target}, not to {registry}", f"{again}, for this account in China")
        below = variables.get("REPOSITORY_PREFIX", prefix)
        if below != prefix:
            yield fail(PROJECT, f"{name} copies below {below}/, not below {prefix}/", f"{again}, with that prefix")
        exported = project.get("source", {}).get("buildspec", "")
        if any(each not in exported for each in _EXPORTED):
            yield fail(PROJECT, f"{name} has another release's buildspec, whose outcomes are not understood", again)
        image = environment.get("image", "")
        version = image.removeprefix(_STANDARD).partition(".")[0]
        if image.startswith(_STANDARD) and version.isdigit() and int(version) < _FIRST_FIT:
            yield fail(PROJECT, f"{name} runs on {image}, whose skopeo is too old", again)
        if limit := project.get("concurrentBuildLimit"):
            yield warn(
                PROJECT,
                f"{name} has a limit of its own, {limit} builds, past which StartBuild fails and none is queued",
                restore,
            )

    return unless(faults(), fine(PROJECT, f"{name} is as the template has it"))


def judge_builds(builds: Sequence[Json] | None) -> Sequence[Finding]:
    """Say how many of the latest builds run and wait; None where there is no project."""
    if builds is None:
        return [skip(BUILDS, "there is no project")]
    waiting = queued(builds)
    running = len(_underway(builds)) - waiting
    return [fine(BUILDS, f"{running} running, {waiting} queued, of the latest {len(builds)}")]


def judge_quota(value: float | None, waiting: int, aws: AwsCommand) -> Sequence[Finding]:
    """Judge the applied quota, None where Service Quotas tells none, by how many copies wait for a build."""
    if value is None:
        return [skip(QUOTA, "Service Quotas tells no applied value", "look at it in CodeBuild's console")]
    found = f"{value:.0f} builds at once (Linux/Small)"
    quota = ("--service-code", "codebuild", "--quota-code", QUOTA_CODE, "--desired-value", str(max(20, waiting)))
    more = aws("service-quotas", "request-service-quota-increase", *quota)
    if value < 1:
        return [fail(QUOTA, f"{found}: no copy can be made", more)]
    if value <= 1 or waiting > value:
        return [warn(QUOTA, f"{found}, and {waiting} copies wait: no more are made at the same time", more)]
    return [fine(QUOTA, f"{found}, {waiting} copies wait")]


def queued(builds: Sequence[Json]) -> int:
    """Count the builds that wait for their turn."""
    return len([each for each in _underway(builds) if each.get("currentPhase") == "QUEUED"])


def _underway(builds: Sequence[Json]) -> Sequence[Json]:
    return [each for each in builds if each["buildStatus"] == "IN_PROGRESS"]
