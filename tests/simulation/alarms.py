"""The template's alarms, and when CloudWatch would ring them from the metrics of a run.

An alarm is evaluated each minute over a sliding window: its `EvaluationPeriods` latest periods end at that minute. It
rings if `DatapointsToAlarm` of them breach the threshold. What is not modelled raises ValueError.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from simulation.clock import MINUTE
from simulation.monitoring import Metrics, Name, Values
from support.templates import parameters_of, sam_template

Series = Callable[[int], float | None]
"""The value of the period that ends before a minute, None without data."""

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
}
_MISSING = {"notBreaching": False, "breaching": True}
_SHARE = re.compile(r"(\d+) \* (\w+) / (\w+)")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of the template; `name` is without the stack's name. `period` is in minutes."""

    name: str
    properties: Mapping[str, Any]
    period: int
    threshold: float

    def rings_after(self, metrics: Metrics, within: int) -> int | None:
        """Return the minutes from the start until the alarm rings for the first time, None if it does not `within`.

        Missing data do not breach before there could have been any for a whole period.
        """
        series = self._series(metrics)
        breaches = _COMPARISONS[self.properties["ComparisonOperator"]]
        missing = _MISSING[self.properties["TreatMissingData"]]
        periods = int(self.properties["EvaluationPeriods"])
        needed = int(self.properties.get("DatapointsToAlarm", periods))

        def is_breaching(end: int) -> bool:
            value = series(end)
            return missing and end >= self.period if value is None else breaches(value, self.threshold)

        ends = [is_breaching(minute) for minute in range(min(within, metrics.minute) + 1)]
        for minute in range(1, len(ends)):
            if sum(ends[minute :: -self.period][:periods]) >= needed:
                return minute
        return None

    def _series(self, metrics: Metrics) -> Series:
        if "Metrics" not in self.properties:
            return _period(metrics, _name(self.properties), self.properties["Statistic"], self.period)
        queries = {query["Id"]: query for query in self.properties["Metrics"]}
        [expression] = [query["Expression"] for query in queries.values() if "Expression" in query]
        found = _SHARE.fullmatch(expression)
        if found is None:
            raise ValueError(f"the expression {expression!r} is not modelled")
        factor = float(found[1])
        part, whole = (
            _period(metrics, _name(query["Metric"]), query["Stat"], self.period)
            for query in (queries[name]["MetricStat"] for name in found.groups()[1:])
        )

        def share(end: int) -> float | None:
            above, below = part(end), whole(end)
            return None if above is None or not below else factor * above / below

        return share


def template_alarms() -> list[Alarm]:
    """Return all alarms of the template, with the parameters' defaults."""
    template = sam_template()
    values = parameters_of(template)
    found = []
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::CloudWatch::Alarm":
            continue
        properties = resource["Properties"]
        periods = {query["MetricStat"]["Period"] for query in properties.get("Metrics", ()) if "MetricStat" in query}
        [seconds] = periods or {properties["Period"]}
        threshold = properties["Threshold"]
        found.append(
            Alarm(
                name=properties["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"),
                properties=properties,
                period=int(seconds // MINUTE),
                threshold=float(values[threshold["Ref"]] if isinstance(threshold, dict) else threshold),
            )
        )
    return found


def rung(metrics: Metrics, within: int) -> dict[str, int]:
    """Return each alarm that rings in the first minutes, with the minute at which it does."""
    times = {alarm.name: alarm.rings_after(metrics, within) for alarm in template_alarms()}
    return {name: minute for name, minute in times.items() if minute is not None}


def _name(properties: Mapping[str, Any]) -> Name:
    return properties["Namespace"], properties["MetricName"]


def _period(metrics: Metrics, name: Name, statistic: str, period: int) -> Series:
    """Return the statistic of one metric over the `period` minutes before a minute."""
    minutes = metrics.minutes.get(name, {})
    last = max(minutes, default=-1)
    values = [minutes.get(minute, Values()) for minute in range(last + 1)]
    counts = [0, *accumulate(each.count for each in values)]
    sums = [0.0, *accumulate(each.total for each in values)]

    def value(end: int) -> float | None:
        first, until = max(0, end - period), min(end, len(values))
        if first >= until or counts[first] == counts[until]:
            return None
        if statistic == "Sum":
            return sums[until] - sums[first]
        if statistic == "Maximum":
            return max(each.greatest for each in values[first:until])
        raise ValueError(f"the statistic {statistic!r} is not modelled")

    return value
