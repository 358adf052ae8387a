"""The parts of a simulated world that all models share: clock, threads, dice, faults, counts, metrics, history."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

from simulation.clock import Clock
from simulation.faults import Faults
from simulation.monitoring import Metrics
from simulation.threads import Threads

START = 1_800_000_000.0


class World:
    """One run. Two runs of the same seed are identical in every event. Only a replay records its history."""

    def __init__(self, seed: int, faults: Faults, *, keeps_history: bool = False) -> None:
        self.dice = Random(seed)
        self.clock = Clock(START)
        self.threads = Threads(self.clock)
        self.faults = faults
        self.clocks_differ = faults.clocks_differ
        self.counts: Counter[str] = Counter()
        self.metrics = Metrics(self.clock)
        self.violations: list[str] = []
        self.history: list[str] = []
        self.keeps_history = keeps_history

    def happens(self, probability: float) -> bool:
        """Throw the dice, but only if the probability is not 0."""
        return probability > 0 and self.dice.random() < probability

    def note(self, kind: str, *details: object) -> None:
        """Record a line of history."""
        if self.keeps_history:
            moment = datetime.fromtimestamp(self.clock.now, UTC).strftime("%d %H:%M:%S.%f")[:-3]
            self.history.append(f"{moment} {kind:<10} {' '.join(map(str, details))}")

    def violated(self, invariant: str) -> None:
        """Record an invariant that does not hold, once."""
        if invariant not in self.violations:
            self.note("VIOLATION", invariant)
            self.violations.append(invariant)

    def deliver(self, event: str, action: Callable[[], object], *, delay: float) -> None:
        """Deliver an event: in time, late, twice or never."""
        copies = 2 if self.happens(self.faults.event_twice) else 1
        if self.happens(self.faults.event_lost):
            self.note("event lost", event)
            copies = 0
        self.counts["events twice"] += copies == 2
        self.counts["events never"] += copies == 0
        for _ in range(copies):
            late = self.dice.uniform(10, 900) if self.happens(self.faults.event_late) else 0.0
            self.counts["events late"] += late > 0
            self.clock.after(delay + late, action)
