"""The two lanes in which copies are made, and how a copy goes from the fast lane to the main one. Pure.

The main lane is a CodeBuild project on EC2 compute. The fast lane is one on Lambda compute, and optional: its builds
start in seconds, but they end after 15 minutes, and its quota is small. Nothing depends on it. Whatever fails there and
says nothing about the source makes the copy continue in the main lane at once: this costs no attempt and no wait, and
layers that have arrived are not sent again. So only the main lane says that a key is refused.

A record is claimed for a lane by a conditional write before StartBuild, so that two runs cannot start a build in each
lane. CodeBuild remembers a token for five minutes. As long as a claim may have started a build, the next start uses the
same lane and token. All times are milliseconds since the epoch.
"""

from dataclasses import replace

from image_mirror.record import (
    MINUTE,
    OUT_OF_TIME,
    TIMED_OUT,
    TOKEN_KNOWN,
    TOO_LARGE,
    UNEXPLAINED,
    Build,
    BuildResult,
    Lane,
    Record,
    Status,
)

LONGEST_FAST = 30 * MINUTE
"""A fast build runs for 15 minutes at most, and may wait as long in CodeBuild's queue for one that ran before it. So
one that has not ended by then is not waited for any longer."""
_CLOCK_SKEW = MINUTE  # far above the difference of two clocks; a time that is later was written by hand
_CLAIM_LASTS = MINUTE  # far above the time of StartBuild's two tries; after a crash the record is due then
_SENT = "fast lane: "  # what the reason of a record begins with that continues in the main lane
# How a fast build can end that says nothing about the copy. The main lane may make it, or say that a key is refused.
_UNEXPLAINED = ("", UNEXPLAINED, "TARGET_LOGIN")


def is_kept(record: Record, now: int) -> bool:
    """Return whether the record's latest claim may have started a build whose token CodeBuild still knows."""
    return record.claimed_at is not None and -_CLOCK_SKEW <= now - record.claimed_at < TOKEN_KNOWN


def lanes_of(record: Record, now: int) -> tuple[Lane, ...]:
    """Return the lanes that the record's next build may use, the preferred one first.

    The fast lane is for first copies, which pods wait for. A refresh prefers the main one, and so does a record whose
    latest build or start in the fast lane failed: from there a registry may not be reached, or a policy may forbid it.
    After a failure in the main lane both prefer the fast one again, because that lane may fail for good; also where
    nobody could explain a failure in the fast lane before.
    """
    if is_kept(record, now):
        return (record.lane or Lane.MAIN,)
    main_failed = record.lane is Lane.MAIN and record.error is not None
    if record.not_fast is not None and not (main_failed and record.not_fast == UNEXPLAINED):
        return (Lane.MAIN,)
    fast_failed = record.lane is Lane.FAST and (record.claimed_at is not None or record.error is not None)
    prefers_main = fast_failed or (record.digest is not None and not main_failed)
    return (Lane.MAIN, Lane.FAST) if prefers_main else (Lane.FAST, Lane.MAIN)


def claimed(record: Record, lane: Lane, now: int) -> Record:
    """Return the record to write before StartBuild is called for it in this lane.

    Other runs take it to be not due meanwhile. Repeated claims in the same lane count from the first one, so that a
    lane in which no start ever gets an answer does not keep the record.
    """
    claimed_at = record.claimed_at if is_kept(record, now) else now
    return replace(record, lane=lane, claimed_at=claimed_at, updated_at=now, due_at=now + _CLAIM_LASTS)


def not_started(record: Record, now: int) -> Record:
    """Return a claimed record whose build the fast lane did not take; it may start in the main lane at once."""
    return replace(record, lane=None, claimed_at=None, updated_at=now, due_at=now)


def sent_to_main(record: Record, build: Build, now: int) -> Record | None:
    """Return the record that continues in the main lane after what CodeBuild says of its build; None if it does not.

    What is too slow or too large for the fast lane is remembered for this image, and so is a failure without a reason.
    """
    if record.lane is not Lane.FAST or build.result is BuildResult.COPIED:
        return None
    if build.result is BuildResult.RUNNING:
        reason = None
        if not is_overdue(record, now):
            return None
    elif build.code in (OUT_OF_TIME, TOO_LARGE):
        reason = build.code
    elif is_unexplained(build):
        reason = UNEXPLAINED
    else:
        return None
    error = build.reason or "the build in the fast lane has not ended"
    after = replace(record, status=Status.REQUESTED, lane=None, claimed_at=None, not_fast=reason or record.not_fast)
    return replace(after, error=f"{_SENT}{error}", updated_at=now, due_at=now)


def is_sent_to_main(record: Record) -> bool:
    """Return whether a copy waits for a build in the main lane after one in the fast lane, which is no failure."""
    return record.status is Status.REQUESTED and (record.error or "").startswith(_SENT)


def is_overdue(record: Record, now: int) -> bool:
    """Return whether the record's fast build must have ended by now."""
    return record.lane is Lane.FAST and now - (record.claimed_at or 0) >= LONGEST_FAST


def is_unexplained(build: Build) -> bool:
    """Return whether a build of the fast lane ended in a way that may be the lane's fault."""
    # The build itself ends before CodeBuild stops it, so a source cannot cause that.
    return build.code == TIMED_OUT or (build.result is BuildResult.DELAYED and build.code in _UNEXPLAINED)
