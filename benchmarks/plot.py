"""A plot of all rows as SVG text: each row's ratio in relation to its goal, on a logarithmic scale."""

import math
from collections.abc import Sequence
from textwrap import shorten
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from benchmarks.rounds import Row

_WIDTH, _LEFT, _RIGHT = 960, 400, 770  # the width of the picture, and the beginning and end of the scale
_TOP, _ROW = 72, 40
_LONGEST = 68  # letters of a row's reference on the left of the scale; the table has the whole text
# Background and text change together, so that the plot can be read on any page.
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.ground { fill: #ffffff; stroke: #d1d9e0; } .faint { fill: #59636e; font-size: 11px; }
.grid { stroke: #d1d9e0; } .goal { stroke: #1f2328; stroke-width: 2; }
.spread { stroke-width: 6; stroke-linecap: round; opacity: 0.45; }
.reached { stroke: #0969da; fill: #0969da; } .missed { stroke: #bc4c00; fill: #bc4c00; }
text.missed { stroke: none; font-weight: bold; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .ground { fill: #0d1117; stroke: #3d444d; } .faint { fill: #9198a1; }
  .grid { stroke: #3d444d; } .goal { stroke: #f0f6fc; }
  .reached { stroke: #4493f8; fill: #4493f8; } .missed { stroke: #f0883e; fill: #f0883e; }
}
"""


def used(row: Row, ratio: float) -> float:
    """Return a ratio in relation to the goal of `row`: 1 just reaches it, and less is better for every row."""
    return ratio / row.reach if row.at_most else row.reach / ratio


def ticks(least: float, most: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, from the last one below `least` to the first one above `most`."""
    exponents = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
    numbers = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(number for number in numbers if number <= least)
    last = min(number for number in numbers if number >= most)
    return [number for number in numbers if first <= number <= last]


def plot(rows: Sequence[Row]) -> str:
    """Return the SVG of at least one row: a dot for the median, a bar for the spread, a line for the goal."""
    values = [used(row, ratio) for row in rows for ratio in row.ratios]
    scale = ticks(min(values), max(*values, 1.5))
    first, last = math.log(scale[0]), math.log(scale[-1])

    def x(value: float) -> str:
        return f"{_LEFT + (_RIGHT - _LEFT) * (math.log(value) - first) / (last - first):.1f}"

    bottom = _TOP + _ROW * len(rows)
    size = {"width": str(_WIDTH), "height": str(bottom + 36), "viewBox": f"0 0 {_WIDTH} {bottom + 36}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    SubElement(svg, "title").text = "What each row of the benchmark takes of what its goal allows"
    SubElement(svg, "style").text = _STYLE
    ground = {"width": str(_WIDTH - 1), "height": str(bottom + 35), "x": "0.5", "y": "0.5", "rx": "6"}
    SubElement(svg, "rect", {"class": "ground", **ground})
    _text(svg, 16, 26, "What each row takes of what its goal allows; left of the line is better")
    _text(svg, 16, 44, "dot: median, bar: least to greatest of all rounds, logarithmic scale", "faint")
    for tick in scale:
        kind = "goal" if tick == 1 else "grid"
        _line(svg, kind, (x(tick), _TOP - 6), (x(tick), bottom))
        label = "goal" if tick == 1 else f"{tick:g}"
        _text(svg, x(tick), bottom + 18, label, "faint", anchor="middle")
    for number, row in enumerate(rows):
        middle = _TOP + _ROW * number + _ROW // 2
        kind = "reached" if row.reached else "missed"
        low, high = sorted(used(row, ratio) for ratio in row.spread)
        _text(svg, 16, middle - 2, row.what)
        _text(svg, 16, middle + 13, shorten(f"against {row.reference}", _LONGEST, placeholder=" ..."), "faint")
        _line(svg, f"spread {kind}", (x(low), middle), (x(high), middle))
        dot = {"cx": x(used(row, row.median)), "cy": str(middle), "r": "5"}
        SubElement(svg, "circle", {"class": kind, **dot})
        _text(svg, _RIGHT + 16, middle - 2, f"{row.median:.2f}x", "" if row.reached else kind)
        _text(svg, _RIGHT + 16, middle + 13, f"{row.goal}{'' if row.reached else ': not reached'}", "faint")
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def _text(svg: Element, x: str | int, y: int, text: str, kind: str = "", anchor: str = "start") -> None:
    SubElement(svg, "text", {"class": kind, "x": str(x), "y": str(y), "text-anchor": anchor}).text = text


def _line(svg: Element, kind: str, start: tuple[str, int], end: tuple[str, int]) -> None:
    (x1, y1), (x2, y2) = start, end
    SubElement(svg, "line", {"class": kind, "x1": x1, "y1": str(y1), "x2": x2, "y2": str(y2)})
