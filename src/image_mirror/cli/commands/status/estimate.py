"""How far the copies are that were requested together, and how long the rest takes. Pure.

The copies that are under way, and those that were requested with them and have ended, are one burst: a rollout, or all
images of a cluster. Its beginning is found in the times of the requests: a longer pause separates two bursts. The rate
comes from the records' own times, which the functions' clocks have written, so this machine's clock may differ.
All times are milliseconds since the epoch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from image_mirror.cli.output import span
from image_mirror.lanes import is_sent_to_main
from image_mirror.record import HOUR, MINUTE, Record, Status

_PAUSE = 10 * MINUTE
"""Two requests that are further apart belong to two bursts."""
_LONGEST = 12 * HOUR
"""A copy that was requested longer before the latest one is of another burst, for example one that nobody can make."""
_WINDOW = 15 * MINUTE
"""The rate is that of the last minutes."""
_STALE = _WINDOW
"""If no record was written for so long, nothing moves. Shorter, and a clock of this machine that is some minutes ahead
would end the estimate: the records of running builds are written each minute."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The copies of one burst, counted by how far they are.

    `building` are those with a build of which it is not known whether it runs or waits in CodeBuild's queue. `waiting`
    are those that wait for a free build; `again` those that wait for another try, after a refusal or a delay.
    `per_minute` is how many have ended a minute lately, None if none has. `minutes_left` is for the others than
    `again`, None if there is no rate or nothing left.
    """

    copied: int
    failed: int
    running: int
    queued: int
    building: int
    waiting: int
    again: int
    per_minute: float | None
    minutes_left: int | None

    @property
    def requested(self) -> int:
        """How many copies the burst has."""
        return self.copied + self.failed + self.rest + self.again

    @property
    def rest(self) -> int:
        """How many have not ended, without those that wait for another try."""
        return self.running + self.queued + self.building + self.waiting

    def __str__(self) -> str:
        """Return it on one line. What does not occur is not named."""
        counts = {
            "copied": self.copied,
            "failed": self.failed,
            "running": self.running,
            "queued": self.queued,
            "running or queued": self.building,
            "waiting": self.waiting,
            "to be tried again": self.again,
        }
        text = f"{self.requested:,} requested: " + ", ".join(
            f"{count:,} {what}" for what, count in counts.items() if count
        )
        if self.per_minute is not None:
            text += f"; {self.per_minute:.1f} a minute"
        if self.minutes_left is not None:
            length = self.minutes_left
            left = f"{length} minute{'' if length == 1 else 's'}" if length < 120 else span(length * MINUTE)
            text += f", about {left} left" + (" for the others" if self.again else "")
        return text


def under_way(records: Iterable[Record], queued: Mapping[str, bool], now: int) -> UnderWay | None:
    """Count the burst that is under way and estimate its end; None if no copy is requested or being made.

    `queued` says of builds by ID whether they wait in CodeBuild's queue; one that it lacks is not known. `now` is this
    machine's time: it only tells whether the records are still being written.
    """
    known = [record for record in records if record.status is not None]
    pending = [record for record in known if record.is_under_way]
    if not pending:
        return None
    first, times = _bursts(known, [record for record in pending if not _failed_before(record)] or pending)
    ended = [each for each in known if not each.is_under_way and each.requested_at in times]
    builds = [record.build_id or "" for record in pending if record.status is Status.COPYING]
    requested = [record for record in pending if record.status is Status.REQUESTED]
    again = sum(map(_failed_before, requested))
    is_queued = [queued.get(build) for build in builds]
    copied = sum(record.status is Status.COPIED for record in ended)
    rate = _per_minute(ended, max(each.updated_at for each in pending + ended), first, now)
    rest = len(pending) - again
    return UnderWay(
        copied=copied,
        failed=len(ended) - copied,
        running=is_queued.count(False),
        queued=is_queued.count(True),
        building=is_queued.count(None),
        waiting=len(requested) - again,
        again=again,
        per_minute=rate,
        minutes_left=max(1, round(rest / rate)) if rate and rest else None,
    )


def _failed_before(record: Record) -> bool:
    """Return whether a try has failed. A copy that continues in the main lane only waits for a free build there."""
    return record.error is not None and not is_sent_to_main(record)


def _bursts(known: Iterable[Record], pending: Iterable[Record]) -> tuple[int, set[int]]:
    """Return when the first copy was requested of the bursts that those of `pending` belong to, and all their times.

    A copy that was requested more than twelve hours before the latest of `pending` is of no burst.
    """
    times = {record.requested_at for record in pending}
    latest = max(times)
    within = sorted({each.requested_at for each in known if abs(latest - each.requested_at) <= _LONGEST})
    found: set[int] = set()
    burst: list[int] = []
    for then in within:
        if burst and then - burst[-1] > _PAUSE:
            burst = []
        burst.append(then)
        if then in times:
            found.update(burst)
        elif burst[0] in found:
            found.add(then)
    return min(found), found


def _per_minute(ended: Iterable[Record], latest: int, first: int, now: int) -> float | None:
    """Return how many copies have ended a minute, until the `latest` time of a record; None if not known."""
    since = max(first, latest - _WINDOW)
    count = sum(record.updated_at >= since for record in ended)
    if not count or now - latest > _STALE:
        return None
    return count * MINUTE / max(MINUTE, latest - since)
