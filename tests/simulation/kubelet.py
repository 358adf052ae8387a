"""The kubelet of a pod whose image ECR does not hold yet: when it tries to pull, and when the pod is Running.

From the source of 1.36.3: after a failed pull the kubelet waits 10 s, twice as long after each further failure, and
300 s at most (pkg/kubelet/kubelet.go). It looks whether that time is over when the pod's worker syncs the pod, which is
10 s after the last sync, times 1 to 1.5 (pod_workers.go, completeWork). The wait is for the image's text, so a pod
whose image `image-mirror nudge` has changed is tried at once.
"""

from collections.abc import Iterator
from random import Random

FIRST_WAIT = 10.0
LONGEST_WAIT = 300.0
FAILING = 0.5  # a pull of a name that ECR does not hold
PULLING = 5.0  # a pull of a usual image from ECR in the same region, and the start of its container
# `nudge -w` looks again ten seconds after a round, which reads pods, their events and ECR.
NUDGE_PAUSE = 10.0
NUDGE_ROUND = 1.0


def tries(dice: Random) -> Iterator[float]:
    """Yield the seconds after a pod's start at which its kubelet tries to pull an image that is not there."""
    now, wait = 0.0, FIRST_WAIT
    while True:
        yield now
        now += FAILING
        due, wait = now + wait, min(2 * wait, LONGEST_WAIT)
        while now < due:
            now += 10 * dice.uniform(1, 1.5)


def seconds_to_running(present_after: float, dice: Random, *, nudged: bool = False) -> float:
    """Return how long after its start a pod is Running whose image ECR holds so many seconds after the pod's start.

    With `nudged` somebody runs `image-mirror nudge -w`: of the pods whose first pull has failed, it patches those whose
    image is there.
    """
    pulled = next(at for at in tries(dice) if at >= present_after)
    if nudged and present_after > 0:
        pulled = min(pulled, present_after + dice.uniform(0, NUDGE_PAUSE + NUDGE_ROUND) + NUDGE_ROUND)
    return pulled + PULLING
