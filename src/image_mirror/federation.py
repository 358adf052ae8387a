"""Federation between the partitions: the function's role is exchanged for a role of the global account, with no key.

STS in the function's partition gives a token that says which role the function has (GetWebIdentityToken). STS in the
other partition gives a session of the role that trusts it (AssumeRoleWithWebIdentity).
"""

import re
import threading
from collections.abc import Callable
from typing import Any

from botocore.credentials import AssumeRoleWithWebIdentityCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DENIED, EXPIRED, KEY_REFUSED, DelayedError, code_of, delayed_by, message_of

AUDIENCE = "image-mirror"
"""For whom a token is: the client ID of the OIDC provider, and what the role's trust policy names."""

# Seconds. botocore renews a session 15 minutes before its end, so one of 900 s would be renewed at each call.
_SESSION = 3600
_TOKEN = 300  # seconds; the role's policy allows no more
_SHORTEST_TOKEN = 60
_PAUSE = 30.0  # seconds between two exchanges of which the first one failed
_DENIED_PAUSE = 300.0  # seconds for which a session is used though a policy denies a call
_LONGEST_MESSAGE = 300
_JWT = re.compile(r"eyJ[\w.-]*")  # its first and its second part are JSON objects in base64


class RoleSession:
    """The session of a role in the other partition. It is renewed in time, about once an hour.

    A failed exchange is an error for 30 seconds for all threads that wait: STS is not asked for each of them.
    """

    def __init__(self, role_arn: str, region: str, connect_sts: Callable[..., Any], clock: Callable[[], float]) -> None:
        """Take the role, the region where it is used, what makes clients of STS (aws.connect), and a clock."""
        self._role_arn = role_arn
        self._region = region
        self._connect_sts = connect_sts
        self._clock = clock
        self._lock = threading.Lock()
        self._failure: tuple[float, DelayedError] | None = None
        self._renewed_at = -_PAUSE
        self._exchanged_at = 0.0
        self._credentials = self._deferred()

    def current(self) -> AccessKey:
        """Return the session's key. Raises DelayedError if there is none, and its exchange fails."""
        try:
            found: Any = self._credentials.get_frozen_credentials()
        except RuntimeError:  # botocore's, for a new session whose end is in the past
            reason = "federation: a new session has ended already; the function's clock is wrong"
            raise DelayedError(reason, no_capacity=True) from None
        return AccessKey(self._region, found.access_key, found.secret_key, found.token)

    def after_refusal(self, refused: AccessKey, code: str) -> AccessKey:
        """Return the key of a new session if AWS no longer accepts this one. Raises DelayedError.

        A denied call needs a new session only after "Revoke active sessions", which denies all calls of older ones. So
        that is tried each five minutes. The session is kept if the exchange fails: a policy may deny this call alone.
        """
        with self._lock:
            now = self._clock()
            if self.current() != refused:
                return self.current()
            if code in DENIED:
                if now - self._exchanged_at >= _DENIED_PAUSE:
                    self._replace_if_possible()
            elif now - self._renewed_at >= _PAUSE:
                self._renewed_at = now
                self._credentials = self._deferred()
        return self.current()

    def _replace_if_possible(self) -> None:
        latest = self._deferred()
        try:
            latest.get_frozen_credentials()
        except (DelayedError, RuntimeError):
            return
        self._credentials = latest

    def _deferred(self) -> DeferredRefreshableCredentials:
        fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
            lambda _sts, config: self._connect_sts(region=self._region, config=config),
            self._token,
            self._role_arn,
            extra_args={"RoleSessionName": AUDIENCE, "DurationSeconds": _SESSION},
        )

        def exchange() -> Any:
            # botocore lets one thread at a time do this.
            now = self._clock()
            if self._failure is not None and now - self._failure[0] < _PAUSE:
                raise self._failure[1].again()
            try:
                found = fetcher.fetch_credentials()
            except (ClientError, BotoCoreError) as error:
                failure = failed_exchange(error, self._role_arn, self._region)
            else:
                self._exchanged_at = now
                return found
            # Outside of "except": botocore logs the error with its context, and nobody knows what AWS's message quotes.
            self._failure = (now, failure)
            raise failure

        return DeferredRefreshableCredentials(exchange, "federation")

    def _token(self) -> str:
        sts = self._connect_sts()

        def ask(seconds: int) -> str:
            answer = sts.get_web_identity_token(Audience=[AUDIENCE], SigningAlgorithm="ES384", DurationSeconds=seconds)
            token: str = answer["WebIdentityToken"]
            return token

        try:
            return ask(_TOKEN)
        except ClientError as error:
            # The function's own session ends within five minutes.
            if code_of(error) != "SessionDurationEscalationException":
                raise
            return ask(_SHORTEST_TOKEN)


def failed_exchange(error: ClientError | BotoCoreError, role_arn: str, region: str) -> DelayedError:
    """Return the reason why an exchange for a role failed; `key` if it fails until somebody has changed something.

    Any other failure is `no_capacity`: CodeBuild was not called, so it says nothing about a copy or a lane, and the
    same call succeeds later.
    """
    if not isinstance(error, ClientError):
        place = error.kwargs.get("endpoint_url", "STS")
        return DelayedError(f"federation: no answer of {place}: {type(error).__name__}", no_capacity=True)
    code = code_of(error)
    told = _JWT.sub("***", message_of(error))[:_LONGEST_MESSAGE]
    asked = error.operation_name == "GetWebIdentityToken"
    reason, lasts = _of_token(code) if asked else _of_exchange(code, told, role_arn, region)
    if not reason:
        return DelayedError(str(delayed_by(f"federation: {error.operation_name}", error)), no_capacity=True)
    return DelayedError(f"federation: {reason} ({code}: {told})", key=lasts, no_capacity=not lasts)


def _of_token(code: str) -> tuple[str, bool]:
    """Return what a code means that STS in the function's partition answers, and whether it lasts."""
    if code == "OutboundWebIdentityFederationDisabledException":
        return "outbound identity federation is off in the account of this function", True
    if code in DENIED:
        return "the function's role may not call sts:GetWebIdentityToken, by its policy or an organization's", True
    if code == "SessionDurationEscalationException":
        return "the function's own session ends within a minute", False
    if code in KEY_REFUSED | EXPIRED:
        return "STS refuses the function's own credentials; its clock may be wrong", False
    return "", False


def _of_exchange(code: str, told: str, role_arn: str, region: str) -> tuple[str, bool]:
    """Return what a code means that STS in the other partition answers, and whether it lasts."""
    if code == "IDPCommunicationError" or (code == "InvalidIdentityToken" and "verification key" in told):
        return "STS cannot read the keys of the token's issuer", False
    if code in EXPIRED:
        return "the token has expired on its way; a clock may be wrong", False
    if code in ("InvalidIdentityToken", "IDPRejectedClaim"):
        return f"the account of {role_arn} has no OIDC provider for the token's issuer and {AUDIENCE}", True
    if code in DENIED:
        return f"{role_arn} does not exist or does not trust this function's role", True
    if code == "RegionDisabledException":
        return f"STS is not activated in {region}", True
    if code == "ValidationError":
        return f"STS accepts no session of {_SESSION} s for {role_arn}", True
    return "", False
