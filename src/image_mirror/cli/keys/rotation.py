"""Carries out what a link's finding plans: a key to be had, proven, given by the secret, and the old one retired.

Each step leaves what works working, and a run that is cut off after any of them is gone on with by the next.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.errors import remedy
from image_mirror.cli.keys.link import PATIENCE, Finding, Link
from image_mirror.cli.keys.plan import NotWellError, Take, UserKey, shown
from image_mirror.cli.keys.probe import ProbeResult
from image_mirror.messages import printable


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
