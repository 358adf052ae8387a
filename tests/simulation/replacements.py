"""Replacements of the product's thread pools and locks, so that it runs on the simulation's threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

from simulation.threads import Threads

Value = TypeVar("Value")
Parameters = ParamSpec("Parameters")


class Executor(futures.Executor):
    """Replaces ThreadPoolExecutor."""

    def __init__(self, threads: Threads, max_workers: int, thread_name_prefix: str = "") -> None:
        del thread_name_prefix
        self._threads = threads
        self._free = max_workers
        self._queue: deque[tuple[futures.Future[Any], Callable[[], Any]]] = deque()
        self._given: list[futures.Future[Any]] = []

    def submit(
        self, function: Callable[Parameters, Value], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> "futures.Future[Value]":
        future: futures.Future[Value] = futures.Future()
        self._queue.append((future, partial(function, *args, **kwargs)))
        if self._free:
            self._free -= 1
            self._threads.start(self._threads.process, self._work)
        return future

    def map(
        self, fn: Callable[..., Value], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Value]:
        del timeout, chunksize
        given = [self.submit(fn, *each) for each in zip(*iterables, strict=False)]
        self._given += given
        self._threads.wait(given)
        return (future.result() for future in given)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._threads.wait(self._given)

    def _work(self) -> None:
        try:
            while self._queue:
                future, call = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    try:
                        result = call()
                    except Exception as error:  # noqa: BLE001 - a future carries whatever its call raised
                        future.set_exception(error)
                    else:
                        future.set_result(result)
        finally:
            self._free += 1


class Lock:
    """Replaces threading.Lock where the product calls AWS while it has the lock."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._held = False
        self._waiting: deque[Callable[[], None]] = deque()

    def __enter__(self) -> None:
        while self._held:
            self._threads.wait_for(self._waiting.append)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        if self._waiting:
            self._waiting.popleft()()


@contextmanager
def installed(threads: Threads) -> Iterator[None]:
    """Replace real threads in `image_mirror`'s recorder, reconciler and global_access by these."""
    executor = partial(Executor, threads)
    with (
        patch.multiple("image_mirror.recorder", ThreadPoolExecutor=executor, wait=threads.wait, monotonic=threads.now),
        patch.multiple("image_mirror.reconciler", ThreadPoolExecutor=executor),
        patch.multiple("image_mirror.global_access", threading=SimpleNamespace(Lock=partial(Lock, threads))),
    ):
        yield
