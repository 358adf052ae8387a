"""What would come of builds that copy several images: provisioning and installing once for all of them.

The product starts one build for each image. This computes, by the modelled times alone, what batches would change.
"""

from heapq import heapreplace
from random import Random

from simulation.codebuild import INSTALLING, PROVISIONING, copying_time

Copying = list[tuple[float, float]]


def seconds_to_copied(
    *, images: int, quota: int, batch: int, at_once: int = 1, one_line: bool = False
) -> tuple[float, ...]:
    """Return, sorted, when each of `images` requested at one moment is copied, by builds of `batch` images each.

    A build copies `at_once` of its images at a time. With `one_line` these share what one copy alone can send across
    the border, so that only their questions to and fro overlap; without it each sends as fast as if it were alone.
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
    """Return when each copy of one build is done; the build is ready for the first at `ready`."""
    free = [ready] * at_once
    line = ready
    times = []
    for asking, sending in copying:
        line = max(free[0] + asking, line if one_line else 0.0) + sending
        heapreplace(free, line)
        times.append(line)
    return times
