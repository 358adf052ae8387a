"""Ratios measured side by side: each round runs the reference and the subject in turn, and the median ratio counts."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Cost = TypeVar("Cost")


@dataclass(frozen=True)
class Row:
    """One comparison: the subject, the reference, the ratios of all rounds, and the goal `reach`.

    With `at_most` the ratio should be at most `reach` (a cost), otherwise at least `reach` (a gain).
    """

    what: str
    reference: str
    ratios: tuple[float, ...]
    reach: float
    at_most: bool = True

    @property
    def median(self) -> float:
        """The middle ratio."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio."""
        return min(self.ratios), max(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the median reaches the goal."""
        return self.median <= self.reach if self.at_most else self.median >= self.reach

    @property
    def goal(self) -> str:
        """The ratio to reach, in words."""
        return f"{'at most' if self.at_most else 'at least'} {self.reach:g}x"


def take_turns(contestants: Mapping[str, Callable[[], Cost]], rounds: int) -> list[dict[str, Cost]]:
    """Return the cost of each contestant in each round, by name. Each round begins with another one."""
    names = list(contestants)
    costs = []
    for number in range(rounds):
        first = number % len(names)
        costs.append({name: contestants[name]() for name in names[first:] + names[:first]})
    return costs


def compare(subject: Callable[[], float], reference: Callable[[], float], rounds: int) -> tuple[float, ...]:
    """Return the cost of the subject divided by that of the reference for each round; both in the same unit."""
    costs = take_turns({"reference": reference, "subject": subject}, rounds)
    return tuple(cost["subject"] / cost["reference"] for cost in costs)
