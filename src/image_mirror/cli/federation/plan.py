"""Decides which steps are left until the accounts federate, from what there is. Pure.

Each account trusts the issuer of the other account's tokens: an OIDC provider and a role there. Then each side is told
which role to take. That is what switches federation on, so it comes last, and only a role that was tested is used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from image_mirror.cli.remedies import REVERT
from image_mirror.cli.stacks import Stack, fast_project_in_use
from image_mirror.federation import AUDIENCE

PUSH_PARAMETER = "ChinaPushRoleArn"
"""The parameter of the global stack with which builds push by a role."""
START_PARAMETER = "GlobalStartRoleArn"
"""The parameter of China's stack with which the reconciler starts builds by a role."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How a stack trusts the other account: the names of its three parameters, and of the output with its role.

    `subject_output` is the output of the other stack with the role that is trusted.
    """

    issuer: str
    subject: str
    provider: str
    role_output: str
    subject_output: str


OF_CHINA = Trust("GlobalIssuer", "GlobalBuildRoleArn", "GlobalProviderArn", "PushRoleArn", "BuildRoleArn")
OF_GLOBAL = Trust("ChinaIssuer", "ChinaReconcilerRoleArn", "ChinaProviderArn", "StartRoleArn", "ReconcilerRoleArn")


@dataclass(frozen=True, slots=True)
class Provider:
    """An OIDC provider of an account."""

    arn: str
    audiences: frozenset[str]


@dataclass(frozen=True, slots=True)
class Side:
    """One account: its stack, who signs its tokens (None while outbound federation is off), and its provider.

    `provider` is the one for the other account's issuer, None if there is none or that issuer is not known yet.
    """

    stack: Stack
    trust: Trust
    issuer: str | None
    provider: Provider | None = None

    @property
    def name(self) -> str:
        """The account, for people."""
        return self.stack.account.side

    def value(self, parameter: str) -> str:
        """Return the value of a parameter, "" for one that is empty or missing."""
        return self.stack.parameters.get(parameter, "")

    @property
    def role(self) -> str:
        """The role that the other account can take, "" if there is none yet."""
        return self.stack.outputs.get(self.trust.role_output, "")


@dataclass(frozen=True, slots=True)
class Answer:
    """How the reconciler calls the global account: the `role`, "" for the key, and the `error`, None if that works."""

    role: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """Both accounts, and the reconciler's latest answer."""

    china: Side
    world: Side
    answer: Answer


class Action(Enum):
    """What a step does."""

    SWITCH_ON = "switch outbound federation on"
    ADD_AUDIENCE = "add the audience"
    TRUST = "trust the other account"
    USE_PUSH = "push by a role"
    USE_START = "start builds by a role"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, and the account where it is done. `lines` say it for people.

    `values` are the parameters that are set, as far as they are known, or what IAM is called with.
    """

    action: Action
    side: str
    lines: tuple[str, ...]
    values: Mapping[str, str] = field(default_factory=dict)


def knows_federation(china: Stack, world: Stack) -> bool:
    """Return whether both stacks are of a release that can federate."""
    return not list(_missing(china, world))


def is_federated(china: Stack, world: Stack) -> bool:
    """Return whether both directions use roles."""
    return _uses(china, world) == (True, True)


def is_half_federated(china: Stack, world: Stack) -> bool:
    """Return whether one direction uses a role, and the other one a key."""
    return any(_uses(china, world)) and not is_federated(china, world)


def _uses(china: Stack, world: Stack) -> tuple[bool, bool]:
    return bool(china.parameters.get(START_PARAMETER)), bool(world.parameters.get(PUSH_PARAMETER))


def _missing(china: Stack, world: Stack) -> Iterator[str]:
    for stack, trust, parameters, outputs in (
        (china, OF_CHINA, (START_PARAMETER, "GlobalRegion"), (OF_GLOBAL.subject_output, "ReconcilerFunctionName")),
        (world, OF_GLOBAL, (PUSH_PARAMETER,), (OF_CHINA.subject_output,)),
    ):
        wanted = {trust.issuer, trust.subject, trust.provider, *parameters}
        if wanted - stack.parameters.keys() or set(outputs) - stack.outputs.keys():
            yield (
                f"{stack.account}: the stack {stack.name} is of an older release, which cannot federate; deploy this "
                "release there first, then run this again"
            )


def older(china: Stack, world: Stack) -> list[str]:
    """Return which stacks are of a release that cannot federate, with the remedy."""
    return list(_missing(china, world))


def problems(found: Found) -> list[str]:
    """Return what somebody has to correct first, with the remedy: a stack's own provider that was deleted by hand.

    CloudFormation does not see that, and would not create it again.
    """
    return [
        f"{side.stack.account}: the OIDC provider for {other.issuer}, which the stack {side.stack.name} has made, does "
        f"not exist any more; deploy the stack again; {REVERT}"
        for side, other in ((found.china, found.world), (found.world, found.china))
        if other.issuer and side.provider is None and _is_own(side, other)
    ]


def _is_own(side: Side, other: Side) -> bool:
    """Return whether the provider for the other account's issuer is a resource of this stack."""
    return side.value(side.trust.issuer) == other.issuer and not side.value(side.trust.provider)


def steps(found: Found) -> list[Step]:
    """Return the steps that are left, in their order. Only the first one has all its values for sure."""
    pairs = ((found.china, found.world), (found.world, found.china))
    left = [_switch_on(side) for side in (found.china, found.world) if side.issuer is None]
    for side, other in pairs:
        if side.provider and AUDIENCE not in side.provider.audiences:
            text = f"{side.name}: add the audience {AUDIENCE} to the OIDC provider {side.provider.arn}"
            given = {"OpenIDConnectProviderArn": side.provider.arn, "ClientID": AUDIENCE}
            left.append(Step(Action.ADD_AUDIENCE, side.name, (text,), given))
        if (values := _trusting(side, other)) is not None:
            left.append(_trust(side, values))
    return [*left, *_use_push(found), *_use_start(found)]


def _switch_on(side: Side) -> Step:
    text = (
        f"{side.name}: switch outbound identity federation on; it concerns the whole account, and this command never "
        "switches it off"
    )
    return Step(Action.SWITCH_ON, side.name, (text,))


def _trusting(side: Side, other: Side) -> dict[str, str] | None:
    """Return the parameters with which `side` trusts the other account; None if it does already."""
    trust = side.trust
    subject = other.stack.output(trust.subject_output)
    if other.issuer is None:
        # What it will be is not known. Most likely it is the one that the stack has from before.
        known = side.value(trust.issuer) and side.value(trust.subject) == subject
        return None if known else {trust.subject: subject}
    own_or_none = _is_own(side, other) or side.provider is None
    provider = "" if own_or_none or side.provider is None else side.provider.arn
    values = {trust.issuer: other.issuer, trust.subject: subject, trust.provider: provider}
    return None if all(side.value(name) == value for name, value in values.items()) else values


def _trust(side: Side, values: Mapping[str, str]) -> Step:
    trust = side.trust

    def change(name: str, value: str) -> str:
        text = f"{name}={value}" if value else f"{name} empty"
        before = side.value(name)
        # The stack of that role was deleted; or another mirror uses this stack too, which the operator must know.
        return f"{text} in the place of {before}, which loses its access" if name == trust.subject and before else text

    shown = [change(name, value) for name, value in values.items() if side.value(name) != value]
    if trust.issuer not in values:
        shown.insert(0, f"{trust.issuer} (known when the other account has switched it on)")
    made = trust.role_output.removesuffix("Arn")
    text = f"{side.name}: set {', '.join(shown)} in the stack {side.stack.name}; this makes {made}"
    return Step(Action.TRUST, side.name, (text,), values)


def _use_push(found: Found) -> Iterator[Step]:
    role, world = found.china.role, found.world
    if role and world.value(PUSH_PARAMETER) == role:
        return
    named = f"{PUSH_PARAMETER}={role}" if role else PUSH_PARAMETER
    project = world.stack.output("ProjectName")
    fast = fast_project_in_use(found.china.stack, world.stack)  # `connect` tests another one before it is used
    lines = (
        f"global: start a build of {project} that only logs in to ECR by that role, as a probe (at most 10 minutes)",
        *((f"global: start such a build of {fast} too (at most 5 minutes); no copy depends on it",) if fast else ()),
        f"global: when it has succeeded, set {named} in the stack {world.stack.name}: builds then push without a key",
    )
    yield Step(Action.USE_PUSH, world.name, lines, {PUSH_PARAMETER: role})


def _use_start(found: Found) -> Iterator[Step]:
    role, china, name = found.world.role, found.china, START_PARAMETER
    region = found.world.stack.output("GlobalRegion")
    values = {name: role, "GlobalRegion": region}
    is_set = bool(role) and all(china.value(each) == value for each, value in values.items())
    if is_set and found.answer == Answer(role, None):
        return
    named = f"{name}={role}" if role else name
    set_it = f"china: set {named} and GlobalRegion={region} in the stack {china.stack.name}: the reconciler then starts"
    lines = (
        *((f"{set_it} builds without a key",) if not is_set else ()),
        "china: invoke the reconciler with a probe, which calls BatchGetBuilds by that role; if it fails, set "
        f"{name} to empty again",
    )
    yield Step(Action.USE_START, china.name, lines, values)
