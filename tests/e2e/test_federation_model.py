"""The modelled STS refuses what AWS's guides say that it refuses, and a session ends when it expires."""

import json
from collections.abc import Callable
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from joserfc.jwk import ECKey

from e2e.fakes import policies
from e2e.fakes.federation import Account, Federation, RefusedError, Role, issuers_over_http
from support.federated import AUDIENCE, ISSUER, OTHER_ISSUER, SOURCE, TARGET, Setting, trusting

READ = policies.Request("svc:Read", "*")


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_token_is_exchanged_for_a_session_with_the_role_s_policies(setting: Setting) -> None:
    session = setting.exchange()
    assert (session.role_arn, session.expires_at) == (TARGET, setting.now + 3600)
    assert setting.federation.caller(session.access_key_id, session.token) == session
    setting.federation.check(session, READ)
    with pytest.raises(RefusedError, match="AccessDenied"):
        setting.federation.check(session, policies.Request("svc:Write", "*"))
    assert setting.federation.calls == ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"]


Change = Callable[[Setting], Any]


def asking(*audiences: str, **more: Any) -> Change:
    return lambda setting: setting.ask(*audiences, **more)


def switched_off(setting: Setting) -> None:
    setting.china.issuer = ""
    setting.ask()


def too_short_a_session(setting: Setting) -> None:
    session = setting.federation.sign_in(SOURCE, 200)
    setting.ask(seconds=60, session=session)
    setting.ask(session=session)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(switched_off, "OutboundWebIdentityFederationDisabledException", id="federation is off"),
        pytest.param(asking("another"), "AccessDenied", id="another audience"),
        pytest.param(asking(AUDIENCE, "another"), "AccessDenied", id="an audience too many"),
        pytest.param(asking(algorithm="RS256"), "AccessDenied", id="another algorithm"),
        pytest.param(asking(seconds=301), "AccessDenied", id="longer than allowed"),
        pytest.param(asking(seconds=None), "AccessDenied", id="no length"),
        pytest.param(asking(seconds=59), "ValidationError", id="too short"),
        pytest.param(too_short_a_session, "SessionDurationEscalationException", id="longer than the session lasts"),
    ],
)
def test_a_token_is_refused(setting: Setting, change: Change, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        change(setting)
    assert caught.value.code == code


def provider_deleted(setting: Setting) -> None:
    token = setting.ask()
    del setting.world.providers[ISSUER]
    setting.exchange(token)


def provider_without_the_audience(setting: Setting) -> None:
    setting.world.providers[ISSUER] = ["another"]
    setting.exchange()


def expired(setting: Setting) -> None:
    token = setting.ask()
    setting.now += 300
    setting.exchange(token)


def key_changed(setting: Setting) -> None:
    token = setting.ask()
    setting.china.new_key()
    setting.exchange(token)


def forged(setting: Setting) -> None:
    thief = Account("aws-cn", "123456789012", ISSUER)
    thief.keys = [ECKey.generate_key("P-384", {"kid": str(setting.china.keys[0].kid)})]
    setting.exchange(setting.federation.signed(thief, setting.claims()))


def keys_unreachable(setting: Setting) -> None:
    setting.federation.fetch = Federation([], lambda: 0.0).served
    setting.exchange()


def same_partition(setting: Setting) -> None:
    setting.world.issuer = OTHER_ISSUER
    setting.world.providers[OTHER_ISSUER] = [AUDIENCE]
    setting.world.roles["start"] = trusting(TARGET, issuer=OTHER_ISSUER)
    token = setting.federation.signed(setting.world, setting.claims(iss=f"https://{OTHER_ISSUER}", sub=TARGET))
    setting.exchange(token)


def region_closed(setting: Setting) -> None:
    setting.federation.closed_regions.add("us-west-2")
    setting.exchange()


def trusts(role: Role) -> Change:
    def change(setting: Setting) -> None:
        setting.world.roles["start"] = role
        setting.exchange()

    return change


def exchanging(**changed: Any) -> Change:
    return lambda setting: setting.exchange(setting.sign(**changed))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        pytest.param(provider_deleted, "InvalidIdentityToken", "No OpenIDConnect provider", id="no provider"),
        pytest.param(provider_without_the_audience, "InvalidIdentityToken", "Incorrect token audience", id="audience"),
        pytest.param(exchanging(aud=[AUDIENCE, "b"]), "InvalidIdentityToken", "single audience", id="two audiences"),
        pytest.param(same_partition, "InvalidIdentityToken", "same partition", id="the same partition"),
        pytest.param(keys_unreachable, "InvalidIdentityToken", "verification key", id="the issuer's keys unreachable"),
        pytest.param(key_changed, "InvalidIdentityToken", "signature", id="signed with a key that is gone"),
        pytest.param(forged, "InvalidIdentityToken", "signature", id="signed with another key of the same name"),
        pytest.param(lambda setting: setting.exchange("x.y.z"), "InvalidIdentityToken", "not a valid JWT", id="no JWT"),
        pytest.param(exchanging(iat=2 * 10**9), "InvalidIdentityToken", "not valid yet", id="of the future"),
        pytest.param(expired, "ExpiredTokenException", "must be before the expiration", id="expired"),
        pytest.param(trusts(trusting(subject=SOURCE + "2")), "AccessDenied", "Not authorized", id="another subject"),
        pytest.param(trusts(trusting(audience="b")), "AccessDenied", "Not authorized", id="trusts another audience"),
        pytest.param(
            trusts(trusting(issuer=OTHER_ISSUER)), "AccessDenied", "Not authorized", id="trusts another issuer"
        ),
        pytest.param(exchanging(sub=SOURCE + "x"), "AccessDenied", "Not authorized", id="of another role"),
        pytest.param(
            lambda setting: setting.exchange(role=TARGET + "2"), "AccessDenied", "Not authorized", id="no such role"
        ),
        pytest.param(
            lambda setting: setting.exchange(role=TARGET.replace("aws:", "aws-cn:")),
            "AccessDenied",
            "Not authorized",
            id="a role in no account",
        ),
        pytest.param(region_closed, "RegionDisabledException", "not activated", id="STS is deactivated there"),
        pytest.param(
            lambda setting: setting.exchange(seconds=3601), "ValidationError", "MaxSessionDuration", id="too long"
        ),
    ],
)
def test_an_exchange_is_refused(setting: Setting, change: Change, code: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as caught:
        change(setting)
    assert caught.value.code == code


def test_a_token_signed_with_a_new_key_is_exchanged(setting: Setting) -> None:
    setting.china.new_key()
    assert setting.exchange().role_arn == TARGET


def test_a_session_is_known_until_it_expires_and_only_with_its_token(setting: Setting) -> None:
    session = setting.exchange()
    caller = setting.federation.caller
    for access_key_id, token in ((session.access_key_id, "another"), ("ASIAUNKNOWN", session.token)):
        with pytest.raises(RefusedError, match="InvalidClientTokenId"):
            caller(access_key_id, token)
    setting.now = session.expires_at - 1
    assert caller(session.access_key_id, session.token) == session
    setting.now = session.expires_at
    with pytest.raises(RefusedError, match="ExpiredToken"):
        caller(session.access_key_id, session.token)


def test_a_session_loses_what_its_role_loses(setting: Setting) -> None:
    session = setting.exchange()
    setting.world.roles["start"].policies = []
    with pytest.raises(RefusedError, match="AccessDenied"):
        setting.federation.check(session, READ)


def test_a_session_prints_without_its_secrets(setting: Setting) -> None:
    session = setting.exchange()
    assert session.secret_access_key not in repr(session)
    assert session.token not in repr(session)


def test_the_issuer_serves_its_public_keys_alone_and_tokens_are_verified_with_them(setting: Setting) -> None:
    with issuers_over_http(setting.federation) as url:
        with urlopen(f"{url}/{ISSUER}/.well-known/openid-configuration") as answer:
            assert json.load(answer)["issuer"] == f"https://{ISSUER}"
        with urlopen(f"{url}/{ISSUER}/.well-known/jwks.json") as answer:
            [key] = json.load(answer)["keys"]
        assert "d" not in key, "the private part"
        assert (key["kty"], key["crv"]) == ("EC", "P-384")
        assert setting.exchange().role_arn == TARGET
        setting.china.new_key()
        assert setting.exchange().role_arn == TARGET
        setting.china.issuer = ""
        with pytest.raises(URLError):
            urlopen(f"{url}/{ISSUER}/.well-known/jwks.json")
