"""A clock that stands still, for tests in which ages and dates are compared whole."""

from collections.abc import Iterator

import pytest
import time_machine

NOON = 1_790_000_000_000  # milliseconds since the epoch; records that a module makes when it is collected are of it


@pytest.fixture(scope="module")
def noon() -> Iterator[None]:
    """Have it be NOON in all tests of a module; time.monotonic() and what waits go on."""
    with time_machine.travel(NOON / 1000, tick=False):
        yield
