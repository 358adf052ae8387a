"""How commands print their results: aligned lines for people, JSON, YAML or names for programs, and times for both.

All times come in as milliseconds since the epoch; 0 means that there is none.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar
from unicodedata import combining, east_asian_width

import typer

from image_mirror.messages import printable
from image_mirror.record import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Spaces and the word after them, or a Chinese, Japanese or Korean character: a line may end before each.
_WIDE = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6"
_WORDS = re.compile(rf" *(?:[{_WIDE}]|[^ {_WIDE}]+)")

Row = TypeVar("Row", bound="DataclassInstance")


class Output(StrEnum):
    """The formats in which rows are printed, named as in kubectl. Wide is a table with more columns, if any."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def is_table(self) -> bool:
        """Return whether people read it."""
        return self in (Output.TABLE, Output.WIDE)


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="The output format.")]


def show(
    rows: Sequence[Row], output: Output, *, name: Callable[[Row], str], table: Callable[[], Iterable[str]]
) -> None:
    """Print rows on standard output: as a list whose keys are their fields' names, by name, or the lines of a table.

    A name is printed once. No rows are an empty list in JSON and YAML, and nothing else.
    """
    if output.is_table:
        lines = list(table()) if rows else []
    elif output is Output.NAME:
        lines = list(dict.fromkeys(printable(name(row)) for row in rows))
    else:
        lines = [as_data([asdict(row) for row in rows], output)]
    if lines:
        # One text, because flushing thousands of single lines takes longer than reading the records from AWS.
        typer.echo("\n".join(lines))


def as_data(value: object, output: Output) -> str:
    """Return lists and objects as JSON or YAML."""
    text = json.dumps(value, indent=2)
    if output is Output.JSON:
        return text
    import yaml  # noqa: PLC0415 - the commands that do not read manifests do not need it otherwise

    # Read from JSON, because PyYAML writes no enum.
    return str(yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=10_000)).rstrip("\n")


def print_document(row: "DataclassInstance", output: Output) -> None:
    """Print one row of a stream as soon as it is known: as a line of JSON, or as a document of YAML."""
    typer.echo(json.dumps(asdict(row)) if output is Output.JSON else f"---\n{as_data(asdict(row), output)}")


def aligned(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield each line's cells in columns. No name is cut or wrapped, so that it can be copied from the terminal."""
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(columns_of, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        filled = (cell + " " * (width - columns_of(cell)) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(filled).rstrip()


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese character takes two (Unicode's annex 11)."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def say(sentence: str, *, err: bool = True, indent: str = "") -> None:
    """Print a sentence on standard error, or on standard output; on a terminal, a line ends between two words."""
    stream = sys.stderr if err else sys.stdout
    for line in folded(sentence, indent) if stream.isatty() else [indent + printable(sentence)]:
        typer.echo(line, err=err)


def folded(text: str, indent: str = "", width: int = 0) -> list[str]:
    """Return a text as lines no wider than `width`, or else the terminal; those after the first are indented further.

    No word is broken, so that a name can be copied from the terminal. A word that fits only without its indent gets
    none. For a last word that is wider than the terminal, no new line is begun.
    """
    text, width = printable(text), max(20, width or shutil.get_terminal_size().columns)
    words = _WORDS.findall(text.rstrip())
    last = columns_of(words[-1].strip()) if words else 0
    if last > width and columns_of(text) - last < width // 2:
        return [indent + text]
    lines = [indent]
    for word in words:
        begins = not lines[-1].strip()
        if not begins and columns_of(lines[-1] + word.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append(f"{indent}  ")
            begins = True
        lines[-1] += word.lstrip() if begins else word
    return [line if columns_of(line) <= width else line.strip() for line in lines]


def current_time() -> int:
    """Return the time."""
    return int(time.time() * 1000)


def milliseconds(date: datetime) -> int:
    """Return a time that AWS gave."""
    return int(date.timestamp() * 1000)


def span(length: int) -> str:
    """Return a length of time in its two largest units: 45s, 12m, 3h15m, 2d4h."""
    if length < HOUR:
        return f"{length // MINUTE}m" if length >= MINUTE else f"{max(0, length) // 1000}s"
    large, small, unit, names = (DAY, HOUR, 24, "dh") if length >= 48 * HOUR else (HOUR, MINUTE, 60, "hm")
    rest = length // small % unit
    return f"{length // large}{names[0]}" + (f"{rest}{names[1]}" if rest else "")


def utc(then: int | None) -> str | None:
    """Return a time in ISO 8601 and UTC, for programs; None if there is none."""
    date = date_of(then or 0)
    return date.isoformat(timespec="seconds").replace("+00:00", "Z") if date else None


def moment(then: int, now: int) -> str:
    """Return a time in this machine's time zone, and how far away it is."""
    date = local_date(then)
    if date is None:
        return "-"
    distance = f"in {span(then - now)}" if then > now else f"{span(now - then)} ago"
    return f"{date.isoformat(timespec='seconds')} ({distance})"


def date_of(then: int) -> datetime | None:
    """Return the time; None if there is none, or if somebody has written a number that is not a time."""
    try:
        return datetime.fromtimestamp(then / 1000, UTC) if then else None
    except (OverflowError, ValueError, OSError):
        return None


def local_date(then: int) -> datetime | None:
    """Return the time in this machine's time zone; None as `date_of`, or if it is not in the years 1 to 9999 there."""
    try:
        date = date_of(then)
        return date.astimezone() if date else None
    except (OverflowError, ValueError, OSError):
        return None
