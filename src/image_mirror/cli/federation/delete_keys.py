"""Deletes the access keys that nothing needs any more, after a real copy without them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import ABSENT, code_of
from image_mirror.cli.federation.examine import named
from image_mirror.cli.federation.plan import PUSH_PARAMETER
from image_mirror.cli.keys.plan import NeedsAttentionError, UserKey, shown
from image_mirror.cli.keys.rotation import LONGEST_QUEUE, KeySetup, for_copying, for_pushing
from image_mirror.cli.stacks import Stack, projects_of, records_of
from image_mirror.record import Status

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient

_LATEST = 300  # builds of each project among which a copy without keys is looked for
_PAGE = 100
_VARIABLE = "CHINA_PUSH_ROLE_ARN"


@dataclass(frozen=True, slots=True)
class UnusedKeys:
    """The keys of one user: those that are deleted because they are in its secret or inactive, and the others."""

    setup: KeySetup
    deleted: Sequence[UserKey]
    kept: Sequence[UserKey]

    def steps(self) -> Iterator[str]:
        """Yield as lines for people what is to be done."""
        for key in self.deleted:
            yield f"{self.setup.user_label}: delete key {key.details}"

    def notes(self) -> Iterator[str]:
        """Yield which keys stay, and why."""
        for key in self.kept:
            remedy = f"if nothing uses it, run {self.setup.delete_command(key.access_key_id)}"
            yield f"{self.setup.user_label}: key {key.details} is kept: it is not from this secret; {remedy}"


def unused(china: Stack, world: Stack) -> list[UnusedKeys]:
    """Return the keys of both users. A stack without such a user has none. Raises NeedsAttentionError."""
    setups = [
        make(china, world)
        for make, stack, user in ((for_pushing, china, "ImagePushUserName"), (for_copying, world, "ImagePullUserName"))
        if user in stack.outputs
    ]
    return [_of_user(setup) for setup in setups]


def _of_user(setup: KeySetup) -> UnusedKeys:
    stored = setup.secret.read().stored
    ours = {stored.current, stored.pending, stored.previous}
    keys = []
    for each in setup.iam.list_access_keys(UserName=setup.user)["AccessKeyMetadata"]:
        used = setup.iam.get_access_key_last_used(AccessKeyId=each["AccessKeyId"])["AccessKeyLastUsed"]
        active = each["Status"] == "Active"
        keys.append(UserKey(each["AccessKeyId"], active, each["CreateDate"], used.get("LastUsedDate")))
    gone = [key for key in keys if key.access_key_id in ours or not key.is_active]
    return UnusedKeys(setup, gone, [key for key in keys if key not in gone])


def require_no_use(china: Stack, world: Stack, keys: Sequence[UnusedKeys]) -> str:
    """Return the image of a copy that was made without any key.

    Raises NeedsAttentionError if there is none, if a build that has the key is running, or if one of the keys to delete
    was used after that copy had begun: another stack may have it.
    """
    try:
        image, began = _copy_without_key(china, world)
        for each in keys:
            _require_idle(each, began)
    except ClientError as error:
        raise named(error) from error
    return image


def _require_idle(keys: UnusedKeys, since: datetime) -> None:
    setup = keys.setup
    for key in keys.deleted:
        if not key.is_active:
            continue
        used = setup.iam.get_access_key_last_used(AccessKeyId=key.access_key_id)["AccessKeyLastUsed"]
        if (at := used.get("LastUsedDate")) and at > since:
            raise NeedsAttentionError(
                f"no key is deleted: key {key} of {setup.user_label} was used at {at:%Y-%m-%d %H:%M} UTC "
                f"({used.get('ServiceName')} in {used.get('Region')}), after a copy had been made without it; if "
                "another stack uses it, federate that one first; then run this again when another new image is COPIED"
            )


def _copy_without_key(china: Stack, world: Stack) -> tuple[str, datetime]:
    """Return the image of the latest copy that was made without any key, and when its build began."""
    codebuild = world.account.client("codebuild")
    role, longest = world.parameter(PUSH_PARAMETER), timedelta(minutes=int(world.parameter("BuildTimeoutMinutes")))
    since = datetime.now(UTC) - longest - LONGEST_QUEUE
    builds = [build for project in projects_of(world) for build in _latest(codebuild, project, since)]
    # A build that is queued gets what its project had when it was started.
    running = [each for each in builds if each["buildStatus"] == "IN_PROGRESS"]
    if with_key := [build["id"] for build in running if not _variable(build, _VARIABLE)]:
        raise NeedsAttentionError(
            f"no key is deleted: builds that have the key are still running ({', '.join(with_key)}); run this again "
            "when they have ended"
        )
    records = records_of(china)
    for build in sorted(builds, key=lambda each: each["startTime"], reverse=True):
        repo, _, tag = _variable(build, "NEW_DOCKER_IMAGE").rpartition(":")
        if not _without_key(build, role, world) or not repo:
            continue
        record = records.get(repo, tag)
        if record and record.status is Status.COPIED and record.build_id == build["id"]:
            return record.source, build["startTime"]
    raise NeedsAttentionError(
        "no key is deleted: no copy has been made without the keys yet; request a new image, for example with "
        "`image-mirror warm`, and run this again when its copy is COPIED"
    )


def _without_key(build: Any, role: str, world: Stack) -> bool:
    """Return whether a build pushed by the role, and was not started by the user.

    For a build that a user's key has started, CodeBuild names the user (its API reference, Build.initiator).
    """
    user, started_by = world.outputs.get("ImagePullUserName"), str(build.get("initiator", ""))
    is_by_key = not started_by or (user is not None and user in started_by)
    return build["buildStatus"] == "SUCCEEDED" and _variable(build, _VARIABLE) == role and not is_by_key


def _latest(codebuild: "CodeBuildClient", project: str, since: datetime) -> Iterator[Any]:
    """Yield the latest builds of a project: at least all that started after `since`."""
    seen = 0
    # The latest come first by default. With more than 100 builds, asking for that order is an error.
    for page in codebuild.get_paginator("list_builds_for_project").paginate(projectName=project):
        builds = list(_builds(codebuild, page["ids"]))
        yield from builds
        seen += len(builds)
        if seen >= _LATEST and any(build["startTime"] < since for build in builds):
            return


def _builds(codebuild: "CodeBuildClient", ids: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(ids), _PAGE):
        yield from codebuild.batch_get_builds(ids=ids[start : start + _PAGE])["builds"]


def _variable(build: Any, name: str) -> str:
    """Return the value of a build's variable, "" if it has none."""
    given = build.get("environment", {}).get("environmentVariables", ())
    return next((str(each.get("value", "")) for each in given if each.get("name") == name), "")


def delete(keys: Sequence[UnusedKeys], report: Callable[[str], None]) -> None:
    """Delete the keys; `report` is called with each that is gone. The users and the secrets stay."""
    for each in keys:
        for key in each.deleted:
            try:
                each.setup.iam.delete_access_key(UserName=each.setup.user, AccessKeyId=key.access_key_id)
            except ClientError as error:
                if code_of(error) not in ABSENT:
                    raise named(error) from error
            report(f"{each.setup.user_label}: deleted key {shown(key.access_key_id)}")
