"""One pod that names very many images, sent to a fleet until nothing is in progress."""

from dataclasses import dataclass

from simulation.clock import HOUR
from simulation.cluster import Pod
from simulation.faults import Faults
from simulation.fleet import running


@dataclass(frozen=True, slots=True)
class Caused:
    """What the pod has caused: records, builds, and containers that were sent to a copy."""

    violations: tuple[str, ...]
    records: int
    builds: int
    sent: int
    repeated_calls: int


def run_big_pod(images: int, faults: Faults, *, seed: int = 0) -> Caused:
    """Create one pod with as many images, and let all its copies arrive."""
    with running(seed, faults, quota=20) as fleet:
        fleet.cluster.create(Pod(tuple(f"gcr.io/team/app{number}:1" for number in range(images))))
        fleet.world.clock.run(HOUR)
        return Caused(
            violations=tuple(fleet.world.violations),
            records=len(fleet.table.items),
            builds=len(fleet.codebuild.builds),
            sent=len(fleet.ledger.sent_pods),
            repeated_calls=fleet.world.counts["answers 503"],
        )
