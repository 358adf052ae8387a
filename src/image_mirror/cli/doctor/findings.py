"""What an examination comes to: one finding for each thing that was looked at, or for each fault in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing stands. SKIPPED: it could not be asked about, and `found` says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it stands, what was found, and what to do, or None where there is nothing to do.

    Its fields are the keys of the JSON output.
    """

    topic: str
    state: State
    found: str
    remedy: str | None = None


def fine(topic: str, found: str) -> Finding:
    """Say that a thing is as it has to be."""
    return Finding(topic, State.OK, found)


def warn(topic: str, found: str, remedy: str) -> Finding:
    """Say that a thing works, but will or may not for long."""
    return Finding(topic, State.WARNING, found, remedy)


def fail(topic: str, found: str, remedy: str) -> Finding:
    """Say that a thing does not work."""
    return Finding(topic, State.FAILED, found, remedy)


def skip(topic: str, reason: str, remedy: str | None = None) -> Finding:
    """Say that a thing was not looked at, and why."""
    return Finding(topic, State.SKIPPED, reason, remedy)


def unless(faults: Iterable[Finding], sound: Finding) -> Sequence[Finding]:
    """Return the faults, or `sound` where there is none."""
    return list(faults) or [sound]
