"""What happens in the whole circle, with no key anywhere, when a part of the federation is changed."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.fakes.federation import Federation
from e2e.harness.build import check_programs
from e2e.harness.circle import Circle, whole_circle
from e2e.harness.federated import PUSH, START
from e2e.harness.principals import FEDERATED
from e2e.harness.source_images import oci_index
from image_mirror.record import Record, Status

SOURCE, OTHER = "gcr.io/google-samples/hello-app:1.0", "gcr.io/team/other:1"


@pytest.fixture
def circle(tmp_path: Path) -> Iterator[Circle]:
    check_programs()
    with whole_circle(tmp_path, FEDERATED) as running:
        running.source.push("gcr.io/google-samples/hello-app", "1.0", oci_index("one"))
        running.source.push("gcr.io/team/other", "1", oci_index("another"))
        yield running


def federation(circle: Circle) -> Federation:
    assert circle.federation
    return circle.federation


def copied(circle: Circle, image: str) -> Record:
    """Request the copy of an image, and return its record after its build."""
    circle.admit(image)
    assert circle.mapping.poll() == 1
    circle.builds.wait()
    while not circle.pushes.empty():
        circle.push()
    [record] = [each for each in circle.records() if each.source == image]
    if record.status is Status.COPYING:
        circle.look(record)
    [record] = [each for each in circle.records() if each.source == image]
    return record


def test_no_log_record_variable_or_output_has_a_key_or_a_token(
    circle: Circle, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens: list[str] = []
    issue = Federation.signed

    def issued(*arguments: Any) -> str:
        tokens.append(issue(*arguments))
        return tokens[-1]

    federation(circle).signed = issued  # type: ignore[method-assign,assignment]
    with caplog.at_level(logging.INFO):
        assert copied(circle, SOURCE).status is Status.COPIED
    sessions = federation(circle).sessions.values()
    assert {START, PUSH} <= {session.role_arn for session in sessions}
    secrets = [each for session in sessions for each in (session.secret_access_key, session.token)]
    secrets += [part for token in tokens for part in token.split(".")]
    assert len(tokens) == 2, "one for the reconciler, one for the build"
    [run] = circle.runs
    said = [caplog.text, *capfd.readouterr(), run.output, json.dumps(dict(run.exported)), repr(circle.records())]
    assert not [secret for secret in secrets for text in said if secret in text]
    assert not [call for call in circle.calls if call.service == "secretsmanager"]
    assert "AKIA" not in "".join(said) + repr(circle.calls)


def test_keys_that_sign_tokens_may_change_between_two_copies(circle: Circle) -> None:
    assert copied(circle, SOURCE).status is Status.COPIED
    for account in federation(circle).accounts:
        account.new_key()
    assert copied(circle, OTHER).status is Status.COPIED
    assert federation(circle).calls.count("AssumeRoleWithWebIdentity") == 3, "the reconciler's session lasts an hour"


def off(circle: Circle) -> None:
    federation(circle).accounts[0].issuer = ""


def provider_deleted(circle: Circle) -> None:
    federation(circle).accounts[1].providers.clear()


def another_reconciler(circle: Circle) -> None:
    role = federation(circle).accounts[1].roles[START.partition(":role/")[2]]
    role.trust = json.loads(json.dumps(role.trust).replace("ReconcilerRole", "OtherRole"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(off, "outbound identity federation is off", id="federation is off in China"),
        pytest.param(provider_deleted, "No OpenIDConnect provider found", id="the provider is deleted"),
        pytest.param(another_reconciler, "does not trust this function's role", id="another subject is trusted"),
    ],
)
def test_a_reconciler_without_a_session_starts_nothing_and_says_why(circle: Circle, change: Any, reason: str) -> None:
    change(circle)
    record = copied(circle, SOURCE)
    assert record.status is Status.REQUESTED
    assert (record.error or "").startswith("federation: ")
    assert reason in (record.error or "")
    assert (record.attempts, circle.builds.builds) == (0, {})


def build_provider_deleted(circle: Circle) -> None:
    federation(circle).accounts[0].providers.clear()


def push_role_without_login(circle: Circle) -> None:
    federation(circle).accounts[0].roles[PUSH.partition(":role/")[2]].policies = []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(build_provider_deleted, "No OpenIDConnect provider found", id="the provider is deleted"),
        pytest.param(push_role_without_login, "ecr:GetAuthorizationToken", id="the role may not log in"),
    ],
)
def test_a_build_without_a_session_waits_and_says_why(circle: Circle, change: Any, reason: str) -> None:
    change(circle)
    record = copied(circle, SOURCE)
    assert record.status is Status.REQUESTED
    assert (record.error or "").startswith("TARGET_LOGIN: ")
    assert reason in (record.error or "")
    assert (record.attempts, circle.target.catalogue()) == (0, {})


def test_a_session_of_the_starting_role_that_has_expired_is_renewed(circle: Circle) -> None:
    assert copied(circle, SOURCE).status is Status.COPIED
    for key, session in list(federation(circle).sessions.items()):
        if session.role_arn == START:
            del federation(circle).sessions[key]
    assert copied(circle, OTHER).status is Status.COPIED
    assert federation(circle).calls.count("AssumeRoleWithWebIdentity") == 4
