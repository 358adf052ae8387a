"""Mistakes made on purpose, most of which lose copies. The simulation must find them, or its success proves nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import expiry, lifecycle, recorder, slots
from image_mirror import record as record_module
from image_mirror.aws_errors import DelayedError
from image_mirror.record import HOUR, Build, Lane, Policy, Record, Status
from image_mirror.recorder import KnownRecords, Recorder
from image_mirror.state_item import StateItem
from image_mirror.table import Records
from simulation.fleet import Fleet
from simulation.functions import ReconcilerInstance, Services, WebhookInstance
from simulation.table import DynamoDB


@contextmanager
def starting_the_build_before_the_put() -> Iterator[None]:
    """The webhook starts the build first, and then writes a record that says that the build has started.

    The next pod would repair a record that is never due, and that would hide the mistake.
    """
    with (
        _starting_in_the_webhook(lambda record: replace(record, due_at=None)),
        patch.object(recorder, "repaired", lambda record, *_: record),
    ):
        yield


@contextmanager
def starting_before_the_put_and_following_all_the_same() -> Iterator[None]:
    """The same order, but the record is due, so that the only effect of the mistake is builds that start twice."""
    with _starting_in_the_webhook(lambda record: record):
        yield


@contextmanager
def putting_without_stream_and_schedule() -> Iterator[None]:
    """The record is written, and nothing reads it afterwards."""
    with (
        patch("simulation.stream.Stream.changed", lambda *_: None),
        patch.object(Fleet, "_tick", lambda _: None),
    ):
        yield


@contextmanager
def forgetting_due_on_a_retry() -> Iterator[None]:
    """A refused copy backs off, but the record does not say until when."""
    refused = lifecycle.refused

    def without_due(record: Record, reason: str, now: int) -> Record:
        return replace(refused(record, reason, now), due_at=None)

    with patch.object(lifecycle, "refused", without_due):
        yield


@contextmanager
def charging_waits_as_attempts() -> Iterator[None]:
    """A build that failed because of the network, AWS or a rate limit counts as refused by the source."""
    with patch.object(lifecycle, "delayed", lifecycle.refused):
        yield


@contextmanager
def failing_a_refresh_for_good() -> Iterator[None]:
    """After the fifth failed attempt of a refresh the existing copy counts as FAILED too."""
    refused = lifecycle.refused

    def refused_at_once(record: Record, reason: str, now: int) -> Record:
        return replace(refused(replace(record, digest=None), reason, now), digest=record.digest)

    with patch.object(lifecycle, "refused", refused_at_once):
        yield


@contextmanager
def leaving_images_unchanged_during_a_refresh() -> Iterator[None]:
    """Pods are not sent to an existing copy while it is refreshed."""
    is_active = property(lambda record: record.digest is None or record.status is Status.COPIED)
    with patch.object(Record, "is_active", is_active):
        yield


@contextmanager
def keeping_the_record_of_a_deleted_copy() -> Iterator[None]:
    """A copy that ECR no longer holds keeps its record."""

    def without_removal(decide: Callable[..., lifecycle.NextStep]) -> Callable[..., lifecycle.NextStep]:
        def decided(record: Record, held: str | None, now: int, policy: Policy) -> lifecycle.NextStep:
            step = decide(record, held, now, policy)
            if step is lifecycle.Step.REMOVE:
                return lifecycle.Save(replace(record, updated_at=now, due_at=now + policy.verify))
            return step

        return decided

    with (
        patch("image_mirror.reconciler.verified", without_removal(lifecycle.verified)),
        patch("image_mirror.reconciler.after_push_event", without_removal(lifecycle.after_push_event)),
    ):
        yield


@contextmanager
def expiring_by_the_push_alone() -> Iterator[None]:
    """A copy expires so many days after its push, as by ECR's lifecycle rules."""
    with patch.object(expiry, "last_use", lambda image: int(image["imagePushedAt"].timestamp() * 1000)):
        yield


@contextmanager
def believing_the_times_of_pulls() -> Iterator[None]:
    """A pull counts as of the time that ECR has recorded, although later ones of the same day are not recorded."""
    with patch.object(expiry, "DAY", 0):
        yield


@contextmanager
def tokens_that_differ_by_call() -> Iterator[None]:
    """Each call of StartBuild has a new token, so that CodeBuild cannot recognise a repeated call."""
    numbers = iter(range(10**9))
    with patch("image_mirror.codebuild.idempotency_token", lambda _: f"{next(numbers):064}"):
        yield


@contextmanager
def writes_that_ask_for_nothing() -> Iterator[None]:
    """A step is written even if the record has changed meanwhile."""

    def anything(_: Record) -> tuple[str, dict[str, str], dict[str, Any]]:
        return "attribute_not_exists(#repo) OR attribute_exists(#repo)", {"#repo": "repo"}, {}

    with patch("image_mirror.table._still", anything):
        yield


@contextmanager
def putting_without_a_condition() -> Iterator[None]:
    """The webhook's put replaces any existing item."""
    put = DynamoDB.put_item

    def put_anyway(self: DynamoDB, **request: Any) -> dict[str, Any]:
        request.pop("ConditionExpression", None)
        return put(self, **request)

    with patch.object(DynamoDB, "put_item", put_anyway):
        yield


@contextmanager
def never_giving_up() -> Iterator[None]:
    """GiveUpHours ends no request."""

    def forever(**times: Any) -> Policy:
        return Policy(**{**times, "give_up": 10**15})

    with patch("image_mirror.settings.Policy", forever):
        yield


@contextmanager
def as_many_builds_for_each_further_request() -> Iterator[None]:
    """A copy that has failed, and is requested again, gets as many attempts as the first time."""
    without_copy = lifecycle.without_copy

    def first_time(record: Record, build: Build, now: int, policy: Policy) -> Record:
        after = without_copy(replace(record, failures=0), build, now, policy)
        return replace(after, failures=record.failures + after.failures)

    with (
        patch.object(lifecycle, "without_copy", first_time),
        patch("image_mirror.reconciler.without_copy", first_time),
    ):
        yield


@contextmanager
def the_same_pause_after_each_failure() -> Iterator[None]:
    """The pause before a FAILED copy can be requested again does not double."""
    pause = record_module.retry_pause
    with patch.object(record_module, "retry_pause", lambda record, policy: pause(replace(record, failures=1), policy)):
        yield


@contextmanager
def the_short_pause_after_long_builds() -> Iterator[None]:
    """A copy that stalled can be requested again as early as one that its source refused."""
    with patch.object(record_module, "_LONG_BUILDS", ()):
        yield


@contextmanager
def no_waits_beyond_an_hour() -> Iterator[None]:
    """A copy that is delayed again and again is tried each hour."""
    with patch.object(lifecycle, "_LONG_WAITS", (HOUR,)):
        yield


@contextmanager
def as_many_new_images_as_a_pod_has() -> Iterator[None]:
    """MaxNewImages limits nothing."""
    make = Recorder.__init__

    def unlimited(self: Recorder, records: Records, policy: Policy, known: KnownRecords, _: int) -> None:
        make(self, records, policy, known, 10**9)

    with patch.object(Recorder, "__init__", unlimited):
        yield


@contextmanager
def no_share_of_a_namespace() -> Iterator[None]:
    """A namespace may have all builds."""
    limits = slots.limits

    def all_of_them(quota: int, runs: int) -> tuple[int, int]:
        most, _ = limits(quota, runs)
        return most, most

    with patch.object(slots, "limits", all_of_them), patch("image_mirror.reconciler.limits", all_of_them):
        yield


@contextmanager
def the_longest_due_first() -> Iterator[None]:
    """Builds are given out in the order in which copies are due, whoever has requested them."""
    choose = slots.choose

    def in_order(
        candidates: Sequence[slots.Waiting], of_lanes: Mapping[Lane, slots.Slots], turn: int
    ) -> tuple[list[tuple[slots.Waiting, Lane]], int]:
        of_one = {each.key: replace(each, namespace="") for each in candidates}
        all_one = {
            lane: replace(each, share=each.most, out={"": sum(each.out.values())}) for lane, each in of_lanes.items()
        }
        chosen, turn = choose(list(of_one.values()), all_one, turn)
        given = {each.key: each for each in candidates}
        return [(given[each.key], lane) for each, lane in chosen], turn

    with patch("image_mirror.reconciler.choose", in_order):
        yield


@contextmanager
def slots_that_are_not_reserved() -> Iterator[None]:
    """A run writes the state, whatever other runs have written meanwhile."""
    put = StateItem.write

    def put_anyway(
        self: StateItem, state: slots.State, read: slots.State | None = None, **_: Any
    ) -> slots.State | None:
        return put(self, state, read, anyway=True)

    with patch.object(StateItem, "write", put_anyway):
        yield


@contextmanager
def every_record_tries_a_refused_key() -> Iterator[None]:
    """Nobody remembers that builds could not log in to ECR."""
    with patch("image_mirror.reconciler.after_builds", lambda *_: None):
        yield


@contextmanager
def damage_that_stays() -> Iterator[None]:
    """No record is repaired."""

    def as_it_is(record: Record, *_: Any) -> Record:
        return record

    with patch("image_mirror.reconciler.repaired", as_it_is), patch.object(recorder, "repaired", as_it_is):
        yield


@contextmanager
def _starting_in_the_webhook(written: Callable[[Record], Record]) -> Iterator[None]:
    """Make the webhook start the build of each new image; `written` changes the record that it then puts."""

    class Starting(WebhookInstance):
        def __init__(self, services: Services) -> None:
            super().__init__(services)
            made = ReconcilerInstance(services).loaded
            self.repositories, self.builds = made._repositories, made._builds

    put = Records.create

    def create(self: Records, record: Record) -> Record:
        instance: Any = _world(self).threads.process.instance
        try:
            instance.repositories.ensure(record)
            build_id = instance.builds.start(record)
        except DelayedError:
            return put(self, record)
        return put(self, written(lifecycle.started(record, build_id, record.requested_at)))

    with patch("simulation.fleet.WebhookInstance", Starting), patch.object(Records, "create", create):
        yield


def _world(records: Records) -> Any:
    client: Any = records._client
    return client.world
