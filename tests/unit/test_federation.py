"""The function's role is exchanged for a session in the other partition, once an hour; each failure has its reason."""

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from botocore.exceptions import ClientError

from e2e.fakes.federation import RefusedError, security_token_service
from image_mirror import aws, reconciler
from image_mirror.aws import AccessKey, CallLimits, connect
from image_mirror.aws_errors import DelayedError
from image_mirror.cli.errors import remedy
from image_mirror.federation import AUDIENCE, RoleSession, failed_exchange
from image_mirror.global_access import GlobalAccount
from support import federated
from support.cloud import ENVIRONMENT
from support.federated import ISSUER, SOURCE, TARGET, Setting, trusting
from support.templates import ROOT

LIMITS = CallLimits(connect=60, read=60, attempts=1)
REGION = "us-west-2"


class Federated(Setting):
    """The two accounts, with STS served over HTTP; their clock is the process's."""

    def __init__(self, traveller: time_machine.Traveller) -> None:
        super().__init__()
        self._traveller = traveller

    def later(self, seconds: float) -> None:
        """Let this time pass, also for the functions."""
        self.now += seconds
        self._traveller.move_to(self.now, tick=False)

    def role(self) -> RoleSession:
        return RoleSession(TARGET, REGION, lambda **more: connect("sts", LIMITS, **more), lambda: self.now)

    @property
    def exchanges(self) -> int:
        return self.federation.calls.count("AssumeRoleWithWebIdentity")


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Federated]:
    with time_machine.travel(Setting().now, tick=False) as traveller:
        setting = Federated(traveller)
        aws._session.cache_clear()
        monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-northwest-1")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        signed_in(setting, monkeypatch)
        with security_token_service(setting.federation) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            yield setting
    aws._session.cache_clear()


def signed_in(setting: Federated, monkeypatch: pytest.MonkeyPatch, seconds: float = 12 * 3600) -> None:
    """Give the function a session of its own role, as Lambda does."""
    session = setting.federation.sign_in(SOURCE, seconds)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", session.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", session.secret_access_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", session.token)


def test_a_session_of_the_role_is_used_for_the_calls(setting: Federated) -> None:
    keys: list[AccessKey] = []
    account = GlobalAccount(setting.role(), lambda key: keys.append(key) or key)  # type: ignore[func-returns-value,arg-type,return-value]
    used: Any = account.call("StartBuild", lambda client: client)
    assert keys == [used]
    session = setting.federation.caller(used.access_key_id, used.session_token)
    assert (session.role_arn, session.secret_access_key, used.region) == (TARGET, used.secret_access_key, REGION)
    assert session.expires_at == setting.now + 3600


def test_there_is_one_exchange_an_hour(setting: Federated) -> None:
    role = setting.role()
    for _ in range(44):
        role.current()
        setting.later(60)
    assert setting.federation.calls == ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"]
    setting.later(120)
    role.current()
    assert setting.exchanges == 2, "renewed 15 minutes before its end"
    for _ in range(44):
        role.current()
        setting.later(60)
    assert setting.exchanges == 2


def test_threads_that_begin_together_make_one_exchange(setting: Federated) -> None:
    role = setting.role()
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: role.current().access_key_id, range(40)))
    assert len(keys) == setting.exchanges == 1


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "message"}}, "StartBuild")


@pytest.mark.parametrize(
    ("code", "exchanges"),
    [
        pytest.param("UnrecognizedClientException", 2, id="the session is no longer accepted"),
        pytest.param("ExpiredTokenException", 2, id="expired"),
        pytest.param("AccessDeniedException", 1, id="the role may not do it"),
    ],
)
def test_a_session_that_codebuild_refuses_is_renewed_once_in_thirty_seconds(
    setting: Federated, code: str, exchanges: int
) -> None:
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]

    def refuse(_: object) -> None:
        raise refused(code)

    for _ in range(3):
        with pytest.raises(DelayedError, match=f"StartBuild: AWS answered {code}") as caught:
            account.call("StartBuild", refuse)
        assert caught.value.key
    assert setting.exchanges == exchanges


def test_a_call_succeeds_with_the_renewed_session(setting: Federated) -> None:
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]
    first: Any = account.call("StartBuild", lambda key: key)

    def accept_another(key: Any) -> AccessKey:
        if key == first:
            raise refused("UnrecognizedClientException")
        found: AccessKey = key
        return found

    assert account.call("StartBuild", accept_another) != first


def denied_to(keys: list[Any], call: str = "StartBuild") -> Callable[[Any], Any]:
    """Return an operation that an explicit denial forbids to these sessions."""

    def operation(key: Any) -> Any:
        if key in keys:
            message = "not authorized to perform: codebuild:StartBuild, with an explicit deny in a policy"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, call)
        return key

    return operation


def test_a_session_that_was_revoked_is_replaced_within_five_minutes(setting: Federated) -> None:
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]
    first: Any = account.call("StartBuild", lambda key: key)
    setting.later(299)
    with pytest.raises(DelayedError, match="explicit deny"):
        account.call("StartBuild", denied_to([first]))
    setting.later(1)
    assert account.call("StartBuild", denied_to([first])) != first
    assert setting.exchanges == 2


def test_a_call_that_a_policy_always_denies_costs_one_exchange_in_five_minutes(setting: Federated) -> None:
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]
    seen: list[Any] = []

    def deny(key: Any) -> Any:
        seen.append(key)
        return denied_to(seen)(key)

    for _ in range(40):
        with pytest.raises(DelayedError, match="explicit deny"):
            account.call("StartBuild", deny)
        setting.later(15)
    assert setting.exchanges == 2


def test_a_session_that_a_policy_denies_a_call_is_kept_if_no_other_can_be_had(setting: Federated) -> None:
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]
    first: Any = account.call("StartBuild", lambda key: key)
    setting.later(600)
    switched_off(setting)
    with pytest.raises(DelayedError, match="explicit deny"):
        account.call("StartBuild", denied_to([first]))
    assert account.call("BatchGetBuilds", lambda key: key) == first


Change = Callable[[Federated], object]


def switched_off(setting: Setting) -> None:
    setting.china.issuer = ""


def without_permission(setting: Setting) -> None:
    setting.china.roles["reconciler"].policies = []


def provider_deleted(setting: Setting) -> None:
    del setting.world.providers[ISSUER]


def provider_without_audience(setting: Setting) -> None:
    setting.world.providers[ISSUER] = ["another"]


def trust_refused(setting: Setting) -> None:
    setting.world.roles["start"] = trusting(subject=SOURCE + "2")


def role_deleted(setting: Setting) -> None:
    setting.world.roles.clear()


def keys_unreachable(setting: Setting) -> None:
    def fetch(url: str) -> bytes:
        raise OSError(url)

    setting.federation.fetch = fetch


def token_expired(setting: Setting) -> None:
    issued = setting.federation.signed
    setting.federation.signed = lambda account, claims: issued(account, claims | {"exp": claims["iat"]})  # type: ignore[method-assign]


def two_audiences(setting: Setting) -> None:
    issued = setting.federation.signed
    setting.federation.signed = lambda account, claims: issued(account, claims | {"aud": [AUDIENCE, "b"]})  # type: ignore[method-assign]


def answering(operation: str, code: str, message: str = "message", status: int = 400) -> Change:
    def change(setting: Federated) -> None:
        def refuse(*_: object) -> Any:
            raise RefusedError(code, message, status)

        setattr(setting.federation, operation, refuse)

    return change


TOKEN_OPERATION, EXCHANGE_OPERATION = "GetWebIdentityToken", "AssumeRoleWithWebIdentity"
TOKEN, EXCHANGE = "get_web_identity_token", "assume_role_with_web_identity"


@pytest.mark.parametrize(
    ("change", "reason", "lasts"),
    [
        pytest.param(switched_off, "outbound identity federation is off in the account", True, id="off"),
        pytest.param(without_permission, "may not call sts:GetWebIdentityToken", True, id="policy"),
        pytest.param(provider_deleted, "no OIDC provider .* No OpenIDConnect provider found", True, id="no provider"),
        pytest.param(provider_without_audience, "and image-mirror .*Incorrect token audience", True, id="audience"),
        pytest.param(two_audiences, "single audience", True, id="two audiences"),
        pytest.param(trust_refused, f"{TARGET} does not exist or does not trust", True, id="trust refused"),
        pytest.param(role_deleted, f"{TARGET} does not exist or does not trust", True, id="no role"),
        pytest.param(keys_unreachable, "cannot read the keys of the token's issuer", False, id="keys unreachable"),
        pytest.param(token_expired, "expired on its way; a clock may be wrong", False, id="token expired"),
        pytest.param(
            answering(TOKEN, "SignatureDoesNotMatch", "Signature expired", 403),
            "its clock may be wrong",
            False,
            id="clock skew",
        ),
        pytest.param(
            answering(TOKEN, "SessionDurationEscalationException", status=403), "ends within a minute", False, id="end"
        ),
        pytest.param(
            answering(EXCHANGE, "IDPCommunicationError"), "cannot read the keys", False, id="issuer does not answer"
        ),
        pytest.param(answering(EXCHANGE, "IDPRejectedClaim", status=403), "no OIDC provider", True, id="rejected"),
        pytest.param(
            answering(EXCHANGE, "RegionDisabledException", status=403), "not activated in us-west-2", True, id="region"
        ),
        pytest.param(answering(EXCHANGE, "ValidationError"), "no session of 3600 s", True, id="shorter sessions"),
        pytest.param(
            answering(EXCHANGE, "InternalFailure", status=500), "AWS answered InternalFailure", False, id="STS fails"
        ),
        pytest.param(answering(TOKEN, "NewCode"), "GetWebIdentityToken: AWS answered NewCode", False, id="unknown"),
    ],
)
def test_each_failure_of_an_exchange_has_its_reason(
    setting: Federated, change: Change, reason: str, lasts: bool
) -> None:
    change(setting)
    account = GlobalAccount(setting.role(), lambda key: key)  # type: ignore[arg-type,return-value]
    with pytest.raises(DelayedError, match=f"(?s)^federation: .*{reason}") as caught:
        account.call("StartBuild", lambda client: client)
    assert (caught.value.key, caught.value.uncertain, caught.value.no_capacity) == (lasts, False, not lasts)


def test_the_page_explains_each_reason() -> None:
    page = (ROOT / "docs" / "federation.md").read_text()
    refusals = [
        *((TOKEN_OPERATION, code) for code in ("OutboundWebIdentityFederationDisabledException", "AccessDenied")),
        *((TOKEN_OPERATION, code) for code in ("SessionDurationEscalationException", "SignatureDoesNotMatch")),
        *((EXCHANGE_OPERATION, code) for code in ("InvalidIdentityToken", "IDPCommunicationError", "ValidationError")),
        *((EXCHANGE_OPERATION, code) for code in ("AccessDenied", "ExpiredTokenException", "RegionDisabledException")),
    ]
    named = re.findall(r"`([^`]+)`", page.partition("## When the accounts federate")[2].partition("\n## ")[0])
    for operation, code in refusals:
        error = ClientError({"Error": {"Code": code, "Message": ""}}, operation)
        reason = str(failed_exchange(error, TARGET, REGION))
        assert [each for each in named if each.rstrip(".") in reason], reason


def test_a_clock_that_is_hours_ahead_is_named(setting: Federated) -> None:
    setting.federation.clock = lambda: setting.now - 2 * 3600
    setting.federation.sessions.clear()
    ahead = setting.federation.sign_in(SOURCE, 12 * 3600)
    setting.federation.caller = lambda *_: ahead  # type: ignore[method-assign]
    with pytest.raises(DelayedError, match="a new session has ended already; the function's clock is wrong") as caught:
        setting.role().current()
    assert not caught.value.key


def test_throttling_is_no_capacity(setting: Federated) -> None:
    answering(TOKEN, "Throttling")(setting)
    with pytest.raises(DelayedError) as caught:
        setting.role().current()
    assert (caught.value.no_capacity, caught.value.key) == (True, False)


def test_an_sts_that_does_not_answer_is_named_and_is_a_wait(
    setting: Federated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    with pytest.raises(DelayedError, match=r"no answer of http://127.0.0.1:1/?: EndpointConnectionError") as caught:
        setting.role().current()
    assert (caught.value.key, caught.value.uncertain) == (False, False), "StartBuild was not called"


def test_a_failed_exchange_is_repeated_after_thirty_seconds_and_not_by_each_thread(setting: Federated) -> None:
    role = setting.role()
    provider_deleted(setting)
    for _ in range(20):
        with pytest.raises(DelayedError, match="No OpenIDConnect provider") as caught:
            role.current()
        assert caught.value.key
    assert setting.exchanges == 1
    setting.world.providers[ISSUER] = [AUDIENCE]
    setting.later(29)
    with pytest.raises(DelayedError):
        role.current()
    setting.later(1)
    assert role.current().session_token
    assert setting.exchanges == 2


def test_a_session_is_used_while_its_renewal_fails_until_ten_minutes_before_its_end(setting: Federated) -> None:
    role = setting.role()
    first = role.current()
    switched_off(setting)
    setting.later(46 * 60)
    assert role.current() == first
    setting.later(5 * 60)
    with pytest.raises(DelayedError, match="federation is off"):
        role.current()


def test_a_signing_key_that_changes_needs_nothing(setting: Federated) -> None:
    role = setting.role()
    role.current()
    setting.china.new_key()
    setting.later(3600)
    assert role.current().session_token


def test_a_token_that_would_outlive_the_function_s_session_is_asked_for_once_more(
    setting: Federated, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(setting, monkeypatch, 200)
    assert setting.role().current().session_token
    assert setting.federation.calls == ["GetWebIdentityToken", "GetWebIdentityToken", "AssumeRoleWithWebIdentity"]


@pytest.mark.parametrize(
    ("service", "region", "endpoint"),
    [
        pytest.param("sts", None, "https://sts.cn-northwest-1.amazonaws.com.cn", id="in China"),
        pytest.param("sts", "us-west-2", "https://sts.us-west-2.amazonaws.com", id="in the global region"),
        pytest.param("sts", "us-east-1", "https://sts.us-east-1.amazonaws.com", id="in the global endpoint's region"),
    ],
)
def test_sts_is_called_at_its_regional_endpoints(
    setting: Federated, monkeypatch: pytest.MonkeyPatch, service: str, region: str | None, endpoint: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    assert setting.role()
    assert connect(service, LIMITS, region=region).meta.endpoint_url == endpoint


def test_no_log_and_no_error_contains_a_token(setting: Federated, caplog: pytest.LogCaptureFixture) -> None:
    tokens: list[str] = []
    issued = setting.federation.signed

    def remember(*arguments: Any) -> str:
        tokens.append(issued(*arguments))
        return tokens[-1]

    def quote(_role: str, token: str, *_: object) -> Any:
        raise RefusedError("InvalidIdentityToken", f"<{token}> is not valid")

    setting.federation.signed = remember  # type: ignore[method-assign,assignment]
    setting.federation.assume_role_with_web_identity = quote  # type: ignore[method-assign,assignment]
    with caplog.at_level(logging.INFO), pytest.raises(DelayedError, match=r"<\*\*\*> is not valid") as caught:
        setting.role().current()
    logging.getLogger().exception("x", exc_info=caught.value)
    [token] = tokens
    assert "Refreshing temporary credentials failed" in caplog.text
    assert not any(part in caplog.text for part in token.split("."))


def test_a_key_prints_without_its_session_token() -> None:
    assert "very secret" not in repr(AccessKey(REGION, "ASIA", "secret", "very secret"))


def test_a_token_in_a_message_is_never_shown() -> None:
    error = ClientError(
        {"Error": {"Code": "InvalidIdentityToken", "Message": f"{Setting().ask()} of https://{ISSUER}"}},
        "AssumeRoleWithWebIdentity",
    )
    assert str(failed_exchange(error, TARGET, REGION)).endswith(f"InvalidIdentityToken: *** of https://{ISSUER})")


QUOTED = (
    "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this "
    "request should have been\n'POST\n/\n\nhost:sts\nx-amz-security-token:FwoGZXsecret\n'"
)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("SignatureDoesNotMatch", QUOTED, id="all headers"),
        pytest.param(
            "IncompleteSignature",
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256 "
            "Credential=ASIAsecret/20261130/cn-north-1/sts/aws4_request, Signature=0secret",
            id="the header with the signature",
        ),
    ],
)
def test_a_refused_signature_is_told_without_the_request_that_sts_quotes(code: str, message: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": message}}, "GetWebIdentityToken")
    for text in (str(failed_exchange(error, TARGET, REGION)), remedy(error)):
        assert message[:40] in text
        assert "secret" not in text


def test_the_reconciler_takes_the_role_and_does_not_read_the_key(
    setting: Federated, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ENVIRONMENT, "G_START_ROLE_ARN": TARGET, "G_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    connected: list[tuple[str, str | None]] = []

    def recording(service: str, *limits: Any, **more: Any) -> Any:
        connected.append((service, more.get("region")))
        return connect(service, *limits, **more)

    monkeypatch.setattr(reconciler, "connect", recording)
    reconciler.load.cache_clear()
    try:
        account = reconciler.load()._builds._account
        client = account.call("BatchGetBuilds", lambda client: client)
    finally:
        reconciler.load.cache_clear()
    assert "secretsmanager" not in dict(connected)
    assert [region for service, region in connected if service == "sts"] == [None, REGION], "the token, the exchange"
    assert client.meta.endpoint_url == "https://codebuild.us-west-2.amazonaws.com"
    credentials = client._request_signer._credentials  # type: ignore[attr-defined]
    assert setting.federation.caller(credentials.access_key, credentials.token).role_arn == TARGET
    assert federated.AUDIENCE == AUDIENCE, "the model's and the package's"
