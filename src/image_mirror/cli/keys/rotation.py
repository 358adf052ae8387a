"""Creates or rotates one access key: from its IAM user to the other account's secret.

First the state is examined, then a plan is made, then the plan is carried out. After each step, keys that worked still
work. If a run is interrupted after any step, the next run continues.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import ABSENT, code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.keys.plan import KeySource, NeedsAttentionError, NoRoomError, Plan, UserKey, plan, shown
from image_mirror.cli.keys.probe import NO_OTHER_KEY, ProbeResult, Verdict, can_copy, can_push, retry_until_it_works
from image_mirror.cli.keys.secret import CHINA_NAMES, GLOBAL_NAMES, KeySecret, SecretContent
from image_mirror.cli.output import say
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import Stack, projects_of
from image_mirror.cli.terminal import delayed_interrupt, waiting

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient

NEW_KEY_WAIT = 60.0  # seconds until a new key is known everywhere
_NEW = timedelta(minutes=10)  # a key of this age may not be known everywhere
_PAUSE = 10.0  # seconds between two looks at the builds
_LONGEST_WAIT = 900.0  # seconds: most builds take two to five minutes
LONGEST_QUEUE = timedelta(minutes=480)  # the project's QueuedTimeoutInMinutes
# In these phases a build has not read the project's secrets yet. It reads them when it starts to run.
_BEFORE_SECRETS = ("SUBMITTED", "QUEUED")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetup:
    """One of the two keys: who owns it, where it is stored, and how it is used.

    `owner` is the account with the IAM user. `secret` is in the other account and contains the user's key, which is
    used in `region`. `test_key` tests a key. `wait_for_users` takes the moment at which a key was replaced, and returns
    when nothing uses that key any more; or it raises NeedsAttentionError.
    """

    user: str
    owner: Account
    iam: Any
    secret: KeySecret
    region: str
    test_key: Callable[[AccessKey], Verdict]
    wait_for_users: Callable[[datetime], None]

    @property
    def user_label(self) -> str:
        """The user, for people."""
        return f"{self.user} ({self.owner.side})"

    def tested(self, key: AccessKey, seconds: float) -> Verdict:
        """Test a key, for at most `seconds`. Raises NeedsAttentionError if its user may not make the call."""
        verdict = self.test_key(key)
        if verdict.result is not ProbeResult.WORKS and seconds:
            with waiting(f"Waiting until AWS accepts key {shown(key.access_key_id)}; this can take a minute ..."):
                verdict = retry_until_it_works(lambda: self.test_key(key), seconds)
        if verdict.result is ProbeResult.DENIED:
            raise NeedsAttentionError(
                f"key {shown(key.access_key_id)} of {self.user_label} is accepted, but its user may not make the call "
                f"that it needs: {verdict.text}; {NO_OTHER_KEY}"
            )
        return verdict

    def delete_command(self, access_key_id: str) -> str:
        """Return the command that deletes a key."""
        return self._iam("delete-access-key", "--access-key-id", f"<the one that ends in {access_key_id[-4:]}>")

    def list_command(self) -> str:
        """Return the command that prints the IDs of the user's keys."""
        return self._iam("list-access-keys")

    def _iam(self, operation: str, *more: str) -> str:
        return aws_of(self.owner)("iam", operation, "--user-name", self.user, *more)


@dataclass(frozen=True, slots=True)
class KeyState:
    """The state of one key, and the plan. `verdict` is of the secret's current key, None if it was not tested.

    `key` is the key that the secret is to contain in the end, None if it must still be created.
    """

    setup: KeySetup
    keys: tuple[UserKey, ...]
    content: SecretContent
    verdict: Verdict | None
    plan: Plan
    key: AccessKey | None

    @property
    def has_wrong_region(self) -> bool:
        """Whether the secret contains the right key with a wrong region."""
        current = self.content.current
        return self.plan.source is KeySource.CURRENT and current is not None and current.key.region != self.setup.region

    def describe(self) -> Iterator[str]:
        """Yield the state as lines for people."""
        secret, user, plan = self.setup.secret, self.setup.user_label, self.plan
        current = self.content.stored.current
        if current is None:
            lack = "it does not exist yet" if self.content.changed_at is None else "it contains no key yet"
            yield f"{secret}: {lack}"
        elif current not in {each.access_key_id for each in self.keys}:
            yield f"{secret}: key {shown(current)} does not belong to {user}; another key will replace it"
        elif self.verdict is None:
            yield f"{secret}: key {shown(current)} of {user} is inactive"
        else:
            result = "works" if self.verdict.result is ProbeResult.WORKS else "is refused"
            yield f"{secret}: key {shown(current)} of {user} {result}: {self.verdict.text}"
        if plan.delete_first:
            before = ", which was in the secret before," * plan.delete_first.is_active
            yield f"{user}: key {plan.delete_first.details}{before} must be deleted before a new key can be created"
        if plan.source is KeySource.PENDING and self.key:
            yield f"{secret}: it contains key {shown(self.key.access_key_id)} of an earlier run as pending"
        elif plan.source is KeySource.CURRENT and plan.delete_last:
            yield f"{user}: key {plan.delete_last}, which was replaced less than a day ago, still exists"
        for key in plan.kept:
            yield f"{user}: key {key.details} is kept: {self._why_kept(key)}"

    def steps(self) -> Iterator[str]:
        """Yield as lines for people what is to be done, in this order."""
        user, plan = self.setup.user_label, self.plan
        name = f"key {shown(self.key.access_key_id)}" if self.key else "the new key"
        if plan.delete_first:
            yield f"{user}: delete key {plan.delete_first}{', when no build needs it' * plan.delete_first.is_active}"
        if self.key is None:
            yield f"{user}: create a key"
        if plan.source is not KeySource.CURRENT or self.has_wrong_region:
            yield f"{self.setup.secret}: make {name} for {self.setup.region} the current one, when it works"
        if plan.delete_last:
            yield f"{user}: delete key {plan.delete_last}, when {name} is in the secret and no build needs the old key"

    def _why_kept(self, key: UserKey) -> str:
        stored = self.content.stored
        if key.access_key_id == stored.pending:
            return "a rotation was interrupted; `image-mirror connect --rotate` continues it"
        if key.access_key_id in (stored.current, stored.previous):
            return "it was in this secret before; `image-mirror connect --rotate` deletes it"
        return f"it is not from this secret; if nothing uses it, run {self.setup.delete_command(key.access_key_id)}"


def examine(setup: KeySetup, *, rotate: bool) -> KeyState:
    """Read the keys and the secret, test the current key, and plan. Changes nothing. Raises NeedsAttentionError."""
    content = setup.secret.read()
    keys = _listed(setup, content)
    return _planned(setup, keys, content, _verdict(setup, content, keys), rotate=rotate)


def one_rotation(states: Sequence[KeyState]) -> list[KeyState]:
    """Return the states of both keys, so planned that an interrupted rotation is finished and no second one starts.

    The secrets get their new keys only when all new keys exist. So if for one key only its old one is left to delete,
    another key that became current at the same time, and has no old one, has finished the same rotation.
    """
    if not any(each.plan.source is KeySource.CURRENT and each.plan.delete_last for each in states):
        return list(states)
    now = datetime.now(UTC)
    return [
        _planned(each.setup, each.keys, each.content, each.verdict, rotate=False)
        if each.plan.source is KeySource.NEW and each.content.stored.is_recent(now)
        else each
        for each in states
    ]


def _planned(
    setup: KeySetup, keys: tuple[UserKey, ...], content: SecretContent, verdict: Verdict | None, *, rotate: bool
) -> KeyState:
    works = verdict is not None and verdict.result is ProbeResult.WORKS
    try:
        planned = plan(keys, content.stored, works=works, rotate=rotate, now=datetime.now(UTC))
    except NoRoomError as error:
        raise NeedsAttentionError(_no_room(setup, content, error.keys)) from error
    versions = {KeySource.CURRENT: content.current, KeySource.PENDING: content.pending, KeySource.NEW: None}
    version = versions[planned.source]
    key = replace(version.key, region=setup.region) if version else None
    return KeyState(setup, keys, content, verdict, planned, key)


def _no_room(setup: KeySetup, content: SecretContent, keys: tuple[UserKey, ...]) -> str:
    details = [f"{key.details}{', in the secret' * (key.access_key_id == content.stored.current)}" for key in keys]
    others = [key.access_key_id for key in keys if key.access_key_id != content.stored.current]
    return (
        f"{setup.user_label} has two keys, which is the maximum, and neither can be deleted safely: "
        f"{' and '.join(details)}; if nothing uses it, run {' or '.join(map(setup.delete_command, others))} "
        f"({setup.list_command()} prints the IDs), then run this again"
    )


def _listed(setup: KeySetup, content: SecretContent) -> tuple[UserKey, ...]:
    found = []
    for each in setup.iam.list_access_keys(UserName=setup.user)["AccessKeyMetadata"]:
        used = None
        if each["AccessKeyId"] != content.stored.current:
            used = setup.iam.get_access_key_last_used(AccessKeyId=each["AccessKeyId"])["AccessKeyLastUsed"]
        last_used = used.get("LastUsedDate") if used else None
        found.append(UserKey(each["AccessKeyId"], each["Status"] == "Active", each["CreateDate"], last_used))
    return tuple(found)


def _verdict(setup: KeySetup, content: SecretContent, keys: tuple[UserKey, ...]) -> Verdict | None:
    for key in keys:
        if content.current and key.access_key_id == content.current.key.access_key_id and key.is_active:
            is_new = datetime.now(UTC) - key.created_at < _NEW
            return setup.tested(replace(content.current.key, region=setup.region), NEW_KEY_WAIT if is_new else 0.0)
    return None


@dataclass(slots=True)
class KeyRotation:
    """Carries out a plan. `key` is what the secret is to contain; `is_current` says that it already does."""

    state: KeyState
    key: AccessKey
    is_current: bool
    report: Callable[[str], None]

    def wait_until_it_works(self) -> None:
        """Wait until AWS accepts a key that has not been tested. Raises NeedsAttentionError."""
        if self.state.plan.source is KeySource.CURRENT:
            return
        setup, name = self.state.setup, shown(self.key.access_key_id)
        verdict = setup.tested(self.key, NEW_KEY_WAIT)
        if verdict.result is ProbeResult.REFUSED:
            raise NeedsAttentionError(
                f"key {name} of {setup.user_label} is still refused after a minute: {verdict.text}; run this again in "
                f"a few minutes; if that does not help, first run {setup.delete_command(self.key.access_key_id)}"
            )
        self.report(f"{setup.user_label}: key {name} works: {verdict.text}")

    def make_current(self) -> None:
        """Make the key the secret's current one. Raises NeedsAttentionError if somebody else has stored another one."""
        if self.is_current:
            return
        secret = self.state.setup.secret
        content = secret.read()  # again, because the first time may be long ago
        if content.stored.current != self.state.content.stored.current:
            raise NeedsAttentionError(
                f"{secret}: somebody else has just changed it; key {shown(self.key.access_key_id)} is not made current"
            )
        secret.make_current(content, self.key)
        self.is_current = True
        self.report(f"{secret}: its current key is now {shown(self.key.access_key_id)}, for {self.key.region}")

    def delete_old(self) -> None:
        """Delete the key that was replaced, when nothing needs it any more. Raises NeedsAttentionError."""
        if old := self.state.plan.delete_last:
            _delete_replaced(self.state.setup, old, self.key.access_key_id, self.report)


def prepare(state: KeyState, report: Callable[[str], None]) -> KeyRotation:
    """Get the key that the secret is to contain: its current key, its pending key, or a new key stored as pending.

    `report` is called with each step that was done, here and later. Raises NeedsAttentionError if a key that must be
    deleted first is still needed.
    """
    delete_first, current = state.plan.delete_first, state.content.stored.current
    if delete_first and delete_first.is_active and current:
        _delete_replaced(state.setup, delete_first, current, report)
    elif delete_first:
        _delete(state.setup, delete_first.access_key_id, report)
    if state.key is None:
        return _create(state, report)
    is_current = state.plan.source is KeySource.CURRENT and not state.has_wrong_region
    return KeyRotation(state, state.key, is_current, report)


def _delete_replaced(setup: KeySetup, old: UserKey, by: str, report: Callable[[str], None]) -> None:
    """Delete a key that the key `by` has replaced, when nothing needs it any more. Raises NeedsAttentionError."""
    setup.wait_for_users(_replaced_at(setup, old, by))
    _replaced_at(setup, old, by)  # again, because the wait can be long
    _delete(setup, old.access_key_id, report)


def _replaced_at(setup: KeySetup, old: UserKey, by: str) -> datetime:
    content = setup.secret.read()
    is_replaced = content.stored.current == by != old.access_key_id
    if not is_replaced or content.changed_at is None:
        raise NeedsAttentionError(f"{setup.secret}: somebody else has just changed it; key {old} is not deleted")
    return content.changed_at


def _delete(setup: KeySetup, access_key_id: str, report: Callable[[str], None]) -> None:
    try:
        setup.iam.delete_access_key(UserName=setup.user, AccessKeyId=access_key_id)
    except ClientError as error:
        if code_of(error) not in ABSENT:
            raise
        report(f"{setup.user_label}: key {shown(access_key_id)} was already deleted")
    else:
        report(f"{setup.user_label}: deleted key {shown(access_key_id)}")


def _create(state: KeyState, report: Callable[[str], None]) -> KeyRotation:
    """Create a key and store it in the secret. If that fails, delete it again, because its secret part is lost."""
    setup = state.setup
    # If Ctrl-C ended the call before its answer is read, the key would exist and nobody would know its secret part.
    with delayed_interrupt():
        created = setup.iam.create_access_key(UserName=setup.user)["AccessKey"]
        key = AccessKey(setup.region, created["AccessKeyId"], created["SecretAccessKey"])
        try:
            is_pending = setup.secret.store_new(state.content, key)
        except BaseException:  # a second Ctrl-C too
            _delete_again(setup, key)
            raise
    report(f"{setup.user_label}: created key {shown(key.access_key_id)} and stored it in the {setup.secret}")
    return KeyRotation(state, key, not is_pending, report)


def _delete_again(setup: KeySetup, key: AccessKey) -> None:
    name = shown(key.access_key_id)
    try:
        setup.iam.delete_access_key(UserName=setup.user, AccessKeyId=key.access_key_id)
    except no_answer_errors() as error:
        text = (
            f"key {name} of {setup.user_label} was created, could not be stored, and still exists "
            f"({why_no_answer(error)}); run {setup.delete_command(key.access_key_id)}"
        )
    else:
        text = f"{setup.user_label}: key {name} was created, could not be stored, and is deleted again"
    say(text)


def carry_out(states: Sequence[KeyState], report: Callable[[str], None]) -> None:
    """Do each step for both keys before the next step: no old key is deleted before both new ones work."""
    rotations = [prepare(state, report) for state in states]
    for rotation in rotations:
        rotation.wait_until_it_works()
    for rotation in rotations:
        rotation.make_current()
    for rotation in reversed(rotations):  # first the key that no build uses
        rotation.delete_old()


def for_pushing(china: Stack, global_stack: Stack) -> KeySetup:
    """Return the setup of the key in China with which the builds push."""
    secret = KeySecret(
        global_stack.account, global_stack.output("ImagePullSecretArn"), CHINA_NAMES, of_a_stack=global_stack.name
    )
    longest = timedelta(minutes=int(global_stack.parameter("BuildTimeoutMinutes")))

    def wait_for_builds(before: datetime) -> None:
        codebuild = global_stack.account.client("codebuild")
        builds = [
            build
            for project in projects_of(global_stack)
            for build in underway_since(codebuild, project, before, longest)
        ]
        if not builds:
            return
        deadline = time.monotonic() + _LONGEST_WAIT
        with waiting(f"Waiting for builds that started with the old key ({len(builds)}), at most 15 minutes ..."):
            while builds and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                builds = still_underway(codebuild, builds)
        if builds:
            raise NeedsAttentionError(
                f"builds that started with the old key for China are still running ({len(builds)}); the new key is in "
                "the secret; when they have ended, `image-mirror connect --rotate` deletes the old key"
            )

    return KeySetup(
        user=china.output("ImagePushUserName"),
        owner=china.account,
        iam=china.account.client("iam"),
        secret=secret,
        region=china.account.region,
        test_key=lambda key: can_push(china.account, key),
        wait_for_users=wait_for_builds,
    )


def for_copying(china: Stack, global_stack: Stack) -> KeySetup:
    """Return the setup of the key in the global account with which the reconciler in China starts builds."""
    project = global_stack.output("ProjectName")
    return KeySetup(
        user=global_stack.output("ImagePullUserName"),
        owner=global_stack.account,
        iam=global_stack.account.client("iam"),
        secret=KeySecret(china.account, china.output("GlobalSecret"), GLOBAL_NAMES, of_a_stack=None),
        region=global_stack.output("GlobalRegion"),
        test_key=lambda key: can_copy(global_stack.account, key, project),
        # The reconciler reads the secret again as soon as AWS refuses the old key.
        wait_for_users=lambda _: None,
    )


def underway_since(codebuild: "CodeBuildClient", project: str, before: datetime, longest_build: timedelta) -> list[str]:
    """Return the IDs of running builds that started before `before`; they may have read a secret as it was then."""
    found: list[str] = []
    # The latest come first by default. With more than 100 builds, asking for that order is an error.
    for page in codebuild.get_paginator("list_builds_for_project").paginate(projectName=project):
        builds = codebuild.batch_get_builds(ids=page["ids"])["builds"] if page["ids"] else []
        found += [
            build["id"]
            for build in builds
            if build["buildStatus"] == "IN_PROGRESS"
            and build.get("currentPhase") not in _BEFORE_SECRETS
            and build["startTime"] <= before
        ]
        # All builds that are older have timed out.
        if any(build["startTime"] < before - longest_build - LONGEST_QUEUE for build in builds):
            break
    return found


def still_underway(codebuild: "CodeBuildClient", ids: list[str]) -> list[str]:
    """Return those of `ids` that have not ended."""
    # BatchGetBuilds takes at most 100.
    pages = (ids[start : start + 100] for start in range(0, len(ids), 100))
    builds = (build for page in pages for build in codebuild.batch_get_builds(ids=page)["builds"])
    return [build["id"] for build in builds if build["buildStatus"] == "IN_PROGRESS"]
