"""Ratios measured side by side: each round runs the reference and the subject in turn, and the median ratio counts."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Cost = TypeVar("Cost")


@dataclass(frozen=True)
class Row:
    """One comparison: what is measured, against what, the ratios of all rounds, and the ratio to reach.

    `at_most` says whether the ratio should be at most `reach` (cost) or at least that (gain).
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
        """Whether the median is where it should be."""
        return self.median <= self.reach if self.at_most else self.median >= self.reach

    @property
    def goal(self) -> str:
        """The ratio to reach, in words."""
        return f"{'at most' if self.at_most else 'at least'} {self.reach:g}x"


def take_turns(contestants: Mapping[str, Callable[[], Cost]], rounds: int) -> list[dict[str, Cost]]:
    """Return what each of them cost in each round, by name. Each round another one is first."""
    names = list(contestants)
    costs = []
    for number in range(rounds):
        first = number % len(names)
        costs.append({name: contestants[name]() for name in names[first:] + names[:first]})
    return costs


def compare(subject: Callable[[], float], reference: Callable[[], float], rounds: int) -> tuple[float, ...]:
    """Return subject's cost by reference's for each round. Both cost any unit."""
    costs = take_turns({"reference": reference, "subject": subject}, rounds)
    return tuple(cost["subject"] / cost["reference"] for cost in costs)
