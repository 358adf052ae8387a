"""One access key's link from its user to the other account's secret: how it stands, and what is to be done about it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.keys.plan import NoRoomError, NotWellError, Plan, Take, UserKey, plan, shown
from image_mirror.cli.keys.probe import NO_OTHER_KEY, Outcome, Verdict, patiently
from image_mirror.cli.keys.secret import Held, KeySecret
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.terminal import waiting

PATIENCE = 60.0  # seconds until a new key is known everywhere
_YOUNG = timedelta(minutes=10)


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
        if verdict.outcome is not Outcome.WORKS and seconds:
            with waiting(f"Waiting until AWS takes key {shown(key.access_key_id)}, which can take a minute ..."):
                verdict = patiently(lambda: self.prove(key), seconds)
        if verdict.outcome is Outcome.DENIED:
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
    works = verdict is not None and verdict.outcome is Outcome.WORKS
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
