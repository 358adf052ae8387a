"""What doctor says of the secret with logins for sources: which hosts have one, and never a part of a login."""

import base64
import json
from collections.abc import Iterator, Sequence

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.cli.doctor import logins
from image_mirror.cli.doctor.keys import Absent
from image_mirror.cli.doctor.runner import CheckResult, Context, State
from support.healthy import Answers
from support.operators import AUTH_SECRET, PROFILES
from support.templates import load_template

SECRET = "a-password-that-nobody-may-see"
AUTH = base64.b64encode(f"robot:{SECRET}".encode()).decode()


@pytest.fixture(scope="module", autouse=True)
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the accounts of the stacks their regions."""
    config = tmp_path_factory.mktemp("profiles") / "aws-config"
    config.write_text(PROFILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CONFIG_FILE", str(config))
        yield


def judged(text: str | Absent | None, arn: str = AUTH_SECRET) -> Sequence[CheckResult]:
    answers = Answers()
    answers.change_global(RegistryAuthSecretArn=arn)
    return logins.judge_logins(text, answers.global_side)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('{"auths":{"ghcr.io":{"username":"robot","password":"example"}}}', "ghcr.io", id="one"),
        pytest.param(
            json.dumps(
                {
                    "auths": {
                        "https://index.docker.io/v1/": {"auth": AUTH},
                        "docker.io/team": {"auth": AUTH},
                        "https://GHCR.io": {"identitytoken": SECRET},
                        "ghcr.io": {"auth": AUTH},
                        "registry.local:5000": {"auth": AUTH},
                    }
                }
            ),
            "docker.io, docker.io/team, ghcr.io, registry.local:5000",
            id="some, of which two are for the same host",
        ),
    ],
)
def test_where_all_is_well_the_hosts_with_a_login_are_named(text: str, found: str) -> None:
    [result] = judged(text)
    assert (result.state, result.found) == (State.OK, f"RegistryAuth has a login for {found}")


def test_a_stack_without_such_a_secret_is_well() -> None:
    [result] = judged(None, arn="")
    assert (result.state, result.remedy) == (State.OK, None)
    assert "RegistryAuthSecretArn is empty" in result.found


def test_each_broken_login_has_a_result() -> None:
    text = json.dumps({"auths": {"ghcr.io": {}, "quay.io": {"auth": AUTH}, "gcr.io": {"auth": "%"}, "x": {}}})
    assert [(each.state, each.found.partition(") ")[2]) for each in judged(text)] == [
        (State.FAILED, "has no login for ghcr.io"),
        (State.FAILED, 'has a login for gcr.io whose "auth" is not base64'),
        (State.WARNING, "has login number 4 under a name that no image begins with"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SECRET, id="no JSON"),
        pytest.param(json.dumps([SECRET]), id="a list"),
        pytest.param(json.dumps({"auths": {"ghcr.io": {"auth": SECRET}}}), id="not encoded"),
        pytest.param(
            json.dumps({"auths": {"ghcr.io": {"auth": base64.b64encode(SECRET.encode()).decode()}}}), id="no colon"
        ),
        pytest.param(json.dumps({"auths": {f"robot:{SECRET}@ghcr.io": {"auth": "%"}}}), id="in the key"),
        pytest.param(json.dumps({"auths": {f"https://robot:{SECRET}@ghcr.io/": {}}}), id="in the URL of the key"),
        pytest.param(json.dumps({"auths": {SECRET: {"auth": AUTH}}}), id="for the key"),
        pytest.param(json.dumps({"ghcr.io": {"auth": AUTH}}), id="an old file"),
        pytest.param(json.dumps({"username": "robot", "password": SECRET}), id="without a registry"),
        pytest.param(json.dumps({"auths": {"ghcr.io": {"auth": AUTH * 100}}}), id="too long"),
        pytest.param(json.dumps({"auths": {"ghcr.io": {"auth": AUTH}}}), id="a good one"),
    ],
)
def test_no_result_contains_a_part_of_a_login(text: str) -> None:
    shown = str(judged(text))
    assert SECRET not in shown
    assert AUTH not in shown
    assert base64.b64encode(SECRET.encode()).decode() not in shown


def test_what_is_masked_in_all_results_are_passwords_and_tokens_as_written_and_decoded() -> None:
    broken, token = {"auth": f"{SECRET}%"}, {"identitytoken": SECRET[1:]}
    short = {"username": "a-long-name", "password": "word"}
    auths = {"ghcr.io": {"auth": AUTH}, "quay.io": broken, "gcr.io": token, "nvcr.io": short}
    found = logins.secrets_in(json.dumps({"auths": auths}))
    assert set(found) == {AUTH, SECRET, f"{SECRET}%", SECRET[1:]}
    assert logins.secrets_in(SECRET) == []


@given(st.dictionaries(st.text(max_size=30), st.dictionaries(st.sampled_from(["auth", "username"]), st.text())))
def test_any_logins_have_results(auths: dict[str, dict[str, str]]) -> None:
    for result in judged(json.dumps({"auths": auths})):
        assert result.state is State.OK or result.remedy


def test_a_permission_that_is_missing_skips_the_check_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"User: x is not authorized to perform: secretsmanager:GetSecretValue on resource: {AUTH_SECRET}"

    def denied(*_: object) -> str:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, "GetSecretValue")

    monkeypatch.setattr(logins, "secret_text", denied)
    answers = Answers()
    context = Context(answers.account("china"), answers.account("global"), None, "image-pulling")
    [result] = logins.CHECKS[0].results(context)
    assert (result.state, result.found) == (State.SKIPPED, "not permitted (secretsmanager:GetSecretValue)")
    assert "secretsmanager:GetSecretValue" in (result.remedy or "")


def test_the_longest_text_is_the_one_that_the_template_says() -> None:
    description = load_template("image-pulling.yaml")["Parameters"]["RegistryAuthSecretArn"]["Description"]
    entry = {"username": "robot", "password": ""}
    length = len(json.dumps({"auths": {"ghcr.io": entry}}))

    def of(characters: int) -> str:
        return json.dumps({"auths": {"ghcr.io": entry | {"password": "p" * (characters - length)}}})

    assert "At most 4,000 characters" in description
    assert [each.state for each in judged(of(4_000))] == [State.OK]
    assert [each.state for each in judged(of(4_001))] == [State.FAILED]
