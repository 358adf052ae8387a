"""Records the copies that a pod needs, before the pod is changed: all images of one pod in one parallel round trip.

A pod may name thousands of images, so the number of its records is limited: the first of them are written, some more
are only read, and no call is made for the rest.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from time import monotonic

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import CopyRequest
from image_mirror.metrics import Metric
from image_mirror.record import MINUTE, Missing, Policy, Record, Status, needs_renewal, new_record, renew
from image_mirror.reference import Destination
from image_mirror.repair import DAMAGED, REFUSED, repaired
from image_mirror.table import STATE_REPO, Records, UnusableRecordError

_KNOWN_FOR = MINUTE
_MOST_KNOWN = 10_000  # records of about 1 kB each
_PARALLEL = 32
_MOST_READ = 200  # images of one pod whose records are only read
_MOST_RACES = 3

Report = Callable[[Metric, str, str], None]
"""Is told of a damaged record: the metric that counts it, the copy's name and the reason. Called by several threads."""


class NotRecordedError(Exception):
    """An image could not be recorded in time, so the pod must not be changed."""


class KnownRecords:
    """Records seen in the last 60 seconds, at most `size`; no FAILED ones, because a pod may request those again."""

    def __init__(self, size: int = _MOST_KNOWN) -> None:
        """Start empty."""
        self._size = size
        self._entries: OrderedDict[Destination, tuple[int, Record]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of records, of any age."""
        return len(self._entries)

    def get(self, destination: Destination, now: int) -> Record | None:
        """Return the record seen less than 60 seconds before `now`, if there is one."""
        with self._lock:
            seen_at, record = self._entries.get(destination, (0, None))
        return record if now - seen_at < _KNOWN_FOR else None

    def put(self, destination: Destination, record: Record, now: int) -> None:
        """Remember `record`. If there are too many, the one seen longest ago is dropped."""
        with self._lock:
            self._entries.pop(destination, None)
            if record.status is not Status.FAILED:
                self._entries[destination] = (now, record)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)


class Recorder:
    """Finds or creates the record of each copy that a pod needs."""

    def __init__(
        self,
        records: Records,
        policy: Policy,
        known: KnownRecords,
        max_new: int,
        report: Report = lambda *_: None,
    ) -> None:
        """Take the table, the times, the records known so far, how many records one call may write, and what is told
        about damaged records."""
        self._records = records
        self._policy = policy
        self._known = known
        self._max_new = max_new
        self._report = report
        self._threads = ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="record")

    def open_connection(self, seconds: float) -> None:
        """Read an item that is never there, within `seconds`, so that the next call finds its connection and thread.

        Raises ClientError, BotoCoreError, TimeoutError.
        """
        # In a thread, because a client's limits do not bound everything: a name server may not answer for longer.
        self._threads.submit(self._records.get, STATE_REPO, "none").result(seconds)

    def record(
        self,
        copy_requests: Sequence[CopyRequest],
        *,
        now: int,
        seconds: float,
        dry_run: bool,
        requested_by: str | None = None,
        placed: int = 0,
    ) -> dict[Destination, Record | Missing]:
        """Return the records of the copies that the pod can use, within `seconds`. `now` is milliseconds since 1970.

        A copy without a record gets one. If this pod requests a copy again, its record is renewed. Both say that the
        request is `requested_by` this pod, None for an operator. A damaged record is repaired; if the table refuses
        that, the result has UNUSABLE for this copy. With `dry_run` the records are returned but not written. Records
        that were written or found in time are remembered, so the API server's next attempt has less to do.

        Of the copies that are not known, the first `max_new` are handled like this. The records of the next 200 are
        only read, and a copy is left out of the result if nobody is making it. All others are left out.
        `placed` is the number of copies that an earlier call for this pod has already put into it. They count like new
        ones, and so do known records that this pod has requested within the last minute. So an API server that calls
        again for one pod does not get more records for it.

        Raises NotRecordedError.
        """
        deadline = monotonic() + seconds
        existing: dict[Destination, Record | Missing] = {}
        unknown: list[tuple[CopyRequest, Record | None]] = []
        for request in copy_requests:
            record = self._known.get(request.copy.destination, now)
            if record is not None and not self._needs_renewal(record, request, now):
                existing[request.copy.destination] = record
                placed += record.requested_by == requested_by and now - record.requested_at < _KNOWN_FOR
            else:
                unknown.append((request, record))
        room = max(0, self._max_new - placed)
        step = self._without_writing if dry_run else self._record
        calls: list[tuple[Destination, Callable[[], Record | None]]] = []
        for request, record in unknown[:room]:
            fresh = new_record(request.copy.destination, request.copy.source, now, requested_by)
            calls.append((request.copy.destination, partial(step, request, fresh, record)))
        unread: list[CopyRequest] = []
        for request, record in unknown[room:]:
            if record is None:
                unread.append(request)
            else:  # its refresh is due, and it stays in use without
                existing[request.copy.destination] = record
        calls += [(request.copy.destination, partial(self._read, request, now)) for request in unread[:_MOST_READ]]
        return existing | self._answers(calls, deadline, seconds, now, remember=not dry_run)

    def existing(
        self, copy_requests: Sequence[CopyRequest], *, now: int, seconds: float
    ) -> dict[Destination, Record | Missing]:
        """Return the records that these copies have, within `seconds`; ABSENT if there is none. Writes nothing.

        A damaged record is returned as its repair would leave it. Of the copies that are not known, as many are read as
        `record` writes and reads; all others are left out. Raises NotRecordedError.
        """
        deadline = monotonic() + seconds
        found: dict[Destination, Record | Missing] = {}
        unread: list[CopyRequest] = []
        for request in copy_requests:
            record = self._known.get(request.copy.destination, now)
            if record is None:
                unread.append(request)
            else:
                found[request.copy.destination] = record
        unread = unread[: self._max_new + _MOST_READ]
        calls = [(request.copy.destination, partial(self._existing, request, now)) for request in unread]
        found |= {request.copy.destination: Missing.ABSENT for request in unread}
        return found | self._answers(calls, deadline, seconds, now, remember=False)

    def _answers(
        self,
        calls: Sequence[tuple[Destination, Callable[[], Record | None]]],
        deadline: float,
        seconds: float,
        now: int,
        *,
        remember: bool,
    ) -> dict[Destination, Record | Missing]:
        """Make the calls at the same time, and return their records; UNUSABLE for one that cannot be used.

        Raises NotRecordedError.
        """
        answered: dict[Destination, Record | Missing] = {}
        pending: dict[Future[Record | None], Destination] = {}
        not_submitted = 0
        for destination, call in calls:
            if monotonic() < deadline:
                pending[self._threads.submit(call)] = destination
            else:  # the submitted calls must still be waited for or cancelled
                not_submitted += 1
        if not pending and not not_submitted:
            return answered
        done, late = wait(pending, timeout=max(0.0, deadline - monotonic()))
        for future in late:
            future.cancel()
        for future in done:
            if future.exception() is None and (record := future.result()) is not None:
                answered[pending[future]] = record
                if remember:
                    self._known.put(pending[future], record, now)
        for future in done:
            try:
                future.result()
            except UnusableRecordError as error:
                answered[pending[future]] = Missing.UNUSABLE
                self._report(Metric.RECORDS_UNUSABLE, pending[future].by_tag, str(error))
            except (ClientError, BotoCoreError) as error:
                raise NotRecordedError(f"the table refused a record: {type(error).__name__}: {error}") from error
        if late or not_submitted:
            count = len(late) + not_submitted
            raise NotRecordedError(
                f"{count} of {len(pending) + not_submitted} records were not written or read within {seconds:.2f} s"
            )
        return answered

    def _needs_renewal(self, record: Record, request: CopyRequest, now: int) -> bool:
        by_digest = request.copy.destination.digest is not None
        return needs_renewal(record, now, by_digest=by_digest, pull_always=request.pull_always, policy=self._policy)

    def _renew(self, record: Record, fresh: Record, request: CopyRequest) -> Record | None:
        return renew(record, fresh, pull_always=request.pull_always, policy=self._policy)

    def _record(self, request: CopyRequest, fresh: Record, known: Record | None) -> Record:
        """Create the record, or renew it if needed: usually in one round trip, more if another writer is faster."""
        record, reason = known, ""
        for _ in range(_MOST_RACES):
            if record is None:
                record = self._records.create(fresh)
                if record is fresh:
                    return fresh
            before, sound = record, repaired(record, fresh.source, fresh.requested_at, self._policy)
            after = self._renew(sound, fresh, request) or sound
            if after is before:
                return before
            record = self._records.replace(before, after)
            if record is after:
                if reason or sound is not before:
                    self._report(Metric.RECORDS_REPAIRED, after.destination, reason or DAMAGED)
                return after
            if record == before:
                reason = REFUSED
        if reason:
            raise UnusableRecordError(f"{fresh.destination}: {reason}")
        raise NotRecordedError(
            f"the record of {fresh.destination} changed at each of {_MOST_RACES} attempts to renew it"
        )

    def _without_writing(self, request: CopyRequest, fresh: Record, known: Record | None) -> Record:
        record = known or self._records.get(fresh.repo, fresh.tag) or fresh
        sound = repaired(record, fresh.source, fresh.requested_at, self._policy)
        return self._renew(sound, fresh, request) or sound

    def _existing(self, request: CopyRequest, now: int) -> Record | None:
        record = self._records.get(request.copy.destination.repo, request.copy.destination.tag)
        if record is None:
            return None
        sound = repaired(record, str(request.copy.source.pinned), now, self._policy)
        if sound is record:  # `record` would believe what is remembered, and not repair it
            self._known.put(request.copy.destination, record, now)
        return sound

    def _read(self, request: CopyRequest, now: int) -> Record | None:
        """Return the record, or None if there is none, or if only a write, which is not made, would help."""
        record = self._records.get(request.copy.destination.repo, request.copy.destination.tag)
        if record is None or repaired(record, str(request.copy.source.pinned), now, self._policy) is not record:
            return None
        if record.status is not Status.COPIED and self._needs_renewal(record, request, now):
            return None
        return record
