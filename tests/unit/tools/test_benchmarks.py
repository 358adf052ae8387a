"""The benchmarks' own arithmetic, table and plot; the measurements themselves run by `make bench`."""

import importlib.util
import re
from xml.etree.ElementTree import Element, fromstring

import pytest

from benchmarks.admissions import SIZES, review_text
from benchmarks.plot import plot, ticks, used
from benchmarks.rounds import Row, compare, take_turns
from benchmarks.shares import Stats, least, shares_of
from benchmarks.table import BEGIN, END, NoPlaceError, line, put_into
from support.templates import ROOT

SVG = "{http://www.w3.org/2000/svg}"
COST = Row("a cost", "a reference", (4.0, 1.0, 2.0), 2.5)
GAIN = Row("a gain", "a reference", (30.0, 10.0, 15.0), 20.0, at_most=False)


@pytest.mark.parametrize(
    ("row", "median", "spread", "reached"),
    [
        pytest.param(COST, 2.0, (1.0, 4.0), True, id="a cost below its goal, whatever its worst round"),
        pytest.param(Row("", "", (3.0,), 2.5), 3.0, (3.0, 3.0), False, id="a cost above its goal"),
        pytest.param(Row("", "", (2.5,), 2.5), 2.5, (2.5, 2.5), True, id="a cost that just meets it"),
        pytest.param(GAIN, 15.0, (10.0, 30.0), False, id="a gain below its goal"),
        pytest.param(Row("", "", (20.0, 21.0), 20.0, at_most=False), 20.5, (20.0, 21.0), True, id="a gain above it"),
    ],
)
def test_the_median_decides(row: Row, median: float, spread: tuple[float, float], reached: bool) -> None:
    assert (row.median, row.spread, row.reached) == (median, spread, reached)


def test_a_ratio_is_of_costs_of_the_same_round() -> None:
    base = iter((1.0, 10.0, 100.0))
    cost = iter((2.0, 30.0, 400.0))
    assert compare(lambda: next(cost), lambda: next(base), 3) == (2.0, 3.0, 4.0)


def test_each_contestant_is_first_in_its_turn() -> None:
    order: list[str] = []
    names = ("a", "b", "c")
    take_turns({name: lambda name=name: order.append(name) for name in names}, 4)  # type: ignore[misc]
    assert "".join(order) == "abcbcacababc"


def test_a_line_of_the_table_has_median_spread_goal_and_result() -> None:
    assert line(COST) == "| a cost | a reference | 2.00x | 1.00 to 4.00 | at most 2.5x | reached |"
    assert line(GAIN) == "| a gain | a reference | 15.00x | 10.00 to 30.00 | at least 20x | NOT REACHED |"


def test_the_table_takes_the_place_of_the_last_one_and_nothing_else() -> None:
    page = f"# Title\n{BEGIN}\n{END}\nafter\n"
    once = put_into(page, ["| new |", "| --- |"])
    assert once == f"# Title\n{BEGIN}\n| new |\n| --- |\n{END}\nafter\n"
    assert put_into(once, ["other"]) == f"# Title\n{BEGIN}\nother\n{END}\nafter\n"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("# Title\n", id="no markers"),
        pytest.param(f"{BEGIN}\n", id="no end"),
        pytest.param(f"{END}\n{BEGIN}\n", id="the wrong order"),
        pytest.param(f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n", id="two places"),
    ],
)
def test_a_page_without_one_place_for_the_table_is_refused(page: str) -> None:
    with pytest.raises(NoPlaceError, match="once each"):
        put_into(page, ["new"])


def test_a_goal_met_is_1_and_less_is_better_for_costs_and_gains() -> None:
    assert used(COST, 2.5) == used(GAIN, 20.0) == 1
    assert used(COST, 1.0) == 0.4
    assert used(GAIN, 40.0) == 0.5


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        pytest.param(0.3, 1.5, [0.2, 0.5, 1, 2], id="around the goal"),
        pytest.param(0.05, 12, [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20], id="over decades"),
        pytest.param(1.0, 1.0, [1], id="a point"),
    ],
)
def test_the_scale_encloses_all_values(least: float, most: float, expected: list[float]) -> None:
    assert ticks(least, most) == expected


def drawn(*rows: Row) -> Element:
    return fromstring(plot(rows))


def test_the_plot_shows_each_row_on_its_side_of_the_goal() -> None:
    svg = drawn(COST, GAIN)
    [goal] = [float(each.attrib["x1"]) for each in svg.iter(f"{SVG}line") if each.attrib["class"] == "goal"]
    cost, gain = svg.iter(f"{SVG}circle")
    assert float(cost.attrib["cx"]) < goal < float(gain.attrib["cx"])
    assert (cost.attrib["class"], gain.attrib["class"]) == ("reached", "missed")
    texts = [each.text for each in svg.iter(f"{SVG}text")]
    assert {"a cost", "2.00x", "at most 2.5x", "15.00x", "at least 20x: not reached"} <= set(texts)


def test_the_bar_goes_from_the_least_to_the_greatest_round() -> None:
    svg = drawn(COST)
    [bar] = [each for each in svg.iter(f"{SVG}line") if each.attrib["class"].startswith("spread")]
    [dot] = svg.iter(f"{SVG}circle")
    left, middle, right = float(bar.attrib["x1"]), float(dot.attrib["cx"]), float(bar.attrib["x2"])
    # On a logarithmic scale the distance from 1 to 2 equals that from 2 to 4.
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert left < middle


def test_the_plot_escapes_what_is_markup() -> None:
    row = Row("a < b & c", '"reference"', (1.0,), 1.0)
    assert "a < b & c" in [each.text for each in drawn(row).iter(f"{SVG}text")]


def test_a_long_reference_ends_before_the_scale() -> None:
    row = Row("what", "many words " * 20, (1.0,), 1.0)
    [text] = [each.text or "" for each in drawn(row).iter(f"{SVG}text") if (each.text or "").startswith("against")]
    assert text.endswith(" ...")
    assert len(text) <= 68


def test_everything_in_the_plot_lies_within_it() -> None:
    rows = [Row("what", "reference", (0.001, 1.0, 1000.0), 1.0)] * 20
    svg = drawn(*rows)
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for element in svg.iter():
        for name, value in element.attrib.items():
            if re.fullmatch(r"c?[xy][12]?", name):
                assert 0 <= float(value) <= (width if "x" in name else height)


def test_the_plot_has_its_own_ground_and_text_for_light_and_dark() -> None:
    style = drawn(COST).findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for each in (light, dark):
        [ground] = re.findall(r"\.ground \{ fill: (#\w+)", each)
        [text] = re.findall(r"\btext \{[^}]*fill: (#\w+)", each)
        assert abs(brightness(ground) - brightness(text)) > 0.7
    assert brightness(re.findall(r"\.ground \{ fill: (#\w+)", dark)[0]) < 0.2


def brightness(colour: str) -> float:
    return sum(int(colour[start : start + 2], 16) for start in (1, 3, 5)) / 3 / 255


def test_what_c_and_generated_code_take_counts_as_their_callers() -> None:
    ours = ("/checkout/src/image_mirror/pod_images.py", 1, "new_images")
    theirs = ("/usr/lib/python3/json/decoder.py", 2, "decode")
    made, builtin = ("<string>", 2, "__init__"), ("~", 0, "<built-in method setattr>")
    stats: Stats = {
        ours: (1, 1, 3.0, 10.0, {}),
        theirs: (1, 1, 2.0, 4.0, {}),
        made: (1, 1, 1.0, 5.0, {ours: (1, 1, 1.0, 5.0)}),
        builtin: (2, 2, 4.0, 4.0, {made: (1, 1, 1.0, 1.0), theirs: (1, 1, 3.0, 3.0)}),
    }
    shares = shares_of(stats)
    assert shares == {"Python's pod_images": pytest.approx(0.5), "json, reading": pytest.approx(0.5)}


def test_code_that_calls_itself_ends_in_the_part_that_called_it_first() -> None:
    ours = ("/usr/lib/python3/base64.py", 1, "b64encode")
    one, two = ("~", 0, "<built-in method one>"), ("<string>", 2, "__hash__")
    stats: Stats = {
        ours: (1, 1, 1.0, 3.0, {}),
        one: (2, 2, 1.0, 2.0, {two: (1, 1, 0.5, 1.0), ours: (1, 1, 0.5, 1.0)}),
        two: (1, 1, 1.0, 1.0, {one: (1, 1, 1.0, 1.0)}),
    }
    assert shares_of(stats) == {"Python's base64": pytest.approx(1.0)}


def test_what_interrupted_one_profile_does_not_count() -> None:
    ours, builtin = ("/usr/lib/python3/base64.py", 1, "b64encode"), ("~", 0, "<built-in method one>")
    now_and_then = ("~", 0, "<built-in method print>")
    calm: Stats = {ours: (1, 1, 1.0, 9.0, {}), builtin: (2, 2, 5.0, 5.0, {ours: (2, 2, 5.0, 5.0)})}
    busy: Stats = {ours: (1, 1, 8.0, 9.0, {}), builtin: (2, 2, 2.0, 2.0, {ours: (2, 2, 2.0, 2.0)})}
    found = least([{**calm, now_and_then: (1, 1, 7.0, 7.0, {})}, busy])
    assert {function: costs[2] for function, costs in found.items()} == {ours: 1.0, builtin: 2.0}
    assert found[builtin][4][ours][2] == 2.0


@pytest.mark.parametrize("size", SIZES)
def test_a_reviews_size_is_that_of_what_is_sent(size: str) -> None:
    assert f"{len(review_text(size).encode()) / 1000:.1f} kB" == size


def test_each_module_that_a_benchmark_runs_as_a_program_exists() -> None:
    found = [
        name
        for path in (ROOT / "benchmarks").glob("*.py")
        for name in re.findall(r'"-m", "(benchmarks[\w.]*)"', path.read_text())
    ]
    assert len(found) >= 3
    for name in found:
        assert importlib.util.find_spec(name), name
