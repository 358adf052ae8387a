"""CloudWatch's metrics of a run: what the functions publish, and what API Gateway and SQS publish, by the minute."""

from collections import defaultdict
from dataclasses import dataclass

from image_mirror.metrics import Metric
from simulation.clock import MINUTE, Clock

OURS = "ImageMirror"
GATEWAY = "AWS/ApiGateway"
QUEUE = "AWS/SQS"
Name = tuple[str, str]
"""A metric's namespace and its name."""


@dataclass(slots=True)
class Values:
    """The values of one metric in one minute."""

    total: float = 0.0
    greatest: float = 0.0
    count: int = 0


class Metrics:
    """All metrics of a run: for each one, its values by the minute since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.now
        self.minutes: dict[Name, dict[int, Values]] = defaultdict(lambda: defaultdict(Values))

    @property
    def minute(self) -> int:
        """The present minute: the number of whole minutes since the start."""
        return int((self._clock.now - self._start) // MINUTE)

    def add(self, name: Name, *values: float) -> None:
        """Publish values now."""
        now = self.minutes[name][self.minute]
        now.total += sum(values)
        now.greatest = max(now.greatest, *values)
        now.count += len(values)

    def total(self, metric: Metric) -> float:
        """Return the sum of all values of a function's metric."""
        return sum(each.total for each in self.minutes[OURS, metric.label].values())

    def greatest(self, metric: Metric) -> float:
        """Return the greatest value of a function's metric, 0 without values."""
        return max((each.greatest for each in self.minutes[OURS, metric.label].values()), default=0.0)

    def count(self, metric: Metric) -> int:
        """Return how many values a function's metric has."""
        return sum(each.count for each in self.minutes[OURS, metric.label].values())
