"""A thief of the key with which builds push to ECR: replaces copies of a fleet that works well."""

from dataclasses import dataclass
from functools import partial

from simulation.clock import HOUR
from simulation.cluster import Pod
from simulation.faults import Faults
from simulation.fleet import running


@dataclass(frozen=True, slots=True)
class Theft:
    """The copies that the thief replaced, those whose records say so, and those that a build made again afterwards."""

    violations: tuple[str, ...]
    replaced: int
    marked: int
    held_against_builds: int
    marked_after_refresh: int


def run_thief(faults: Faults, *, copies: int = 12, seed: int = 0) -> Theft:
    """Let `copies` images arrive, replace each copy at some time within an hour, and later refresh them all."""
    with running(seed, faults, quota=20, VERIFY_HOURS="2", REFRESH_HOURS="4") as fleet:
        clock, dice = fleet.world.clock, fleet.world.dice
        images = [f"gcr.io/team/app{number}:1" for number in range(copies)]
        keys = [fleet.cluster.key(image) for image in images]
        fleet.cluster.create(Pod(tuple(images)))
        clock.run(HOUR)
        for key in keys:
            steal = partial(fleet.ledger.push_as_a_stranger, key, f"sha256:{dice.getrandbits(256):064x}")
            clock.after(dice.uniform(0, HOUR), steal)
        clock.run(3.5 * HOUR)  # after VERIFY_HOURS, lost events are made up for
        marked = sum("unexpected" in fleet.table.items[key] for key in keys)
        fleet.cluster.create(Pod(tuple(images), pull_always=True))
        clock.run(HOUR)
        return Theft(
            violations=tuple(fleet.world.violations),
            replaced=fleet.world.counts["pushes of strangers: COPIED"],
            marked=marked,
            held_against_builds=fleet.world.counts["pushes of builds held against us"],
            marked_after_refresh=sum("unexpected" in fleet.table.items[key] for key in keys),
        )
