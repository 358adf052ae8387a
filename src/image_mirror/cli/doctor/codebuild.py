"""The CodeBuild project, its latest builds, and how many builds the global account may run at once."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.dynamodb import States, due_states
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, fail, fetch, fine, skip, unless, warn
from image_mirror.cli.doctor.stacks import china_stack, global_stack
from image_mirror.cli.remedies import MAIN_QUOTA, REVERT, AwsCommand, aws_of, deploy_china, raise_quota
from image_mirror.cli.stacks import Stack, mirror_of
from image_mirror.record import Status
from image_mirror.review import Json

PROJECT, BUILDS, QUOTA = "project", "builds", "build quota"

_AGAIN = "deploy the global stack again from this release's image-pulling.yaml"
RESTORE = f"{_AGAIN}; {REVERT}"
"""What to do about a project that somebody has changed."""
_LARGEST_SETTING = 1000  # that the parameters BuildQuota and FastBuildQuota take
_GIVEN = ("DOCKER_IMAGE", "NEW_DOCKER_IMAGE")  # set by each StartBuild
_EXPORTED = ("COPY_RESULT", "COPY_REASON")


@fetch(PROJECT)
def project(context: Context) -> Json | None:
    """Return what BatchGetProjects says of the project, None if there is none."""
    stack = context.answer(global_stack)
    found = stack.account.client("codebuild").batch_get_projects(names=[stack.output("ProjectName")])["projects"]
    return found[0] if found else None


def judge_project(project: Json | None, china: Stack, global_side: Stack) -> Sequence[CheckResult]:
    """Compare the project with the template, and with the place where China's stack looks for copies."""
    name = global_side.output("ProjectName")
    return unless(project_faults(PROJECT, name, project, china), fine(PROJECT, f"{name} matches the template"))


def project_faults(topic: str, name: str, project: Json | None, china: Stack) -> Iterator[CheckResult]:
    """Yield where a project, of either lane, does not match the template or the place where copies are looked for."""
    if project is None:
        yield fail(topic, f"{name} does not exist", RESTORE)
        return
    registry, _, prefix = china.output("CopiesPrefix").rstrip("/").partition("/")
    environment, variables = project["environment"], variables_of(project)
    if environment.get("privilegedMode"):
        yield warn(topic, f"{name} runs privileged, which copying does not need", RESTORE)
    missing = [each for each in (*_GIVEN, "TARGET_REGISTRY", "REPOSITORY_PREFIX") if each not in variables]
    if missing:
        yield fail(topic, f"{name} has no variables {', '.join(missing)}", RESTORE)
    copies_to = variables.get("TARGET_REGISTRY", registry)
    if not fnmatchcase(registry, copies_to):
        yield fail(topic, f"{name} copies to {copies_to}, not to {registry}", f"{_AGAIN}, for this account in China")
    below = variables.get("REPOSITORY_PREFIX", prefix)
    if below != prefix:
        yield fail(topic, f"{name} copies below {below}/, not below {prefix}/", f"{_AGAIN}, with that prefix")
    exported = project.get("source", {}).get("buildspec", "")
    if any(each not in exported for each in _EXPORTED):
        yield fail(topic, f"{name} has another release's buildspec; its results are not understood", _AGAIN)
    elif "skopeo" in exported:
        yield warn(topic, f"{name} copies with skopeo, which refuses some images that crane copies", _AGAIN)
    allowed = variables.get("SOURCE_REGISTRIES", "*").split()
    closed = [host for host in _copied_hosts(china) if not any(fnmatchcase(host, each) for each in allowed)]
    if closed:
        found = f"builds may not read from {', '.join(closed)}, which MirrorRules copies"
        yield fail(topic, found, "add them to SourceRegistries of the global stack, or remove the rules")
    if limit := project.get("concurrentBuildLimit"):
        found = f"{name} has a limit of its own, {limit} builds; above it StartBuild fails instead of queueing"
        yield warn(topic, found, RESTORE)


def variables_of(project: Json) -> dict[str, str]:
    """Return the environment variables that all builds of a project have."""
    return {each["name"]: each["value"] for each in project["environment"].get("environmentVariables", ())}


def _copied_hosts(china: Stack) -> list[str]:
    """Return the hosts of the rules that copy, each wildcard as it is written."""
    prefixes = [rule.prefix for rule in mirror_of(china).rules.entries if rule.action == "copy"]
    return list(dict.fromkeys(f"*.{each.host}" if each.wildcard else each.host for each in prefixes))


@fetch(BUILDS)
def latest_builds(context: Context) -> Sequence[Json] | None:
    """Return the latest builds, at most a hundred: one page, and as many as BatchGetBuilds takes.

    None if there is no project.
    """
    stack = context.answer(global_stack)
    name, client = stack.output("ProjectName"), stack.account.client("codebuild")
    # The latest come first by default. A request with that order is an error if there are more than 100 builds.
    ids = or_none(lambda: client.list_builds_for_project(projectName=name)["ids"])
    if not ids:
        return ids
    found: Sequence[Json] = client.batch_get_builds(ids=ids)["builds"]
    return found


def judge_builds(builds: Sequence[Json] | None) -> Sequence[CheckResult]:
    """Say how many of the latest builds run and wait."""
    if builds is None:
        return [skip(BUILDS, "there is no project")]
    waiting = _queued(builds)
    running = len(_underway(builds)) - waiting
    return [fine(BUILDS, f"{running} running, {waiting} queued, of the latest {len(builds)}")]


@fetch(QUOTA)
def build_quota(context: Context) -> float | None:
    """Return how many small Linux builds the account may run at once, None if Service Quotas has no value."""
    return quota_of(context, MAIN_QUOTA)


def quota_of(context: Context, code: str) -> float | None:
    """Return the applied value of a quota of CodeBuild in the global account, None if Service Quotas has none."""
    client = context.global_account.client("service-quotas")
    return or_none(lambda: client.get_service_quota(ServiceCode="codebuild", QuotaCode=code)["Quota"]["Value"])


# From the account and not from the stack, because the quota can be read without the stack.
global_aws: Fetch[AwsCommand] = Fetch(None, lambda context: aws_of(context.global_account))


def judge_quota(
    value: float | None,
    aws: AwsCommand,
    builds: Sequence[Json] | None,
    states: States | None,
    china: Stack | None,
) -> Sequence[CheckResult]:
    """Judge the applied quota by how many copies wait for a build: in CodeBuild, and in the table.

    Where China's stack is known, its BuildQuota is compared with the quota.
    """
    waiting = _queued(builds or ()) + list((states or {}).values()).count(Status.REQUESTED)
    if value is None:
        return [no_quota(QUOTA)]
    found = f"{value:.0f} builds at once (Linux/Small)"
    more = raise_quota(aws, MAIN_QUOTA, max(20, waiting))
    if value < 1:
        return [fail(QUOTA, f"{found}: no copy can be made", more)]
    results = []
    if value <= 1 or waiting > value:
        results = [warn(QUOTA, f"{found}, and {waiting} copies wait: no more are made at the same time", more)]
    results += setting_faults(QUOTA, found, value, china, "BuildQuota")
    return results or [fine(QUOTA, f"{found}, {waiting} copies wait")]


def no_quota(topic: str) -> CheckResult:
    """Return the result where Service Quotas has no value."""
    return skip(topic, "Service Quotas gives no applied value", "look at it in CodeBuild's console")


def setting_faults(topic: str, found: str, value: float, china: Stack | None, parameter: str) -> Iterator[CheckResult]:
    """Yield a warning if a parameter of China's stack, where that is known, is not the quota, described by `found`."""
    setting = china.parameters.get(parameter) if china else None
    right = str(min(int(value), _LARGEST_SETTING))
    if china and setting and setting != right:
        effect = "the rest of the quota is not used" if float(setting) < value else "more builds wait in its queue"
        command = deploy_china(china, f"{parameter}={right}")
        yield warn(topic, f"{found}, but {parameter} is {setting}: {effect}", command)


def _queued(builds: Sequence[Json]) -> int:
    return len([each for each in _underway(builds) if each.get("currentPhase") == "QUEUED"])


def _underway(builds: Sequence[Json]) -> Sequence[Json]:
    return [each for each in builds if each["buildStatus"] == "IN_PROGRESS"]


CHECKS = (
    Check(PROJECT, judge_project, (project, china_stack, global_stack)),
    Check(BUILDS, judge_builds, (latest_builds,)),
    Check(QUOTA, judge_quota, (build_quota, global_aws), helps=(latest_builds, due_states, china_stack)),
)
