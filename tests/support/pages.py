"""Reads sections and tables of the pages in docs/ and of the README."""

import re


def section(page: str, title: str) -> str:
    """Return the text of a section, up to the next one of its level."""
    found = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    return found


def table(text: str, head: str) -> list[list[str]]:
    """Return the cells of the first table in `text` whose first column is called `head`, row by row."""
    rows = text.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows, head
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def quoted(cell: str) -> list[str]:
    """Return the texts between backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def words(text: str) -> str:
    """Return a text with its line breaks replaced by spaces."""
    return " ".join(text.split())
