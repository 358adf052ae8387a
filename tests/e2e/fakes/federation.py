"""Models STS, and of IAM what federation between partitions needs: issuers, OIDC providers, roles and sessions.

By the API reference of GetWebIdentityToken and AssumeRoleWithWebIdentity, and by IAM's guide "Federating AWS identities
across AWS partitions". Tokens are real JWTs (ES384), and policies are decided by `policies`. The messages are those
that users of STS report. What AWS does not document has a comment.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.parse import parse_qsl
from urllib.request import urlopen
from xml.sax.saxutils import escape

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from e2e.fakes.policies import Decision, evaluate, evaluate_trust
from e2e.fakes.policies import Json as Policy
from e2e.fakes.policies import Request as Asked
from e2e.fakes.servers import Answer, Request, serving

Json = dict[str, Any]
AWS_CLAIMS = "https://sts.amazonaws.com/"
_ASSUME = "sts:AssumeRoleWithWebIdentity"
_KEY_ID = re.compile(r"Credential=([^/]+)/[0-9]{8}/([^/]+)/([^/]+)/aws4_request")
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


class RefusedError(Exception):
    """An answer of AWS with an error: its code, its HTTP status and its message."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass
class Role:
    """A role: who may assume it, what it may do, and for how many seconds at most."""

    trust: Policy
    policies: Sequence[Policy] = ()
    longest: int = 3600


@dataclass
class Account:
    """An account of one partition.

    `issuer` is the host of its tokens, "" while outbound federation is off. `keys` are those in its JWKS; the last one
    signs. `providers` has the audiences of each OIDC provider, by the issuer's host. `roles` are by name.
    """

    partition: str
    number: str
    issuer: str = ""
    keys: list[ECKey] = field(default_factory=list)
    providers: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.new_key()

    def new_key(self) -> None:
        """Sign with a new key from now on; the JWKS has it alone."""
        self.keys = [ECKey.generate_key("P-384", {"kid": secrets.token_hex(8), "alg": "ES384", "use": "sig"})]

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource of IAM, such as role/NAME."""
        return f"arn:{self.partition}:iam::{self.number}:{resource}"

    def jwks(self) -> bytes:
        """Return what the issuer serves at its `jwks_uri`."""
        return json.dumps(KeySet(list(self.keys)).as_dict(private=False)).encode()


@dataclass(frozen=True)
class Session:
    """Temporary credentials of a role; the times are in seconds since the epoch. The secret parts are not printed."""

    role_arn: str
    issued_at: float
    expires_at: float
    access_key_id: str = field(default_factory=lambda: "ASIA" + secrets.token_hex(8).upper())
    secret_access_key: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(60), repr=False)


class Federation:
    """The STS of all partitions. A test may change its accounts at any time.

    `fetch` returns what a URL serves, or raises OSError. `closed_regions` are those in which STS is deactivated.
    """

    def __init__(
        self, accounts: Sequence[Account], clock: Callable[[], float], fetch: Callable[[str], bytes] | None = None
    ) -> None:
        self.accounts = list(accounts)
        self.clock = clock
        self.fetch = fetch or self.served
        self.closed_regions: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self.calls: list[str] = []

    def served(self, url: str) -> bytes:
        """Return what an issuer serves at `url`. Raises OSError if no account has this issuer."""
        for account in self.accounts:
            base = f"https://{account.issuer}/.well-known/"
            if account.issuer and url == base + "openid-configuration":
                return json.dumps({"issuer": f"https://{account.issuer}", "jwks_uri": base + "jwks.json"}).encode()
            if account.issuer and url == base + "jwks.json":
                return account.jwks()
        raise OSError(f"nobody serves {url}")

    def sign_in(self, role_arn: str, seconds: float = 3600) -> Session:
        """Make a session of a role as Lambda and CodeBuild get it for what they run."""
        now = self.clock()
        session = Session(role_arn, now, now + seconds)
        self.sessions[session.access_key_id] = session
        return session

    def caller(self, access_key_id: str, token: str | None) -> Session:
        """Return the session that a request names. The signature itself is not checked. Raises RefusedError."""
        session = self.sessions.get(access_key_id)
        if session is None or token != session.token:
            raise RefusedError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        if self.clock() >= session.expires_at:
            raise RefusedError("ExpiredToken", "The security token included in the request is expired", 403)
        return session

    def check(self, session: Session, request: Asked) -> None:
        """Raise RefusedError if the role of a session may not do this, by its policies as they are now."""
        role = self._role(session.role_arn)
        context = {**request.context, "aws:TokenIssueTime": _time(session.issued_at)}
        decision = evaluate(role.policies, replace(request, context=context)) if role else Decision.NOT_ALLOWED
        if decision is not Decision.ALLOWED:
            reason = "with an explicit deny in" if decision is Decision.DENIED else "because no"
            ending = "an identity-based policy" if decision is Decision.DENIED else "identity-based policy allows it"
            message = f"User: {session.role_arn} is not authorized to perform: {request.action} {reason} {ending}"
            raise RefusedError("AccessDenied", message, 403)

    def get_web_identity_token(
        self, session: Session, region: str, audiences: Sequence[str], algorithm: str, seconds: int | None
    ) -> tuple[str, float]:
        """Return a token for the caller's role and its expiry. Raises RefusedError."""
        self.calls.append("GetWebIdentityToken")
        context: dict[str, str | tuple[str, ...]] = {
            "sts:IdentityTokenAudience": tuple(audiences),
            "sts:SigningAlgorithm": algorithm,
        }
        # Not documented whether the key has the default if the request does not set it: the stricter reading.
        if seconds is not None:
            context["sts:DurationSeconds"] = str(seconds)
        self.check(session, Asked("sts:GetWebIdentityToken", "*", context))
        account = self._account(session.role_arn)
        if not account.issuer:
            message = "Outbound web identity federation is not enabled for this account."
            raise RefusedError("OutboundWebIdentityFederationDisabledException", message, 403)
        length = 300 if seconds is None else seconds
        if not 60 <= length <= 3600 or algorithm != "ES384" or not 1 <= len(audiences) <= 10:
            raise RefusedError("ValidationError", "1 validation error detected")
        now = int(self.clock())
        if now + length > session.expires_at:
            message = "The requested token duration would extend the session beyond its original expiration time."
            raise RefusedError("SessionDurationEscalationException", message, 403)
        claims = {
            "iss": f"https://{account.issuer}",
            "aud": audiences[0] if len(audiences) == 1 else list(audiences),
            "sub": session.role_arn,
            "iat": now,
            "exp": now + length,
            "jti": secrets.token_hex(16),
            AWS_CLAIMS: {
                "aws_account": account.number,
                "source_region": region,
                "principal_id": session.role_arn,
            },
        }
        return self.signed(account, claims), now + length

    @staticmethod
    def signed(account: Account, claims: Json) -> str:
        """Return a token of an account with these claims."""
        header = {"alg": "ES384", "typ": "JWT", "kid": account.keys[-1].kid}
        return jws.serialize_compact(header, json.dumps(claims), account.keys[-1], algorithms=["ES384"])

    def assume_role_with_web_identity(
        self, role_arn: str, token: str, seconds: int | None, region: str = ""
    ) -> Session:
        """Return a session of the role that the token is exchanged for. Raises RefusedError."""
        self.calls.append("AssumeRoleWithWebIdentity")
        if region in self.closed_regions:
            message = f"STS is not activated in this region for account:{role_arn.split(':')[4]}."
            raise RefusedError("RegionDisabledException", message, 403)
        claims = _claims(token)
        issuer = str(claims.get("iss", "")).removeprefix("https://")
        account = self._account(role_arn)
        if issuer not in account.providers:
            _invalid(f"No OpenIDConnect provider found in your account for https://{issuer}")
        source = next((each for each in self.accounts if issuer and each.issuer == issuer), None)
        if source is not None and source.partition == account.partition:
            # The guide says that it is refused; the code and the message are not documented.
            _invalid("The token was issued by AWS STS in the same partition")
        audience = claims.get("aud")
        if not isinstance(audience, str):
            _invalid("Token must have a single audience")  # refused by the guide; the message is not documented
        if audience not in account.providers[issuer]:
            _invalid("Incorrect token audience")
        self._verify(token, issuer)
        now = self.clock()
        if now >= claims["exp"]:
            message = (
                f"Token expired: current date/time {now:.0f} must be before the expiration date/time {claims['exp']}"
            )
            raise RefusedError("ExpiredTokenException", message)
        if now < claims["iat"]:
            _invalid("Token is not valid yet")
        role = self._role(role_arn)
        request = Asked(_ASSUME, "*", {f"{issuer}:aud": audience, f"{issuer}:sub": str(claims["sub"])})
        provider = {"Federated": account.arn(f"oidc-provider/{issuer}")}
        if role is None or evaluate_trust(role.trust, provider, request) is not Decision.ALLOWED:
            raise RefusedError("AccessDenied", f"Not authorized to perform {_ASSUME}", 403)
        length = 3600 if seconds is None else seconds
        if not 900 <= length <= role.longest:
            message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise RefusedError("ValidationError", message)
        return self.sign_in(role_arn, length)

    def _verify(self, token: str, issuer: str) -> None:
        try:
            found = json.loads(self.fetch(f"https://{issuer}/.well-known/openid-configuration"))
            keys = KeySet.import_key_set(json.loads(self.fetch(found["jwks_uri"])))
        except OSError:
            _invalid(
                "Couldn't retrieve verification key from your identity provider,  please reference "
                "AssumeRoleWithWebIdentity documentation for requirements"
            )
        try:
            jws.deserialize_compact(token, keys, algorithms=["ES384"])
        except (JoseError, ValueError):
            _invalid("The ID Token provided has an invalid signature")

    def _account(self, arn: str) -> Account:
        """Return the account of an ARN. Raises RefusedError, which is all that AWS tells of others' accounts."""
        parts = arn.split(":")
        for account in self.accounts:
            if parts[1:2] + parts[4:5] == [account.partition, account.number]:
                return account
        raise RefusedError("AccessDenied", f"Not authorized to perform {_ASSUME}", 403)

    def _role(self, arn: str) -> Role | None:
        return self._account(arn).roles.get(arn.partition(":role/")[2])


def _claims(token: str) -> Json:
    try:
        found = json.loads(jws.extract_compact(token.encode()).payload)
    except (JoseError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"iss", "aud", "sub", "exp", "iat"} <= found.keys():
        _invalid("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
    claims: Json = found
    return claims


def _invalid(message: str) -> NoReturn:
    raise RefusedError("InvalidIdentityToken", message)


def caller_of(federation: Federation, request: Request) -> tuple[Session, str]:
    """Return the session that made a signed request to a modelled service, and the region. Raises RefusedError."""
    named = _KEY_ID.search(request.headers.get("authorization", ""))
    if named is None:
        raise RefusedError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    return federation.caller(named[1], request.headers.get("x-amz-security-token")), named[2]


def for_sessions(
    federation: Federation, respond: Callable[[Request], Answer], asked: Callable[[Request], Sequence[Asked]]
) -> Callable[[Request], Answer]:
    """Return `respond` of a modelled service with an API in JSON, for sessions alone and as far as their roles may.

    `asked` returns what IAM is asked before a request.
    """

    def checked(request: Request) -> Answer:
        try:
            session, _ = caller_of(federation, request)
            for each in asked(request):
                federation.check(session, each)
        except RefusedError as error:
            code = _IN_JSON.get(error.code, error.code)
            return Answer(400, json.dumps({"__type": code, "message": error.message}).encode())
        return respond(request)

    return checked


_IN_JSON = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidClientTokenId": "UnrecognizedClientException",
}
"""The codes of services with an API in JSON, by those of STS."""


@contextmanager
def security_token_service(federation: Federation, others: Callable[[Request], Answer] | None = None) -> Iterator[str]:
    """Serve STS's API over HTTP while the context is active, and yield its URL.

    One endpoint serves all regions: a signed request names its region, an exchange the partition of its role. `others`
    answers requests to services with an API in JSON.
    """

    def respond(request: Request) -> Answer:
        if others is not None and "x-amz-target" in request.headers:
            return others(request)
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        try:
            return _answered(form["Action"], _OPERATIONS[form["Action"]](federation, request, form))
        except RefusedError as error:
            text = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
            body = f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type>{text}</Error></ErrorResponse>'
            return Answer(error.status, body.encode(), {"Content-Type": "text/xml"})

    with serving(respond) as port:
        yield f"http://localhost:{port}"


@contextmanager
def issuers_over_http(federation: Federation) -> Iterator[str]:
    """Serve the issuers' documents over HTTP while the context is active; `federation` then fetches them from there."""

    def respond(request: Request) -> Answer:
        try:
            return Answer(200, federation.served("https:/" + request.path), {"Content-Type": "application/json"})
        except OSError:
            return Answer(404)

    def fetch(url: str) -> bytes:
        try:
            with urlopen(f"{base}/{url.removeprefix('https://')}") as answer:
                found: bytes = answer.read()
                return found
        except URLError as error:
            raise OSError(str(error)) from error

    with serving(respond) as port:
        base = f"http://127.0.0.1:{port}"
        federation.fetch = fetch
        yield base


def _token_for(federation: Federation, request: Request, form: Mapping[str, str]) -> str:
    session, region = caller_of(federation, request)
    seconds = int(form["DurationSeconds"]) if "DurationSeconds" in form else None
    audiences = [value for name, value in form.items() if name.startswith("Audience.member.")]
    token, expires_at = federation.get_web_identity_token(session, region, audiences, form["SigningAlgorithm"], seconds)
    return f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>{_time(expires_at)}</Expiration>"


def _session_for(federation: Federation, request: Request, form: Mapping[str, str]) -> str:
    assert "authorization" not in request.headers, "the exchange is not signed"
    seconds = int(form["DurationSeconds"]) if "DurationSeconds" in form else None
    session = federation.assume_role_with_web_identity(form["RoleArn"], form["WebIdentityToken"], seconds)
    name = session.role_arn.rpartition("/")[2]
    arn = session.role_arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/" + form["RoleSessionName"]
    return (
        f"<Credentials><AccessKeyId>{session.access_key_id}</AccessKeyId>"
        f"<SecretAccessKey>{session.secret_access_key}</SecretAccessKey><SessionToken>{session.token}</SessionToken>"
        f"<Expiration>{_time(session.expires_at)}</Expiration></Credentials>"
        f"<AssumedRoleUser><Arn>{arn}</Arn><AssumedRoleId>AROA{name}</AssumedRoleId></AssumedRoleUser>"
    )


_OPERATIONS = {"GetWebIdentityToken": _token_for, "AssumeRoleWithWebIdentity": _session_for}


def _answered(action: str, text: str) -> Answer:
    body = f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{text}</{action}Result></{action}Response>'
    return Answer(200, body.encode(), {"Content-Type": "text/xml"})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
