"""A rollout of everything at once without faults: many pods with few images, in bursts."""

from collections import Counter
from dataclasses import dataclass, field

from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.faults import NO_FAULTS
from simulation.fleet import running
from simulation.monitoring import Metrics


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of a run. `calls` are the webhook's calls of DynamoDB for each admission; times are in seconds."""

    violations: tuple[str, ...]
    statuses: Counter[str]
    builds: int
    duplicate_builds: int
    admitted: int
    calls: float
    median: float
    longest: float
    metrics: Metrics = field(repr=False)


def run_burst(*, pods: int = 10_000, images: int = 500, bursts: int = 10, quota: int = 20) -> Figures:
    """Create `pods` of `images` distinct images in bursts of half a minute, one a minute, and let all copies arrive."""
    with running(0, NO_FAULTS, quota=quota) as fleet:
        dice, clock = fleet.world.dice, fleet.world.clock
        names = [f"gcr.io/team/app{number}:1" for number in range(images)]
        for number in range(pods):
            # Each image is used once before images are chosen at random, so that all of them are used.
            image = names[number] if number < images else dice.choice(names)
            start = number * bursts // pods * MINUTE
            clock.after(start + dice.uniform(0, 30), lambda image=image: fleet.cluster.create(Pod((image,))))  # type: ignore[misc]
        clock.run(3 * HOUR)
        times = fleet.ledger.seconds_to_copied()
        return Figures(
            violations=tuple(fleet.world.violations),
            statuses=Counter(item["status"]["S"] for item in fleet.table.items.values()),
            builds=len(fleet.codebuild.builds),
            duplicate_builds=fleet.world.counts["duplicate builds"],
            admitted=len(fleet.ledger.sent_pods),
            calls=fleet.webhook.calls["DynamoDB"] / pods,
            median=times[len(times) // 2],
            longest=times[-1],
            metrics=fleet.world.metrics,
        )
