"""The model of CloudWatch's alarms rings as CloudWatch does, and it knows every alarm of the template."""

import pytest

from simulation.alarms import Alarm, rung, template_alarms
from simulation.clock import HOUR, MINUTE, Clock
from simulation.monitoring import GATEWAY, OURS, Metrics

THREE_HOURS = 180


def metrics_of(*values: tuple[int, tuple[str, str], float]) -> Metrics:
    """Return metrics with each value at its minute, after three hours, in which the schedule's run always published."""
    clock = Clock(0.0)
    metrics = Metrics(clock)
    for minute in range(THREE_HOURS):
        clock.after(minute * MINUTE, lambda: metrics.add((OURS, "OldestDue"), 0))
    for minute, name, value in values:
        clock.after(minute * MINUTE + 30, lambda name=name, value=value: metrics.add(name, value))  # type: ignore[misc]
    clock.run(3 * HOUR)
    return metrics


def each(first: int, until: int, name: tuple[str, str], value: float) -> list[tuple[int, tuple[str, str], float]]:
    return [(minute, name, value) for minute in range(first, until)]


FAILED, KEY, DUE = (OURS, "CopiesFailed"), (OURS, "KeyRefused"), (OURS, "OldestDue")
BUILDS, REQUESTS, ERRORS = (OURS, "BuildsStarted"), (GATEWAY, "Count"), (GATEWAY, "5xx")


@pytest.mark.parametrize(
    ("values", "rings"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([(81, FAILED, 1)], {"copy-failed": 82}, id="one-value-above-the-threshold"),
        pytest.param([(81, FAILED, 0)], {}, id="the-threshold-itself"),
        pytest.param([(10, KEY, 3)], {}, id="one-of-the-two-periods"),
        pytest.param(
            [(10, KEY, 1), (12, KEY, 1)], {"key-refused": 16}, id="neighbours-count-twice-as-the-window-slides"
        ),
        pytest.param([(10, KEY, 1), (100, KEY, 1)], {"key-refused": 101}, id="two-of-twenty-four-periods"),
        pytest.param([(10, KEY, 1), (150, KEY, 1)], {}, id="the-first-one-is-behind-the-window"),
        pytest.param(each(60, 64, DUE, 1000), {}, id="four-of-five-minutes"),
        pytest.param(each(60, 65, DUE, 1000), {"oldest-due": 65}, id="five-of-five-minutes"),
        pytest.param([(0, BUILDS, 3000), (170, BUILDS, 1)], {"many-builds": 171}, id="the-sum-of-a-day"),
        pytest.param([*each(0, 60, REQUESTS, 100), *each(20, 30, ERRORS, 1)], {"webhook-fails": 30}, id="a-share"),
        pytest.param([*each(0, 60, REQUESTS, 101), *each(20, 30, ERRORS, 1)], {}, id="a-smaller-share"),
    ],
)
def test_an_alarm_rings_when_as_many_periods_breach(
    values: list[tuple[int, tuple[str, str], float]], rings: dict[str, int]
) -> None:
    assert rung(metrics_of(*values), THREE_HOURS) == rings


def test_missing_data_rings_only_where_the_template_says_so() -> None:
    clock = Clock(0.0)
    metrics = Metrics(clock)
    clock.run(HOUR)
    assert rung(metrics, THREE_HOURS) == {"oldest-due": 5}


def test_what_is_not_modelled_is_refused() -> None:
    properties = dict(template_alarms()[0].properties, Statistic="Average")
    with pytest.raises(ValueError, match="Average"):
        Alarm("a", properties, 5, 0).rings_after(metrics_of((1, FAILED, 1)), THREE_HOURS)
