"""What builds of several images would change: they would provision and install only once for all their images.

The product starts one build for each image. This module computes the effect of batches from the modelled times only.
"""

from heapq import heapreplace
from random import Random

from simulation.codebuild import INSTALLING, PROVISIONING, copying_time

Copying = list[tuple[float, float]]


def seconds_to_copied(
    *, images: int, quota: int, batch: int, at_once: int = 1, one_line: bool = False
) -> tuple[float, ...]:
    """Return, sorted, when each of `images` requested at the same moment is copied, by builds of `batch` images each.

    A build copies `at_once` of its images at a time. With `one_line` these share the bandwidth across the border that
    one copy alone has, so that only their round trips overlap; without it each copy has the full bandwidth.
    """
    dice = Random(0)
    copying = [copying_time(dice) for _ in range(images)]
    free = [0.0] * quota
    times: list[float] = []
    for start in range(0, images, batch):
        ready = free[0] + PROVISIONING + INSTALLING
        copied = _copied(copying[start : start + batch], ready, at_once, one_line=one_line)
        heapreplace(free, max(copied))
        times += copied
    return tuple(sorted(times))


def _copied(copying: Copying, ready: float, at_once: int, *, one_line: bool) -> list[float]:
    """Return when each copy of one build is done; the build can begin the first one at `ready`."""
    free = [ready] * at_once
    line = ready
    times = []
    for asking, sending in copying:
        line = max(free[0] + asking, line if one_line else 0.0) + sending
        heapreplace(free, line)
        times.append(line)
    return times
