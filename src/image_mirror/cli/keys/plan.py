"""What becomes of an IAM user's access keys, decided without a call: which the secret gives, makes or takes away.

A user has at most two (IAM's quota). Of one that is in the secret no more, nobody knows for sure who else has it: so a
key is removed only when it was this secret's own and another has proven to work in its place, or when nobody can be
using it, for it is inactive.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

MOST = 2
# Within this time, who asks for new keys goes on with a rotation; afterwards they mean another one.
_STILL_THE_SAME_ROTATION = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UserKey:
    """An access key as IAM lists it; `last_used` is None where AWS knows of no use."""

    access_key_id: str
    is_active: bool
    made_at: datetime
    last_used: datetime | None = None

    def __str__(self) -> str:
        """Name the key without giving it away."""
        return shown(self.access_key_id)

    @property
    def story(self) -> str:
        """What IAM knows of the key, for people."""
        used = f"last used {self.last_used:%Y-%m-%d %H:%M}" if self.last_used else "no use known"
        return f"{self} ({'active' if self.is_active else 'inactive'}, made {self.made_at:%Y-%m-%d %H:%M}, {used})"


@dataclass(frozen=True, slots=True)
class Given:
    """The IDs of the keys that versions of the secret give: what is read, what waits to become that, what it was.

    `since` is when that which is read was written.
    """

    current: str | None = None
    pending: str | None = None
    previous: str | None = None
    since: datetime | None = None

    def is_fresh(self, now: datetime) -> bool:
        """Whether the current key is that of a rotation which is going on, or has just been."""
        return self.since is not None and now - self.since < _STILL_THE_SAME_ROTATION


class Take(Enum):
    """Where the key comes from that the secret gives in the end."""

    CURRENT = "the one that it gives now"
    PENDING = "the one that an earlier run made and kept beside it"
    NEW = "a new one"


@dataclass(frozen=True, slots=True)
class Plan:
    """`discard` is deleted first, to make room; `retire` last, when another works; of those `left` people are told."""

    take: Take
    discard: UserKey | None = None
    retire: UserKey | None = None
    left: tuple[UserKey, ...] = ()


class NotWellError(Exception):
    """Something is not as it has to be, and no key that works was lost by it: `problems` say what, and the remedy."""

    def __init__(self, *problems: str) -> None:
        """Keep each problem, one line for people, which holds nothing of a key."""
        super().__init__("; ".join(problems))
        self.problems = problems


class NoRoomError(Exception):
    """The user has two keys and neither may be removed; `keys` are both."""

    def __init__(self, keys: Iterable[UserKey]) -> None:
        """Keep the keys, for people to choose from."""
        super().__init__("no room for another key")
        self.keys = tuple(keys)


def shown(access_key_id: str) -> str:
    """Return what may be shown of an access key ID: its last four characters."""
    return f"...{access_key_id[-4:]}"


def secret_name(secret_id: str) -> str:
    """Return the name of a secret that is given by its name or its ARN."""
    if not secret_id.startswith("arn:"):
        return secret_id
    return secret_id.rpartition(":")[2].rpartition("-")[0]  # Secrets Manager adds a hyphen and six characters


def plan(keys: Iterable[UserKey], given: Given, *, works: bool, rotate: bool, now: datetime) -> Plan:
    """Decide what becomes of a user's keys.

    `works` says that the secret's current key was tried. Raises NoRoomError. A rotation that was cut off is gone on
    with: from its pending key, or, where the new key is in the secret already, with the removal of the previous one.
    Where that new key has been there for a day, it is itself replaced, and the one before it makes room.
    """
    listed = {key.access_key_id: key for key in keys}
    current = listed.get(given.current or "")
    stands = works and current is not None and current.is_active
    pending = listed.get(given.pending or "")
    # Where another entry of the secret was changed, the version before gives the same key.
    previous = listed.get(given.previous or "") if given.previous != given.current else None
    others = tuple(key for key in listed.values() if key is not current)
    if stands and not rotate:
        return Plan(Take.CURRENT, left=others)
    retire = current if rotate else None
    if pending is not None and pending.is_active:
        return Plan(Take.PENDING, retire=retire, left=_without(listed, pending, retire))
    if stands and previous is not None and given.is_fresh(now):
        return Plan(Take.CURRENT, retire=previous, left=_without(listed, current, previous))
    if len(listed) < MOST:
        return Plan(Take.NEW, retire=retire, left=_without(listed, retire))
    spare = previous if stands else None
    spare = spare or next((key for key in listed.values() if not key.is_active), None)
    if spare is None:
        raise NoRoomError(listed.values())
    retire = None if retire is spare else retire
    return Plan(Take.NEW, discard=spare, retire=retire, left=_without(listed, spare, retire))


def _without(listed: dict[str, UserKey], *keys: UserKey | None) -> tuple[UserKey, ...]:
    return tuple(key for key in listed.values() if key not in keys)
