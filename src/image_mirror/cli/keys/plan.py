"""Decides what happens to an IAM user's access keys: which key the secret is to contain, and which are deleted. Pure.

A user has at most two keys (IAM's quota). When a key is no longer in the secret, nobody knows for sure who else uses
it. So a key is deleted only in two cases: it was in this secret and another key has been tested in its place; or it is
inactive, so that nobody can be using it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

MOST = 2
# Within this time, --rotate continues the rotation before. Later it starts another one.
_SAME_ROTATION = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UserKey:
    """An access key as IAM lists it. `last_used` is None if AWS knows of no use."""

    access_key_id: str
    is_active: bool
    created_at: datetime
    last_used: datetime | None = None

    def __str__(self) -> str:
        return shown(self.access_key_id)

    @property
    def details(self) -> str:
        """What IAM knows of the key, for people."""
        used = f"last used {self.last_used:%Y-%m-%d %H:%M}" if self.last_used else "no known use"
        return (
            f"{self} ({'active' if self.is_active else 'inactive'}, created {self.created_at:%Y-%m-%d %H:%M}, {used})"
        )


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The IDs of the keys in the secret's versions.

    `current` is the one that is read. `pending` was stored to become current. `previous` was current before. `since`
    is when the current version was written.
    """

    current: str | None = None
    pending: str | None = None
    previous: str | None = None
    since: datetime | None = None

    def is_recent(self, now: datetime) -> bool:
        """Return whether the current key belongs to a rotation that is still running, or has just ended."""
        return self.since is not None and now - self.since < _SAME_ROTATION


class KeySource(Enum):
    """Where the key comes from that the secret contains in the end."""

    CURRENT = "the current key"
    PENDING = "the key that an earlier run created and stored as pending"
    NEW = "a new key"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: delete `delete_first` to make room, get the key from `source`, and in the end delete `delete_last`.

    `kept` are the other keys. They are only printed.
    """

    source: KeySource
    delete_first: UserKey | None = None
    delete_last: UserKey | None = None
    kept: tuple[UserKey, ...] = ()


class NeedsAttentionError(Exception):
    """Somebody has to fix something first. `problems` say what, with the remedy; all keys that worked still work."""

    def __init__(self, *problems: str) -> None:
        """Take one line for people for each problem. None contains a key."""
        super().__init__("; ".join(problems))
        self.problems = problems


class NoRoomError(Exception):
    """The user has two keys, `keys`, and neither may be deleted."""

    def __init__(self, keys: Iterable[UserKey]) -> None:
        super().__init__("no room for another key")
        self.keys = tuple(keys)


def shown(access_key_id: str) -> str:
    """Return what may be printed of an access key ID: its last four characters."""
    return f"...{access_key_id[-4:]}"


def secret_name(secret_id: str) -> str:
    """Return the name of a secret from its name or its ARN."""
    if not secret_id.startswith("arn:"):
        return secret_id
    return secret_id.rpartition(":")[2].rpartition("-")[0]  # Secrets Manager adds a hyphen and six characters


def plan(keys: Iterable[UserKey], stored: StoredKeys, *, works: bool, rotate: bool, now: datetime) -> Plan:
    """Decide what happens to a user's keys. Raises NoRoomError.

    `works` says that the secret's current key was tested and works. A rotation that was interrupted continues: from
    its pending key; or, if the new key is already current, with the deletion of the previous one. If that new key has
    been current for a day, it is replaced too, and the previous key is deleted first.
    """
    listed = {key.access_key_id: key for key in keys}
    current = listed.get(stored.current or "")
    current_works = works and current is not None and current.is_active
    pending = listed.get(stored.pending or "")
    # If another entry of the secret was changed, the previous version contains the same key.
    previous = listed.get(stored.previous or "") if stored.previous != stored.current else None
    others = tuple(key for key in listed.values() if key is not current)
    if current_works and not rotate:
        return Plan(KeySource.CURRENT, kept=others)
    delete_last = current if rotate else None
    if pending is not None and pending.is_active:
        return Plan(KeySource.PENDING, delete_last=delete_last, kept=_without(listed, pending, delete_last))
    if current_works and previous is not None and stored.is_recent(now):
        return Plan(KeySource.CURRENT, delete_last=previous, kept=_without(listed, current, previous))
    if len(listed) < MOST:
        return Plan(KeySource.NEW, delete_last=delete_last, kept=_without(listed, delete_last))
    spare = previous if current_works else None
    spare = spare or next((key for key in listed.values() if not key.is_active), None)
    if spare is None:
        raise NoRoomError(listed.values())
    delete_last = None if delete_last is spare else delete_last
    kept = _without(listed, spare, delete_last)
    return Plan(KeySource.NEW, delete_first=spare, delete_last=delete_last, kept=kept)


def _without(listed: dict[str, UserKey], *keys: UserKey | None) -> tuple[UserKey, ...]:
    return tuple(key for key in listed.values() if key not in keys)
