"""How rows are printed in each format that a command offers."""

import json
from dataclasses import dataclass

import pytest
import yaml

from image_mirror.cli.output import Output, show
from image_mirror.record import Status


@dataclass(frozen=True)
class Row:
    """What a command prints."""

    image: str
    state: Status
    why: str | None


ROWS = [Row("gcr.io/a:1", Status.FAILED, "yes: 'no'\x1b[31m\u00e9"), Row("gcr.io/a:1", Status.COPIED, None)]
DATA = [
    {"image": "gcr.io/a:1", "state": "FAILED", "why": "yes: 'no'\x1b[31m\u00e9"},
    {"image": "gcr.io/a:1", "state": "COPIED", "why": None},
]


def printed(rows: list[Row], output: Output, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is printed of the rows."""
    show(rows, output, name=lambda row: row.image, table=lambda: ["HEAD", *(row.image for row in rows)])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "read"),
    [pytest.param(Output.JSON, json.loads, id="json"), pytest.param(Output.YAML, yaml.safe_load, id="yaml")],
)
def test_programs_read_the_same_values_from_each_format(
    output: Output, read: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(read)
    text = printed(ROWS, output, capsys)
    assert read(text) == DATA
    assert "\x1b" not in text
    assert read(printed([], output, capsys)) == []


def test_each_name_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(ROWS, Output.NAME, capsys) == "gcr.io/a:1\n"
    assert printed([], Output.NAME, capsys) == ""


@pytest.mark.parametrize("output", [Output.TABLE, Output.WIDE])
def test_a_table_without_rows_has_no_heading(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(ROWS, output, capsys).splitlines() == ["HEAD", "gcr.io/a:1", "gcr.io/a:1"]
    assert printed([], output, capsys) == ""


def test_a_long_value_stays_on_its_line_in_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed([Row("gcr.io/a:1", Status.FAILED, "word " * 100)], Output.YAML, capsys)
    assert len(text.splitlines()) == 3
