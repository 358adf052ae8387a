"""Federation: both issuers, providers and trust policies, the reconciler's call by its role, errors, and unused keys.

Where the accounts use keys, nothing of this is fetched.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from image_mirror.cli.doctor.accounts import or_none
from image_mirror.cli.doctor.dynamodb import due_items
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, fail, fetch, fine, unless, warn
from image_mirror.cli.doctor.stacks import china_stack, global_stack
from image_mirror.cli.federation.examine import ask_reconciler, issuer_of, provider_of
from image_mirror.cli.federation.plan import (
    OF_CHINA,
    OF_GLOBAL,
    PUSH_PARAMETER,
    START_PARAMETER,
    Answer,
    Provider,
    Trust,
    is_federated,
    is_half_federated,
)
from image_mirror.cli.keys.plan import shown
from image_mirror.cli.remedies import RESTORE, REVERT
from image_mirror.cli.stacks import Stack
from image_mirror.federation import AUDIENCE
from image_mirror.messages import printable
from image_mirror.review import Json

TOPIC = "federation"
_REASONS = 'docs/federation.md says what it means, under "When the accounts federate"'
_CONNECT = "`image-mirror connect --federate` corrects it"
_SAMCONFIG = Path("samconfig.toml")
_PARAMETERS = ("GlobalIssuer", "GlobalBuildRoleArn", "GlobalProviderArn", START_PARAMETER, "GlobalRegion")


@dataclass(frozen=True, slots=True)
class Trusted:
    """What there is for one direction: the other account's issuer, the provider for it, and the role's trust policy.

    Each is None if it does not exist.
    """

    issuer: str | None
    provider: Provider | None
    policy: Json | None


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """Why the latest try of a copy failed, and when, in milliseconds."""

    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction: the `trust` of the stack with the role, and the `parameter` of the other stack that uses it."""

    trust: Trust
    parameter: str


PUSHING, STARTING = Direction(OF_CHINA, PUSH_PARAMETER), Direction(OF_GLOBAL, START_PARAMETER)


def judge_use(china: Stack, global_side: Stack) -> Sequence[CheckResult]:
    """Say whether the accounts federate."""
    if is_federated(china, global_side):
        return [fine(TOPIC, "both directions use roles, and no key")]
    if is_half_federated(china, global_side):
        found = "one direction uses a role, the other one a key"
        return [warn(TOPIC, found, "`image-mirror connect --federate` continues")]
    return [fine(TOPIC, "not used: the accounts reach each other by keys")]


def judge_direction(direction: Direction, found: Trusted | None, stack: Stack, other: Stack) -> Sequence[CheckResult]:
    """Judge one direction; `stack` has the role, and `other` uses it. `found` is None if no role is used."""
    if found is None:
        return []
    trust, where = direction.trust, stack.account.side
    role, subject = stack.outputs.get(trust.role_output, ""), other.outputs.get(trust.subject_output, "")

    def faults() -> Iterator[CheckResult]:
        used = other.parameters.get(direction.parameter, "")
        if used != role:
            text = f"{direction.parameter} is {used}, the stack {stack.name} has {role or 'no such role'}"
            yield fail(TOPIC, text, _CONNECT)
        if found.issuer is None:
            yield fail(TOPIC, f"outbound identity federation is off in the {other.account.side} account", _CONNECT)
            return
        for name, wanted in ((trust.issuer, found.issuer), (trust.subject, subject)):
            if (is_now := stack.parameters.get(name, "")) != wanted:
                yield fail(TOPIC, f"{name} is {is_now or 'empty'}, and should be {wanted}", _CONNECT)
        provider = found.provider
        if provider is None:
            text = f"the {where} account has no OIDC provider for {found.issuer}"
            own = not stack.parameters.get(trust.provider)
            yield fail(TOPIC, text, f"deploy the stack {stack.name} again; {REVERT}" if own else _CONNECT)
            return
        if AUDIENCE not in provider.audiences:
            yield fail(TOPIC, f"{provider.arn} lacks the audience {AUDIENCE}", _CONNECT)
        if role and found.policy != trust_policy(provider.arn, found.issuer, subject):
            text = f"the trust policy of {role} is not that of the template" if found.policy else f"{role} is gone"
            yield fail(TOPIC, text, RESTORE if where == "china" else f"deploy the stack {stack.name} again; {REVERT}")

    return unless(faults(), fine(TOPIC, f"{role} trusts {subject} alone, by {found.issuer}"))


def trust_policy(provider: str, issuer: str, subject: str) -> Json:
    """Return the trust policy that both templates give their role."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{issuer}:aud": AUDIENCE, f"{issuer}:sub": subject}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def judge_call(answer: Answer | None, china: Stack) -> Sequence[CheckResult]:
    """Judge what the reconciler says of a call by its role; None if it uses the key."""
    if answer is None:
        return []
    role = china.parameters.get(START_PARAMETER, "")
    if answer.error is not None:
        return [fail(TOPIC, f"the reconciler cannot call CodeBuild: {answer.error}", _REASONS)]
    if answer.role != role:
        found = f"the reconciler uses {answer.role or 'the key'}, {START_PARAMETER} is {role}"
        return [fail(TOPIC, found, RESTORE)]
    return [fine(TOPIC, f"the reconciler calls CodeBuild by {role}")]


def judge_errors(errors: Sequence[Failure] | None) -> Sequence[CheckResult]:
    """Warn of the latest exchange that has failed for a copy that waits; None if no role is used.

    The reconciler's own call succeeds as long as it has a session, and no call is made by the builds' role.
    """
    if not errors:
        return []
    copies = "a copy waits" if len(errors) == 1 else f"{len(errors)} copies wait"
    found = f"{copies} because an exchange has failed, the last time with: {printable(max(errors).reason)}"
    remedy = f"{_REASONS}; when it is corrected, `image-mirror retry IMAGE` tries at once"
    return [warn(TOPIC, found, remedy)]


def judge_keys(keys: Sequence[tuple[str, str]]) -> Sequence[CheckResult]:
    """Warn of keys that nothing uses: pairs of a user and a key's ID."""
    named = ", ".join(f"{shown(key)} of {user}" for user, key in keys)
    if not keys:
        return []
    remedy = "`image-mirror connect --federate --delete-keys` deletes those that the secrets contain"
    return [warn(TOPIC, f"keys that nothing needs: {named}", remedy)]


def judge_samconfig(text: str, china: Stack) -> Sequence[CheckResult]:
    """Warn of parameters that samconfig.toml sets to empty, and that the stack uses."""
    gone = [name for name in erased(text) if china.parameters.get(name)]
    if not gone:
        return []
    found = f"{_SAMCONFIG} sets {', '.join(gone)} to empty: the next `sam deploy` would switch it off"
    return [warn(TOPIC, found, f"remove them from parameter_overrides in {_SAMCONFIG}")]


def erased(text: str) -> list[str]:
    """Return the parameters of federation that the text of a samconfig.toml sets to empty."""
    text = re.sub(r"(?m)^\s*#.*", "", text)
    empty = r"""=(?:\\?["']\\?["']|(?=[\s"',\]]|$))"""
    return [name for name in _PARAMETERS if re.search(rf"\b{name}{empty}", text)]


def _fetched(direction: Direction, trusting: Fetch[Stack], using: Fetch[Stack]) -> Fetch[Trusted | None]:
    @fetch(TOPIC)
    def trusted(context: Context) -> Trusted | None:
        stack, other = context.answer(trusting), context.answer(using)
        if not other.parameters.get(direction.parameter):
            return None
        issuer = issuer_of(other.account)
        role = stack.outputs.get(direction.trust.role_output, "").rpartition("/")[2]
        iam = stack.account.client("iam")
        found: Any = or_none(lambda: iam.get_role(RoleName=role)["Role"]) if role else None
        policy = found and found["AssumeRolePolicyDocument"]
        return Trusted(issuer, provider_of(stack.account, issuer), policy)

    return trusted


@fetch(TOPIC)
def answer(context: Context) -> Answer | None:
    """Let the reconciler call CodeBuild, if it uses a role."""
    stack = context.answer(china_stack)
    return ask_reconciler(stack) if stack.parameters.get(START_PARAMETER) else None


@fetch(TOPIC)
def errors(context: Context) -> Sequence[Failure] | None:
    """Return the failures of exchanges for copies that are due next, if a role is used."""
    stack, other = context.answer(china_stack), context.answer(global_stack)
    used = ((stack, START_PARAMETER, "federation: "), (other, PUSH_PARAMETER, "TARGET_LOGIN: "))
    beginnings = tuple(text for each, parameter, text in used if each.parameters.get(parameter))
    if not beginnings:
        return None
    return [
        Failure(int(each["updated_at"]["N"]), each["error"]["S"])
        for each in due_items(context, "error", "updated_at")
        if "N" in each.get("updated_at", {}) and each.get("error", {}).get("S", "").startswith(beginnings)
    ]


@fetch(TOPIC)
def unused_keys(context: Context) -> Sequence[tuple[str, str]]:
    """Return the active keys of both users, if both directions use roles."""
    china, global_side = context.answer(china_stack), context.answer(global_stack)
    if not is_federated(china, global_side):
        return []
    found = []
    for stack, output in ((china, "ImagePushUserName"), (global_side, "ImagePullUserName")):
        if user := stack.outputs.get(output):
            listed = partial(stack.account.client("iam").list_access_keys, UserName=user)
            keys = (or_none(listed) or {"AccessKeyMetadata": []})["AccessKeyMetadata"]
            found += [(user, each["AccessKeyId"]) for each in keys if each["Status"] == "Active"]
    return found


@fetch(TOPIC)
def samconfig(_: Context) -> str:
    """Return the text of samconfig.toml in the working directory, "" if there is none."""
    try:
        return _SAMCONFIG.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


_PUSH, _START = _fetched(PUSHING, china_stack, global_stack), _fetched(STARTING, global_stack, china_stack)
CHECKS = (
    Check(TOPIC, judge_use, (china_stack, global_stack)),
    Check(TOPIC, partial(judge_direction, PUSHING), (_PUSH, china_stack, global_stack)),
    Check(TOPIC, partial(judge_direction, STARTING), (_START, global_stack, china_stack)),
    Check(TOPIC, judge_call, (answer, china_stack)),
    Check(TOPIC, judge_errors, (errors,)),
    Check(TOPIC, judge_keys, (unused_keys,)),
    Check(TOPIC, judge_samconfig, (samconfig, china_stack)),
)
