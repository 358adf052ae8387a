"""One call to AWS as a function sees it: it takes time, is retried, and may fail or crash before or after it works."""

from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ReadTimeoutError

from image_mirror.aws import CallLimits
from simulation.world import World

Answer = TypeVar("Answer")


def refusal(code: str, operation: str, message: str = "", *, status: int = 400) -> ClientError:
    """Return the error that a client raises for an error answer of this HTTP status."""
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


class Client:
    """The common part of the modelled clients of all services."""

    def __init__(self, world: World, service: str, limits: CallLimits, latency: float) -> None:
        self.world = world
        self._service = service
        self._limits = limits
        self._latency = latency

    def call(self, operation: str, effect: Callable[[], Answer]) -> Answer:
        """Return the result of `effect`, which happens at one moment inside the call; retry as botocore does."""
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return self._attempt(operation, effect)
            except _FaultError as fault:
                self.world.note("fault", operation, fault.error)
                if attempt == self._limits.attempts:
                    raise fault.error from None
            self.world.threads.sleep(self.world.dice.uniform(0, 1))
        raise AssertionError("a client tries at least once")

    def _attempt(self, operation: str, effect: Callable[[], Answer]) -> Answer:
        world, faults = self.world, self.world.faults
        world.counts[f"{self._service} {operation}"] += 1
        world.threads.process.instance.calls[self._service] += 1
        self._may_crash(operation, "before")
        world.threads.sleep(self._latency)
        if world.happens(faults.throttled) or (self._service == "DynamoDB" and world.happens(faults.table_throttled)):
            world.counts["calls throttled"] += 1
            raise _FaultError(refusal("ThrottlingException", operation))
        if world.happens(faults.fails_before):
            world.counts["calls failed before their effect"] += 1
            raise _FaultError(refusal("InternalServerError", operation, "before", status=500))
        hangs = world.happens(faults.times_out)
        if hangs and world.happens(0.5):
            self._time_out(operation)
        answer = effect()
        if hangs:
            self._time_out(operation)
        self._may_crash(operation, "after")
        if world.happens(faults.fails_after):
            world.counts["calls failed after their effect"] += 1
            raise _FaultError(refusal("InternalServerError", operation, "after", status=500))
        return answer

    def _time_out(self, operation: str) -> None:
        self.world.counts["calls timed out"] += 1
        self.world.threads.sleep(self._limits.read)
        raise _FaultError(ReadTimeoutError(endpoint_url=f"{self._service} {operation}"))

    def _may_crash(self, operation: str, side: str) -> None:
        if self.world.happens(self.world.faults.crashes):
            self.world.note("crash", side, operation)
            self.world.counts["crashes"] += 1
            self.world.threads.crash(self.world.threads.process)


class _FaultError(Exception):
    """An error of the network or the service, which botocore retries; it does not retry errors that a model raises."""

    def __init__(self, error: ClientError | ReadTimeoutError) -> None:
        super().__init__(str(error))
        self.error = error
