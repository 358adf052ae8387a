"""With a stolen key of China's secret one can only have images copied to their own destinations."""

import re
from dataclasses import replace
from typing import Any

import pytest

from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.authorization import actions, condition_keys, resource_of
from e2e.harness.principals import globally
from e2e.harness.stacks import GLOBAL
from e2e.harness.start_build import PARTS, SET_BY_THE_RECONCILER, WHOLES, example, overrides
from e2e.harness.stolen_key import POLICY, POLICY_OF_ONE_ACCOUNT, PROJECTS, START, Json, request, variables
from support.buildspec_runner import IMAGE, REGISTRY, TARGET
from support.templates import ROOT

# The condition keys of the variables, each and as a whole: they must be allowed, and two statements check their values.
BY_VARIABLES = {
    "codebuild:environment",
    "codebuild:environment.environmentVariables",
    "codebuild:environment.environmentVariables.name",
    "codebuild:environment.environmentVariables.value",
    "codebuild:environment.environmentVariables/${name}.value",
}
DENIALS = [each for document in POLICY for each in document["Statement"] if each["Effect"] == "Deny"]


def documented() -> dict[str, str]:
    """The overrides that docs/security.md lists, each with the reason why it is harmless."""
    table = (ROOT / "docs" / "security.md").read_text().partition("| override |")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    return {name: reason for names, reason in rows for name in re.findall(r"`(\w+)`", names) or [names]}


def values(member: str) -> list[Any]:
    """Possible values of a member: the whole, and each part alone that has its own condition key."""
    whole = example(overrides()[member])
    return [whole, *({part: whole[part]} for part in PARTS.get(member, ()))]


FORBIDDEN = {
    "no target": variables(DOCKER_IMAGE=IMAGE),
    "no variables": [],
    "another repository": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=f"{REGISTRY}/app:1"),
    "a longer prefix": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=f"{REGISTRY}/mirrored/app:1"),
    "another region": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=TARGET.replace("cn-northwest-1", "cn-north-1")),
    "another host": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE="evil.example/mirror/app:1"),
    "a longer host": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=f"evil.example/{TARGET}"),
    "a secret's name": variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE="ImagePullSecret:AccessSecretKey"),
    **{
        name: variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=TARGET, **{name: "x"})
        for name in (
            *("AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "BASH_ENV", "CHINA_ACCESS_KEY_ID", "LD_PRELOAD", "PATH"),
            *("REGISTRY_AUTH", "REPOSITORY_PREFIX", "TARGET_REGISTRY", "docker_image", "HTTPS_PROXY"),
        )
    },
}


def holes(policy: list[Json]) -> list[str]:
    """What the policy should deny for each project and does not: overrides, condition keys of AWS's list, variables."""

    def denied(asked: Request) -> bool:
        return all(evaluate(policy, replace(asked, resource=each)) is Decision.DENIED for each in PROJECTS)

    def key_denied(key: str) -> bool:
        # A key of a part comes with that of the whole: codebuild:cache.type with codebuild:cache.
        wholes = [key[: match.start()] for match in re.finditer(r"[./]", key)]
        return any(denied(Request(START, PROJECTS[0], {**request().context, each: "x"})) for each in (key, *wholes))

    listed = documented()
    return [
        *(
            member
            for member in overrides()
            if member not in listed and not all(denied(request(**{member: value})) for value in values(member))
        ),
        *(key for key in sorted(condition_keys(START) - BY_VARIABLES) if not key_denied(key)),
        *(name for name, given in FORBIDDEN.items() if not denied(request(environmentVariablesOverride=given))),
    ]


@pytest.mark.parametrize("policy", [POLICY, POLICY_OF_ONE_ACCOUNT], ids=["any account", "one account"])
def test_what_the_reconciler_asks_for_is_allowed_and_every_other_override_is_denied_or_documented(
    policy: list[Json],
) -> None:
    assert [evaluate(policy, request(project)) for project in PROJECTS] == [Decision.ALLOWED] * 2
    assert holes(policy) == []


@pytest.mark.parametrize("member", sorted(overrides()))
def test_each_override_is_denied_or_the_documents_say_why_it_is_harmless(member: str) -> None:
    decisions = {evaluate(POLICY, request(**{member: value})) for value in values(member)}
    if member in documented():
        assert decisions == {Decision.ALLOWED}, "it can be denied, so it must not be documented as harmless"
        assert member not in WHOLES.keys() | PARTS.keys()
        assert documented()[member]
    else:
        assert decisions == {Decision.DENIED}


def test_the_documents_name_what_there_is() -> None:
    others = {name for name in documented() if name not in overrides()}
    assert others == {"a variable's type"}
    assert overrides().keys().isdisjoint(SET_BY_THE_RECONCILER)


def test_each_condition_key_of_an_override_is_one_that_aws_knows() -> None:
    keys = {*WHOLES.values(), *(key for parts in PARTS.values() for key in parts.values())}
    assert keys <= condition_keys(START)
    assert condition_keys(START) >= BY_VARIABLES
    denied = {key for each in DENIALS for block in each["Condition"].values() for key in block}
    known = {key.lower() for key in condition_keys(START)}
    for key in denied:
        assert key.lower().replace("/new_docker_image.", "/${name}.") in known


@pytest.mark.parametrize("number", range(len(DENIALS)), ids=[str(each["Condition"])[:90] for each in DENIALS])
def test_no_denial_can_be_omitted(number: int) -> None:
    rest = [each for each in POLICY[0]["Statement"] if each is not DENIALS[number]]
    assert holes([{**POLICY[0], "Statement": rest}])


@pytest.mark.parametrize("project", PROJECTS, ids=["main", "fast"])
def test_a_denial_for_one_project_alone_would_be_noticed(project: str) -> None:
    others = [each for each in POLICY[0]["Statement"] if each is not DENIALS[0]]
    assert holes([{**POLICY[0], "Statement": [*others, DENIALS[0] | {"Resource": project}]}])


def test_without_the_fast_lane_its_project_is_not_named() -> None:
    policy = globally("as shipped", FastLane="false").policies("ImagePullUser")
    assert [evaluate(policy, request(project)) for project in PROJECTS] == [Decision.ALLOWED, Decision.NOT_ALLOWED]


def test_a_denial_of_several_keys_at_once_would_be_noticed() -> None:
    keys = {key: "false" for each in DENIALS for key in each["Condition"].get("Null", ())}
    others = [each for each in POLICY[0]["Statement"] if "Null" not in each.get("Condition", {})]
    together = {"Effect": "Deny", "Action": START, "Resource": "*", "Condition": {"Null": keys}}
    assert set(holes([{**POLICY[0], "Statement": [*others, together]}])) >= WHOLES.keys()


def test_a_new_override_in_botocore_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tomorrow = overrides() | {"newOverride": overrides()["sourceVersion"]}
    monkeypatch.setitem(globals(), "overrides", lambda: tomorrow)
    assert holes(POLICY) == ["newOverride"]


def test_the_key_may_do_nothing_else() -> None:
    for action in set(actions("codebuild")) - {START, "codebuild:BatchGetBuilds"}:
        for resource in (*PROJECTS, "*"):
            assert evaluate(POLICY, Request(action, resource)) is Decision.NOT_ALLOWED
    other = resource_of(START, GLOBAL, ProjectName="Other")
    assert evaluate(POLICY, Request("codebuild:BatchGetBuilds", other)) is Decision.NOT_ALLOWED
    assert evaluate(POLICY, Request(START, other, request().context)) is Decision.NOT_ALLOWED
    secret = resource_of("secretsmanager:GetSecretValue", GLOBAL, SecretId="ImagePullSecret-AbCdEf")
    assert evaluate(POLICY, Request("secretsmanager:GetSecretValue", secret)) is Decision.NOT_ALLOWED
