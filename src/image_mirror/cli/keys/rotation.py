"""One access key's way from its user to the other account's secret: how it stands, what is to be done, and the doing.

Each step leaves what works working, and a run that is cut off after any of them is gone on with by the next.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import remedy
from image_mirror.cli.keys.plan import NoRoomError, NotWellError, Plan, Take, UserKey, plan, shown
from image_mirror.cli.keys.probe import NO_OTHER_KEY, ProbeResult, Verdict, can_copy, can_push, patiently
from image_mirror.cli.keys.secret import CHINA_NAMES, GLOBAL_NAMES, Held, KeySecret
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import Stack
from image_mirror.cli.terminal import waiting
from image_mirror.messages import printable

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient

PATIENCE = 60.0  # seconds until a new key is known everywhere
_YOUNG = timedelta(minutes=10)
_PAUSE = 10.0  # seconds between two looks at the builds
_LONGEST_WAIT = 900.0  # seconds: most builds take two to five minutes
_LONGEST_QUEUE = timedelta(minutes=480)  # the project's QueuedTimeoutInMinutes
# A build reads the project's secrets when it begins to run, and so not while it is in these.
_BEFORE_SECRETS = ("SUBMITTED", "QUEUED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How one account is let into the other.

    `owner` has the IAM user, `secret` carries its key to the other account, where it is used in `region`. `prove` tries
    a key; `wait_for_users` returns when nothing needs the key that the secret gave until a moment, or raises
    NotWellError.
    """

    user: str
    owner: Account
    iam: Any
    secret: KeySecret
    region: str
    prove: Callable[[AccessKey], Verdict]
    wait_for_users: Callable[[datetime], None]

    @property
    def whose(self) -> str:
        """The user, for people."""
        return f"{self.user} ({self.owner.side})"

    def tried(self, key: AccessKey, seconds: float) -> Verdict:
        """Try a key for as long as `seconds`. Raises NotWellError where its user may not do what the key is for."""
        verdict = self.prove(key)
        if verdict.outcome is not ProbeResult.WORKS and seconds:
            with waiting(f"Waiting until AWS takes key {shown(key.access_key_id)}, which can take a minute ..."):
                verdict = patiently(lambda: self.prove(key), seconds)
        if verdict.outcome is ProbeResult.DENIED:
            raise NotWellError(
                f"key {shown(key.access_key_id)} of {self.whose} is taken, but denied what it is for: {verdict.said}; "
                f"{NO_OTHER_KEY}"
            )
        return verdict

    def delete_by_hand(self, access_key_id: str) -> str:
        """Return the command that deletes a key."""
        return self._iam("delete-access-key", "--access-key-id", f"<the one that ends in {access_key_id[-4:]}>")

    def list_by_hand(self) -> str:
        """Return the command that prints the IDs of the user's keys."""
        return self._iam("list-access-keys")

    def _iam(self, operation: str, *more: str) -> str:
        return aws_of(self.owner)("iam", operation, "--user-name", self.user, *more)


@dataclass(frozen=True, slots=True)
class Finding:
    """How a link stands, and the plan. `verdict` is that of the secret's key, None where it was not worth a try.

    `key` is what the secret is to give, or None where it has yet to be made.
    """

    link: Link
    keys: tuple[UserKey, ...]
    held: Held
    verdict: Verdict | None
    plan: Plan
    key: AccessKey | None

    @property
    def is_misplaced(self) -> bool:
        """Whether the secret gives the right key for a wrong region."""
        current = self.held.current
        return self.plan.take is Take.CURRENT and current is not None and current.key.region != self.link.region

    def stands(self) -> Iterator[str]:
        """Yield for people how it stands."""
        secret, whose, plan = self.link.secret, self.link.whose, self.plan
        gives = self.held.given.current
        if gives is None:
            yield f"{secret}: {'there is none yet' if self.held.changed_at is None else 'it gives no key yet'}"
        elif gives not in {each.access_key_id for each in self.keys}:
            yield f"{secret}: key {shown(gives)} is not, or no more, one of {whose}; another takes its place there"
        elif self.verdict is None:
            yield f"{secret}: key {shown(gives)} of {whose} is inactive"
        else:
            yield f"{secret}: key {shown(gives)} of {whose} {self.verdict.outcome.value}: {self.verdict.said}"
        if plan.discard:
            before = ", which the secret gave before," * plan.discard.is_active
            yield f"{whose}: key {plan.discard.story}{before} is in the way of a new one"
        if plan.take is Take.PENDING and self.key:
            yield f"{secret}: key {shown(self.key.access_key_id)}, made by an earlier run, waits in it"
        elif plan.take is Take.CURRENT and plan.retire:
            yield f"{whose}: key {plan.retire}, which the secret gave until less than a day ago, is still there"
        for key in plan.left:
            yield f"{whose}: key {key.story} stays: {self._why_left(key)}"

    def steps(self) -> Iterator[str]:
        """Yield for people what is to be done, in this order."""
        whose, plan = self.link.whose, self.plan
        name = f"key {shown(self.key.access_key_id)}" if self.key else "the new key"
        if plan.discard:
            yield f"{whose}: delete key {plan.discard}{', once no build needs it' * plan.discard.is_active}"
        if self.key is None:
            yield f"{whose}: make a key"
        if plan.take is not Take.CURRENT or self.is_misplaced:
            yield f"{self.link.secret}: give {name}, for {self.link.region}, once it works"
        if plan.retire:
            yield f"{whose}: delete key {plan.retire}, once {name} is given and no build needs the old one"

    def _why_left(self, key: UserKey) -> str:
        given = self.held.given
        if key.access_key_id == given.pending:
            return "a rotation was cut off; `image-mirror connect --rotate` goes on with it"
        if key.access_key_id in (given.current, given.previous):
            return "it was this secret's; `image-mirror connect --rotate` deletes it"
        return f"it is not this secret's; where nothing uses it, {self.link.delete_by_hand(key.access_key_id)}"


def examine(link: Link, *, rotate: bool) -> Finding:
    """Look at a link's keys and secret, try what it gives, and plan; nothing is changed. Raises NotWellError."""
    held = link.secret.read()
    keys = _listed(link, held)
    return _planned(link, keys, held, _verdict(link, held, keys), rotate=rotate)


def one_rotation(findings: Sequence[Finding]) -> list[Finding]:
    """Keep a rotation that only lacks its end from beginning anew for the key that has seen its end already.

    New keys are given only when all are there. So where one link's old key is all that is left to do, a link that was
    given its key in the same time, and has no old one, is not one that has yet to begin.
    """
    if not any(each.plan.take is Take.CURRENT and each.plan.retire for each in findings):
        return list(findings)
    now = datetime.now(UTC)
    return [
        _planned(each.link, each.keys, each.held, each.verdict, rotate=False)
        if each.plan.take is Take.NEW and each.held.given.is_fresh(now)
        else each
        for each in findings
    ]


def _planned(link: Link, keys: tuple[UserKey, ...], held: Held, verdict: Verdict | None, *, rotate: bool) -> Finding:
    works = verdict is not None and verdict.outcome is ProbeResult.WORKS
    try:
        planned = plan(keys, held.given, works=works, rotate=rotate, now=datetime.now(UTC))
    except NoRoomError as error:
        raise NotWellError(_no_room(link, held, error.keys)) from error
    version = {Take.CURRENT: held.current, Take.PENDING: held.pending, Take.NEW: None}[planned.take]
    key = replace(version.key, region=link.region) if version else None
    return Finding(link, keys, held, verdict, planned, key)


def _no_room(link: Link, held: Held, keys: tuple[UserKey, ...]) -> str:
    stories = [f"{key.story}{', in the secret' * (key.access_key_id == held.given.current)}" for key in keys]
    doubtful = [key.access_key_id for key in keys if key.access_key_id != held.given.current]
    return (
        f"{link.whose} has two keys, the most there may be, and neither can be deleted safely: "
        f"{' and '.join(stories)}; where nothing uses it, {' or '.join(map(link.delete_by_hand, doubtful))} "
        f"({link.list_by_hand()} prints the IDs), then run this again"
    )


def _listed(link: Link, held: Held) -> tuple[UserKey, ...]:
    found = []
    for each in link.iam.list_access_keys(UserName=link.user)["AccessKeyMetadata"]:
        used = None
        if each["AccessKeyId"] != held.given.current:
            used = link.iam.get_access_key_last_used(AccessKeyId=each["AccessKeyId"])["AccessKeyLastUsed"]
        last_used = used.get("LastUsedDate") if used else None
        found.append(UserKey(each["AccessKeyId"], each["Status"] == "Active", each["CreateDate"], last_used))
    return tuple(found)


def _verdict(link: Link, held: Held, keys: tuple[UserKey, ...]) -> Verdict | None:
    for key in keys:
        if held.current and key.access_key_id == held.current.key.access_key_id and key.is_active:
            is_young = datetime.now(UTC) - key.made_at < _YOUNG
            return link.tried(replace(held.current.key, region=link.region), PATIENCE if is_young else 0.0)
    return None


@dataclass(slots=True)
class Renewal:
    """A finding's way. `key` is what the secret is to give; `is_given` says that it does."""

    finding: Finding
    key: AccessKey
    is_given: bool
    say: Callable[[str], None]

    def prove(self) -> None:
        """Wait until AWS takes a key that has not been tried. Raises NotWellError."""
        if self.finding.plan.take is Take.CURRENT:
            return
        link, name = self.finding.link, shown(self.key.access_key_id)
        verdict = link.tried(self.key, PATIENCE)
        if verdict.outcome is ProbeResult.REFUSED:
            raise NotWellError(
                f"key {name} of {link.whose} is still refused after a minute: {verdict.said}; run this again in a few "
                f"minutes, and where that does not help, {link.delete_by_hand(self.key.access_key_id)} before"
            )
        self.say(f"{link.whose}: key {name} works: {verdict.said}")

    def give(self) -> None:
        """Let the secret give the key. Raises NotWellError where somebody else has put another one there."""
        if self.is_given:
            return
        secret = self.finding.link.secret
        held = secret.read()  # again, for it may be long since
        if held.given.current != self.finding.held.given.current:
            raise NotWellError(
                f"{secret}: somebody else has changed it just now; key {shown(self.key.access_key_id)} is not given"
            )
        secret.give(held, self.key)
        self.is_given = True
        self.say(f"{secret}: it now gives key {shown(self.key.access_key_id)}, for {self.key.region}")

    def retire(self) -> None:
        """Delete the key that another has taken the place of, once nothing needs it. Raises NotWellError."""
        if old := self.finding.plan.retire:
            _delete_replaced(self.finding.link, old, self.key.access_key_id, self.say)


def prepare(finding: Finding, say: Callable[[str], None]) -> Renewal:
    """Have the key that the secret is to give: its own, one that waits in it, or a new one that now waits in it.

    `say` is told what has been done, here and later. Raises NotWellError where a key that is in the way is needed.
    """
    discard, current = finding.plan.discard, finding.held.given.current
    if discard and discard.is_active and current:
        _delete_replaced(finding.link, discard, current, say)
    elif discard:
        _delete(finding.link, discard.access_key_id, say)
    if finding.key is None:
        return _made(finding, say)
    is_given = finding.plan.take is Take.CURRENT and not finding.is_misplaced
    return Renewal(finding, finding.key, is_given, say)


def _delete_replaced(link: Link, old: UserKey, by: str, say: Callable[[str], None]) -> None:
    """Delete a key that the secret gave before the key `by`, once nothing needs it. Raises NotWellError."""
    link.wait_for_users(_replaced_at(link, old, by))
    _replaced_at(link, old, by)  # that wait can be long
    _delete(link, old.access_key_id, say)


def _replaced_at(link: Link, old: UserKey, by: str) -> datetime:
    held = link.secret.read()
    is_replaced = held.given.current == by != old.access_key_id
    if not is_replaced or held.changed_at is None:
        raise NotWellError(f"{link.secret}: somebody else has changed it just now; key {old} is left alone")
    return held.changed_at


def _delete(link: Link, access_key_id: str, say: Callable[[str], None]) -> None:
    try:
        link.iam.delete_access_key(UserName=link.user, AccessKeyId=access_key_id)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchEntity", "NoSuchEntityException"):
            raise
        say(f"{link.whose}: key {shown(access_key_id)} is deleted already")
    else:
        say(f"{link.whose}: deleted key {shown(access_key_id)}")


def _made(finding: Finding, say: Callable[[str], None]) -> Renewal:
    """Make a key and keep it in the secret; where that fails, delete it again, for its secret part is lost."""
    link = finding.link
    made = link.iam.create_access_key(UserName=link.user)["AccessKey"]
    key = AccessKey(link.region, made["AccessKeyId"], made["SecretAccessKey"])
    try:
        waits = link.secret.offer(finding.held, key)
    except BaseException:  # Ctrl-C too
        _take_back(link, key)
        raise
    say(f"{link.whose}: made key {shown(key.access_key_id)}, and kept it in the {link.secret}")
    return Renewal(finding, key, not waits, say)


def _take_back(link: Link, key: AccessKey) -> None:
    name = shown(key.access_key_id)
    try:
        link.iam.delete_access_key(UserName=link.user, AccessKeyId=key.access_key_id)
    except (ClientError, BotoCoreError) as error:
        by_hand = link.delete_by_hand(key.access_key_id)
        told = (
            f"key {name} of {link.whose} was made, could not be kept, and is still there ({remedy(error)}); {by_hand}"
        )
    else:
        told = f"{link.whose}: key {name} was made, could not be kept, and is deleted again"
    typer.echo(printable(told), err=True)


def renew(findings: Sequence[Finding], say: Callable[[str], None]) -> None:
    """Do each step for both keys before the next: no old key is touched before both new ones work."""
    renewals = [prepare(finding, say) for finding in findings]
    for renewal in renewals:
        renewal.prove()
    for renewal in renewals:
        renewal.give()
    for renewal in reversed(renewals):  # first the one that no build needs
        renewal.retire()


def for_pushing(china: Stack, world: Stack) -> Link:
    """The key in China with which the builds push."""
    secret = KeySecret(world.account, world.output("ImagePullSecretArn"), CHINA_NAMES, of_a_stack=world.name)
    longest = timedelta(minutes=int(world.parameter("BuildTimeoutMinutes")))

    def wait_for_builds(before: datetime) -> None:
        codebuild, project = world.account.client("codebuild"), world.output("ProjectName")
        builds = underway_since(codebuild, project, before, longest)
        if not builds:
            return
        deadline = time.monotonic() + _LONGEST_WAIT
        with waiting(f"Waiting for builds that began with the old key ({len(builds)}), at most 15 minutes ..."):
            while builds and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                builds = still_underway(codebuild, builds)
        if builds:
            raise NotWellError(
                f"builds that began with the old key for China still run ({len(builds)}); the new key is in its place, "
                "and the old one is deleted by `image-mirror connect --rotate` when they have ended"
            )

    return Link(
        user=china.output("ImagePushUserName"),
        owner=china.account,
        iam=china.account.client("iam"),
        secret=secret,
        region=china.account.region,
        prove=lambda key: can_push(china.account, key),
        wait_for_users=wait_for_builds,
    )


def for_copying(china: Stack, world: Stack) -> Link:
    """The key in the global account with which China's side starts builds."""
    project = world.output("ProjectName")
    return Link(
        user=world.output("ImagePullUserName"),
        owner=world.account,
        iam=world.account.client("iam"),
        secret=KeySecret(china.account, china.output("GlobalSecret"), GLOBAL_NAMES, of_a_stack=None),
        region=world.output("GlobalRegion"),
        prove=lambda key: can_copy(world.account, key, project),
        # The function that holds the old key reads the secret again as soon as AWS refuses it.
        wait_for_users=lambda _: None,
    )


def underway_since(codebuild: "CodeBuildClient", project: str, before: datetime, longest_build: timedelta) -> list[str]:
    """Return the IDs of the builds that began before `before` and run; they may have read a secret as it was then."""
    found: list[str] = []
    # The latest come first; with more than 100 builds, asking for that order is an error.
    for page in codebuild.get_paginator("list_builds_for_project").paginate(projectName=project):
        builds = codebuild.batch_get_builds(ids=page["ids"])["builds"] if page["ids"] else []
        found += [
            build["id"]
            for build in builds
            if build["buildStatus"] == "IN_PROGRESS"
            and build.get("currentPhase") not in _BEFORE_SECRETS
            and build["startTime"] <= before
        ]
        # Whatever is older has run out of time.
        if any(build["startTime"] < before - longest_build - _LONGEST_QUEUE for build in builds):
            break
    return found


def still_underway(codebuild: "CodeBuildClient", ids: list[str]) -> list[str]:
    """Return those of `ids` that have not ended."""
    # BatchGetBuilds takes a hundred.
    pages = (ids[start : start + 100] for start in range(0, len(ids), 100))
    builds = (build for page in pages for build in codebuild.batch_get_builds(ids=page)["builds"])
    return [build["id"] for build in builds if build["buildStatus"] == "IN_PROGRESS"]
