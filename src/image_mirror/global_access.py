"""The calls to CodeBuild in the global account, and the key with which they are made, from a secret in China."""

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DENIED, EXPIRED, KEY_REFUSED, DelayedError, code_of, delayed_by
from image_mirror.record import BuildResult
from image_mirror.settings import REGION

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient
    from types_boto3_secretsmanager import SecretsManagerClient

_KEY_KNOWN_FOR = 300.0  # seconds
_PAUSE = 30.0  # seconds between two reads of a secret that cannot be read or contains a refused key
ENTRIES = ("G_AWS_REGION", "G_ACCESS_KEY", "G_SECRET_KEY")
"""The entries of the secret GlobalAKSK: region, access key ID, secret access key."""
_REFUSALS = KEY_REFUSED | EXPIRED | DENIED
_EXPLICIT_DENY = "explicit deny"  # in AWS's message about a request that a policy denies, and not merely fails to allow
# GetSecretValue: the secret does not exist, is marked for deletion, or the role may not read it.
_UNREADABLE = _REFUSALS | {"ResourceNotFoundException", "InvalidRequestException", "DecryptionFailure"}

Answer = TypeVar("Answer")


class Credentials(Protocol):
    """Where the credentials for the global account come from: SecretKey, or federation.RoleSession.

    Many threads call it at once. Both methods raise DelayedError.
    """

    def current(self) -> AccessKey:
        """Return the credentials for a call now."""

    def after_refusal(self, refused: AccessKey, code: str) -> AccessKey:
        """Return newer credentials than `refused`, for which AWS answered `code`; the same ones if there are none."""


class GlobalAccount:
    """Calls CodeBuild. When AWS refuses the credentials, it tries newer ones once."""

    def __init__(self, credentials: Credentials, connect: Callable[[AccessKey], "CodeBuildClient"]) -> None:
        """Take the credentials, and what makes a CodeBuild client from a key."""
        self._credentials = credentials
        self._connect = connect
        self._lock = threading.Lock()
        self._known: tuple[AccessKey, CodeBuildClient] | None = None

    def call(self, name: str, operation: "Callable[[CodeBuildClient], Answer]") -> Answer:
        """Return the result of `operation`; errors call it `name`. Raises DelayedError for any failure."""
        key = self._credentials.current()
        try:
            try:
                return operation(self._client(key))
            except ClientError as error:
                if code_of(error) not in _REFUSALS:
                    raise
                latest = self._credentials.after_refusal(key, code_of(error))
                if latest == key:
                    raise
                return operation(self._client(latest))
        except (ClientError, BotoCoreError) as error:
            delay = delayed_by(name, error, about_key=_REFUSALS)
            message = error.response["Error"].get("Message", "") if isinstance(error, ClientError) else ""
            if delay.key and _EXPLICIT_DENY in message:
                # The starter's policy denies builds with other images or copies than the global stack allows. The
                # credentials are good, and the copies of other images continue.
                delay.key, delay.refusal = False, BuildResult.DELAYED
            raise delay from error

    def _client(self, key: AccessKey) -> "CodeBuildClient":
        """Return the client of a key. There is one for each key, because making one takes longer than a call."""
        with self._lock:
            if self._known is None or self._known[0] != key:
                self._known = key, self._connect(key)
            return self._known[1]


class SecretKey:
    """The key in the secret, which is read every five minutes and when AWS refuses the key.

    Neither a secret that cannot be read nor a key that stays refused is read for each of the threads that wait.
    """

    def __init__(self, secrets: "SecretsManagerClient", name: str, clock: Callable[[], float]) -> None:
        """Take the secret's client and name, and a clock in seconds."""
        self._secrets = secrets
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, AccessKey] | None = None
        self._failure: tuple[float, DelayedError] | None = None
        self._reread_at = -_PAUSE

    def current(self) -> AccessKey:
        """Return the latest key. Raises DelayedError."""
        with self._lock:
            now = self._clock()
            if self._known is not None and now - self._known[0] < _KEY_KNOWN_FOR:
                return self._known[1]
            return self._latest(now)

    def after_refusal(self, refused: AccessKey, code: str) -> AccessKey:  # noqa: ARG002 - each may concern a replaced key
        """Return the key that the secret holds now, read at most every 30 seconds. Raises DelayedError."""
        with self._lock:
            now = self._clock()
            if self._known is not None and self._known[1] != refused:
                return self._known[1]
            if self._known is not None and now - self._reread_at < _PAUSE:
                return refused
            latest = self._latest(now)
            self._reread_at = now
            return latest

    def _latest(self, now: float) -> AccessKey:
        if self._failure is not None and now - self._failure[0] < _PAUSE:
            raise self._failure[1].again()
        try:
            key = self._read()
        except DelayedError as error:
            self._failure = (now, error)
            raise
        self._known = (now, key)
        return key

    def _read(self) -> AccessKey:
        try:
            text = self._secrets.get_secret_value(SecretId=self._name).get("SecretString", "")
        except (ClientError, BotoCoreError) as error:
            raise delayed_by(f"reading the secret {self._name}", error, about_key=_UNREADABLE) from error
        try:
            entries = json.loads(text)
        except ValueError:
            entries = None  # without "from", because that error quotes the secret
        if not isinstance(entries, dict):
            raise self._misshapen(f" must be a JSON object with the entries {', '.join(ENTRIES)}")
        missing = [name for name in ENTRIES if not isinstance(entries.get(name), str) or not entries[name].strip()]
        if missing:
            raise self._misshapen(f" lacks {', '.join(missing)}")
        region, access_key_id, secret_access_key = (entries[name].strip() for name in ENTRIES)
        if not REGION.fullmatch(region):
            raise self._misshapen(": G_AWS_REGION is not a region; write one such as us-west-2")
        return AccessKey(region, access_key_id, secret_access_key)

    def _misshapen(self, what: str) -> DelayedError:
        return DelayedError(f"the secret {self._name}{what}", key=True)
