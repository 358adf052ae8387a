"""The tables of docs/cost.md are what the fleets have used, at the current prices."""

import re
from dataclasses import replace

import pytest

from simulation.cost import FLEETS, Used, recorded
from simulation.prices import DAYS_A_MONTH, PRICES, Usage, idle
from support.pages import table
from support.templates import ROOT
from tools import cost_page

PAGE = cost_page.PAGE.read_text(encoding="utf-8")
NOTHING = Usage(
    webhook_invocations=0,
    webhook_seconds=0.0,
    reconciler_invocations=0,
    reconciler_seconds=0.0,
    write_units=0,
    read_units=0.0,
    build_minutes=0,
    fast_build_seconds=0,
    secret_calls=0,
    pushes=0,
    images=0,
    image_gigabytes=0.0,
)


def used(days: int = 7, **more: int) -> Used:
    return Used(days=days, admissions=0, builds=0, usage=replace(NOTHING, **more))


def test_the_page_has_the_current_tables() -> None:
    assert cost_page.with_tables(PAGE) == PAGE, "run: make docs"


def test_each_fleet_is_recorded_and_has_all_its_copies() -> None:
    found = recorded()
    assert list(found) == list(FLEETS)
    quiet, busy, first = found.values()
    assert (quiet.usage.images, busy.usage.images, first.usage.images) == (70, 5_000, 500)
    assert busy.admissions == pytest.approx(1_000_000, rel=0.01)
    for each in found.values():
        assert each.usage.images * 0.99 <= each.usage.pushes <= each.builds


@pytest.mark.parametrize(
    ("part", "fleet", "usd"),
    [
        pytest.param(cost_page.DATA, used(pushes=10), 10 * 0.2 * 0.09, id="each push sends the whole image"),
        pytest.param(cost_page.BUILDS, used(build_minutes=7), 7 * 0.005, id="minutes of builds"),
        pytest.param(cost_page.STORAGE, used(images=365, days=1), 365 * 0.2 * 0.10 * 12 / 365.25, id="a day of 73 GB"),
        pytest.param(cost_page.ADMISSIONS, used(pushes=10, build_minutes=7, images=365), 0.0, id="no admission"),
        pytest.param(
            cost_page.ADMISSIONS,
            used(write_units=1_000_000),
            1_000_000 * PRICES["DynamoDB write unit"].usd,
            id="a million records",
        ),
        pytest.param(cost_page.FIXED, used(pushes=10), idle(7), id="a week without anything"),
        pytest.param(cost_page.FIXED, used(days=1), idle(7) / 7, id="a day of the fixed part"),
    ],
)
def test_a_part_follows_from_what_was_used(part: str, fleet: Used, usd: float) -> None:
    assert cost_page.parts(fleet)[part] == pytest.approx(usd)


def test_the_most_expensive_part_is_the_first() -> None:
    assert next(iter(cost_page.parts(used(pushes=1_000)))) == cost_page.DATA
    assert next(iter(cost_page.parts(used(build_minutes=10_000)))) == cost_page.BUILDS


def test_the_text_says_the_prices_of_the_regions_and_of_the_caps() -> None:
    words = " ".join(PAGE.split())
    oregon, tokyo = PRICES["GB out to the internet"].usd, PRICES["GB out of Tokyo"].usd
    assert f"the lowest price, {oregon} dollars" in words
    assert f"costs {tokyo}, a quarter more" in words
    assert 1.2 < tokyo / oregon < 1.3
    assert f"quota times {PRICES['CodeBuild minute'].usd * 60 * 24:.2f} dollars a day" in words
    assert f"fast lane's quota times {PRICES['CodeBuild second'].usd * 60 * 60 * 24:.2f}" in words
    assert f"costs {PRICES['CodeBuild second'].usd:.5f} dollars a second" in words
    assert f"about {cost_page.SERVER_CORE} GB for Server Core and {cost_page.NANO_SERVER} GB for Nano Server" in words


def test_the_readme_says_what_a_copy_costs_and_a_month_in_which_nothing_happens() -> None:
    rows = {row[0]: row[1:] for row in table(PAGE.partition("## One copy")[2], "image, costs in USD")}
    data, _, build, *_ = map(float, rows["a Linux image of 0.2 GB"])
    assert round(100 * (data + build)) == 3
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"three cents for each copy of 0.2 GB, and at most {idle(DAYS_A_MONTH):.2f} dollars a month" in readme


def test_data_is_most_of_the_cost_where_the_text_says_so() -> None:
    rows = {row[0]: row[1:] for row in table(PAGE, "part, in USD")}
    _, busy, first = rows["most of it"]
    for most in (busy, first):
        assert re.match(r"data across the border, [5-9]\d%", most)
