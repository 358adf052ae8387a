"""Mistakes that lose copies, made on purpose: what the simulation must find, or its silence would mean nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import lifecycle
from image_mirror.global_account import DelayedError
from image_mirror.record import Record
from image_mirror.records import Records
from simulation.fleet import Fleet
from simulation.functions import ReconcilerInstance, Services, WebhookInstance
from simulation.table import DynamoDB


@contextmanager
def starting_the_build_before_the_put() -> Iterator[None]:
    """The webhook starts the build itself, and the record then says that it was started, not that it is to be done."""

    class Starting(WebhookInstance):
        def __init__(self, services: Services) -> None:
            super().__init__(services)
            self.copies = ReconcilerInstance(services).loaded[1]._copies

    put = Records.create

    def create(self: Records, record: Record) -> Record:
        instance: Any = _world(self).threads.process.instance
        try:
            build_id = instance.copies.start(record)
        except DelayedError:
            return put(self, record)
        return put(self, replace(lifecycle.started(record, build_id, record.requested_at), due_at=None))

    with patch("simulation.fleet.WebhookInstance", Starting), patch.object(Records, "create", create):
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
def tokens_that_differ_by_call() -> Iterator[None]:
    """StartBuild cannot tell a repeated call from a new one."""
    numbers = iter(range(10**9))
    with patch("image_mirror.copies.idempotency_token", lambda _: f"{next(numbers):064}"):
        yield


@contextmanager
def writes_that_ask_for_nothing() -> Iterator[None]:
    """A step is written whatever has become of the record meanwhile."""

    def anything(_: Record) -> tuple[str, dict[str, str], dict[str, Any]]:
        return "attribute_not_exists(#repo) OR attribute_exists(#repo)", {"#repo": "repo"}, {}

    with patch("image_mirror.records._still", anything):
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


def _world(records: Records) -> Any:
    client: Any = records._client
    return client.world
