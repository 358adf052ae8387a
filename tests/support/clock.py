"""A stopped clock, for tests that compare printed ages and dates exactly."""

from collections.abc import Iterator

import pytest
import time_machine

NOON = 1_790_000_000_000  # milliseconds since the epoch; records that a module makes when it is collected are of it


@pytest.fixture(scope="module")
def noon() -> Iterator[None]:
    """Stop the clock at NOON in all tests of a module; time.monotonic() and waiting are not changed."""
    with time_machine.travel(NOON / 1000, tick=False):
        yield
