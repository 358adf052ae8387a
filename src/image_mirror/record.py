"""The record of one copy, the state of its build, and the rule when a copy is requested again. Pure.

All times are milliseconds since the epoch.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from image_mirror.reference import Destination, ImageReference

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MOST_ATTEMPTS = 5
"""How often a source may refuse a copy; with the last time the request ends."""
WEEK = 7 * DAY
TOKEN_KNOWN = 5 * MINUTE
"""How long CodeBuild remembers the token of a StartBuild."""
OUT_OF_TIME, TOO_LARGE, UNEXPLAINED = "OUT_OF_TIME", "TOO_LARGE", "UNEXPLAINED"
TIMED_OUT = "TIMED_OUT"
"""The code of a build that CodeBuild has stopped. OUT_OF_TIME is what a fast build says before that."""
NOT_FAST = (OUT_OF_TIME, TOO_LARGE, UNEXPLAINED)
"""The values of `Record.not_fast`: results of a build in the fast lane that make the main lane the better one."""
_LONG_BUILDS = ("STALLED", TOO_LARGE)
_DIGEST = "sha256:[0-9a-f]{64}"
_UNEXPECTED = re.compile(f"({_DIGEST}) ({_DIGEST}) ([0-9]{{1,15}})")


class Status(StrEnum):
    """The values of a record's `status`."""

    REQUESTED = "REQUESTED"
    COPYING = "COPYING"
    COPIED = "COPIED"
    FAILED = "FAILED"


class Lane(StrEnum):
    """Where a build runs: the two CodeBuild projects (lanes.py)."""

    FAST = "fast"
    MAIN = "main"


class Missing(StrEnum):
    """Why an admission has no record of a copy."""

    ABSENT = "ABSENT"
    """There is none, and none may be written."""
    UNREAD = "UNREAD"
    """The table did not answer in time."""
    UNUSABLE = "UNUSABLE"
    """It is damaged, and the table refuses its repair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Times in milliseconds: before a FAILED copy can be requested again; before a copy by tag is refreshed (0: never);
    between two checks that ECR still holds a copy; how long builds may fail to make a copy; how long a copy is kept
    that nobody uses (0: for good). `expire_digests`: copies by digest expire too."""

    retry_failed: int = 60 * MINUTE
    refresh: int = DAY
    verify: int = DAY
    give_up: int = 72 * HOUR
    expire: int = 0
    expire_digests: bool = False


class Push(NamedTuple):
    """A push that none of our builds made: the digest before it and after it, and when it was noticed."""

    before: str
    after: str
    noticed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One copy. `repo` and `tag` are its destination; `source` is the image it is made from.

    `status` is None in an item written by an older deployment. `attempts` counts the builds since
    `requested_at` that the source refused, `waits` the delays that cost no attempt. `failing_since` is when the first
    build of this request ended without a copy. `failures` counts the requests in a row that became FAILED; a request
    after the first has one build. `build_id` is the latest build,
    running or ended. `digest` is what ECR holds. `error` is the latest reason, for people. `same_result` is the
    latest build's code, and how many builds in a row have ended with it. `open_build` is the ID of a build whose copy
    has arrived while its end has not been read. `pushed` is the digest that the latest such build exported, and
    `signatures` how many signatures it copied, or why it copied none or fewer. `unexpected` is the latest push that
    none of our builds made, as text, until one of them makes the copy again. `requested_by` is the pod that made the
    present request, as `audit.requester` names it; None if an operator or an older release made it.

    `lane` is where the latest build runs or ran; None if only the main lane was used so far. `claimed_at` is when the
    build that runs, or may run, was claimed (lanes.py). `not_fast` is why the image is not copied in the fast lane.

    `raw` is the item that a damaged record was read from: one that has other values than this record would be written
    with. It belongs to what was read, so `replace` does not copy it.
    """

    repo: str
    tag: str
    source: str = ""
    status: Status | None = None
    requested_at: int = 0
    updated_at: int = 0
    attempts: int = 0
    waits: int = 0
    build_id: str | None = None
    digest: str | None = None
    error: str | None = None
    due_at: int | None = None
    same_result: str | None = None
    open_build: str | None = None
    pushed: str | None = None
    signatures: str | None = None
    requested_by: str | None = None
    failing_since: int | None = None
    failures: int = 0
    unexpected: str | None = None
    lane: Lane | None = None
    claimed_at: int | None = None
    not_fast: str | None = None
    raw: Mapping[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def is_active(self) -> bool:
        """Whether pods use the copy: it is in ECR or will be."""
        return self.status is not Status.FAILED

    @property
    def is_under_way(self) -> bool:
        """Whether the copy is requested or being made, for the first time or again."""
        return self.status in (Status.REQUESTED, Status.COPYING)

    @property
    def by_digest(self) -> bool:
        """Whether the source is named by digest, so that the copy can never be out of date."""
        return "@" in self.source

    @property
    def unexpected_push(self) -> Push | None:
        """What `unexpected` says; None if nothing, or if it is not written as `lifecycle` writes it."""
        found = _UNEXPECTED.fullmatch(self.unexpected or "")
        return Push(found[1], found[2], int(found[3])) if found else None

    @property
    def destination(self) -> str:
        """The name under which the build pushes the copy."""
        return f"{self.repo}:{self.tag}"


class BuildResult(StrEnum):
    """The result of a build: REFUSED costs an attempt, DELAYED a wait, and ENDED ends the request at once."""

    RUNNING = "RUNNING"
    COPIED = "COPIED"
    REFUSED = "REFUSED"
    DELAYED = "DELAYED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Build:
    """The state of one build in CodeBuild; `reason` is one line for people, without secrets.

    `key` is set for a delay that lasts until someone fixes a key or a secret in the global account. `code` is the
    build's COPY_RESULT, if it is known. `digest` and `signatures` are what a build with a copy exported, or "".
    `queued` says that a build which has not ended still waits in CodeBuild's queue, and `started_at` when it was
    accepted.
    """

    result: BuildResult
    reason: str = ""
    key: bool = False
    code: str = ""
    digest: str = ""
    signatures: str = ""
    queued: bool = False
    started_at: int = 0


def new_record(destination: Destination, source: ImageReference, now: int, requested_by: str | None = None) -> Record:
    """Return the record of a copy that is requested for the first time."""
    return Record(
        repo=destination.repo,
        tag=destination.tag,
        source=str(source.pinned),
        status=Status.REQUESTED,
        requested_at=now,
        updated_at=now,
        due_at=now,
        requested_by=requested_by,
    )


def needs_renewal(record: Record, now: int, *, by_digest: bool, pull_always: bool, policy: Policy) -> bool:
    """Return whether a pod that needs the copy at `now` requests it again.

    A FAILED copy is requested again after retry_pause(); a copy by tag, for pods with imagePullPolicy Always, after
    `policy.refresh`; an item without a status, from an older deployment, at once.
    """
    if record.status is Status.COPIED:
        return pull_always and not by_digest and 0 < policy.refresh <= now - record.requested_at
    if record.status is Status.FAILED:
        return now - record.updated_at >= retry_pause(record, policy)
    return record.status is None


def retry_pause(record: Record, policy: Policy) -> int:
    """Return how long after it failed a FAILED copy can be requested again by a pod, in milliseconds.

    The pause doubles with each request that failed in a row, from `policy.retry_failed` to a day, or from a day to a
    week if a build stalled or the image was too large, because such builds are long.
    """
    long = (record.same_result or "").partition(" ")[0] in _LONG_BUILDS
    first, longest = (DAY, WEEK) if long else (policy.retry_failed, DAY)
    first = max(first, policy.retry_failed)
    return min(first << min(max(record.failures - 1, 0), 16), max(longest, first))


def renew(record: Record, fresh: Record, *, pull_always: bool, policy: Policy) -> Record | None:
    """Return the record after a pod has requested the copy, or None if the existing `record` stays as it is.

    `fresh` is the record that would be written now if there were none.
    """
    now, by_digest = fresh.requested_at, fresh.by_digest
    renewed = needs_renewal(record, now, by_digest=by_digest, pull_always=pull_always, policy=policy)
    if not renewed:
        return None
    failures = max(record.failures, 1) if record.status is Status.FAILED else 0
    kept = replace(fresh, digest=record.digest, pushed=record.pushed, signatures=record.signatures, failures=failures)
    return replace(kept, unexpected=record.unexpected, lane=record.lane, not_fast=_known_of_image(record))


def _known_of_image(record: Record) -> str | None:
    """Return the reason of `not_fast` that a new request keeps. An unexplained failure may have been the lane's."""
    return None if record.not_fast == UNEXPLAINED else record.not_fast


def _is_starting(record: Record, now: int) -> bool:
    """Return whether a build is being started, or may have been: without its attempts it would get another token."""
    return record.claimed_at is not None and now - record.claimed_at < TOKEN_KNOWN


def asked_again(record: Record, now: int, *, lost: bool = False) -> Record | None:
    """Return the record after an operator has retried the copy, or None if `record` stays as it is.

    A FAILED copy is requested again. One that waits for its next attempt gets it as soon as a build is free; it keeps
    `requested_at`, because pods have waited since then. One whose build is being started stays as it is. A COPIED one
    with an unexpected push is requested again, and stays in use until a build has made it. `lost` says that pods cannot
    pull the copy from ECR, whatever the record says: a COPIED one is requested again, and one that is being refreshed
    waits for its build as for a first copy.
    """
    before = record
    if lost:
        before = replace(record, digest=None, pushed=None, signatures=None, open_build=None, updated_at=now)
        before = replace(before, unexpected=None)
    made_again = lost or record.unexpected_push is not None
    if record.status is Status.FAILED or (made_again and record.status is Status.COPIED):
        again = replace(before, status=Status.REQUESTED, requested_at=now, requested_by=None, open_build=None)
        again = replace(again, claimed_at=None, not_fast=_known_of_image(record))
    elif record.status is Status.REQUESTED and (record.due_at or 0) > now and not _is_starting(record, now):
        again = before
    else:
        return before if lost else None
    return replace(
        again,
        attempts=0,
        waits=0,
        error=None,
        same_result=None,
        failing_since=None,
        failures=0,
        updated_at=now,
        due_at=now,
    )


def idempotency_token(record: Record) -> str:
    """Return the StartBuild token of the record's next build: 64 hexadecimal digits.

    The token stays the same until that build is known to have ended, so that a crash between StartBuild and the write
    does not start a second build. It changes after each ended build and with each new request, because CodeBuild
    remembers a token for five minutes. A token of the fast lane is another one, because CodeBuild refuses a token that
    was used with other parameters.
    """
    parts = [record.repo, record.tag, str(record.requested_at), str(record.attempts), record.build_id or ""]
    if record.lane is Lane.FAST:  # the tokens of the main lane are those of earlier releases
        parts.append(record.lane)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
