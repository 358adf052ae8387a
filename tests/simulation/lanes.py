"""What one lane and two lanes of builds mean for users: the time from a pod's creation to its copy, and to Running.

The nodes are computed afterwards: a kubelet pulls what ECR holds, and nothing else depends on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from random import Random
from typing import NamedTuple

from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.codebuild import LAMBDA
from simulation.faults import NO_FAULTS
from simulation.fleet import TWO_LANES, Fleet, running
from simulation.kubelet import seconds_to_running
from simulation.prices import cost

NAMESPACES = 10
_AT_ONCE = 2.0  # seconds in which a rollout of everything creates its pods
_LONGEST_RUSH = 48 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """CodeBuild's quotas, which the settings know: of the main lane, and of the fast one, 0 for one lane.

    `starting` is how long a build of the fast lane takes to start, and a copy takes `pace` times as long as usual.
    """

    quota: int
    fast_quota: int = 0
    starting: float = LAMBDA.starting
    pace: float = 1.0

    @contextmanager
    def running(self, seed: int = 0) -> Iterator[Fleet]:
        """Yield a fleet without faults that is set up like this."""
        with running(seed, NO_FAULTS, quota=self.quota, BUILD_QUOTA=str(self.quota)) as fleet:
            if self.fast_quota:
                fleet.configure(**TWO_LANES, FAST_BUILD_QUOTA=str(self.fast_quota))
                fleet.fast.quota = self.fast_quota
            fleet.fast.compute = replace(LAMBDA, starting=self.starting)
            fleet.codebuild.pace = self.pace
            yield fleet


class Times(NamedTuple):
    """Of several waits, in seconds: the median, the 99th percentile, and the longest one; nothing without waits."""

    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, times: list[float]) -> "Times":
        """Return these of sorted times."""
        return cls(times[len(times) // 2], times[len(times) * 99 // 100], times[-1]) if times else cls(nan, nan, nan)


class Waits(NamedTuple):
    """How long the first pod of each image waited: until COPIED, until Running, and that with `nudge -w`."""

    copied: Times
    running: Times
    nudged: Times


def waits(fleet: Fleet, since: float = 0.0) -> Waits:
    """Return the waits of all images that were first used after `since`; of those that still wait, until now."""
    now, dice = fleet.world.clock.now, Random(0)
    first = {sent.key: sent for sent in reversed(fleet.ledger.sent_pods)}
    alone: list[float] = []
    nudged: list[float] = []
    for (repo, tag), sent in first.items():
        if sent.applied < since:
            continue
        present = fleet.registry.present_since.get((repo.partition("/")[2], tag))
        for times, is_nudged in ((alone, False), (nudged, True)):
            if present is None:
                times.append(now - sent.applied)
            else:
                pod = seconds_to_running(max(present - sent.at, 0.0), dice, nudged=is_nudged)
                times.append(sent.at - sent.applied + pod)
    copied = fleet.ledger.seconds_to_copied(since)
    return Waits(Times.of(copied), Times.of(sorted(alone)), Times.of(sorted(nudged)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rush:
    """The result of two rushes: the waits in a new stack, and in one that knows how many builds run at once.

    `builds` are those of the second rush, `fast_builds` those of them in the fast lane, and `usd` what they cost.
    """

    new: Waits
    known: Waits
    builds: int
    fast_builds: int
    usd: float


def run_rush(setup: Setup, *, images: int = 500, seed: int = 0) -> Rush:
    """Create pods of `images` new images at once, in ten namespaces, and the same again when all have arrived."""
    with setup.running(seed) as fleet:
        builds = fleet.codebuild.builds
        new = _rush(fleet, "a", images)
        before, usd = len(builds), _usd(fleet)
        known = _rush(fleet, "b", images)
        return Rush(
            new=new,
            known=known,
            builds=len(builds) - before,
            fast_builds=sum(build.lane == LAMBDA.project for build in list(builds.values())[before:]),
            usd=_usd(fleet) - usd,
        )


def _rush(fleet: Fleet, name: str, images: int) -> Waits:
    clock, dice = fleet.world.clock, fleet.world.dice
    clock.run(5 * MINUTE)
    began, end = clock.now, clock.now + _LONGEST_RUSH
    for number in range(images):
        pod = Pod((f"gcr.io/team/{name}{number}:1",), namespace=f"team{number % NAMESPACES}")
        clock.after(dice.uniform(0, _AT_ONCE), partial(fleet.cluster.create, pod))
    clock.run(MINUTE)
    while fleet.ledger.waiting and clock.now < end:
        clock.run(MINUTE)
    assert not fleet.world.violations, fleet.world.violations[:5]
    return waits(fleet, began)


def _usd(fleet: Fleet) -> float:
    return cost(fleet.usage())["CodeBuild"]
