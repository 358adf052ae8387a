"""Records what a pod was promised, before it is promised: all images of one pod in one parallel round trip."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import monotonic

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import Demand
from image_mirror.record import Policy, Record, Status, is_renewed, renewal, request
from image_mirror.reference import Home
from image_mirror.table import Records

_KNOWN_FOR = 60_000  # milliseconds
_MOST_KNOWN = 10_000  # records of about 1 kB each
_PARALLEL = 32
_MOST_RACES = 3


class NotRecordedError(Exception):
    """Not every image could be recorded in time; nothing may be promised."""


class KnownRecords:
    """Records seen in the last 60 seconds, at most `size` of them; never a FAILED one, which a pod may revive."""

    def __init__(self, size: int = _MOST_KNOWN) -> None:
        """Start empty."""
        self._size = size
        self._entries: OrderedDict[Home, tuple[int, Record]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the records held, whatever their age."""
        return len(self._entries)

    def get(self, home: Home, now: int) -> Record | None:
        """Return the record seen less than 60 seconds before `now`, if there is one."""
        with self._lock:
            seen_at, record = self._entries.get(home, (0, None))
        return record if now - seen_at < _KNOWN_FOR else None

    def put(self, home: Home, record: Record, now: int) -> None:
        """Remember `record`; the one seen longest ago leaves where there is no room."""
        with self._lock:
            self._entries.pop(home, None)
            if record.status is not Status.FAILED:
                self._entries[home] = (now, record)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)


class Promises:
    """Finds or makes the record of each copy that a pod needs."""

    def __init__(self, records: Records, policy: Policy, known: KnownRecords) -> None:
        """Take the table, how long things last, and what is known already."""
        self._records = records
        self._policy = policy
        self._known = known
        self._threads = ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="record")

    def make(self, demands: Sequence[Demand], *, now: int, seconds: float, dry_run: bool) -> dict[Home, Record]:
        """Return the record that stands for each demand, within `seconds`. `now` is in milliseconds since the epoch.

        A copy nobody has asked for is recorded; a record that this pod renews is renewed. With `dry_run` both are
        returned as they would be, and nothing is written. What is recorded in time is remembered, so that the API
        server's next attempt finds less to do. Raises NotRecordedError.
        """
        deadline = monotonic() + seconds
        standing: dict[Home, Record] = {}
        step = self._foresee if dry_run else self._record
        pending: dict[Future[Record], Home] = {}
        unasked = 0
        for demand in demands:
            home = demand.copy.home
            record = self._known.get(home, now)
            if record is not None and not self._is_renewed(record, demand, now):
                standing[home] = record
            elif monotonic() < deadline:
                fresh = request(home, demand.copy.source, now)
                pending[self._threads.submit(step, demand, fresh, record)] = home
            else:  # what has been asked for is still to be awaited or called off
                unasked += 1
        if not pending and not unasked:
            return standing
        done, late = wait(pending, timeout=max(0.0, deadline - monotonic()))
        for future in late:
            future.cancel()
        for future in done:
            if future.exception() is None:
                standing[pending[future]] = future.result()
                if not dry_run:
                    self._known.put(pending[future], future.result(), now)
        for future in done:
            try:
                future.result()
            except (ClientError, BotoCoreError) as error:
                raise NotRecordedError(f"the table refused a record: {type(error).__name__}: {error}") from error
        if late or unasked:
            count = len(late) + unasked
            raise NotRecordedError(
                f"{count} of {len(pending) + unasked} records were not written within {seconds:.2f} s"
            )
        return standing

    def _is_renewed(self, record: Record, demand: Demand, now: int) -> bool:
        by_digest = demand.copy.home.digest is not None
        return is_renewed(record, now, by_digest=by_digest, pull_always=demand.pull_always, policy=self._policy)

    def _renew(self, record: Record, fresh: Record, demand: Demand) -> Record | None:
        return renewal(record, fresh, pull_always=demand.pull_always, policy=self._policy)

    def _record(self, demand: Demand, fresh: Record, known: Record | None) -> Record:
        """Create or renew the record until one stands that needs neither; a round trip for each, mostly one in all."""
        record = known
        for _ in range(_MOST_RACES):
            if record is None:
                record = self._records.create(fresh)
            renewed = self._renew(record, fresh, demand)
            if renewed is None:
                return record
            record = self._records.replace(record, renewed)
        raise NotRecordedError(
            f"the record of {fresh.push_target} changed at each of {_MOST_RACES} attempts to renew it"
        )

    def _foresee(self, demand: Demand, fresh: Record, known: Record | None) -> Record:
        record = known or self._records.get(fresh.repo, fresh.tag) or fresh
        return self._renew(record, fresh, demand) or record
