"""A week of a busy fleet: rollouts by day and night, popular, rare and new images, and tags that move."""

from dataclasses import dataclass
from itertools import accumulate
from math import nan
from typing import NamedTuple

from simulation.clock import HOUR
from simulation.cluster import Pod
from simulation.faults import NO_FAULTS
from simulation.fleet import Fleet, running
from simulation.prices import cost

_WEEK = 7 * 24 * HOUR
_ROLLOUT = 10  # pods of one image, within 20 s
_MOVING = 0.2  # of all images: by a tag that moves twice a day, and always pulled
_BORN_LATER = 0.4  # of all images: first used some time in the week, the others from its beginning
_GIGABYTES = 0.2


class _Times(NamedTuple):
    """In seconds."""

    median: float
    p99: float

    @classmethod
    def of(cls, times: list[float]) -> "_Times":
        """Return both values of sorted times; nothing if there are no times."""
        return cls(times[len(times) // 2], times[len(times) * 99 // 100]) if times else cls(nan, nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The result of a week: calls by service, times from the first admission to COPIED, USD by service.

    `waiting` images were not COPIED at the end; the times include how long they had waited until then. `later_times`
    are for images that were first used after the first day, when the images of the existing fleet have been copied.
    """

    quota: int
    admissions: int
    images: int
    calls: dict[str, int]
    builds: int
    refreshes: int
    waiting: int
    read_units: int
    write_units: int
    times: "_Times"
    later_times: "_Times"
    usd: dict[str, float]


def run_week(*, admissions: int, images: int, quota: int) -> Week:
    """Run a week of `admissions` pods of `images` distinct images."""
    with running(0, NO_FAULTS, quota=quota, BUILD_QUOTA=str(quota)) as fleet:
        _rollouts(fleet, admissions, images)
        began = fleet.world.clock.now
        fleet.world.clock.run(_WEEK)
        counts, ledger = fleet.world.counts, fleet.ledger
        assert not fleet.world.violations, fleet.world.violations[:5]
        return Week(
            quota=quota,
            admissions=counts["pods"],
            images=len(fleet.table.items),
            calls={name: count for name, count in sorted(counts.items()) if name[0].isupper()},
            builds=len(fleet.project.builds),
            refreshes=len(fleet.project.builds) - len(fleet.project.by_target),
            waiting=ledger.waiting,
            read_units=counts["half read units"] // 2,
            write_units=counts["write units"],
            times=_Times.of(ledger.seconds_to_copied()),
            later_times=_Times.of(ledger.seconds_to_copied(began + 24 * HOUR)),
            usd=cost(fleet.usage(_GIGABYTES)),
        )


def _rollouts(fleet: Fleet, admissions: int, images: int) -> None:
    """Plan the rollouts of the week; an image's share is proportional to 1 / its rank."""
    world, dice = fleet.world, fleet.world.dice
    names = [f"gcr.io/team/app{number}:{'latest' if dice.random() < _MOVING else '1'}" for number in range(images)]
    born = [dice.uniform(0, _WEEK - 2 * HOUR) if dice.random() < _BORN_LATER else 0.0 for _ in names]
    weights = list(accumulate(1 / rank for rank in range(1, images + 1)))
    began, pause = world.clock.now, _WEEK * _ROLLOUT / (admissions - images * _ROLLOUT)

    def roll_out() -> None:
        elapsed = world.clock.now - began
        # Four of five in the twelve hours of the day.
        rate = 1.6 if elapsed % (24 * HOUR) < 12 * HOUR else 0.4
        world.clock.after(dice.expovariate(rate / pause), roll_out)
        [place] = dice.choices(range(images), cum_weights=weights)
        while born[place] > elapsed:
            [place] = dice.choices(range(images), cum_weights=weights)
        begin(place)

    def begin(place: int) -> None:
        pod = Pod((names[place],), pull_always=names[place].endswith(":latest"))
        for _ in range(_ROLLOUT):
            world.clock.after(dice.uniform(0, 20), lambda: fleet.cluster.create(pod))

    def move(place: int) -> None:
        fleet.sources.move(names[place])
        world.clock.after(12 * HOUR, lambda: move(place))

    roll_out()
    for place, name in enumerate(names):
        # The image's first rollout: random rollouts alone might never use a rare image.
        world.clock.after(born[place] + dice.uniform(0, HOUR), lambda place=place: begin(place))  # type: ignore[misc]
        if name.endswith(":latest"):
            world.clock.after(dice.uniform(0, 12 * HOUR), lambda place=place: move(place))  # type: ignore[misc]
