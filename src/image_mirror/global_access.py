"""The global account: its key, stored in a secret in China, and the calls to CodeBuild with it."""

import json
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DENIED, EXPIRED, KEY_REFUSED, DelayedError, code_of, delayed_by
from image_mirror.record import BuildResult

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient
    from types_boto3_secretsmanager import SecretsManagerClient

_KEY_KNOWN_FOR = 300.0  # seconds
_PAUSE = 30.0  # seconds between two reads of a secret that cannot be read or contains a refused key
ENTRIES = ("G_AWS_REGION", "G_ACCESS_KEY", "G_SECRET_KEY")
"""The entries of the secret GlobalAKSK: region, access key ID, secret access key."""
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")  # it becomes part of a host name
_REFUSALS = KEY_REFUSED | EXPIRED | DENIED
_EXPLICIT_DENY = "explicit deny"  # in AWS's message about a request that a policy denies, and not merely fails to allow
# GetSecretValue: the secret does not exist, is marked for deletion, or the role may not read it.
_UNREADABLE = _REFUSALS | {"ResourceNotFoundException", "InvalidRequestException", "DecryptionFailure"}

Answer = TypeVar("Answer")


class _Known(NamedTuple):
    """A key, the time at which it was read (seconds), and its client."""

    read_at: float
    key: AccessKey
    client: "CodeBuildClient"


class GlobalAccount:
    """Calls CodeBuild with the secret's key. Reads the secret every five minutes and when AWS refuses the key."""

    def __init__(
        self,
        secrets: "SecretsManagerClient",
        name: str,
        connect: Callable[[AccessKey], "CodeBuildClient"],
        clock: Callable[[], float],
    ) -> None:
        """Take the secret's client and name, what makes a CodeBuild client from a key, and a clock in seconds."""
        self._secrets = secrets
        self._name = name
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._failure: tuple[float, DelayedError] | None = None
        self._reread_at = -_PAUSE

    def call(self, name: str, operation: "Callable[[CodeBuildClient], Answer]") -> Answer:
        """Return the result of `operation`; errors call it `name`. Raises DelayedError for any failure."""
        client = self._client()
        try:
            try:
                return operation(client)
            except ClientError as error:
                if code_of(error) not in _REFUSALS:
                    raise
                latest = self._client(refused=client)
                if latest is client:
                    raise
                return operation(latest)
        except (ClientError, BotoCoreError) as error:
            delay = delayed_by(name, error, about_key=_REFUSALS)
            message = error.response["Error"].get("Message", "") if isinstance(error, ClientError) else ""
            if delay.key and _EXPLICIT_DENY in message:
                # The starter's policy denies builds with other images or copies than the global stack allows. The key
                # is good, and the copies of other images go on.
                delay.key, delay.refusal = False, BuildResult.DELAYED
            raise delay from error

    def _client(self, refused: "CodeBuildClient | None" = None) -> "CodeBuildClient":
        """Return the client of the latest key; that of `refused` again where the secret still holds its key.

        Many threads wait here at once: neither a secret that cannot be read nor a key that stays refused is read for
        each of them.
        """
        with self._lock:
            now = self._clock()
            if self._known is not None and self._is_recent(self._known, refused, now):
                return self._known.client
            if self._failure is not None and now - self._failure[0] < _PAUSE:
                failed = self._failure[1]
                raise DelayedError(
                    str(failed), no_capacity=failed.no_capacity, uncertain=failed.uncertain, key=failed.key
                )
            try:
                latest = self._read()
            except DelayedError as error:
                self._failure = (now, error)
                raise
            if refused is not None:
                self._reread_at = now
            # One client for each key: making one takes longer than a call.
            known = self._known if self._known is not None and self._known.key == latest else None
            self._known = _Known(now, latest, known.client if known else self._connect(latest))
            return self._known.client

    def _is_recent(self, known: "_Known", refused: "CodeBuildClient | None", now: float) -> bool:
        if refused is not None and known.client is refused:
            return now - self._reread_at < _PAUSE
        return now - known.read_at < _KEY_KNOWN_FOR

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
