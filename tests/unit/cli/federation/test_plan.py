"""Which steps are left until two accounts federate, for each state in which a run can have ended."""

from dataclasses import dataclass, field, replace

import pytest

from image_mirror.cli.accounts import Account
from image_mirror.cli.federation.plan import (
    OF_CHINA,
    OF_GLOBAL,
    Action,
    Answer,
    Found,
    Provider,
    Side,
    is_federated,
    is_half_federated,
    knows_federation,
    older,
    problems,
    steps,
)
from image_mirror.cli.stacks import Stack

CHINA_ISSUER, GLOBAL_ISSUER = "1111.tokens.sts.global.api.aws", "2222.tokens.sts.global.api.aws"
RECONCILER, PUSH = "arn:aws-cn:iam::123456789012:role/reconciler", "arn:aws-cn:iam::123456789012:role/push"
BUILD, START = "arn:aws:iam::210987654321:role/build", "arn:aws:iam::210987654321:role/start"
IN_CHINA = f"arn:aws-cn:iam::123456789012:oidc-provider/{GLOBAL_ISSUER}"
GLOBALLY = f"arn:aws:iam::210987654321:oidc-provider/{CHINA_ISSUER}"
OURS = frozenset({"image-mirror"})
CHINA_TRUSTS = {"GlobalIssuer": GLOBAL_ISSUER, "GlobalBuildRoleArn": BUILD, "GlobalProviderArn": ""}
GLOBAL_TRUSTS = {"ChinaIssuer": CHINA_ISSUER, "ChinaReconcilerRoleArn": RECONCILER, "ChinaProviderArn": ""}
STARTS = {"GlobalStartRoleArn": START, "GlobalRegion": "us-west-2"}
BY_KEY, BY_ROLE = Answer("", None), Answer(START, None)


@dataclass
class State:
    """Both accounts, with the parts that differ from two new stacks with keys that work."""

    china: dict[str, str] = field(default_factory=dict)
    world: dict[str, str] = field(default_factory=dict)
    issuers: tuple[str | None, str | None] = (CHINA_ISSUER, GLOBAL_ISSUER)
    in_china: Provider | None = None
    globally: Provider | None = None
    answer: Answer = BY_KEY

    def found(self) -> Found:
        empty = dict.fromkeys((*CHINA_TRUSTS, *STARTS), "")
        outputs = {"ReconcilerRoleArn": RECONCILER, "ReconcilerFunctionName": "reconciler"}
        outputs |= {"PushRoleArn": PUSH} if self.china.get("GlobalIssuer") else {}
        china = Stack(Account("china"), "image-mirror", "UPDATE_COMPLETE", outputs, empty | self.china)
        empty = dict.fromkeys((*GLOBAL_TRUSTS, "ChinaPushRoleArn"), "")
        outputs = {"BuildRoleArn": BUILD, "GlobalRegion": "us-west-2", "ProjectName": "ImagePullProject"}
        outputs |= {"StartRoleArn": START} if self.world.get("ChinaIssuer") else {}
        world = Stack(Account("global"), "image-pulling", "UPDATE_COMPLETE", outputs, empty | self.world)
        return Found(
            Side(china, OF_CHINA, self.issuers[0], self.in_china),
            Side(world, OF_GLOBAL, self.issuers[1], self.globally),
            self.answer,
        )


OWN = {"in_china": Provider(IN_CHINA, OURS), "globally": Provider(GLOBALLY, OURS)}
TRUSTING = State(CHINA_TRUSTS, GLOBAL_TRUSTS, **OWN)  # type: ignore[arg-type]
PUSHING = replace(TRUSTING, world={**GLOBAL_TRUSTS, "ChinaPushRoleArn": PUSH})
DONE = replace(PUSHING, china={**CHINA_TRUSTS, **STARTS}, answer=BY_ROLE)
ON, AUDIENCE, TRUST = Action.SWITCH_ON, Action.ADD_AUDIENCE, Action.TRUST
LAST = [(Action.USE_PUSH, "global"), (Action.USE_START, "china")]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(
            State(issuers=(None, None)),
            [(ON, "china"), (ON, "global"), (TRUST, "china"), (TRUST, "global"), *LAST],
            id="nothing",
        ),
        pytest.param(
            State(issuers=(CHINA_ISSUER, None)),
            [(ON, "global"), (TRUST, "china"), (TRUST, "global"), *LAST],
            id="on in China",
        ),
        pytest.param(State(), [(TRUST, "china"), (TRUST, "global"), *LAST], id="on in both"),
        pytest.param(
            State(CHINA_TRUSTS, in_china=OWN["in_china"]), [(TRUST, "global"), *LAST], id="China trusts the builds"
        ),
        pytest.param(TRUSTING, LAST, id="each trusts the other"),
        pytest.param(PUSHING, [(Action.USE_START, "china")], id="builds push by the role"),
        pytest.param(
            replace(PUSHING, answer=Answer("", "the secret GlobalAKSK lacks G_ACCESS_KEY")),
            [(Action.USE_START, "china")],
            id="the same without a key",
        ),
        pytest.param(
            replace(PUSHING, china={**CHINA_TRUSTS, **STARTS}, answer=Answer(START, "federation: no")),
            [(Action.USE_START, "china")],
            id="the reconciler's role is set and does not work",
        ),
        pytest.param(
            replace(PUSHING, china={**CHINA_TRUSTS, **STARTS}, answer=Answer("", None)),
            [(Action.USE_START, "china")],
            id="the reconciler's role is set and a function still uses the key",
        ),
        pytest.param(
            replace(DONE, china={**CHINA_TRUSTS, **STARTS, "GlobalRegion": "eu-west-1"}),
            [(Action.USE_START, "china")],
            id="another region",
        ),
        pytest.param(DONE, [], id="all is done"),
        pytest.param(
            replace(DONE, issuers=(None, GLOBAL_ISSUER), globally=None), [(ON, "china")], id="switched off in China"
        ),
        pytest.param(
            replace(DONE, world={**DONE.world, "ChinaPushRoleArn": "arn:aws-cn:iam::123456789012:role/old"}),
            [(Action.USE_PUSH, "global")],
            id="another push role, of a stack that was deleted",
        ),
        pytest.param(
            replace(DONE, china={**DONE.china, "GlobalBuildRoleArn": "arn:aws:iam::210987654321:role/old"}),
            [(TRUST, "china")],
            id="another build role, of a stack that was deleted",
        ),
        pytest.param(
            replace(DONE, in_china=Provider(IN_CHINA, frozenset({"other"}))),
            [(AUDIENCE, "china")],
            id="the audience is missing",
        ),
        pytest.param(
            State(in_china=Provider(IN_CHINA, frozenset({"other"})), globally=Provider(GLOBALLY, OURS)),
            [(AUDIENCE, "china"), (TRUST, "china"), (TRUST, "global"), *LAST],
            id="both accounts have a provider, one without the audience",
        ),
    ],
)
def test_the_steps_that_are_left(state: State, expected: list[tuple[Action, str]]) -> None:
    assert [(step.action, step.side) for step in steps(state.found())] == expected


@pytest.mark.parametrize(
    ("state", "provider"),
    [
        pytest.param(State(), "", id="no provider: the stack makes it"),
        pytest.param(State(in_china=Provider(IN_CHINA, OURS)), IN_CHINA, id="one that exists is used"),
        pytest.param(
            State({**CHINA_TRUSTS, "GlobalBuildRoleArn": ""}, in_china=Provider(IN_CHINA, OURS)),
            "",
            id="the stack's own stays its own",
        ),
        pytest.param(
            State({**CHINA_TRUSTS, "GlobalIssuer": "old.example"}, in_china=Provider(IN_CHINA, OURS)),
            IN_CHINA,
            id="another issuer than before, with a provider",
        ),
        pytest.param(
            State({**CHINA_TRUSTS, "GlobalProviderArn": IN_CHINA}),
            "",
            id="the one that was used is gone",
        ),
    ],
)
def test_an_account_never_gets_a_second_provider_for_an_issuer(state: State, provider: str) -> None:
    [step] = [each for each in steps(state.found()) if (each.action, each.side) == (TRUST, "china")]
    assert step.values == {**CHINA_TRUSTS, "GlobalProviderArn": provider}


def test_each_step_sets_exactly_its_parameters() -> None:
    values = [dict(step.values) for step in steps(State().found())]
    assert values == [CHINA_TRUSTS, GLOBAL_TRUSTS, {"ChinaPushRoleArn": ""}, {**STARTS, "GlobalStartRoleArn": ""}]
    assert [dict(step.values) for step in steps(TRUSTING.found())] == [{"ChinaPushRoleArn": PUSH}, STARTS]


def test_the_lines_say_what_is_known_and_that_an_account_is_switched_on_as_a_whole() -> None:
    lines = [line for step in steps(State(issuers=(None, GLOBAL_ISSUER)).found()) for line in step.lines]
    assert lines == [
        "china: switch outbound identity federation on; it concerns the whole account, and this command never switches "
        "it off",
        f"china: set GlobalIssuer={GLOBAL_ISSUER}, GlobalBuildRoleArn={BUILD} in the stack image-mirror; this makes "
        "PushRole",
        "global: set ChinaIssuer (known when the other account has switched it on), "
        f"ChinaReconcilerRoleArn={RECONCILER} in the stack image-pulling; this makes StartRole",
        "global: start a build of ImagePullProject that only logs in to ECR by that role, as a probe (at most 10 "
        "minutes)",
        "global: when it has succeeded, set ChinaPushRoleArn in the stack image-pulling: builds then push without a "
        "key",
        "china: set GlobalStartRoleArn and GlobalRegion=us-west-2 in the stack image-mirror: the reconciler then "
        "starts builds without a key",
        "china: invoke the reconciler with a probe, which calls BatchGetBuilds by that role; if it fails, set "
        "GlobalStartRoleArn to empty again",
    ]


@pytest.mark.parametrize(
    ("used", "offered", "tested"),
    [
        pytest.param("ImagePullProjectFast", "ImagePullProjectFast", ["ImagePullProjectFast"], id="in use"),
        pytest.param("", "ImagePullProjectFast", [], id="not in use: it is tested before it is used"),
        pytest.param("ImagePullProjectFast", "", [], id="the global stack has none"),
        pytest.param("Another", "ImagePullProjectFast", [], id="another project"),
    ],
)
def test_the_role_is_tried_in_the_fast_lane_too(used: str, offered: str, tested: list[str]) -> None:
    found = TRUSTING.found()
    found.china.stack.parameters["GlobalFastProjectName"] = used  # type: ignore[index]
    found.world.stack.outputs["FastProjectName"] = offered  # type: ignore[index]
    lines = [line for step in steps(found) for line in step.lines if "such a build of" in line]
    assert lines == [
        f"global: start such a build of {each} too (at most 5 minutes); no copy depends on it" for each in tested
    ]


def test_the_lines_say_which_role_loses_its_access() -> None:
    old = "arn:aws-cn:iam::123456789012:role/of-another-mirror"
    state = replace(DONE, world={**DONE.world, "ChinaReconcilerRoleArn": old})
    [line] = [line for step in steps(state.found()) for line in step.lines]
    assert line == (
        f"global: set ChinaReconcilerRoleArn={RECONCILER} in the place of {old}, which loses its access in the stack "
        "image-pulling; this makes StartRole"
    )


def test_a_stacks_own_provider_that_was_deleted_by_hand_is_a_problem() -> None:
    assert problems(DONE.found()) == []
    [problem] = problems(replace(DONE, globally=None).found())
    assert problem.startswith(
        f"global account: the OIDC provider for {CHINA_ISSUER}, which the stack image-pulling has"
    )
    assert "REVERT_DRIFT" in problem
    assert problems(replace(DONE, globally=None, world={**DONE.world, "ChinaProviderArn": GLOBALLY}).found()) == []
    assert problems(State(issuers=(None, None)).found()) == []


@pytest.mark.parametrize(
    ("side", "name"),
    [
        *(pytest.param("china", name, id=name) for name in (*CHINA_TRUSTS, *STARTS)),
        *(pytest.param("world", name, id=name) for name in (*GLOBAL_TRUSTS, "ChinaPushRoleArn")),
    ],
)
def test_a_stack_without_a_parameter_is_of_an_older_release(side: str, name: str) -> None:
    found = State().found()
    pair = {"china": found.china.stack, "world": found.world.stack}
    assert knows_federation(**pair)
    parameters = {each: value for each, value in pair[side].parameters.items() if each != name}
    pair[side] = replace(pair[side], parameters=parameters)
    assert not knows_federation(**pair)
    [text] = older(**pair)
    assert text.endswith(
        f"the stack {pair[side].name} is of an older release, which cannot federate; deploy this release there first, "
        "then run this again"
    )


def test_accounts_federate_if_both_directions_use_roles() -> None:
    def both(state: State) -> tuple[bool, bool]:
        china, world = state.found().china.stack, state.found().world.stack
        return is_federated(china, world), is_half_federated(china, world)

    assert [both(each) for each in (TRUSTING, PUSHING, DONE)] == [(False, False), (False, True), (True, False)]
