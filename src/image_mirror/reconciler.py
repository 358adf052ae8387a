"""The reconciler: the Lambda function that takes each record to its copy.

A trigger only says when to check, and which record. The item in the table says what to do. So triggers can be late,
repeated, out of order or lost, and two invocations can overlap. For each record, one step is done and its result is
written.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, Protocol, TypeVar, assert_never

from aws_lambda_powertools import Logger

from image_mirror.aws import CallLimits, connect
from image_mirror.aws_errors import DelayedError
from image_mirror.codebuild import MOST_BUILDS, Builds
from image_mirror.counts import Counts
from image_mirror.ecr import Repositories
from image_mirror.expiry import Details, has_expired, last_use
from image_mirror.global_access import GlobalAccount
from image_mirror.lifecycle import (
    NextStep,
    Save,
    Step,
    after_push_event,
    delayed,
    key_refused,
    lookup_failed,
    next_step,
    not_served,
    of_change,
    started,
    verified,
    without_copy,
)
from image_mirror.metrics import Metric
from image_mirror.record import Build, Record
from image_mirror.reference import source_of
from image_mirror.repair import DAMAGED, REFUSED, latest_due, repaired
from image_mirror.settings import Settings
from image_mirror.table import Records, UnusableRecordError

PARALLEL = 8
RESERVE = 45.0  # seconds: enough for two calls that time out twice each; records that are not reached stay due
_LIMITS = CallLimits(connect=3.0, read=7.0, attempts=2, connections=PARALLEL)
_CHUNK = 100
_logger = Logger(service="reconciler")

Key = tuple[str, str]
Subject = TypeVar("Subject")


class Context(Protocol):
    """The part of Lambda's context that is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how much longer the function may run."""


class Invocation:
    """One invocation: its time limit, whether CodeBuild has no capacity, and its counts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.no_capacity = False
        self.counts = Counts()

    @property
    def over(self) -> bool:
        """Whether the remaining records have to wait for the next invocation."""
        return self._context.get_remaining_time_in_millis() / 1000 < RESERVE


class Reconciler:
    """Takes records to their next state. Two can run at once, because a write fails if the record has changed."""

    def __init__(
        self,
        records: Records,
        builds: Builds,
        repositories: Repositories,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        """`clock` returns seconds since the epoch."""
        self._records = records
        self._builds = builds
        self._repositories = repositories
        self._policy = settings.policy
        self._mirror = settings.mirror
        self._clock = clock
        # The records that waited for capacity, each with its due_at at that time. Any step changes due_at.
        self._waiting: dict[Key, int | None] = {}

    def may_skip(self, key: Key, due_at: int, invocation: Invocation) -> bool:
        """Return whether a record is not read in this invocation: it waits for capacity, and CodeBuild has none."""
        return invocation.no_capacity and self._waiting.get(key) == due_at

    def advance(self, keys: Sequence[Key], invocation: Invocation) -> list[Key]:
        """Do one step for each record; running builds are looked up together. Return the keys that failed.

        Records for which there is no time or no capacity stay unchanged and due.
        """
        with ThreadPoolExecutor(PARALLEL) as threads:

            def each(function: Callable[[Subject], None], subjects: Sequence[Subject]) -> list[Subject]:
                errors = threads.map(
                    lambda subject: None if invocation.over else _attempt(function, subject, invocation), subjects
                )
                return [subject for subject, error in zip(subjects, errors, strict=True) if error is not None]

            building: list[Record] = []
            failed = each(lambda key: self._look(key, invocation, building), keys)
            builds = self._inspect(building, invocation)
            concluded = each(lambda record: self._conclude(record, builds, invocation), building)
            return failed + [(record.repo, record.tag) for record in concluded]

    def check_pushed(self, repository: str, tag: str, invocation: Invocation) -> None:
        """Look up the tag that an ECR event named, and update its record, if there is one."""
        repo = f"{self._mirror.registry}/{repository}"
        record = self._records.get(repo, tag) if self._mirror.serves(repo) else None
        record = record and self._in_order(record, invocation)
        if record is not None:
            self._write(
                record, after_push_event(record, self._repositories.held(record), self._now(), self._policy), invocation
            )

    def _look(self, key: Key, invocation: Invocation, building: list[Record]) -> None:
        """Do the record's step; if its build must be looked up first, add it to `building`."""
        record = self._records.get(*key)
        self._waiting.pop(key, None)
        if record is None:
            return
        if not self._mirror.serves(record.repo):
            # From before a change of the parameters for the prefix or registry. It is neither used nor deleted.
            if record.due_at is not None and not self._now() < record.due_at <= self.latest_due():
                _logger.warning("not served", extra={"copy": record.destination})
                self._write(record, Save(not_served(record, self._now(), self._policy)), invocation)
            return
        record = self._in_order(record, invocation)
        if record is None:
            return
        if next_step(record, None, self._now(), self._policy) is Step.INSPECT:
            building.append(record)
        else:
            self._take(record, None, invocation)

    def _in_order(self, record: Record, invocation: Invocation) -> Record | None:
        """Return the record after its repair, if it needs one; None if it has changed meanwhile.

        The repair is written before the step: no build is started for a record whose writes the table refuses.
        """
        source = source_of(record.repo, record.tag, self._mirror.registry, self._mirror.prefix)
        sound = repaired(record, source, self._now(), self._policy)
        if sound is record:
            return record
        if not self._replace(record, sound, invocation):
            return None
        _count_repair(sound, DAMAGED, invocation)
        return sound

    def _replace(self, before: Record, after: Record, invocation: Invocation) -> bool:
        """Return whether `after` was written in place of `before`. Raises UnusableRecordError."""
        found = self._records.replace(before, after)
        if found is after or found != before or (found.raw is None and found == after):
            return found is after
        _count_repair(before, REFUSED, invocation)
        again = self._records.replace(found, after)
        if again is not after and again == before:
            raise UnusableRecordError(f"{before.destination}: {REFUSED}")
        return again is after

    def _remove(self, before: Record, invocation: Invocation) -> bool:
        """Return whether `before` was removed. Raises UnusableRecordError."""
        if self._records.remove(before):
            return True
        found = self._records.get(before.repo, before.tag)
        if found is None or found != before:
            return False
        _count_repair(before, REFUSED, invocation)
        if self._records.remove(found):
            return True
        if self._records.get(before.repo, before.tag) == before:
            raise UnusableRecordError(f"{before.destination}: {REFUSED}")
        return False

    def _inspect(self, building: Sequence[Record], invocation: Invocation) -> dict[str, Build | DelayedError]:
        """Return the state of each build, or the error if CodeBuild does not answer."""
        ids = list(dict.fromkeys(record.build_id for record in building if record.build_id))
        builds: dict[str, Build | DelayedError] = {}
        for start in range(0, 0 if invocation.over else len(ids), MOST_BUILDS):
            some = ids[start : start + MOST_BUILDS]
            try:
                builds |= self._builds.look_up(some)
            except DelayedError as error:
                _logger.warning("builds not looked up", extra={"reason": str(error)})
                builds |= dict.fromkeys(some, error)
        return builds

    def _conclude(self, record: Record, builds: Mapping[str, Build | DelayedError], invocation: Invocation) -> None:
        build = builds.get(record.build_id or "")
        if isinstance(build, DelayedError):
            after = lookup_failed(record, str(build), self._now(), self._policy, key=build.key)
            self._write(record, Save(after), invocation, _wait(build))
        elif build is not None:
            self._take(record, build, invocation)

    def _take(self, record: Record, build: Build | None, invocation: Invocation) -> None:
        """Do the record's next step, and write the result."""
        step, wait, looked = next_step(record, build, self._now(), self._policy), _wait(build), False
        match step:
            case Step.START:
                if invocation.no_capacity:
                    self._waiting[record.repo, record.tag] = record.due_at
                    return
                try:
                    self._repositories.ensure(record)
                    build_id = self._builds.start(record)
                except DelayedError as error:
                    invocation.no_capacity = invocation.no_capacity or error.no_capacity
                    soon, wait = error.no_capacity or error.uncertain, _wait(error)
                    if error.key:
                        after = key_refused(record, str(error), self._now())
                    elif error.refusal is None:
                        after = delayed(record, str(error), self._now(), soon=soon)
                    else:
                        after = without_copy(record, Build(error.refusal, str(error)), self._now(), self._policy)
                    step = Save(after)
                else:
                    step = Save(started(record, build_id, self._now()))
            case Step.VERIFY:
                image = self._repositories.image(record)
                held, now = None if image is None else image["imageDigest"], self._now()
                step = verified(record, held, now, self._policy, build)
                if image is not None and step is not Step.REMOVE and has_expired(record, image, now, self._policy):
                    self._expire(record, image, now - self._policy.expire, invocation)
                    return
                looked = True
            case Save() | Step.WAIT | Step.INSPECT | Step.REMOVE:
                pass
            case _:
                assert_never(step)
        self._write(record, step, invocation, wait)
        if looked:
            # After the write: a refused call must not keep the record due. Each VerifyHours it is made again.
            self._repositories.remove_released_policy(record)

    def _expire(self, record: Record, image: Details, since: int, invocation: Invocation) -> None:
        """Remove the record of a copy that nobody has used since `since`, then the copy.

        In this order no pod is sent to a copy that is known to be gone. After a crash in between, the copy stays in ECR
        without a record: the next pod requests it, and the build finds it there; or `image-mirror prune` shows it.
        """
        if not self._remove(record, invocation):
            return
        invocation.counts.add(Metric.COPIES_EXPIRED)
        _logger.info(
            "record changed",
            extra={
                "image": record.source,
                "copy": record.destination,
                "before": record.status,
                "after": "expired",
                "reason": f"not used since {datetime.fromtimestamp(last_use(image) / 1000, UTC):%Y-%m-%d}",
                "build": record.build_id,
            },
        )
        self._repositories.delete(record, image, since, lambda: not invocation.over)

    def _write(self, record: Record, step: NextStep, invocation: Invocation, wait: Metric = Metric.WAITS) -> None:
        """Write the result of the step, and count it if it was written; `wait` is the metric of a delay."""
        after: Record | None
        match step:
            case Save(record=after):
                if not self._replace(record, after, invocation):
                    return
            case Step.REMOVE:
                after = None
                if not self._remove(record, invocation):
                    return
            case Step.WAIT | Step.START | Step.INSPECT | Step.VERIFY:
                return
            case _:
                assert_never(step)
        for metric, value in of_change(record, after, wait).items():
            invocation.counts.add(metric, value)
        if after is None or after.status is not record.status:
            _logger.info(
                "record changed",
                extra={
                    "image": record.source,
                    "copy": record.destination,
                    "before": record.status,
                    "after": after.status if after else "gone from ECR",
                    "reason": after.error if after else None,
                    "build": after.build_id if after else record.build_id,
                },
            )

    def latest_due(self) -> int:
        """Return the latest time at which a record can be due, in milliseconds."""
        return latest_due(self._now(), self._policy)

    def _now(self) -> int:
        return int(self._clock() * 1000)


@cache
def load() -> tuple[Records, Reconciler]:
    """Make the reconciler from the function's environment, once. Raises SettingsError."""
    settings = Settings.from_env(os.environ)
    records = Records(connect("dynamodb", _LIMITS), settings.table)
    account = GlobalAccount(
        connect("secretsmanager", _LIMITS),
        settings.secret,
        lambda key: connect("codebuild", _LIMITS, key),
        time.monotonic,
    )
    reconciler = Reconciler(
        records,
        Builds(account, settings.project),
        Repositories(connect("ecr", _LIMITS), settings),
        settings,
        time.time,
    )
    return records, reconciler


def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Handle a batch of the table's stream, an ECR event, or (any other event) the schedule, each minute.

    Returns `batchItemFailures`, by sequence number, for a stream; Lambda reads it.
    """
    records, reconciler = load()
    invocation = Invocation(context)
    try:
        if "Records" in event:
            return read_stream(event, reconciler, invocation)
        if event.get("source") == "aws.ecr":
            detail = event["detail"]
            if detail.get("result") == "SUCCESS" and detail.get("image-tag"):
                reconciler.check_pushed(detail["repository-name"], detail["image-tag"], invocation)
        else:
            check_due(records, reconciler, invocation)
        return {}
    finally:
        invocation.counts.publish()


def read_stream(event: Mapping[str, Any], reconciler: Reconciler, invocation: Invocation) -> dict[str, Any]:
    """Handle each key of a batch once. Return the sequence numbers of the keys that failed."""
    numbers: dict[Key, list[str]] = {}
    for entry in event["Records"]:
        change = entry["dynamodb"]
        keys = change["Keys"]
        numbers.setdefault((keys["repo"]["S"], keys["tag"]["S"]), []).append(change["SequenceNumber"])
        if _asks(change.get("NewImage", {})):
            invocation.counts.add(Metric.COPIES_REQUESTED)
    failed = reconciler.advance(list(numbers), invocation)
    return {"batchItemFailures": [{"itemIdentifier": number} for key in failed for number in numbers[key]]}


def check_due(records: Records, reconciler: Reconciler, invocation: Invocation) -> None:
    """Do one step for each due record, the oldest first, until the time limit.

    A record that is due too late was changed by hand. It would not be looked at for as long, so that is done first.
    """
    late = islice(records.due_after(reconciler.latest_due()), _CHUNK)
    reconciler.advance([(repo, tag) for repo, tag, _ in late], invocation)
    now = int(time.time() * 1000)
    due = records.due(now)
    some = list(islice(due, _CHUNK))
    # Also if nothing is due: the alarm on the oldest record needs a value each minute.
    invocation.counts.add(Metric.OLDEST_DUE, max(0, now - some[0][2]) / 1000 if some else 0)
    while True:
        invocation.counts.add(Metric.DUE, len(some))
        if not some or invocation.over:
            return
        keys = [(repo, tag) for repo, tag, due_at in some if not reconciler.may_skip((repo, tag), due_at, invocation)]
        reconciler.advance(keys, invocation)
        some = list(islice(due, _CHUNK))


def _asks(item: Mapping[str, Any]) -> bool:
    """Return whether an item in the stream requests a copy. A delay writes REQUESTED too, but later."""
    none = {"N": "0"}
    is_fresh = item.get("requested_at") is not None and item["requested_at"] == item.get("updated_at")
    return is_fresh and item.get("attempts") == none and item.get("waits") == none


def _count_repair(record: Record, reason: str, invocation: Invocation) -> None:
    invocation.counts.add(Metric.RECORDS_REPAIRED)
    _logger.warning("record repaired", extra={"copy": record.destination, "reason": reason})


def _wait(cause: DelayedError | Build | None) -> Metric:
    """Return the metric of a wait with this cause."""
    if cause is not None and (cause.key or (isinstance(cause, Build) and cause.code == "AUTH_FILE")):
        return Metric.KEY_REFUSED
    return Metric.BUSY if isinstance(cause, DelayedError) and cause.no_capacity else Metric.WAITS


def _attempt(function: Callable[[Subject], None], subject: Subject, invocation: Invocation) -> Exception | None:
    """Call `function`. The failure of one record must not stop the others."""
    try:
        function(subject)
    except Exception as error:
        invocation.counts.add(Metric.STEP_ERRORS)
        _logger.exception("step failed", extra={"record": str(subject)[:500]})
        return error
    return None
