"""Thirteen days in which pods use some copies now and then and others never again, with ExpireDays set.

A node pulls the image of each pod as soon as it is there; ECR records no pull within 24 hours of another. It is a
violation if a record or an image goes that was used within ExpireDays (`Registry.kept_for`).
"""

from collections import Counter
from dataclasses import dataclass

from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.faults import FAULTS
from simulation.fleet import Fleet, running

_DAY = 24 * HOUR
_EXPIRE = 2 * _DAY
_BUSY, _CALM = 8 * _DAY, 5 * _DAY
_SETTINGS = {"EXPIRE_DAYS": "2", "VERIFY_HOURS": "6", "REFRESH_HOURS": "1"}
DAILY = [f"gcr.io/team/daily{number}:1" for number in range(2)]
RARE = [f"gcr.io/team/rare{number}:1" for number in range(4)]
MOVING = "gcr.io/team/moving:1"
LATE = "gcr.io/team/moving:late"
AGAIN = "gcr.io/team/again:1"
BY_DIGEST = f"gcr.io/team/digest@sha256:{'a' * 64}"


@dataclass(frozen=True, slots=True)
class Expired:
    """The invariants that did not hold; the copies that ECR holds and that have a record, each at the end; and counts.

    `untagged` is how many images of the repository of MOVING have lost their tag and are still there.
    """

    violations: tuple[str, ...]
    held: set[str]
    recorded: set[str]
    untagged: int
    counts: Counter[str]


def run_expiry(seed: int, *, factor: float) -> Expired:
    """Run one seed. The probability of each fault is multiplied by `factor`; the last five days have no faults."""
    with running(seed, FAULTS.times(factor), quota=20, keeps_history=False, **_SETTINGS) as fleet:
        fleet.registry.kept_for = _EXPIRE
        clock, dice = fleet.world.clock, fleet.world.dice
        for image, days in ((BY_DIGEST, 0), (LATE, 5), (AGAIN, 0), (AGAIN, 10)):
            _use(fleet, image, days * _DAY)
        for image in DAILY:
            for day in range(13):
                _use(fleet, image, day * _DAY + dice.uniform(0, HOUR))
        for day in range(13):
            clock.after(day * _DAY, lambda: fleet.sources.move(MOVING))
            _use(fleet, MOVING, day * _DAY + dice.uniform(HOUR, 2 * HOUR), pull_always=True)
        for image in RARE:
            at = 0.0
            while at < _BUSY:
                _use(fleet, image, at)
                _use(fleet, image, at + 20 * HOUR)  # a pull that ECR does not record
                at += _EXPIRE + dice.uniform(-6 * HOUR, 36 * HOUR)
        clock.run(_BUSY)
        fleet.calm()
        clock.run(_CALM - HOUR)
        return Expired(
            violations=tuple(fleet.world.violations),
            held={f"{name}:{tag}" for name, tags in fleet.registry.repositories.items() for tag in tags},
            recorded={f"{repo.partition('/')[2]}:{tag}" for repo, tag in fleet.table.items},
            untagged=len(fleet.registry.untagged("mirror/gcr.io/team/moving")),
            counts=fleet.world.counts,
        )


def _use(fleet: Fleet, image: str, after: float, *, pull_always: bool = False) -> None:
    """Create a pod at a time, whose node pulls the copy: half a minute later, and then every five until it is there."""
    destination = fleet.cluster.destination(image)

    def create() -> None:
        fleet.cluster.create(Pod((image,), pull_always=pull_always))
        fleet.world.clock.after(MINUTE / 2, lambda: pull(24))

    def pull(tries: int) -> None:
        if fleet.registry.pull(destination.repository, destination.tag):
            fleet.world.counts["pulls"] += 1
        elif tries:
            fleet.world.clock.after(5 * MINUTE, lambda: pull(tries - 1))
        else:
            fleet.world.counts["pods that never pulled"] += 1

    fleet.world.clock.after(after, create)
