"""The functions' metrics. Powertools writes them to the logs, in CloudWatch's embedded metric format."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum

from aws_lambda_powertools.metrics import EphemeralMetrics

_NAMESPACE = "POWERTOOLS_METRICS_NAMESPACE"


class Metric(Enum):
    """A metric: its name and unit in CloudWatch, and what one value means. docs/operation.md has this table."""

    ADMISSIONS = ("Admissions", "Count", "reviews answered 200, with a patch or without; dry runs too")
    REWRITES = ("Rewrites", "Count", "images that these answers changed to ECR")
    NOT_RECORDED = (
        "NotRecorded",
        "Count",
        "reviews answered 503 because the table did not take a record in time; the API server asks again",
    )
    REFUSED = (
        "Refused",
        "Count",
        "requests with the right token answered 400 because they were not an AdmissionReview",
    )
    BUGS = (
        "Bugs",
        "Count",
        "reviews answered 503 because the webhook or its settings are wrong; its log has the stack",
    )
    COPIES_REQUESTED = (
        "CopiesRequested",
        "Count",
        "copies requested, by the table's stream: new ones, refreshes, and failed ones requested again",
    )
    BUILDS_STARTED = ("BuildsStarted", "Count", "copies that went from REQUESTED to COPYING")
    COPIES_ARRIVED = (
        "CopiesArrived",
        "Count",
        "copies that became COPIED because ECR holds them: first ones and refreshes",
    )
    COPIES_FAILED = ("CopiesFailed", "Count", "copies that became FAILED")
    COPIES_GONE = ("CopiesGone", "Count", "copies whose record was removed because ECR no longer holds them")
    ATTEMPTS_REFUSED = (
        "AttemptsRefused",
        "Count",
        "builds that cost an attempt: the source refused, or the build ended without a copy",
    )
    WAITS = ("Waits", "Count", "times that a copy was delayed without an attempt, for another reason than the next two")
    BUSY = ("Busy", "Count", "times that a copy was delayed because AWS had no capacity: a full queue, throttling")
    KEY_REFUSED = (
        "KeyRefused",
        "Count",
        "times that a copy was delayed because of either key: its secret is missing or wrong, or AWS refused it",
    )
    STEP_ERRORS = (
        "StepErrors",
        "Count",
        "records whose step ended in an exception; the log has its stack, and they stay due",
    )
    TIME_TO_COPIED = (
        "TimeToCopied",
        "Milliseconds",
        "from a copy's request to COPIED, for copies that arrived for the first time without having failed",
    )
    OLDEST_DUE = (
        "OldestDue",
        "Seconds",
        "each minute, how long the oldest due record has been due; 0 if none is due",
    )
    DUE = ("Due", "Count", "each minute, the records found due; if the time limit was reached, there are more")

    def __init__(self, label: str, unit: str, meaning: str) -> None:
        """Store the parts of the member's value."""
        self.label = label
        self.unit = unit
        self.meaning = meaning


class Counts:
    """The values of one function that are not published yet. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start empty. `clock` is in seconds. It must not stop while Lambda freezes the instance, as monotonic may."""
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[Metric, list[float]] = {}
        self._published_at = float("-inf")

    def add(self, metric: Metric, value: float = 1) -> None:
        """Add `value` to a count, or store it as one measurement if the metric's unit is a time."""
        with self._lock:
            values = self._values.get(metric)
            if values is None:
                self._values[metric] = [value]
            elif metric.unit == "Count":
                values[0] += value
            else:
                values.append(value)

    def publish(self, *, every: float = 0.0) -> None:
        """Publish the values, unless that was done less than `every` seconds ago. Raises nothing.

        Where the environment has no POWERTOOLS_METRICS_NAMESPACE (a demonstration, a test), it is dropped.
        """
        now = self._clock()
        with self._lock:
            # A clock that was set back must not stop the publishing.
            if not self._values or 0 <= now - self._published_at < every:
                return
            values, self._values, self._published_at = self._values, {}, now
        if not os.environ.get(_NAMESPACE):
            return
        try:
            _write(values)
        except Exception:  # a failure of the metrics must not become a failure of admissions
            logging.getLogger(__name__).exception("metrics not published")


def _write(values: Mapping[Metric, list[float]]) -> None:
    # This class shares nothing. Powertools' Metrics keeps values in its class, and they would outlive a failure here.
    blob = EphemeralMetrics()
    for metric, some in values.items():
        for value in some:
            blob.add_metric(name=metric.label, unit=metric.unit, value=value)
    if blob.metric_set:  # Powertools writes by itself at a metric's hundredth value
        blob.flush_metrics()
