"""The metrics that the functions publish agree with what happened."""

import pytest

from image_mirror.metrics import Metric
from simulation.burst import run_burst


def test_the_metrics_of_a_burst_are_what_happened_in_it() -> None:
    figures = run_burst()
    total, greatest, count = figures.metrics.total, figures.metrics.greatest, figures.metrics.count
    assert total(Metric.ADMISSIONS) == total(Metric.REWRITES) == figures.admitted == 10_000
    assert total(Metric.COPIES_REQUESTED) == 500
    assert total(Metric.BUILDS_STARTED) == figures.builds == 500
    assert total(Metric.COPIES_ARRIVED) == count(Metric.TIME_TO_COPIED) == figures.statuses["COPIED"] == 500
    assert greatest(Metric.TIME_TO_COPIED) / 1000 == pytest.approx(figures.longest, rel=0.05)
    # Copies waited for a slot, not for CodeBuild or for the reconciler; each run published for how long.
    assert total(Metric.BUSY) == 0
    assert greatest(Metric.OLDEST_DUE) < 60
    assert 900 < greatest(Metric.OLDEST_FIRST_COPY) < figures.longest
    assert count(Metric.OLDEST_FIRST_COPY) == count(Metric.OLDEST_DUE) >= figures.longest // 60
    faults = (Metric.COPIES_FAILED, Metric.ATTEMPTS_REFUSED, Metric.KEY_REFUSED, Metric.STEP_ERRORS, Metric.BUGS)
    assert not any(total(metric) for metric in faults)
