"""How commands print what they found: aligned lines for a pipe or a document, JSON for a program."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from image_mirror.messages import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Output(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option(help="How it is printed.")]


def aligned(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield each line's cells in columns, however long: a name that was cut or folded cannot be copied."""
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


def as_json(rows: "Iterable[DataclassInstance]") -> str:
    """Return rows as a JSON list of objects, whose keys are their fields' names."""
    return json.dumps([asdict(row) for row in rows], indent=2)
