"""Metrics: what is published and when, and how a written change of a record is counted."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from image_mirror.counts import Counts
from image_mirror.lifecycle import of_change
from image_mirror.metrics import Metric
from image_mirror.record import Record, Status

Published = Callable[[], dict[str, list[float]]]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_counts_are_summed_and_measurements_are_kept_apart(published: Published) -> None:
    counts = Counts()
    counts.add(Metric.REWRITES, 3)
    counts.add(Metric.REWRITES)
    counts.add(Metric.TIME_TO_COPIED, 1000)
    counts.add(Metric.TIME_TO_COPIED, 2500)
    counts.add(Metric.OLDEST_DUE, 0)
    counts.publish()
    assert published() == {"Rewrites": [4], "TimeToCopied": [1000, 2500], "OldestDue": [0]}


def test_each_line_is_in_the_embedded_metric_format(
    published: Published,  # noqa: ARG001 - sets the environment
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = Counts()
    for metric in Metric:
        counts.add(metric)
    counts.publish()
    [line] = capsys.readouterr().out.splitlines()
    blob = json.loads(line)
    [directive] = blob["_aws"]["CloudWatchMetrics"]
    assert directive["Metrics"] == [{"Name": metric.label, "Unit": metric.unit} for metric in Metric]
    assert all(blob[metric.label] == [1] for metric in Metric)


def test_what_was_published_is_not_published_again(published: Published) -> None:
    counts = Counts()
    counts.add(Metric.ADMISSIONS)
    counts.publish()
    published()
    counts.publish()
    assert published() == {}


def test_the_first_is_published_at_once_and_the_next_together_when_the_pause_is_over(published: Published) -> None:
    clock = Clock()
    counts = Counts(clock)
    seen = []
    for second in (0.0, 0.5, 0.9, 1.0, 1.1, 9.0):
        clock.now = 1000 + second
        counts.add(Metric.ADMISSIONS)
        counts.publish(every=1.0)
        seen.append(published().get("Admissions"))
    assert seen == [[1], None, None, [3], None, [2]]


def test_a_clock_that_was_set_back_does_not_stop_the_publishing(published: Published) -> None:
    clock = Clock()
    counts = Counts(clock)
    counts.add(Metric.ADMISSIONS)
    counts.publish(every=1.0)
    clock.now -= 3600
    counts.add(Metric.ADMISSIONS)
    counts.publish(every=1.0)
    assert published() == {"Admissions": [1, 1]}


@pytest.mark.parametrize("number", [99, 100, 101, 250])
def test_more_measurements_than_one_line_holds_are_all_published(
    published: Published, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """CloudWatch accepts at most 100 values of a metric in one line."""
    counts = Counts()
    counts.add(Metric.COPIES_ARRIVED, number)
    for value in range(number):
        counts.add(Metric.TIME_TO_COPIED, value)
    counts.publish()
    assert caplog.text == "", "not even Powertools' warning that there was nothing to write"
    lines = capsys.readouterr().out.splitlines()
    assert all(len(json.loads(line).get("TimeToCopied", ())) <= 100 for line in lines)
    print(*lines, sep="\n")
    assert published() == {"TimeToCopied": list(range(number)), "CopiesArrived": [number]}


def test_threads_that_count_at_once_lose_nothing(published: Published) -> None:
    counts = Counts()

    def count() -> None:
        for _ in range(2000):
            counts.add(Metric.WAITS)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.publish()
    assert published() == {"Waits": [16_000]}


def test_without_a_namespace_nothing_is_written_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    counts = Counts()
    counts.add(Metric.ADMISSIONS)
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE")
    counts.publish()
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "ImageMirror")
    counts.publish()
    assert published() == {}


def test_what_fails_in_publishing_is_logged_and_ends_there(
    published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_values: object) -> None:
        raise BrokenPipeError("stdout is gone")

    counts = Counts()
    counts.add(Metric.ADMISSIONS)
    monkeypatch.setattr("image_mirror.counts._write", fail)
    with caplog.at_level(logging.ERROR):
        counts.publish()
    assert "metrics not published" in caplog.text
    assert "stdout is gone" in caplog.text
    assert published() == {}


def test_each_metric_has_a_name_a_unit_that_cloudwatch_knows_and_a_meaning() -> None:
    assert len({metric.label for metric in Metric}) == len(Metric)
    for metric in Metric:
        assert metric.label.isalpha()
        assert metric.unit in ("Count", "Milliseconds", "Seconds")
        assert metric.meaning


# ---- what a written change counts as ----

REQUESTED = Record(
    repo="123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/mirror/gcr.io/a",
    tag="1",
    source="gcr.io/a:1",
    status=Status.REQUESTED,
    requested_at=1000,
    updated_at=1000,
    due_at=1000,
)
COPYING = replace(REQUESTED, status=Status.COPYING, build_id="P:1", updated_at=2000)
COPIED = replace(COPYING, status=Status.COPIED, digest="sha256:a", updated_at=61_000)
REFRESHING = replace(COPYING, digest="sha256:a")
FAILED = replace(COPYING, status=Status.FAILED, attempts=5, error="NOT_FOUND: x", due_at=None)


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        pytest.param(REQUESTED, COPYING, {Metric.BUILDS_STARTED: 1}, id="a build started"),
        pytest.param(COPYING, replace(COPYING, updated_at=9000), {}, id="a build still runs"),
        pytest.param(
            COPYING, COPIED, {Metric.COPIES_ARRIVED: 1, Metric.TIME_TO_COPIED: 60_000}, id="the first copy arrived"
        ),
        pytest.param(
            REQUESTED, COPIED, {Metric.COPIES_ARRIVED: 1, Metric.TIME_TO_COPIED: 60_000}, id="someone pushed it"
        ),
        pytest.param(REFRESHING, COPIED, {Metric.COPIES_ARRIVED: 1}, id="a refresh arrived"),
        pytest.param(FAILED, COPIED, {Metric.COPIES_ARRIVED: 1}, id="someone pushed what had failed"),
        pytest.param(
            replace(COPYING, requested_at=0), COPIED, {Metric.COPIES_ARRIVED: 1}, id="an item that lacks its request"
        ),
        pytest.param(
            COPYING,
            replace(COPIED, updated_at=900),
            {Metric.COPIES_ARRIVED: 1, Metric.TIME_TO_COPIED: 0},
            id="two clocks that differ",
        ),
        pytest.param(COPIED, replace(COPIED, updated_at=9_000_000), {}, id="verified"),
        pytest.param(COPIED, replace(COPIED, digest="sha256:b"), {}, id="pushed over"),
        pytest.param(COPIED, None, {Metric.COPIES_GONE: 1}, id="gone from ECR"),
        pytest.param(
            COPYING,
            replace(REQUESTED, attempts=1, error="NOT_FOUND: x"),
            {Metric.ATTEMPTS_REFUSED: 1},
            id="an attempt refused",
        ),
        pytest.param(
            replace(COPYING, attempts=4),
            FAILED,
            {Metric.ATTEMPTS_REFUSED: 1, Metric.COPIES_FAILED: 1},
            id="the fifth attempt",
        ),
        pytest.param(
            replace(REFRESHING, attempts=4),
            replace(COPIED, error="NOT_FOUND: x"),
            {Metric.ATTEMPTS_REFUSED: 1},
            id="the fifth attempt of a refresh",
        ),
        pytest.param(COPYING, replace(REQUESTED, waits=1, error="x"), {Metric.BUSY: 1}, id="delayed"),
        pytest.param(COPYING, replace(COPYING, waits=1, error="x"), {Metric.BUSY: 1}, id="its build not looked up"),
    ],
)
def test_a_change_counts_as(before: Record, after: Record | None, added: dict[Metric, float]) -> None:
    assert of_change(before, after, wait=Metric.BUSY) == added
