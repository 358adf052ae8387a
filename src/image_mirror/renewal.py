"""When a copy that has a record is asked for again, by a pod or by an operator. Pure.

All times are milliseconds since the epoch.
"""

from dataclasses import replace

from image_mirror.record import Policy, Record, Status


def is_renewed(record: Record, now: int, *, by_digest: bool, pull_always: bool, policy: Policy) -> bool:
    """Say whether a pod that needs the copy at `now` has it asked for again.

    A FAILED copy is after `policy.retry_failed`; one by tag, for pods with imagePullPolicy Always, after
    `policy.refresh`; an item with no status, from an older deployment, at once.
    """
    if record.status is Status.COPIED:
        return pull_always and not by_digest and 0 < policy.refresh <= now - record.requested_at
    if record.status is Status.FAILED:
        return now - record.updated_at >= policy.retry_failed
    return record.status is None


def renewal(record: Record, fresh: Record, *, pull_always: bool, policy: Policy) -> Record | None:
    """Return what a pod that needs the copy makes of the `record` that stands, or None where it stays as it is.

    `fresh` is the request that would be made now, were there no record.
    """
    now, by_digest = fresh.requested_at, fresh.by_digest
    renewed = is_renewed(record, now, by_digest=by_digest, pull_always=pull_always, policy=policy)
    return replace(fresh, digest=record.digest) if renewed else None


def asked_again(record: Record, now: int) -> Record | None:
    """Return what an operator's wish to have the copy made now makes of `record`, or None where it stays as it is.

    A FAILED copy is asked for anew. One that waits for its next attempt has it at once, and all others before it; it
    keeps `requested_at`, since when pods have waited for it.
    """
    if record.status is Status.FAILED:
        anew = replace(record, status=Status.REQUESTED, requested_at=now)
    elif record.status is Status.REQUESTED and (record.due_at or 0) > now:
        anew = record
    else:
        return None
    return replace(anew, attempts=0, waits=0, error=None, updated_at=now, due_at=now)
