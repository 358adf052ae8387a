"""What the file has about the fleets of docs/cost.md is what their simulation still gives.

The busy week takes too long here. If one of the others differs, `python -m simulation --cost` runs all three.
"""

import pytest

from simulation.cost import FLEETS, busy, recorded


@pytest.mark.parametrize("name", [name for name, run in FLEETS.items() if run is not busy])
def test_a_fleet_uses_what_was_recorded(name: str) -> None:
    assert FLEETS[name]() == recorded()[name], "run: python -m simulation --cost, and then make docs"


def test_a_day_of_a_small_busy_week_has_builds_as_long_as_those_that_were_recorded() -> None:
    week, day = recorded()["a busy week"].usage, busy(1, admissions=50_000, images=300).usage
    assert day.pushes > 150
    assert day.build_minutes / day.pushes == pytest.approx(week.build_minutes / week.pushes, rel=0.1)
