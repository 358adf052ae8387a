"""The faults of a run, each with its probability."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Probabilities; `index_lag` and `clocks_differ` are seconds.

    The first five are for each call to AWS: it fails before or after it takes effect, is throttled, times out (with or
    without effect), or its function crashes before or after it. `table_throttled` is for each call to DynamoDB,
    `answer_lost` is for each answer of the webhook, the next three are for each event, and the `build_*` are for each
    build.
    """

    fails_before: float = 0.0
    fails_after: float = 0.0
    throttled: float = 0.0
    times_out: float = 0.0
    crashes: float = 0.0
    table_throttled: float = 0.0
    answer_lost: float = 0.0
    event_lost: float = 0.0
    event_twice: float = 0.0
    event_late: float = 0.0
    build_refused: float = 0.0
    build_delayed: float = 0.0
    build_fails_after_push: float = 0.0
    build_hangs: float = 0.0
    build_vanishes: float = 0.0
    index_lag: float = 0.1
    clocks_differ: float = 0.0

    def times(self, factor: float) -> "Faults":
        """Return a copy with each probability multiplied by `factor`, at most 0.5."""
        scaled = {
            each.name: min(getattr(self, each.name) * factor, 0.5)
            for each in fields(self)
            if each.name not in ("index_lag", "clocks_differ")
        }
        return replace(self, **scaled)


NO_FAULTS = Faults()
FAULTS = Faults(
    fails_before=0.02,
    fails_after=0.02,
    throttled=0.02,
    times_out=0.01,
    crashes=0.01,
    answer_lost=0.02,
    event_lost=0.1,
    event_twice=0.1,
    event_late=0.1,
    build_refused=0.1,
    build_delayed=0.1,
    build_fails_after_push=0.03,
    build_hangs=0.03,
    build_vanishes=0.03,
    index_lag=5.0,
    clocks_differ=2.0,
)
