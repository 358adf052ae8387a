"""A week of a busy fleet: rollouts by day and night, popular, rare and new images, and tags that move."""

from dataclasses import dataclass
from itertools import accumulate

from simulation.clock import HOUR
from simulation.cluster import Pod
from simulation.codebuild import LAMBDA
from simulation.fleet import Fleet
from simulation.lanes import Setup, Times, Waits, waits
from simulation.prices import cost

_WEEK = 7 * 24 * HOUR
_MOVING = 0.2  # of all images: by a tag that moves twice a day, and always pulled
_BORN_LATER = 0.4  # of all images: first used some time in the week, the others from its beginning
_GIGABYTES = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The result of a week: calls by service, times from the first admission to COPIED, USD by service.

    `waiting` images were not COPIED at the end; the times include how long they had waited until then. `later` is for
    images that were first used after the first day, when the images of the existing fleet have been copied.
    """

    setup: Setup
    admissions: int
    images: int
    calls: dict[str, int]
    builds: int
    fast_builds: int
    refreshes: int
    waiting: int
    read_units: int
    write_units: int
    times: Times
    later: Waits
    usd: dict[str, float]


def run_week(setup: Setup, *, admissions: int, images: int, per_rollout: int = 10, days: int = 7) -> Week:
    """Run a week of `admissions` pods of `images` distinct images, with `per_rollout` pods in each rollout.

    With one pod in each rollout, a tenth of the admissions makes as many builds. The week can end after some `days`.
    """
    with setup.running() as fleet:
        plan_week(fleet, admissions, images, per_rollout)
        began = fleet.world.clock.now
        fleet.world.clock.run(days * 24 * HOUR)
        counts, ledger = fleet.world.counts, fleet.ledger
        assert not fleet.world.violations, fleet.world.violations[:5]
        return Week(
            setup=setup,
            admissions=counts["pods"],
            images=len(fleet.table.items),
            calls={name: count for name, count in sorted(counts.items()) if name[0].isupper()},
            builds=len(fleet.codebuild.builds),
            fast_builds=sum(build.lane == LAMBDA.project for build in fleet.codebuild.builds.values()),
            refreshes=len(fleet.codebuild.builds) - len(fleet.codebuild.by_target),
            waiting=ledger.waiting,
            read_units=counts["half read units"] // 2,
            write_units=counts["write units"],
            times=Times.of(ledger.seconds_to_copied()),
            later=waits(fleet, began + 24 * HOUR),
            usd=cost(fleet.usage(_GIGABYTES)),
        )


def plan_week(fleet: Fleet, admissions: int, images: int, per_rollout: int = 10) -> None:
    """Plan the rollouts of the week, each within 20 s; an image's share is proportional to 1 / its rank."""
    world, dice = fleet.world, fleet.world.dice
    names = [f"gcr.io/team/app{number}:{'latest' if dice.random() < _MOVING else '1'}" for number in range(images)]
    born = [dice.uniform(0, _WEEK - 2 * HOUR) if dice.random() < _BORN_LATER else 0.0 for _ in names]
    weights = list(accumulate(1 / rank for rank in range(1, images + 1)))
    began, pause = world.clock.now, _WEEK * per_rollout / (admissions - images * per_rollout)

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
        for _ in range(per_rollout):
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
