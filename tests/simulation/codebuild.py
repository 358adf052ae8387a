"""CodeBuild: a project with a quota of running builds, a queue of five times that, and tokens valid for 5 minutes."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from image_mirror.build_result import EXIT_CODES
from simulation.clock import HOUR, MINUTE
from simulation.ecr import Registry
from simulation.network import refusal
from simulation.sources import Sources
from simulation.world import World

PROVISIONING = 40.0
INSTALLING = 5.0  # crane, one download; and the login to ECR
TOKEN_HELD_FOR = 5 * MINUTE
BUILD_TIMEOUT = HOUR
QUEUE_TIMEOUT = 8 * HOUR
_DELAYS = ("RATE_LIMITED", "UNREACHABLE", "TARGET_LOGIN", "FAULT")
_REFUSALS = ("NOT_FOUND", "DENIED", "UNEXPLAINED")
_EXITS = {result: code for code, result in EXIT_CODES.items()} | {"UNEXPLAINED": 1}


def copying_time(dice: Random) -> tuple[float, float]:
    """Return the seconds of one copy's round trips across the border, and the seconds in which it sends layers."""
    return 10, dice.expovariate(1 / 35)


@dataclass(slots=True)
class Build:
    """One build. `ended` is its result: COPIED, a COPY_RESULT, FAULT, TIMED_OUT, QUEUE_TIMED_OUT or VANISHED."""

    build_id: str
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


class CodeBuild:
    """The project's builds, by ID. With `login_refused` ECR refuses the key that they log in with."""

    def __init__(self, world: World, registry: Registry, sources: Sources, *, quota: int) -> None:
        self._world = world
        self._registry = registry
        self._sources = sources
        self._quota = quota
        self._tokens: dict[str, tuple[float, dict[str, str], Build]] = {}
        self._running = 0
        self._queue: deque[Build] = deque()
        self.login_refused = False
        self.builds: dict[str, Build] = {}
        self.by_target: dict[tuple[str, str], list[Build]] = {}

    def start(self, variables: dict[str, str], token: str) -> Build:
        """Accept a build, or return the one that this token started in the last five minutes."""
        world, now = self._world, self._world.clock.now
        known = self._tokens.get(token)
        if known is not None and now - known[0] < TOKEN_HELD_FOR:
            if known[1] != variables:
                raise refusal("InvalidInputException", "StartBuild", "the token was used with other parameters")
            return known[2]
        if len(self._queue) >= 5 * self._quota:
            raise refusal("AccountLimitExceededException", "StartBuild", "cannot have more builds in queue")
        destination, _, tag = variables["NEW_DOCKER_IMAGE"].rpartition(":")
        repository = destination.partition("/")[2]
        build = Build(f"ImagePullProject:{len(self.builds):06}", variables["DOCKER_IMAGE"], repository, tag, now)
        siblings = self.by_target.setdefault((repository, tag), [])
        if any(sibling.ended is None for sibling in siblings):
            world.counts["duplicate builds"] += 1
            world.note("DUPLICATE", build.build_id, repository, tag)
        siblings.append(build)
        self.builds[build.build_id] = build
        self._tokens[token] = now, variables, build
        self._queue.append(build)
        world.clock.after(QUEUE_TIMEOUT, lambda: self._leave_queue(build))
        self._fill()
        return build

    @property
    def busy(self) -> bool:
        """Whether a build runs or is queued."""
        return bool(self._running or self._queue)

    def describe(self, ids: Sequence[str]) -> dict[str, Any]:
        """Answer BatchGetBuilds."""
        found = [self.builds[each] for each in ids if each in self.builds and self.builds[each].ended != "VANISHED"]
        known = [build.build_id for build in found]
        return {"builds": list(map(_describe, found)), "buildsNotFound": [each for each in ids if each not in known]}

    def _fill(self) -> None:
        while self._queue and self._running < self._quota:
            self._running += 1
            self._begin(self._queue.popleft())

    def _leave_queue(self, build: Build) -> None:
        if build in self._queue:
            self._queue.remove(build)
            self._conclude(build, "QUEUE_TIMED_OUT")

    def _begin(self, build: Build) -> None:
        world, faults, dice = self._world, self._world.faults, self._world.dice
        build.began = world.clock.now
        ready = PROVISIONING + INSTALLING
        copied = ready + sum(copying_time(dice))
        vanishes = world.happens(faults.build_vanishes)
        ending = self._sources.endings.get(build.source)
        if self.login_refused:
            self._end(build, ready, "TARGET_LOGIN", pushes=False, vanishes=vanishes)
        elif ending is not None:
            self._end(build, ready + ending.seconds, ending.result, pushes=ending.result == "COPIED", vanishes=vanishes)
        elif world.happens(faults.build_hangs):
            self._end(build, BUILD_TIMEOUT, "TIMED_OUT", pushes=False, vanishes=vanishes)
        elif world.happens(faults.build_delayed):
            self._end(build, ready + 5, dice.choice(_DELAYS), pushes=False, vanishes=vanishes)
        elif world.happens(faults.build_refused):
            self._end(build, ready + 5, dice.choice(_REFUSALS), pushes=False, vanishes=vanishes)
        elif world.happens(faults.build_fails_after_push):
            self._end(build, copied, "UNREACHABLE", pushes=True, vanishes=vanishes)
        else:
            self._end(build, copied, "COPIED", pushes=True, vanishes=vanishes)

    def _end(self, build: Build, seconds: float, result: str, *, pushes: bool, vanishes: bool) -> None:
        def conclude() -> None:
            self._running -= 1
            ended = self._push(build, result) if pushes else result
            self._conclude(build, "VANISHED" if vanishes else ended)
            self._fill()

        self._world.clock.after(seconds, conclude)

    def _push(self, build: Build, result: str) -> str:
        digest = self._sources.digest(build.source)
        if digest is None:
            return "NOT_FOUND"
        build.pushed, build.digest = self._registry.push(build.repository, build.tag, digest), digest
        return result if build.pushed else "TARGET_LOGIN"

    def _conclude(self, build: Build, ended: str) -> None:
        self._world.note("build", build.build_id, build.repository, build.tag, ended)
        self._world.counts[f"builds that ended {ended}"] += 1
        build.ended, build.ended_at = ended, self._world.clock.now
        if build.began is not None:
            self._world.counts["build minutes"] += int(-(-(build.ended_at - build.began) // MINUTE))


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
