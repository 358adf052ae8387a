"""Ratios measured side by side: each round runs the reference and the subject in turn, and the median ratio counts."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


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


def compare(subject: Callable[[], float], reference: Callable[[], float], rounds: int) -> tuple[float, ...]:
    """Return subject's cost by reference's for each round. Both cost any unit; they take turns at being first."""
    ratios = []
    for number in range(rounds):
        if number % 2:
            cost = subject()
            ratios.append(cost / reference())
        else:
            base = reference()
            ratios.append(subject() / base)
    return tuple(ratios)
