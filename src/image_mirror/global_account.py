"""The account in the global region: its key, kept in a secret on China's side, and calls made with it."""

import json
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws import AccessKey

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient
    from types_boto3_secretsmanager import SecretsManagerClient

_KEY_KNOWN_FOR = 300.0  # seconds
_ENTRIES = ("G_AWS_REGION", "G_ACCESS_KEY", "G_SECRET_KEY")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")  # it becomes part of a host name
_REFUSALS = frozenset(
    (
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    )
)
_BUSY = frozenset(("AccountLimitExceededException", "ThrottlingException", "Throttling", "TooManyRequestsException"))
_SPOKEN = frozenset(("AccessDeniedException", "InvalidInputException", "ResourceNotFoundException"))

Answer = TypeVar("Answer")


class DelayedError(Exception):
    """AWS, the network or the set-up stands in the way of a copy, not its source. `busy`: only a matter of capacity.

    The message is for people and holds no secret.
    """

    def __init__(self, message: str, *, busy: bool = False) -> None:
        """Keep whether AWS is merely busy beside the message."""
        super().__init__(message)
        self.busy = busy


class GlobalAccount:
    """Calls CodeBuild with the secret's key, read every five minutes, and once more when AWS refuses it."""

    def __init__(
        self,
        secrets: "SecretsManagerClient",
        name: str,
        connect: Callable[[AccessKey], "CodeBuildClient"],
        clock: Callable[[], float],
    ) -> None:
        """Take the secret's client and name, what makes a CodeBuild client of a key, and a clock in seconds."""
        self._secrets = secrets
        self._name = name
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, AccessKey, CodeBuildClient] | None = None

    def call(self, name: str, operation: "Callable[[CodeBuildClient], Answer]") -> Answer:
        """Return what `operation` (named `name` in errors) returns. Raises DelayedError, whatever stood in its way."""
        client = self._client()
        try:
            try:
                return operation(client)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _REFUSALS:
                    raise
                return operation(self._client(refused=client))
        except (ClientError, BotoCoreError) as error:
            raise delayed_by(name, error) from error

    def _client(self, refused: "CodeBuildClient | None" = None) -> "CodeBuildClient":
        with self._lock:
            if self._known is not None:
                read_at, key, client = self._known
                if client is not refused and self._clock() - read_at < _KEY_KNOWN_FOR:
                    return client
                latest = self._read()
                # One client a key: making one costs more than a call.
                self._known = (self._clock(), latest, client if latest == key else self._connect(latest))
            else:
                latest = self._read()
                self._known = (self._clock(), latest, self._connect(latest))
            return self._known[2]

    def _read(self) -> AccessKey:
        try:
            text = self._secrets.get_secret_value(SecretId=self._name).get("SecretString", "")
        except (ClientError, BotoCoreError) as error:
            raise delayed_by(f"reading the secret {self._name}", error) from error
        try:
            entries = json.loads(text)
        except ValueError:
            entries = None  # and not "from" that error, which quotes the secret
        if not isinstance(entries, dict):
            raise DelayedError(f"the secret {self._name} must be a JSON object with the entries {', '.join(_ENTRIES)}")
        missing = [name for name in _ENTRIES if not isinstance(entries.get(name), str) or not entries[name].strip()]
        if missing:
            raise DelayedError(f"the secret {self._name} lacks {', '.join(missing)}")
        region, access_key_id, secret_access_key = (entries[name].strip() for name in _ENTRIES)
        if not _REGION.fullmatch(region):
            raise DelayedError(f"the secret {self._name}: G_AWS_REGION is no region; write one such as us-west-2")
        return AccessKey(region, access_key_id, secret_access_key)


def delayed_by(name: str, error: ClientError | BotoCoreError) -> DelayedError:
    """Describe an AWS error without what may hold a key: its code, and its message only for codes that quote none."""
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        message = f": {error.response['Error'].get('Message', '')[:300]}" if code in _SPOKEN else ""
        return DelayedError(f"{name}: AWS answered {code}{message}", busy=code in _BUSY)
    return DelayedError(f"{name}: {type(error).__name__}")
