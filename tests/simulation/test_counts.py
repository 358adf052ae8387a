"""The metrics that the functions publish agree with what happened."""

from collections import Counter

import pytest

from image_mirror import webhook
from image_mirror.counts import Counts
from image_mirror.metrics import Metric
from simulation.burst import run_burst


def test_the_metrics_of_a_burst_are_what_happened_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    total: Counter[Metric] = Counter()
    greatest: Counter[Metric] = Counter()

    def publish(counts: Counts, *, every: float = 0.0) -> None:
        assert every in (0.0, 1.0)
        for metric, values in counts._values.items():
            total[metric] += int(sum(values)) if metric.unit == "Count" else len(values)
            greatest[metric] = max(greatest[metric], int(max(values)))
        counts._values = {}

    monkeypatch.setattr(Counts, "publish", publish)
    monkeypatch.setattr(webhook, "_counts", Counts())
    figures = run_burst()
    assert total[Metric.ADMISSIONS] == total[Metric.REWRITES] == figures.admitted == 10_000
    assert total[Metric.COPIES_REQUESTED] == 500
    assert total[Metric.BUILDS_STARTED] == figures.builds == 500
    assert total[Metric.COPIES_ARRIVED] == total[Metric.TIME_TO_COPIED] == figures.statuses["COPIED"] == 500
    assert greatest[Metric.TIME_TO_COPIED] / 1000 == pytest.approx(figures.longest, rel=0.05)
    # CodeBuild's queue was full, so copies waited for their turn; each scheduled run published for how long.
    assert total[Metric.BUSY] > 0
    assert 900 < greatest[Metric.OLDEST_DUE] < figures.longest
    assert total[Metric.OLDEST_DUE] >= figures.longest // 60
    faults = (Metric.COPIES_FAILED, Metric.ATTEMPTS_REFUSED, Metric.KEY_REFUSED, Metric.STEP_ERRORS, Metric.BUGS)
    assert not any(total[metric] for metric in faults)
