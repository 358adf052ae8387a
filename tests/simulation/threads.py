"""Threads of the simulation: greenlets that switch only where they sleep or wait, in virtual time.

Threads interleave at each call to AWS, in an order that only the seed decides, and can crash there.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import getcurrent, greenlet

from simulation.clock import Clock

if TYPE_CHECKING:
    from concurrent import futures

Value = TypeVar("Value")


class CrashError(BaseException):
    """Ends a thread at any place; no handler of the product catches it."""


class Process:
    """Threads that crash together: one invocation of a function on one of its instances."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        self.threads: list[Thread] = []
        self.crashed = False


class Thread(greenlet):
    """One thread of a process."""

    process: Process


class Threads:
    """Starts, suspends and crashes threads; the greenlet that creates it runs the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hub = getcurrent()

    @property
    def process(self) -> Process:
        """The running process."""
        return self._thread().process

    def now(self) -> float:
        """Return the clock's seconds."""
        return self._clock.now

    def start(self, process: Process, function: Callable[[], object]) -> None:
        """Run `function` in a new thread, from the clock's current moment on."""

        def run() -> None:
            try:
                function()
            except CrashError:
                pass
            finally:
                process.threads.remove(thread)

        thread = Thread(run, parent=self._hub)
        thread.process = process
        process.threads.append(thread)
        self._resume(thread)

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass for the calling thread; others run meanwhile."""
        if not self._clock.skip(seconds):
            self._clock.after(seconds, partial(self._switch, self._thread()))
            self._hub.switch()

    def wait_for(self, until: Callable[[Callable[[], None]], object], timeout: float | None = None) -> None:
        """Suspend the calling thread for `timeout` seconds, or until somebody calls the function passed to `until`."""
        thread, woken = self._thread(), False

        def wake() -> None:
            nonlocal woken
            if not woken:
                woken = True
                self._resume(thread)

        until(wake)
        if timeout is not None:
            self._clock.after(timeout, wake)
        self._hub.switch()

    def wait(
        self, awaited: Iterable["futures.Future[Value]"], timeout: float | None = None
    ) -> "tuple[list[futures.Future[Value]], list[futures.Future[Value]]]":
        """Like `concurrent.futures.wait`, in virtual time and in a stable order."""
        every = list(awaited)
        missing = [future for future in every if not future.done()]

        def until(wake: Callable[[], None]) -> None:
            def one_is_done(future: "futures.Future[Value]") -> None:
                missing.remove(future)
                if not missing:
                    wake()

            for future in list(missing):
                future.add_done_callback(one_is_done)

        if missing:
            self.wait_for(until, timeout)
        return [future for future in every if future.done()], [future for future in every if not future.done()]

    def crash(self, process: Process) -> None:
        """End every thread of `process`, including the calling one."""
        process.crashed = True
        this = getcurrent()
        for thread in list(process.threads):
            if thread is not this:
                self._clock.after(0, partial(_end, thread))
        if isinstance(this, Thread) and this.process is process:
            raise CrashError

    def _thread(self) -> Thread:
        thread = getcurrent()
        assert isinstance(thread, Thread), "only a thread of the simulation may wait"
        return thread

    def _resume(self, thread: Thread) -> None:
        self._clock.after(0, partial(self._switch, thread))

    def _switch(self, thread: Thread) -> None:
        if not thread.dead:
            thread.switch()


def _end(thread: Thread) -> None:
    if not thread.dead:
        thread.throw(CrashError)
