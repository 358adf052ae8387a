"""What doctor says of accounts that federate, one fault at a time."""

from dataclasses import replace
from typing import Any

import pytest

from image_mirror.cli.doctor import federation
from image_mirror.cli.doctor.federation import PUSHING, STARTING, Failure, Trusted, trust_policy
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.federation.plan import Answer, Provider
from image_mirror.cli.stacks import Stack
from support.healthy import Answers

CHINA_ISSUER, GLOBAL_ISSUER = "1111.tokens.sts.global.api.aws", "2222.tokens.sts.global.api.aws"
RECONCILER, PUSH = "arn:aws-cn:iam::123456789012:role/reconciler", "arn:aws-cn:iam::123456789012:role/push"
BUILD, START = "arn:aws:iam::210987654321:role/build", "arn:aws:iam::210987654321:role/start"
IN_CHINA = f"arn:aws-cn:iam::123456789012:oidc-provider/{GLOBAL_ISSUER}"
GLOBALLY = f"arn:aws:iam::210987654321:oidc-provider/{CHINA_ISSUER}"


def both(**changed: str) -> tuple[Stack, Stack]:
    """Return two stacks that federate, with these parameters changed."""
    of_china = {
        "GlobalIssuer": GLOBAL_ISSUER,
        "GlobalBuildRoleArn": BUILD,
        "GlobalProviderArn": "",
        "GlobalStartRoleArn": START,
        "GlobalRegion": "us-west-2",
    }
    of_global = {
        "ChinaIssuer": CHINA_ISSUER,
        "ChinaReconcilerRoleArn": RECONCILER,
        "ChinaProviderArn": "",
        "ChinaPushRoleArn": PUSH,
    }
    answers = Answers()
    outputs = {"ReconcilerRoleArn": RECONCILER, "PushRoleArn": PUSH}
    given = {name: changed.get(name, value) for name, value in of_china.items()}
    answers.change_china(outputs={**answers.china.outputs, **outputs}, **given)
    outputs = {"BuildRoleArn": BUILD, "StartRoleArn": START}
    given = {name: changed.get(name, value) for name, value in of_global.items()}
    answers.change_global(outputs={**answers.global_side.outputs, **outputs}, **given)
    return answers.china, answers.global_side


AUDIENCE = frozenset({"image-mirror"})
PUSHED = Trusted(GLOBAL_ISSUER, Provider(IN_CHINA, AUDIENCE), trust_policy(IN_CHINA, GLOBAL_ISSUER, BUILD))
STARTED = Trusted(CHINA_ISSUER, Provider(GLOBALLY, AUDIENCE), trust_policy(GLOBALLY, CHINA_ISSUER, RECONCILER))


def results(
    china: Stack, world: Stack, pushed: Trusted | None = PUSHED, started: Trusted | None = STARTED
) -> list[tuple[State, str, str]]:
    found = [
        *federation.judge_use(china, world),
        *federation.judge_direction(PUSHING, pushed, china, world),
        *federation.judge_direction(STARTING, started, world, china),
    ]
    return [(each.state, each.found, each.remedy or "") for each in found]


def test_where_all_is_well_each_row_says_so() -> None:
    assert results(*both()) == [
        (State.OK, "both directions use roles, and no key", ""),
        (State.OK, f"{PUSH} trusts {BUILD} alone, by {GLOBAL_ISSUER}", ""),
        (State.OK, f"{START} trusts {RECONCILER} alone, by {CHINA_ISSUER}", ""),
    ]


def test_accounts_with_keys_have_one_row() -> None:
    answers = Answers()
    [(state, found, _)] = results(answers.china, answers.global_side, None, None)
    assert (state, found) == (State.OK, "not used: the accounts reach each other by keys")


def test_one_direction_alone_is_a_warning() -> None:
    half = results(*both(GlobalStartRoleArn=""), started=None)
    assert half[0] == (
        State.WARNING,
        "one direction uses a role, the other one a key",
        "`image-mirror connect --federate` continues",
    )


@pytest.mark.parametrize(
    ("changed", "pushed", "words", "remedy"),
    [
        pytest.param(
            {},
            replace(PUSHED, issuer=None),
            "outbound identity federation is off in the global account",
            "connect",
            id="off",
        ),
        pytest.param(
            {"GlobalIssuer": "old.example"},
            PUSHED,
            "GlobalIssuer is old.example, and should be 2222",
            "connect",
            id="issuer",
        ),
        pytest.param(
            {"GlobalBuildRoleArn": f"{BUILD}2"},
            PUSHED,
            f"GlobalBuildRoleArn is {BUILD}2, and should be {BUILD}",
            "connect",
            id="subject",
        ),
        pytest.param(
            {"ChinaPushRoleArn": f"{PUSH}2"},
            PUSHED,
            f"ChinaPushRoleArn is {PUSH}2, the stack image-mirror has {PUSH}",
            "connect",
            id="another role is used",
        ),
        pytest.param(
            {},
            replace(PUSHED, provider=None),
            f"the china account has no OIDC provider for {GLOBAL_ISSUER}",
            "REVERT_DRIFT",
            id="the stack's own provider is gone",
        ),
        pytest.param(
            {"GlobalProviderArn": IN_CHINA},
            replace(PUSHED, provider=None),
            f"the china account has no OIDC provider for {GLOBAL_ISSUER}",
            "connect --federate",
            id="another provider is gone",
        ),
        pytest.param(
            {},
            replace(PUSHED, provider=Provider(IN_CHINA, frozenset({"sts.amazonaws.com"}))),
            f"{IN_CHINA} lacks the audience image-mirror",
            "connect --federate",
            id="audience",
        ),
        pytest.param({}, replace(PUSHED, policy=None), f"{PUSH} is gone", "REVERT_DRIFT", id="the role is gone"),
        *(
            pytest.param(
                {},
                replace(PUSHED, policy=policy),
                f"the trust policy of {PUSH} is not that of the template",
                "REVERT_DRIFT",
                id=name,
            )
            for name, policy in {
                "another subject is trusted": trust_policy(IN_CHINA, GLOBAL_ISSUER, f"{BUILD}2"),
                "another issuer is trusted": trust_policy(IN_CHINA, CHINA_ISSUER, BUILD),
                "another provider is trusted": trust_policy(GLOBALLY, GLOBAL_ISSUER, BUILD),
            }.items()
        ),
    ],
)
def test_each_fault_is_named_with_its_remedy(changed: dict[str, str], pushed: Trusted, words: str, remedy: str) -> None:
    failed = [each for each in results(*both(**changed), pushed=pushed) if each[0] is State.FAILED]
    assert [each for each in failed if each[1].startswith(words) and remedy in each[2]], failed


def test_a_statement_more_is_not_the_templates_policy() -> None:
    wider: Any = {"Version": "2012-10-17", "Statement": [*PUSHED.policy["Statement"], {"Effect": "Allow"}]}  # type: ignore[index]
    assert results(*both(), pushed=replace(PUSHED, policy=wider))[1][0] is State.FAILED


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        pytest.param(Answer(START, None), State.OK, f"the reconciler calls CodeBuild by {START}", id="well"),
        pytest.param(
            Answer(START, "federation: no"),
            State.FAILED,
            "the reconciler cannot call CodeBuild: federation: no",
            id="refused",
        ),
        pytest.param(
            Answer("", None),
            State.FAILED,
            f"the reconciler uses the key, GlobalStartRoleArn is {START}",
            id="a function with older variables",
        ),
    ],
)
def test_the_reconciler_s_own_answer_is_judged(answer: Answer, state: State, words: str) -> None:
    [found] = federation.judge_call(answer, both()[0])
    assert (found.state, found.found) == (state, words)
    assert federation.judge_call(None, both()[0]) == []


def test_the_latest_failure_of_an_exchange_is_named() -> None:
    old, new = Failure(1, "federation: old"), Failure(2, "TARGET_LOGIN: new\n")
    [found] = federation.judge_errors([new, old])
    assert found.state is State.WARNING
    assert found.found.startswith("2 copies wait because an exchange has failed, the last time with: TARGET_LOGIN: new")
    [one] = federation.judge_errors([old])
    assert one.found == "a copy waits because an exchange has failed, the last time with: federation: old"
    assert federation.judge_errors(None) == federation.judge_errors([]) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param('parameter_overrides = "GlobalIssuer=\\"\\" RefreshHours=24"', ["GlobalIssuer"], id="quoted"),
        pytest.param("parameter_overrides = 'GlobalIssuer=\"\" A=1'", ["GlobalIssuer"], id="quoted in single quotes"),
        pytest.param('parameter_overrides = "GlobalStartRoleArn= A=1"', ["GlobalStartRoleArn"], id="nothing"),
        pytest.param('parameter_overrides = ["A=1", "GlobalRegion="]', ["GlobalRegion"], id="a list"),
        pytest.param('parameter_overrides = "GlobalIssuer=1111.example"', [], id="a value"),
        pytest.param('parameter_overrides = "RefreshHours=24"', [], id="another parameter"),
        pytest.param('# parameter_overrides = "GlobalIssuer= A=1"', [], id="a comment"),
        pytest.param("", [], id="no file"),
    ],
)
def test_a_samconfig_that_would_erase_federation_is_found(text: str, names: list[str]) -> None:
    assert federation.erased(text) == names
    found = federation.judge_samconfig(text, both()[0])
    assert [each.state for each in found] == [State.WARNING] * bool(names)
    assert federation.judge_samconfig(text, Answers().china) == [], "nothing is erased where nothing is set"


def test_keys_that_nothing_uses_are_named_by_their_last_characters() -> None:
    [found] = federation.judge_keys([("push-user", "AKIACHINAEXAMPLE0001")])
    assert (found.state, found.found) == (State.WARNING, "keys that nothing needs: ...0001 of push-user")
    assert federation.judge_keys([]) == []
