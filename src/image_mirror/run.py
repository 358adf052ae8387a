"""One invocation of the reconciler: its time, what it has learned, and what it counts."""

from typing import Protocol

from image_mirror.metrics import Counts

RESERVE = 45.0  # seconds: two calls that time out twice each; what is cut off beyond that stays due


class Context(Protocol):
    """The part of Lambda's context that is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the function may still run."""


class Run:
    """One invocation: how long it may go on, whether CodeBuild takes no more builds, and what is counted."""

    def __init__(self, context: Context) -> None:
        """Take Lambda's context."""
        self._context = context
        self.busy = False
        self.counts = Counts()

    @property
    def over(self) -> bool:
        """Whether what is left has to stay due for the next run."""
        return self._context.get_remaining_time_in_millis() / 1000 < RESERVE
