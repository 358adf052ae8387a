"""The two access keys: for each that is used, the secret that contains it, the key itself, and a call with it."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, assert_never

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.runner import (
    Check,
    CheckResult,
    Context,
    Fetch,
    UnansweredError,
    fail,
    fetch,
    fine,
    now,
    unless,
    warn,
)
from image_mirror.cli.doctor.stacks import china_stack, global_stack
from image_mirror.cli.federation.plan import PUSH_PARAMETER, START_PARAMETER
from image_mirror.cli.keys.plan import secret_name, shown
from image_mirror.cli.keys.probe import NO_OTHER_KEY, ProbeResult, Verdict, can_copy, can_push
from image_mirror.cli.keys.secret import CHINA_NAMES, GLOBAL_NAMES
from image_mirror.cli.output import span
from image_mirror.cli.remedies import REVERT, get_back, make_again
from image_mirror.cli.stacks import Stack
from image_mirror.review import Json
from image_mirror.settings import REGION

_OLD = timedelta(days=90)
_KEY_ID = re.compile(r"\w{16,128}", re.ASCII)  # IAM: accessKeyIdType
_CONNECT = "`image-mirror connect` creates a key and stores it"
_ROTATE = "`image-mirror connect --rotate` creates a new key, tests it and deletes the old one"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two keys.

    `secret`, `key` and `call` are the topics of its checks: its secret, the key itself, and a call with it. `entries`
    are the secret's entries for the region, the key's ID and the key. `secret_output` and `user_output` are the outputs
    that name the secret and the user. `of_a_stack` is True if a stack creates the secret, and False if
    `image-mirror connect` does. With a role in `role_parameter`, the key is not read, and nothing is said of it.
    """

    secret: str
    key: str
    call: str
    entries: tuple[str, str, str]
    secret_output: str
    user_output: str
    of_a_stack: bool
    role_parameter: str

    def is_used(self, stack: Stack) -> bool:
        """Return whether the key is read: `stack`, which names its secret, uses no role instead."""
        return not stack.parameters.get(self.role_parameter)


GLOBAL_KEY = Kind(
    *("GlobalAKSK: secret", "GlobalAKSK: key", "GlobalAKSK: call"),
    GLOBAL_NAMES,
    "GlobalSecret",
    "ImagePullUserName",
    of_a_stack=False,
    role_parameter=START_PARAMETER,
)
"""The key for the global account, stored in China."""
CHINA_KEY = Kind(
    *("ImagePullSecret: secret", "ImagePullSecret: key", "ImagePullSecret: call"),
    CHINA_NAMES,
    "ImagePullSecretArn",
    "ImagePushUserName",
    of_a_stack=True,
    role_parameter=PUSH_PARAMETER,
)
"""The key for China, stored in the global account."""


class Absent(Enum):
    """Why there is no secret to read."""

    GONE = "does not exist"
    MARKED = "is marked for deletion"


def read_key(kind: Kind, text: str | Absent) -> tuple[AccessKey | None, str]:
    """Return the key in a secret's text and ""; or None and what is wrong, without quoting the text."""
    if isinstance(text, Absent):
        return None, text.value
    try:
        entries = json.loads(text)
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        return None, f"is not a JSON object with the entries {', '.join(kind.entries)}"
    values = [entries.get(name) for name in kind.entries]
    lacking = [name for name, value in zip(kind.entries, values, strict=True) if not _filled(value)]
    if lacking:
        return None, f"has no value for {', '.join(lacking)}"
    region, key_id, secret = (str(value).strip() for value in values)
    if not REGION.fullmatch(region):
        return None, f"has no valid region in {kind.entries[0]}"
    if not _KEY_ID.fullmatch(key_id):
        return None, f"has no valid access key ID in {kind.entries[1]}"
    return AccessKey(region, key_id, secret), ""


def secret_text(account: Account, name: str) -> str | Absent:
    """Return a secret's text, "" for one that has none. Raises what botocore raises."""
    try:
        text: str = account.client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    except ClientError as error:
        code, message = code_of(error), error.response["Error"].get("Message", "")
        if code == "InvalidRequestException":
            return Absent.MARKED
        if code != "ResourceNotFoundException":
            raise
        # For a secret without a value: "... can't find the specified secret value for staging label: AWSCURRENT".
        return "" if "secret value" in message else Absent.GONE
    return text


def judge_secret(kind: Kind, text: str | Absent | None, stack: Stack, owner: Stack | None) -> Sequence[CheckResult]:
    """Judge the text of the secret that `stack` names; `owner` is the stack of the key's user, None if not known.

    Without a text nothing uses the secret.
    """
    if text is None:
        return []
    name = secret_name(stack.output(kind.secret_output))
    region = owner.account.region if owner else None
    is_named = kind.secret.startswith(f"{name}:")  # unless this deployment gives it another name than the topic
    key, problem = read_key(kind, text)
    if key is None:
        remedies = {Absent.MARKED: get_back(stack.account, name)}
        if kind.of_a_stack:
            remedies[Absent.GONE] = f"{make_again(stack.name)}; then: {_CONNECT}"
        then = remedies.get(text, _CONNECT) if isinstance(text, Absent) else _CONNECT
        return [fail(kind.secret, f"{'it' if is_named else name} {problem}", then)]
    if region is not None and key.region != region:
        entry = kind.entries[0] if is_named else f"{kind.entries[0]} in {name}"
        found = f"{entry} is {key.region}, the stack's region is {region}"
        return [fail(kind.secret, found, "`image-mirror connect` corrects it")]
    return [fine(kind.secret, f"{'it' if is_named else name} has its three entries, for {key.region}")]


def judge_key(
    kind: Kind, key: AccessKey | None, listed: Sequence[Json] | None, owner: Stack, now: datetime, used: Json | None
) -> Sequence[CheckResult]:
    """Judge a key. `listed` are its user's keys, None if there is no such user; `used` is its last use, if known."""
    if key is None:
        return []
    user = owner.output(kind.user_output)
    name = shown(key.access_key_id)
    if listed is None:
        return [
            fail(kind.key, f"the user {user} does not exist", f"deploy its stack again; {REVERT}; then: {_CONNECT}")
        ]
    own = next((each for each in listed if each["AccessKeyId"] == key.access_key_id), None)
    if own is None:
        return [fail(kind.key, f"{name} does not belong to {user}: it was deleted, or is another user's", _CONNECT)]
    age = now - own["CreateDate"]

    def faults() -> Iterator[CheckResult]:
        if own["Status"] != "Active":
            yield fail(kind.key, f"{name} of {user} is {own['Status']}", _CONNECT)
        if age > _OLD:
            yield warn(kind.key, f"{name} of {user} is {age.days} days old", _ROTATE)
        for other in listed:
            if other is not own and other["Status"] == "Active":
                yield warn(
                    kind.key,
                    f"{user} has a second active key, {shown(other['AccessKeyId'])}, which the secret does not hold",
                    "`image-mirror connect` says what to do about it; during a rotation this is normal",
                )

    return unless(faults(), fine(kind.key, f"{name} of {user}: active, {age.days} days old, {_use(used, now)}"))


def judge_call(kind: Kind, verdict: Verdict | None) -> Sequence[CheckResult]:
    """Judge the result of a call that was made with the key, None if nothing uses the key."""
    if verdict is None:
        return []
    match verdict.result:
        case ProbeResult.WORKS:
            return [fine(kind.call, f"AWS answers: {verdict.text}")]
        case ProbeResult.REFUSED:
            return [fail(kind.call, f"AWS does not accept the key: {verdict.text}", _CONNECT)]
        case ProbeResult.DENIED:
            found = f"AWS accepts the key, but its user may not make the call that it needs: {verdict.text}"
            return [fail(kind.call, found, NO_OTHER_KEY)]
        case _:
            assert_never(verdict.result)


def _filled(value: Any) -> bool:
    # Placeholders in instructions have a "<".
    return isinstance(value, str) and bool(value.strip()) and "<" not in value


def _use(used: Json | None, now: datetime) -> str:
    if used is None:
        return "its last use is not known"
    if "LastUsedDate" not in used:
        return "never used"
    ago = int((now - used["LastUsedDate"]).total_seconds() * 1000)
    return f"last used {span(ago)} ago ({used.get('ServiceName', 'N/A')})"


def _checks(
    kind: Kind, kept: Fetch[Stack], owned: Fetch[Stack], call: Callable[[Context, AccessKey], Verdict]
) -> tuple[Check, ...]:
    """Return the checks of a key. One stack, `kept`, names its secret; the other, `owned`, names its user.

    `call` makes a call with the key, as the product does.
    """

    @fetch(kind.secret)
    def text(context: Context) -> str | Absent | None:
        stack = context.answer(kept)
        return secret_text(stack.account, stack.output(kind.secret_output)) if kind.is_used(stack) else None

    @fetch(kind.secret)
    def key(context: Context) -> AccessKey | None:
        content = context.answer(text)
        if content is None:
            return None
        found, _ = read_key(kind, content)
        if found is None:
            raise UnansweredError(kind.secret, "the secret holds no key")
        context.hide(found.access_key_id, found.secret_access_key)
        return found

    @fetch(kind.key)
    def listed(context: Context) -> Sequence[Json] | None:
        stack = context.answer(owned)
        if not kind.is_used(context.answer(kept)):
            return None
        client, user = stack.account.client("iam"), stack.output(kind.user_output)
        return or_none(lambda: client.list_access_keys(UserName=user)["AccessKeyMetadata"])  # at most two

    @fetch(kind.key)
    def used(context: Context) -> Json | None:
        stack, own = context.answer(owned), context.answer(key)
        if own is None:
            return None
        key_id = own.access_key_id
        found: Json = stack.account.client("iam").get_access_key_last_used(AccessKeyId=key_id)["AccessKeyLastUsed"]
        return found

    @fetch(kind.call)
    def verdict(context: Context) -> Verdict | None:
        context.answer_or_none(used)  # first, so that this call does not count as the last use
        own = context.answer(key)
        return call(context, own) if own else None

    return (
        Check(kind.secret, partial(judge_secret, kind), (text, kept), helps=(owned,)),
        Check(kind.key, partial(judge_key, kind), (key, listed, owned, now), helps=(used,)),
        Check(kind.call, partial(judge_call, kind), (verdict,)),
    )


def _copy(context: Context, key: AccessKey) -> Verdict:
    return can_copy(context.global_account, key, context.answer(global_stack).output("ProjectName"))


def _push(context: Context, key: AccessKey) -> Verdict:
    return can_push(context.china_account, key)


CHECKS = (
    *_checks(GLOBAL_KEY, china_stack, global_stack, _copy),
    *_checks(CHINA_KEY, global_stack, china_stack, _push),
)
