"""Mistakes about the two lanes, made on purpose. The simulation must find them, like those of mistakes.py."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import lanes, lifecycle, table
from image_mirror.build_result import UNKNOWN, read_build
from image_mirror.codebuild import Builds
from image_mirror.record import Build, BuildResult, Lane, Record, Status
from image_mirror.table import Records


@contextmanager
def claims_that_ask_for_nothing() -> Iterator[None]:
    """A record is claimed for a lane even if another run has claimed it meanwhile."""
    replace_record, still = Records.replace, table._still
    unconditional = False

    def claim_anyway(self: Records, old: Record, new: Record) -> Record | None:
        nonlocal unconditional
        unconditional = new.status is Status.REQUESTED and new.claimed_at is not None
        return replace_record(self, old, new)

    def asked(old: Record) -> tuple[str, dict[str, str], dict[str, Any]]:
        nonlocal unconditional
        if unconditional:
            unconditional = False
            return "attribute_exists(#repo)", {"#repo": "repo"}, {}
        return still(old)

    with patch.object(Records, "replace", claim_anyway), patch.object(table, "_still", asked):
        yield


@contextmanager
def claims_that_forget_their_lane() -> Iterator[None]:
    """A claim that may have started a build in one lane does not keep the record there."""
    with (
        patch.object(lanes, "is_kept", lambda *_: False),
        patch("image_mirror.slots.is_kept", lambda *_: False),
        patch("image_mirror.reconciler.is_kept", lambda *_: False),
    ):
        yield


@contextmanager
def failures_of_the_fast_lane_that_count() -> Iterator[None]:
    """A build of the fast lane that was too slow, too large or failed counts like one of the main lane."""
    sent_to_main = lanes.sent_to_main

    def only_if_it_runs(record: Record, build: Build, now: int) -> Record | None:
        return sent_to_main(record, build, now) if build.result is BuildResult.RUNNING else None

    with patch.object(lifecycle, "sent_to_main", only_if_it_runs):
        yield


@contextmanager
def waiting_for_fast_builds_for_ever() -> Iterator[None]:
    """A build of the fast lane is waited for until CodeBuild says that it has ended."""
    with (
        patch.object(lanes, "is_overdue", lambda *_: False),
        patch("image_mirror.reconciler.is_overdue", lambda *_: False),
    ):
        yield


@contextmanager
def one_call_for_the_builds_of_both_lanes() -> Iterator[None]:
    """BatchGetBuilds is asked for the builds of both projects in one call, which is refused as a whole."""

    def look_up(self: Builds, build_ids: Sequence[str]) -> dict[str, Build]:
        answer = self._ask(build_ids)
        return dict.fromkeys(build_ids, UNKNOWN) | {build["id"]: read_build(build) for build in answer["builds"]}

    with patch.object(Builds, "lane_of", lambda *_: Lane.MAIN), patch.object(Builds, "look_up", look_up):
        yield


@contextmanager
def remembering_no_reason() -> Iterator[None]:
    """An image that is too large or too slow for the fast lane is tried there again."""
    sent_to_main = lanes.sent_to_main

    def forgotten(record: Record, build: Build, now: int) -> Record | None:
        after = sent_to_main(record, build, now)
        return after and replace(after, not_fast=None)

    with patch.object(lifecycle, "sent_to_main", forgotten):
        yield


@contextmanager
def a_fast_lane_that_is_never_off() -> Iterator[None]:
    """Builds are started in the fast lane however many have failed there."""
    with patch("image_mirror.reconciler.after_fast_builds", lambda state, *_, **__: state):
        yield


@contextmanager
def refreshes_in_the_main_lane_alone() -> Iterator[None]:
    """A refresh never uses the fast lane."""
    lanes_of = lanes.lanes_of

    def main_alone(record: Record, now: int) -> tuple[Lane, ...]:
        return (Lane.MAIN,) if record.digest is not None else lanes_of(record, now)

    with patch("image_mirror.slots.lanes_of", main_alone), patch("image_mirror.reconciler.lanes_of", main_alone):
        yield
