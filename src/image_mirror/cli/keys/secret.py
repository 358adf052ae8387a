"""The secret by which one account's access key reaches the other: JSON with a region, an ID and a key, and maybe more.

A new key first lies in a version of its own with the label AWSPENDING, which nobody reads but the next run: cut off at
any point, nothing is lost. It becomes AWSCURRENT, which all read, when it has proven to work; the version before that
is AWSPREVIOUS from then on. (Secrets Manager's guide, "Rotation function": the labels mean the same here.)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.keys.plan import Given, NotWellError, secret_name
from image_mirror.cli.remedies import aws_of, get_back, make_again
from image_mirror.global_access import ENTRIES

_CURRENT, _PENDING, _PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"


class Names(NamedTuple):
    """What the three entries are called."""

    region: str
    access_key_id: str
    secret_access_key: str


GLOBAL_NAMES = Names(*ENTRIES)
"""Those of GlobalAKSK, which the reconciler reads."""
CHINA_NAMES = Names("Region", "AccessKey", "AccessSecretKey")
"""Those of ImagePullSecret, which the buildspec reads."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version: when it was made, the key that it gives (its parts may be empty), and all its entries."""

    made_at: datetime
    key: AccessKey
    entries: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """What the secret holds, None for each version that there is not; `changed_at` is None where there is no secret."""

    current: Version | None = None
    pending: Version | None = None
    previous: Version | None = None
    changed_at: datetime | None = None

    @property
    def given(self) -> Given:
        """The IDs of the keys that it gives."""
        ids = [version and version.key.access_key_id for version in (self.current, self.pending, self.previous)]
        current, pending, previous = (each or None for each in ids)
        return Given(current, pending, previous, self.current.made_at if self.current else None)


class KeySecret:
    """One such secret."""

    def __init__(self, account: Account, secret_id: str, names: Names, *, of_a_stack: str | None) -> None:
        """Take its account, its name or ARN, and its entries' names. `of_a_stack` makes it; else it is made here."""
        self._account = account
        self._client = account.client("secretsmanager")
        self._id = secret_id
        self._names = names
        self._of_a_stack = of_a_stack
        self._name = secret_name(secret_id)

    def __str__(self) -> str:
        """Name the secret for people."""
        return f"secret {self._name} ({self._account.side})"

    def read(self) -> Held:
        """Return what it holds. Raises NotWellError, ClientError, BotoCoreError."""
        try:
            found = self._client.describe_secret(SecretId=self._id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            if self._of_a_stack:
                again = f"{make_again(self._of_a_stack)}; then run this again"
                raise NotWellError(f"{self}: it is gone; {again}") from error
            return Held()
        if found.get("DeletedDate"):
            back = get_back(self._account, self._name)
            raise NotWellError(f"{self}: it is marked for deletion; {back}, then run this again")
        labelled = {label: each for each, labels in found.get("VersionIdsToStages", {}).items() for label in labels}
        current, pending, previous = (self._version(labelled.get(each)) for each in (_CURRENT, _PENDING, _PREVIOUS))
        if current is None and _CURRENT in labelled:
            entries = ("--secret-id", self._name, "--secret-string", "{}")
            put = aws_of(self._account)("secretsmanager", "put-secret-value", *entries)
            raise NotWellError(
                f"{self}: it holds no JSON object; where nothing needs what it holds, {put}, then run this again"
            )
        if current is None or pending is None or pending.made_at < current.made_at:
            pending = None  # what is read has been written since
        elif pending.key.access_key_id in (current.key.access_key_id, previous and previous.key.access_key_id):
            pending = None
        return Held(current, pending, previous, found.get("LastChangedDate"))

    def offer(self, held: Held, key: AccessKey) -> bool:
        """Keep a new key beside the one that is read, and say True; where none is, make it the one that is read."""
        text = self._text(held, key)
        if held.changed_at is None:
            about = "The access key with which image-mirror starts copies in the global account"
            self._client.create_secret(Name=self._id, SecretString=text, Description=about)
            return False
        # A secret's first version is current, whatever label it is given.
        self._client.put_secret_value(SecretId=self._id, SecretString=text, VersionStages=[_PENDING])
        return held.current is not None

    def give(self, held: Held, key: AccessKey) -> None:
        """Make `key` the one that is read, and leave the other entries as they are."""
        self._client.put_secret_value(SecretId=self._id, SecretString=self._text(held, key))

    def _text(self, held: Held, key: AccessKey) -> str:
        entries = dict(held.current.entries if held.current else {})
        three = (key.region, key.access_key_id, key.secret_access_key)
        return json.dumps(entries | dict(zip(self._names, three, strict=True)))

    def _version(self, version_id: str | None) -> Version | None:
        """Return a version; None where it holds no JSON object, or is only a label."""
        if version_id is None:
            return None
        try:
            found = self._client.get_secret_value(SecretId=self._id, VersionId=version_id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return None
        try:
            entries: Any = json.loads(found.get("SecretString", ""))
        except ValueError:
            return None
        if not isinstance(entries, dict):
            return None
        # As the functions and the builds read them.
        three = (entries[name].strip() if isinstance(entries.get(name), str) else "" for name in self._names)
        return Version(found["CreatedDate"], AccessKey(*three), entries)
