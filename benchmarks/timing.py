"""Measures CPU time or elapsed time."""

import time
from collections.abc import Callable


def cpu(function: Callable[[], object], times: int) -> float:
    """Return the CPU seconds of one call in this process, all threads together."""
    began = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - began) / times


def elapsed(function: Callable[[], object], times: int = 1) -> float:
    """Return how many seconds one call lasts."""
    began = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - began) / times
