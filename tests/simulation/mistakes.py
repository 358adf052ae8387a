"""Mistakes that lose copies, made on purpose: what the simulation must find, or its silence would mean nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import lifecycle
from image_mirror.aws_errors import DelayedError
from image_mirror.record import Policy, Record, Status
from image_mirror.table import Records
from simulation.fleet import Fleet
from simulation.functions import ReconcilerInstance, Services, WebhookInstance
from simulation.table import DynamoDB


@contextmanager
def starting_the_build_before_the_put() -> Iterator[None]:
    """The webhook starts the build, and the record says afterwards that it was started, not that it is to be done."""
    with _starting_in_the_webhook(lambda record: replace(record, due_at=None)):
        yield


@contextmanager
def starting_before_the_put_and_following_all_the_same() -> Iterator[None]:
    """The same order, but the record is due: all that is left of the mistake is what is started twice."""
    with _starting_in_the_webhook(lambda record: record):
        yield


@contextmanager
def putting_without_stream_and_schedule() -> Iterator[None]:
    """The record is written, and nothing looks at it afterwards."""
    with (
        patch("simulation.stream.Stream.changed", lambda *_: None),
        patch.object(Fleet, "_tick", lambda _: None),
    ):
        yield


@contextmanager
def forgetting_due_on_a_retry() -> Iterator[None]:
    """A refused copy backs off, but the record does not say until when."""
    refused = lifecycle.refused

    def forgetful(record: Record, reason: str, now: int) -> Record:
        return replace(refused(record, reason, now), due_at=None)

    with patch.object(lifecycle, "refused", forgetful):
        yield


@contextmanager
def charging_waits_as_attempts() -> Iterator[None]:
    """What the network, AWS or a rate limit did to a build counts as the source's refusal."""
    with patch.object(lifecycle, "delayed", lifecycle.refused):
        yield


@contextmanager
def failing_a_refresh_for_good() -> Iterator[None]:
    """The fifth attempt of a refresh ends the copy that is there as well."""
    refused = lifecycle.refused

    def unforgiving(record: Record, reason: str, now: int) -> Record:
        return replace(refused(replace(record, digest=None), reason, now), digest=record.digest)

    with patch.object(lifecycle, "refused", unforgiving):
        yield


@contextmanager
def leaving_pods_alone_while_a_refresh_runs() -> Iterator[None]:
    """Pods are sent to a copy that arrived only while nothing is done about it."""
    settled = property(lambda record: record.digest is None or record.status is Status.COPIED)
    with patch.object(Record, "is_active", settled):
        yield


@contextmanager
def believing_in_a_copy_for_ever() -> Iterator[None]:
    """A copy that ECR no longer holds keeps its record."""

    def faithful(decide: Callable[..., lifecycle.NextStep]) -> Callable[..., lifecycle.NextStep]:
        def decided(record: Record, held: str | None, now: int, policy: Policy) -> lifecycle.NextStep:
            step = decide(record, held, now, policy)
            if step is lifecycle.Step.REMOVE:
                return lifecycle.Save(replace(record, updated_at=now, due_at=now + policy.verify))
            return step

        return decided

    with (
        patch("image_mirror.reconciler.verified", faithful(lifecycle.verified)),
        patch("image_mirror.reconciler.after_push_event", faithful(lifecycle.after_push_event)),
    ):
        yield


@contextmanager
def tokens_that_differ_by_call() -> Iterator[None]:
    """StartBuild cannot tell a repeated call from a new one."""
    numbers = iter(range(10**9))
    with patch("image_mirror.codebuild.idempotency_token", lambda _: f"{next(numbers):064}"):
        yield


@contextmanager
def writes_that_ask_for_nothing() -> Iterator[None]:
    """A step is written whatever has become of the record meanwhile."""

    def anything(_: Record) -> tuple[str, dict[str, str], dict[str, Any]]:
        return "attribute_not_exists(#repo) OR attribute_exists(#repo)", {"#repo": "repo"}, {}

    with patch("image_mirror.table._still", anything):
        yield


@contextmanager
def putting_without_a_condition() -> Iterator[None]:
    """The webhook's put replaces whatever stands."""
    put = DynamoDB.put_item

    def put_anyway(self: DynamoDB, **request: Any) -> dict[str, Any]:
        condition = "attribute_not_exists(repo) OR attribute_exists(repo)"
        return put(self, **{**request, "ConditionExpression": condition})

    with patch.object(DynamoDB, "put_item", put_anyway):
        yield


@contextmanager
def _starting_in_the_webhook(written: Callable[[Record], Record]) -> Iterator[None]:
    """Have the webhook start each new image's build, and put what `written` makes of the record that says so."""

    class Starting(WebhookInstance):
        def __init__(self, services: Services) -> None:
            super().__init__(services)
            made = ReconcilerInstance(services).loaded[1]
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
