"""The table of all rows, in Markdown, and its place in a page."""

from collections.abc import Sequence

from benchmarks.rounds import Row

HEAD = "| what is measured | reference | median ratio | spread | goal | |\n| --- | --- | --- | --- | --- | --- |"
BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"


class NoPlaceError(ValueError):
    """A page without the two lines around the table."""


def line(row: Row) -> str:
    """Return a row of the table."""
    low, high = row.spread
    mark = "reached" if row.reached else "NOT REACHED"
    return f"| {row.what} | {row.reference} | {row.median:.2f}x | {low:.2f} to {high:.2f} | {row.goal} | {mark} |"


def skipped(name: str, reason: str) -> str:
    """Return a row that says why the rows called `name` could not be measured."""
    return f"| {name} | not measured: {reason} | | | | |"


def put_into(page: str, lines: Sequence[str], first: str = BEGIN, last: str = END) -> str:
    """Return `page` with `lines` between its two markers. Raises NoPlaceError unless each marker is there once."""
    before, begin, rest = page.partition(f"{first}\n")
    _, end, after = rest.partition(f"{last}\n")
    if not begin or not end or first in after or last in after:
        raise NoPlaceError(f"the page must have the lines {first!r} and {last!r}, in this order and once each")
    return before + begin + "\n".join(lines) + "\n" + end + after
