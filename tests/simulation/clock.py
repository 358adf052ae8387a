"""Virtual time and its queue of events. Events of the same moment happen in the order in which they were added."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

MINUTE = 60.0
HOUR = 60 * MINUTE


class Clock:
    """Seconds since the epoch; they advance only by `run` and `skip`."""

    def __init__(self, start: float) -> None:
        self.now = start
        self._end = start
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Call `action` in `seconds` from now."""
        heappush(self._queue, (self.now + seconds, next(self._numbers), action))

    def skip(self, seconds: float) -> bool:
        """Advance by `seconds` if no event lies within them, and return whether it did."""
        then = self.now + seconds
        if then > self._end or (self._queue and self._queue[0][0] <= then):
            return False
        self.now = then
        return True

    def run(self, seconds: float) -> None:
        """Advance by `seconds` and run all events within them."""
        self._end = self.now + seconds
        while self._queue and self._queue[0][0] <= self._end:
            self.now, _, action = heappop(self._queue)
            action()
        self.now = self._end
