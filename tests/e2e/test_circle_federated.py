"""What happens in the whole circle, with no key anywhere, when a part of the federation is changed."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import time_machine

from e2e.fakes.federation import Account, Federation, Role
from e2e.fakes.servers import Request
from e2e.harness.build import check_programs
from e2e.harness.circle import Circle, whole_circle
from e2e.harness.federated import CHINA_ISSUER, GLOBAL_ISSUER, PUSH, START
from e2e.harness.principals import FEDERATED
from e2e.harness.source_images import oci_index
from image_mirror import reconciler
from image_mirror.cli.emulation import Context
from image_mirror.federation import AUDIENCE
from image_mirror.metrics import Metric
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
    assert circle.logins
    secrets += circle.logins.passwords
    secrets += [part for token in tokens for part in token.split(".")]
    assert len(tokens) == 2, "one for the reconciler, one for the build"
    [run] = circle.runs
    said = [caplog.text, *capfd.readouterr(), run.output, json.dumps(dict(run.exported)), repr(circle.records())]
    assert "record changed" in said[0]
    assert "COPIED" in run.output
    assert not [secret for secret in secrets for text in said if secret in text]
    assert not [call for call in circle.calls if call.service == "secretsmanager"]
    assert "AKIA" not in "".join(said) + repr(circle.calls)


def test_keys_that_sign_tokens_may_change_between_two_copies(circle: Circle) -> None:
    assert copied(circle, SOURCE).status is Status.COPIED
    for account in federation(circle).accounts:
        account.new_key()
    assert copied(circle, OTHER).status is Status.COPIED
    assert federation(circle).calls.count("AssumeRoleWithWebIdentity") == 3, "the reconciler's session lasts an hour"


REFUSED = Metric.KEY_REFUSED


def waits_counted(capfd: pytest.CaptureFixture[str]) -> set[Metric]:
    """Return which metrics of waits the functions have published."""
    published = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith('{"_aws"')]
    return {
        metric for metric in (REFUSED, Metric.WAITS, Metric.BUSY) if any(metric.label in each for each in published)
    }


def off(circle: Circle) -> None:
    federation(circle).accounts[0].issuer = ""


def provider_deleted(circle: Circle) -> None:
    federation(circle).accounts[1].providers.clear()


def another_reconciler(circle: Circle) -> None:
    role = start_role(circle)
    role.trust = json.loads(json.dumps(role.trust).replace("ReconcilerRole", "OtherRole"))


def two_audiences(circle: Circle) -> None:
    sign_otherwise(circle, aud=[AUDIENCE, "another"])


def the_same_partition(circle: Circle) -> None:
    """Let the global account trust itself, and sign with its key."""
    world, role = federation(circle).accounts[1], start_role(circle)
    world.providers[GLOBAL_ISSUER] = [AUDIENCE]
    role.trust = json.loads(json.dumps(role.trust).replace(CHINA_ISSUER, GLOBAL_ISSUER))
    sign_otherwise(circle, world, iss=f"https://{GLOBAL_ISSUER}")


def keys_unreachable(circle: Circle) -> None:
    def fetch(url: str) -> bytes:
        raise OSError(url)

    federation(circle).fetch = fetch


def start_role(circle: Circle) -> Role:
    return federation(circle).accounts[1].roles[START.partition(":role/")[2]]


def sign_otherwise(circle: Circle, signer: Account | None = None, **claims: Any) -> None:
    """Let STS sign tokens with other claims, as this account."""
    issue = federation(circle).signed
    federation(circle).signed = lambda account, usual: issue(signer or account, usual | claims)  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(
    ("change", "reason", "metric"),
    [
        pytest.param(off, "outbound identity federation is off", REFUSED, id="federation is off in China"),
        pytest.param(provider_deleted, "No OpenIDConnect provider found", REFUSED, id="the provider is deleted"),
        pytest.param(
            another_reconciler, "does not trust this function's role", REFUSED, id="another subject is trusted"
        ),
        pytest.param(two_audiences, "single audience", REFUSED, id="two audiences"),
        pytest.param(the_same_partition, "in the same partition", REFUSED, id="the same partition"),
        pytest.param(
            keys_unreachable, "cannot read the keys of the token's issuer", Metric.BUSY, id="the issuer is down"
        ),
    ],
)
def test_a_reconciler_without_a_session_starts_nothing_and_says_why(
    circle: Circle, change: Any, reason: str, metric: Metric, capfd: pytest.CaptureFixture[str]
) -> None:
    change(circle)
    record = copied(circle, SOURCE)
    assert record.status is Status.REQUESTED
    assert (record.error or "").startswith("federation: ")
    assert reason in (record.error or "")
    assert (record.attempts, circle.builds.builds) == (0, {})
    assert waits_counted(capfd) == {metric}


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
def test_a_build_without_a_session_waits_and_says_why(
    circle: Circle, change: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(circle)
    record = copied(circle, SOURCE)
    assert record.status is Status.REQUESTED
    assert (record.error or "").startswith("TARGET_LOGIN: ")
    assert reason in (record.error or "")
    assert (record.attempts, circle.target.catalogue()) == (0, {})
    assert waits_counted(capfd) == {REFUSED}


def pass_hours(circle: Circle, hours: float) -> None:
    """Let this time pass for STS, CodeBuild and ECR, whose clock is not the process's."""
    moved = federation(circle)
    before = moved.clock
    moved.clock = lambda: before() + hours * 3600


def sessions_of(circle: Circle, role: str) -> int:
    return sum(session.role_arn == role for session in federation(circle).sessions.values())


def a_layer_has_arrived(request: Request) -> bool:
    return request.method == "PUT" and "/blobs/uploads/" in request.path


def a_layer_was_looked_for(request: Request) -> bool:
    """By a HEAD. Then crane looks for others, and an answer to a HEAD does not say that the login has expired."""
    return request.method == "HEAD" and "/blobs/" in request.path


@pytest.mark.parametrize(
    ("moment", "end_with_session", "hours", "logins"),
    [
        pytest.param(a_layer_has_arrived, True, 1, 2, id="with the session that asked for it"),
        pytest.param(a_layer_has_arrived, False, 12, 2, id="by itself, after twelve hours"),
        pytest.param(a_layer_was_looked_for, False, 12, 2, id="by itself, before a layer has arrived"),
        pytest.param(a_layer_has_arrived, False, 1, 1, id="not with the session, after an hour"),
    ],
)
def test_a_build_whose_login_ends_in_mid_copy_logs_in_once_more_and_finishes_the_copy(
    circle: Circle, moment: Callable[[Request], bool], end_with_session: bool, hours: float, logins: int
) -> None:
    ecr = circle.logins
    assert ecr
    ecr.end_with_session = end_with_session
    passed = threading.Lock()

    def time_passes(request: Request) -> None:
        if moment(request) and passed.acquire(blocking=False):
            pass_hours(circle, hours)

    ecr.after = time_passes
    record = copied(circle, SOURCE)
    assert passed.locked()
    assert (record.status, record.attempts, record.waits) == (Status.COPIED, 0, 0)
    [build] = circle.builds.builds.values()
    assert build["buildStatus"] == "SUCCEEDED"
    [run] = circle.runs
    assert run.exported["COPY_RESULT"] == "COPIED"
    assert len(ecr.passwords) == sessions_of(circle, PUSH) == logins
    assert bool(ecr.refused) is (logins == 2)
    assert not [password for password in ecr.passwords if password in run.output + str(run.exported)]
    assert circle.target.manifest(f"mirror/{SOURCE.partition(':')[0]}", "1.0").digest == record.digest
    assert circle.refused() == []


def test_a_session_of_the_starting_role_that_is_no_longer_known_is_replaced(circle: Circle) -> None:
    assert copied(circle, SOURCE).status is Status.COPIED
    for key, session in list(federation(circle).sessions.items()):
        if session.role_arn == START:
            del federation(circle).sessions[key]
    assert copied(circle, OTHER).status is Status.COPIED
    assert federation(circle).calls.count("AssumeRoleWithWebIdentity") == 4


@pytest.mark.parametrize(
    "clocks_agree",
    [
        pytest.param(True, id="and the function knows it"),
        pytest.param(False, id="and only CodeBuild says so"),
    ],
)
def test_a_session_of_the_starting_role_that_ends_between_two_runs_is_renewed_once(
    circle: Circle, clocks_agree: bool
) -> None:
    assert copied(circle, SOURCE).status is Status.COPIED
    first = circle.records()
    assert sessions_of(circle, START) == 1
    with ExitStack() as stack:
        if clocks_agree:
            stack.enter_context(time_machine.travel(time.time() + 2 * 3600))
        else:
            pass_hours(circle, 1)
        circle.schedule()
        assert sessions_of(circle, START) == 1, "a run with nothing to do needs none"
        assert copied(circle, OTHER).status is Status.COPIED
        assert sessions_of(circle, START) == 2
        assert [each for each in circle.records() if each.source == SOURCE] == first
    assert len(circle.builds.builds) == 2, "none is started twice"
    assert circle.refused() == []


def test_the_reconciler_makes_about_one_exchange_an_hour_however_often_it_runs(circle: Circle) -> None:
    """botocore renews a session of an hour 15 minutes before its end."""
    began, made = int(time.time()), list[int]()
    with time_machine.travel(began, tick=False) as traveller:
        for minute in range(100):
            traveller.move_to(began + minute * 60)
            answer = reconciler.handler({"probe": "builds"}, Context())
            assert answer == {"probe": {"role": START, "error": None}}
            if sessions_of(circle, START) > len(made):
                made.append(minute)
    assert made == [0, 46, 92]
    assert federation(circle).calls == ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"] * 3
    assert len([call for call in circle.calls if call.operation == "BatchGetBuilds"]) == 100
