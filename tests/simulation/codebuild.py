"""CodeBuild: two projects, each with a quota of running builds and a queue, and tokens that are valid for 5 minutes.

The first project's builds run on EC2 compute, those of the second on Lambda compute, which starts sooner. In the
product these are the main lane and the fast lane.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from math import ceil
from random import Random
from typing import Any

from image_mirror.build_result import EXIT_CODES
from simulation.clock import HOUR, MINUTE
from simulation.ecr import Registry
from simulation.network import refusal
from simulation.sources import Sources
from simulation.world import World

PROVISIONING = 40.0
# crane, one download, and the login to ECR. A build that finds its image in ECR takes 1.0 s on the machine of the
# benchmarks, which serves all downloads itself. From AWS, 11 MB from GitHub take about another second, and the four
# round trips of a login to a region in China another one.
INSTALLING = 3.0
ASKING = 10.0
SENDING = 35.0  # on average, for an image of 0.2 GB
TOKEN_HELD_FOR = 5 * MINUTE
BUILD_TIMEOUT = HOUR
_DELAYS = ("RATE_LIMITED", "UNREACHABLE", "TARGET_LOGIN", "FAULT")
_REFUSALS = ("NOT_FOUND", "DENIED", "UNEXPLAINED")
_EXITS = {result: code for code, result in EXIT_CODES.items()} | {"UNEXPLAINED": 1}


def copying_time(dice: Random) -> tuple[float, float]:
    """Return the seconds of one copy's round trips across the border, and the seconds in which it sends layers."""
    return ASKING, dice.expovariate(1 / SENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """What the builds of a project run on, and what the project sets. Times are in seconds.

    A build that lasts longer than `timeout` is ended by CodeBuild, and one that waits for longer than `queue_timeout`
    in its queue. Before that, at `stops_at` after its start, copy.py ends it with the result `out_of_time`, or with
    TOO_LARGE when it has read `most_gigabytes`. Without `queues` a StartBuild above the quota is refused. A build is
    billed by the second or by the minute.
    """

    project: str
    starting: float
    timeout: float
    stops_at: float
    out_of_time: str
    most_gigabytes: float
    queue_timeout: float | None = None
    installing: float = INSTALLING
    queues: bool = True
    by_second: bool = False


EC2 = Compute(
    project="ImagePullProject",
    starting=PROVISIONING,
    timeout=BUILD_TIMEOUT,
    stops_at=BUILD_TIMEOUT - 2 * MINUTE,
    out_of_time="UNREACHABLE",
    most_gigabytes=40,
    queue_timeout=8 * HOUR,
)
LAMBDA = Compute(
    project="ImagePullProjectFast",
    starting=3,
    timeout=15 * MINUTE,
    stops_at=13 * MINUTE,
    out_of_time="OUT_OF_TIME",
    most_gigabytes=3,
    by_second=True,
)


class LaneFault(Enum):
    """What is wrong with one project, for all its builds, until it is repaired."""

    FULL = "StartBuild is refused, as if the queue were full"
    THROTTLED = "StartBuild is throttled"
    DENIED = "the key may not use this project"
    SILENT = "StartBuild takes effect, and its answer is lost"
    STUCK = "builds stay in the queue"
    FAULTS = "every build ends as FAULT"
    UNEXPLAINED = "every build ends without a result"
    HANGS = "every build hangs until its time-out"


_START_ERRORS = {LaneFault.FULL: "AccountLimitExceededException", LaneFault.THROTTLED: "ThrottlingException"}


@dataclass(slots=True)
class Build:
    """One build. `ended` is its result: COPIED, a COPY_RESULT, FAULT, TIMED_OUT, QUEUE_TIMED_OUT or VANISHED.

    `lane` is its project's name.
    """

    build_id: str
    lane: str
    source: str
    repository: str
    tag: str
    submitted: float
    began: float | None = None
    ended: str | None = None
    ended_at: float = 0.0
    pushed: bool = False
    digest: str = ""

    @property
    def charges_an_attempt(self) -> bool:
        """Whether the source's answer ended the build, or something that cannot be distinguished from it."""
        return self.ended in (*_REFUSALS, "TIMED_OUT")


class Lane:
    """One project: its quota, its queue, and what is wrong with it, if something is."""

    def __init__(self, compute: Compute, quota: int) -> None:
        self.compute = compute
        self.quota = quota
        self.running = 0
        self.queue: deque[Build] = deque()
        self.fault: LaneFault | None = None

    @property
    def is_full(self) -> bool:
        """Whether StartBuild is refused because of the quota."""
        if self.compute.queues:
            return len(self.queue) >= 5 * self.quota
        return self.running + len(self.queue) >= self.quota


class CodeBuild:
    """Both projects, and all builds by ID. With `login_refused` ECR refuses the key that they log in with.

    Each copy takes `pace` times as long as copying_time() says.
    """

    def __init__(self, world: World, registry: Registry, sources: Sources, *lanes: Lane) -> None:
        self._world = world
        self._registry = registry
        self._sources = sources
        self._tokens: dict[str, tuple[float, tuple[str, dict[str, str]], Build]] = {}
        self.lanes = {lane.compute.project: lane for lane in lanes}
        self.login_refused = False
        self.pace = 1.0
        self.builds: dict[str, Build] = {}
        self.by_target: dict[tuple[str, str], list[Build]] = {}

    def start(self, project: str, variables: dict[str, str], token: str) -> Build:
        """Accept a build, or return the one that this token started in the last five minutes."""
        world, now, lane = self._world, self._world.clock.now, self._lane(project, "StartBuild")
        if lane.fault in _START_ERRORS:
            world.counts[f"{project}: {lane.fault.name}"] += 1
            raise refusal(_START_ERRORS[lane.fault], "StartBuild", lane.fault.value)
        known = self._tokens.get(token)
        if known is not None and now - known[0] < TOKEN_HELD_FOR:
            if known[1] != (project, variables):
                world.counts["tokens used with other parameters"] += 1
                raise refusal("InvalidInputException", "StartBuild", "the token was used with other parameters")
            return self._answered(lane, known[2])
        if lane.is_full:
            raise refusal("AccountLimitExceededException", "StartBuild", "cannot have more builds in queue")
        destination, _, tag = variables["NEW_DOCKER_IMAGE"].rpartition(":")
        repository = destination.partition("/")[2]
        build = Build(f"{project}:{len(self.builds):06}", project, variables["DOCKER_IMAGE"], repository, tag, now)
        self._count_duplicate(build)
        self.by_target.setdefault((repository, tag), []).append(build)
        self.builds[build.build_id] = build
        self._tokens[token] = now, (project, variables), build
        lane.queue.append(build)
        world.counts[f"{project}: {LaneFault.STUCK.name}"] += lane.fault is LaneFault.STUCK
        if lane.compute.queue_timeout is not None:
            world.clock.after(lane.compute.queue_timeout, lambda: self._leave_queue(lane, build))
        self._fill(lane)
        return self._answered(lane, build)

    @property
    def busy(self) -> bool:
        """Whether a build runs or is queued; not one that stays in its queue for ever."""
        return any(
            lane.running or (lane.queue and (lane.fault is not LaneFault.STUCK or lane.compute.queue_timeout))
            for lane in self.lanes.values()
        )

    def describe(self, ids: Sequence[str]) -> dict[str, Any]:
        """Answer BatchGetBuilds. It is refused as a whole if the key may not read one of the builds."""
        for project in {each.partition(":")[0] for each in ids}:
            self._lane(project, "BatchGetBuilds")
        found = [self.builds[each] for each in ids if each in self.builds and self.builds[each].ended != "VANISHED"]
        known = [build.build_id for build in found]
        return {"builds": list(map(_describe, found)), "buildsNotFound": [each for each in ids if each not in known]}

    def fail(self, project: str, fault: LaneFault | None) -> None:
        """Let a project fail in this way from now on, or repair it. Builds that run already end as they would."""
        lane = self.lanes[project]
        self._world.note("lane", project, "works again" if fault is None else fault.value)
        freed = lane.queue if lane.fault is LaneFault.STUCK is not fault else ()
        lane.fault = fault
        for build in freed:
            self._count_duplicate(build)
        self._fill(lane)

    def _answered(self, lane: Lane, build: Build) -> Build:
        if lane.fault is LaneFault.SILENT:
            self._world.counts[f"{build.lane}: {LaneFault.SILENT.name}"] += 1
            raise refusal("InternalServerError", "StartBuild", "after", status=500)
        return build

    def _count_duplicate(self, build: Build) -> None:
        """Count a build that will run while another one of the same copy runs, or waits in a queue that moves."""
        siblings = self.by_target.get((build.repository, build.tag), ())
        if any(each is not build and each.ended is None and not self._is_stuck(each) for each in siblings):
            self._world.counts["duplicate builds"] += 1
            self._world.note("DUPLICATE", build.build_id, build.repository, build.tag)

    def _is_stuck(self, build: Build) -> bool:
        return build.began is None and self.lanes[build.lane].fault is LaneFault.STUCK

    def _lane(self, project: str, operation: str) -> Lane:
        lane = self.lanes.get(project)
        if lane is None or lane.fault is LaneFault.DENIED:
            self._world.counts[f"{project}: {LaneFault.DENIED.name}"] += 1
            raise refusal("AccessDeniedException", operation, f"not authorized to perform {operation} on {project}")
        return lane

    def _fill(self, lane: Lane) -> None:
        while lane.queue and lane.running < lane.quota and lane.fault is not LaneFault.STUCK:
            lane.running += 1
            self._begin(lane, lane.queue.popleft())

    def _leave_queue(self, lane: Lane, build: Build) -> None:
        if build in lane.queue:
            lane.queue.remove(build)
            self._conclude(build, "QUEUE_TIMED_OUT")

    def _begin(self, lane: Lane, build: Build) -> None:
        world, faults, dice, compute = self._world, self._world.faults, self._world.dice, lane.compute
        build.began = world.clock.now
        ready = compute.starting + compute.installing
        copied, result = self._copied(compute, build, ready)
        vanishes = world.happens(faults.build_vanishes)
        ending = self._sources.endings.get(build.source)
        seconds, pushes = ready, False
        if lane.fault is LaneFault.FAULTS:
            seconds, result = compute.starting, "FAULT"
        elif lane.fault is LaneFault.UNEXPLAINED:
            result = "UNEXPLAINED"
        elif lane.fault is LaneFault.HANGS:
            seconds, result = compute.timeout, "TIMED_OUT"
        elif self.login_refused:
            result = "TARGET_LOGIN"
        elif ending is not None:
            seconds, result, pushes = _within(compute, ready + ending.seconds, ending.result)
        elif world.happens(faults.build_hangs):
            seconds, result = compute.timeout, "TIMED_OUT"
        elif world.happens(faults.build_delayed):
            seconds, result = ready + 5, dice.choice(_DELAYS)
        elif world.happens(faults.build_refused):
            seconds, result = ready + 5, dice.choice(_REFUSALS)
        else:
            seconds, pushes = copied, result == "COPIED"
            if pushes and world.happens(faults.build_fails_after_push):
                result = "UNREACHABLE"
        if lane.fault in (LaneFault.FAULTS, LaneFault.UNEXPLAINED, LaneFault.HANGS):
            world.counts[f"{compute.project}: {lane.fault.name}"] += 1
        self._end(lane, build, seconds, result, pushes=pushes, vanishes=vanishes)

    def _copied(self, compute: Compute, build: Build, ready: float) -> tuple[float, str]:
        """Return how long after its start a build ends that nothing disturbs, and its result.

        Layers that an earlier build has sent are not sent again.
        """
        asking, sending = copying_time(self._world.dice)
        size = self._sources.sizes.get(build.source)
        sending = sending if size is None else size.seconds
        arrived = self._registry.sent.get((build.repository, build.tag), 0.0)
        begins = ready + asking * self.pace
        left = max(sending * self.pace - arrived, 0.0)
        gigabytes = 0.0 if size is None else size.gigabytes * left / (size.seconds * self.pace)
        most = left * compute.most_gigabytes / gigabytes if gigabytes > compute.most_gigabytes else left
        sent = min(most, max(compute.stops_at - begins, 0.0))
        if size is not None:
            self._registry.sent[build.repository, build.tag] = arrived + sent
        if sent < most:
            return compute.stops_at, compute.out_of_time
        return begins + sent, "COPIED" if sent == left else "TOO_LARGE"

    def _end(self, lane: Lane, build: Build, seconds: float, result: str, *, pushes: bool, vanishes: bool) -> None:
        def conclude() -> None:
            lane.running -= 1
            ended = self._push(build, result) if pushes else result
            self._conclude(build, "VANISHED" if vanishes else ended)
            self._fill(lane)

        self._world.clock.after(seconds, conclude)

    def _push(self, build: Build, result: str) -> str:
        digest = self._sources.digest(build.source)
        if digest is None:
            return "NOT_FOUND"
        build.pushed, build.digest = self._registry.push(build.repository, build.tag, digest), digest
        return result if build.pushed else "TARGET_LOGIN"

    def _conclude(self, build: Build, ended: str) -> None:
        counts, compute = self._world.counts, self.lanes[build.lane].compute
        self._world.note("build", build.build_id, build.repository, build.tag, ended)
        counts[f"builds that ended {ended}"] += 1
        build.ended, build.ended_at = ended, self._world.clock.now
        seconds = 0.0 if build.began is None else build.ended_at - build.began
        if compute.by_second:
            counts[f"fast builds that ended {ended}"] += 1
            counts["fast build seconds"] += ceil(seconds)
        else:
            counts["build minutes"] += ceil(seconds / MINUTE)


def _within(compute: Compute, seconds: float, result: str) -> tuple[float, str, bool]:
    """Return when and how a build ends that would end like this, and whether it pushes.

    copy.py's own limit may be earlier.
    """
    if seconds > compute.stops_at:
        return compute.stops_at, compute.out_of_time, False
    return seconds, result, result == "COPIED"


def _describe(build: Build) -> dict[str, Any]:
    """Return an entry of BatchGetBuilds. The number decides whether the exported variables are missing.

    A build with a copy exports its digest, except one in ten, as one of an older global stack.
    """
    described: dict[str, Any] = {"id": build.build_id, "buildStatus": "IN_PROGRESS", "currentPhase": "COMPLETED"}
    described["startTime"] = datetime.fromtimestamp(build.submitted, UTC)
    if build.ended is None:
        return {**described, "currentPhase": "QUEUED" if build.began is None else "BUILD"}
    if build.ended == "COPIED":
        exported = {} if build.build_id[-1] == "9" else {"COPY_RESULT": "COPIED", "COPY_DIGEST": build.digest}
        variables = [{"name": name, "value": value} for name, value in exported.items()]
        return {**described, "buildStatus": "SUCCEEDED", "exportedEnvironmentVariables": variables}
    status = {"TIMED_OUT": "TIMED_OUT", "QUEUE_TIMED_OUT": "TIMED_OUT", "FAULT": "FAULT"}.get(build.ended, "FAILED")
    phase = "QUEUED" if build.ended == "QUEUE_TIMED_OUT" else "BUILD"
    message = "Error while executing command. Reason: exit status"
    described["buildStatus"] = status
    described["phases"] = [
        {"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED"},
        {
            "phaseType": phase,
            "phaseStatus": status,
            "contexts": [{"message": f"{message} {_EXITS.get(build.ended, 0)}" if status == "FAILED" else "no more"}],
        },
    ]
    if status == "FAILED" and build.ended != "UNEXPLAINED" and int(build.build_id[-1]) % 2:
        described["exportedEnvironmentVariables"] = [
            {"name": "COPY_RESULT", "value": build.ended},
            {"name": "COPY_REASON", "value": "as the source said"},
        ]
    return described
