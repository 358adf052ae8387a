"""Mistakes made on purpose, most of which lose copies. The simulation must find them, or its success proves nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import expiry, lifecycle, recorder
from image_mirror.aws_errors import DelayedError
from image_mirror.record import Policy, Record, Status
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
