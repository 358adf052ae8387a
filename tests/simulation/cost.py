"""What three fleets use: 10 new images a day for a week, a busy week, and a first day; docs/cost.md has what it costs.

Simulating them takes minutes. So what they have used is in a file, from which `make docs` writes the page's tables.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simulation.clock import HOUR
from simulation.cluster import Pod
from simulation.fleet import Fleet
from simulation.lanes import NAMESPACES, Setup
from simulation.prices import Usage
from simulation.week import plan_week

RECORDED = Path(__file__).with_name("cost.json")
DAY = 24 * HOUR
_SETUP = Setup(quota=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a fleet has used in `days`; the usage is without a size of images."""

    days: int
    admissions: int
    builds: int
    usage: Usage


def quiet(days: int = 7) -> Used:
    """Run a fleet with 10 new images a day, in the morning; each is rolled out daily from then on, with 10 pods."""
    with _SETUP.running() as fleet:
        dice, clock = fleet.world.dice, fleet.world.clock
        for number in range(10 * days):
            pod = Pod((f"gcr.io/team/app{number}:1",), namespace=f"team{number % NAMESPACES}")
            for day in range(number // 10, days):
                at = day * DAY + dice.uniform(0, 8 * HOUR)
                for _ in range(10):
                    clock.after(at + dice.uniform(0, 20), partial(fleet.cluster.create, pod))
        return _used(fleet, days)


def busy(days: int = 7, *, admissions: int = 1_000_000, images: int = 5_000) -> Used:
    """Run the busy week of docs/simulation.md, or the first of its days."""
    with _SETUP.running() as fleet:
        plan_week(fleet, admissions, images)
        return _used(fleet, days)


def first_day() -> Used:
    """Run the first day of a new stack: 500 images at once, as by `warm --cluster`, and the pods of a day."""
    with _SETUP.running() as fleet:
        dice, clock = fleet.world.dice, fleet.world.clock
        for number in range(500):
            pod = Pod((f"gcr.io/team/app{number}:1",), namespace=f"team{number % NAMESPACES}")
            for at in (0.0, *(dice.uniform(2 * HOUR, DAY - HOUR) for _ in range(20))):
                clock.after(at, partial(fleet.cluster.create, pod))
        return _used(fleet, 1)


FLEETS: Mapping[str, Callable[[], Used]] = {
    "10 new images a day, for a week": quiet,
    "a busy week": busy,
    "the first day": first_day,
}


def write_usage() -> None:
    """Run all fleets, and write what they have used into the file. The same code gives the same figures."""
    found = {name: asdict(run()) for name, run in FLEETS.items()}
    RECORDED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def recorded() -> dict[str, Used]:
    """Return what the file has."""
    found: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: Used(**(used | {"usage": Usage(**used["usage"])})) for name, used in found.items()}


def _used(fleet: Fleet, days: int) -> Used:
    fleet.world.clock.run(days * DAY)
    assert not fleet.world.violations, fleet.world.violations[:5]
    return Used(
        days=days, admissions=fleet.world.counts["pods"], builds=len(fleet.codebuild.builds), usage=fleet.usage()
    )
