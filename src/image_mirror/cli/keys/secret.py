"""The secret that gives one account's access key to the other account: JSON with a region, an ID, a key, maybe more.

A new key is first stored in its own version with the label AWSPENDING. Only the next run reads that version, so nothing
is lost if a run is interrupted at any point. When the key works, it becomes AWSCURRENT, which everybody reads, and the
version before becomes AWSPREVIOUS. (The labels mean the same as in Secrets Manager's guide, "Rotation function".)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import ABSENT, code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.keys.plan import NeedsAttentionError, StoredKeys, secret_name
from image_mirror.cli.remedies import aws_of, get_back, make_again
from image_mirror.global_access import ENTRIES

_CURRENT, _PENDING, _PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"


class Names(NamedTuple):
    """The names of the three entries."""

    region: str
    access_key_id: str
    secret_access_key: str


GLOBAL_NAMES = Names(*ENTRIES)
"""The entries of GlobalAKSK, which the reconciler reads."""
CHINA_NAMES = Names("Region", "AccessKey", "AccessSecretKey")
"""The entries of ImagePullSecret, which the buildspec reads."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version: when it was created, its key (parts of it may be empty), and all its entries."""

    created_at: datetime
    key: AccessKey
    entries: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretContent:
    """The versions of the secret, None for one that does not exist. `changed_at` is None if there is no secret."""

    current: Version | None = None
    pending: Version | None = None
    previous: Version | None = None
    changed_at: datetime | None = None

    @property
    def stored(self) -> StoredKeys:
        """The IDs of the keys in the versions."""
        ids = [version and version.key.access_key_id for version in (self.current, self.pending, self.previous)]
        current, pending, previous = (each or None for each in ids)
        return StoredKeys(current, pending, previous, self.current.created_at if self.current else None)


class KeySecret:
    """One such secret. `of_a_stack` is the stack that creates it; if None, it is created here."""

    def __init__(self, account: Account, secret_id: str, names: Names, *, of_a_stack: str | None) -> None:
        self._account = account
        self._client = account.client("secretsmanager")
        self._id = secret_id
        self._names = names
        self._of_a_stack = of_a_stack
        self._name = secret_name(secret_id)

    def __str__(self) -> str:
        return f"secret {self._name} ({self._account.side})"

    def read(self) -> SecretContent:
        """Return the content. Raises NeedsAttentionError, ClientError, BotoCoreError."""
        try:
            found = self._client.describe_secret(SecretId=self._id)
        except ClientError as error:
            if code_of(error) not in ABSENT:
                raise
            if self._of_a_stack:
                again = f"{make_again(self._of_a_stack)}; then run this again"
                raise NeedsAttentionError(f"{self}: it does not exist any more; {again}") from error
            return SecretContent()
        if found.get("DeletedDate"):
            restore = get_back(self._account, self._name)
            raise NeedsAttentionError(f"{self}: it is marked for deletion; {restore}, then run this again")
        labelled = {label: each for each, labels in found.get("VersionIdsToStages", {}).items() for label in labels}
        current, pending, previous = (self._version(labelled.get(each)) for each in (_CURRENT, _PENDING, _PREVIOUS))
        if current is None and _CURRENT in labelled:
            entries = ("--secret-id", self._name, "--secret-string", "{}")
            put = aws_of(self._account)("secretsmanager", "put-secret-value", *entries)
            raise NeedsAttentionError(
                f"{self}: it contains no JSON object; if nothing needs its content, run {put}, then run this again"
            )
        if current is None or pending is None or pending.created_at < current.created_at:
            pending = None  # the current version was written later
        elif pending.key.access_key_id in (current.key.access_key_id, previous and previous.key.access_key_id):
            pending = None
        return SecretContent(current, pending, previous, found.get("LastChangedDate"))

    def store_new(self, content: SecretContent, key: AccessKey) -> bool:
        """Store a new key as pending, and return True. If there is no current version, it becomes current: False."""
        text = self._text(content, key)
        if content.changed_at is None:
            about = "The access key with which image-mirror starts copies in the global account"
            self._client.create_secret(Name=self._id, SecretString=text, Description=about)
            return False
        # The first version of a secret always becomes current, also with another label.
        self._client.put_secret_value(SecretId=self._id, SecretString=text, VersionStages=[_PENDING])
        return content.current is not None

    def make_current(self, content: SecretContent, key: AccessKey) -> None:
        """Make `key` the current one, and keep the other entries."""
        self._client.put_secret_value(SecretId=self._id, SecretString=self._text(content, key))

    def _text(self, content: SecretContent, key: AccessKey) -> str:
        entries = dict(content.current.entries if content.current else {})
        three = (key.region, key.access_key_id, key.secret_access_key)
        return json.dumps(entries | dict(zip(self._names, three, strict=True)))

    def _version(self, version_id: str | None) -> Version | None:
        """Return a version; None if it contains no JSON object, or if it is only a label."""
        if version_id is None:
            return None
        try:
            found = self._client.get_secret_value(SecretId=self._id, VersionId=version_id)
        except ClientError as error:
            if code_of(error) not in ABSENT:
                raise
            return None
        try:
            entries: Any = json.loads(found.get("SecretString", ""))
        except ValueError:
            return None
        if not isinstance(entries, dict):
            return None
        # The functions and the builds read the entries in the same way.
        three = (entries[name].strip() if isinstance(entries.get(name), str) else "" for name in self._names)
        return Version(found["CreatedDate"], AccessKey(*three), entries)
