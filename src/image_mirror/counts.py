"""Counts the functions' metrics. Powertools writes them to the logs, in CloudWatch's embedded metric format."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

from aws_lambda_powertools.metrics import EphemeralMetrics

from image_mirror.metrics import Metric

_NAMESPACE = "POWERTOOLS_METRICS_NAMESPACE"


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

        If the environment has no POWERTOOLS_METRICS_NAMESPACE, as in a demonstration or a test, they are dropped.
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
