"""What would come of builds that copy several images one after another: provisioning once for all of them.

The product starts one build for each image. This computes, by the modelled times alone, what batches would change.
"""

from heapq import heapify, heappop, heappush
from random import Random

from simulation.codebuild import PROVISIONING, copying_time


def seconds_to_copied(*, images: int, quota: int, batch: int) -> list[float]:
    """Return, sorted, when each of `images` requested at one moment is copied, by builds of `batch` images each."""
    dice = Random(0)
    copying = [copying_time(dice) for _ in range(images)]
    free = [0.0] * quota
    heapify(free)
    times = []
    for start in range(0, images, batch):
        now = heappop(free) + PROVISIONING
        for seconds in copying[start : start + batch]:
            now += seconds
            times.append(now)
        heappush(free, now)
    return sorted(times)
