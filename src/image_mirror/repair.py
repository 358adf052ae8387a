"""What a record can be, and the record to write in place of one that is damaged: somebody has changed it by hand. Pure.

Most values need no repair, because the next step makes them right. These would stay: they end in no step, in a step
each minute, or in a copy of another image.
"""

import re
from dataclasses import replace

from image_mirror.record import DAY, HOUR, NOT_FAST, Policy, Record, Status

DAMAGED = "its item was damaged"
REFUSED = "a write failed although nothing had changed"
"""The reasons in the log for a record that is repaired."""
_SKEW = HOUR  # far above the difference of two clocks; no time of a change is later than now
# How far ahead the next step of a record can be. The longest pauses are far shorter.
_AHEAD = {Status.REQUESTED: DAY, Status.COPYING: HOUR}
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_SAME_RESULT = re.compile("[A-Z_]{1,40} [0-9]{1,6}")
_LONGEST_ERROR = 1_000
_MOST_COUNTED = 1_000_000


def latest_due(now: int, policy: Policy) -> int:
    """Return the latest time at which any record is due."""
    return now + max(_ahead(Status.COPIED, policy), *_AHEAD.values())


def repaired(record: Record, source: str | None, now: int, policy: Policy) -> Record:
    """Return the record to write in place of `record`, or `record` itself if it is in order.

    `source` is the only image whose copy has the record's name; None if there is none. Then the record becomes FAILED.
    Without a status and out of the index, it is of an older deployment: the next pod requests the copy. With an unknown
    status or with another image's source, the copy is requested again, because nobody knows what ECR holds.
    """
    if record.status is None and record.due_at is None:
        return record
    is_other = record.source not in ("", source)
    sound = replace(
        record,
        source=record.source if source is None else source,
        requested_at=_past(record.requested_at, now),
        updated_at=_past(record.updated_at, now),
        attempts=record.attempts if record.attempts <= _MOST_COUNTED else 0,
        waits=record.waits if record.waits <= _MOST_COUNTED else 0,
        open_build=record.open_build if record.build_id else None,
        failing_since=None if record.failing_since is None else _past(record.failing_since, now),
        failures=record.failures if record.failures <= _MOST_COUNTED else 0,
        digest=record.digest if record.digest and _DIGEST.fullmatch(record.digest) and not is_other else None,
        error=record.error and record.error[:_LONGEST_ERROR],
        unexpected=record.unexpected if record.unexpected_push and not is_other else None,
        claimed_at=None if record.claimed_at is None else _past(record.claimed_at, now),
        not_fast=record.not_fast if record.not_fast in NOT_FAST and not is_other else None,
        same_result=record.same_result if _SAME_RESULT.fullmatch(record.same_result or "") else None,
    )
    if sound.status is Status.FAILED:
        sound = replace(sound, due_at=None)
    elif source is None:
        error = "no image has a copy of this name"
        sound = replace(sound, status=Status.FAILED, error=error, updated_at=now, due_at=None)
    elif sound.status is None or is_other:
        sound = replace(sound, status=Status.REQUESTED, attempts=0, waits=0, error=None, same_result=None)
        sound = replace(
            sound, claimed_at=None, failing_since=None, failures=0, requested_at=now, updated_at=now, due_at=now
        )
    else:
        due_at = sound.due_at
        is_wrong = due_at is None or due_at > now + _ahead(sound.status, policy)
        if is_wrong or (sound.status is Status.COPIED and sound.digest is None):
            due_at = min(due_at or now, now)
        sound = replace(sound, due_at=due_at)
    return record if sound == record and record.raw is None else sound


def _ahead(status: Status, policy: Policy) -> int:
    # Two checks of a copy are up to a tenth further apart than the setting.
    return _AHEAD.get(status) or policy.verify * 5 // 4 + DAY


def _past(then: int, now: int) -> int:
    return then if then <= now + _SKEW else now
