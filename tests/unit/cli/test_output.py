"""How rows are printed in each format that a command offers."""

import json
import re
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.cli.output import Output, aligned, columns_of, folded, show
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


@pytest.mark.parametrize(
    ("text", "columns"),
    [("nginx:1", 7), ("\u955c\u50cf", 4), ("e\u0301", 1), ("\uff1a", 2), ("\u2026", 1)],
    ids=["ascii", "chinese", "combining", "full-width", "ellipsis"],
)
def test_a_chinese_character_takes_two_columns(text: str, columns: int) -> None:
    assert columns_of(text) == columns


def test_a_cell_in_chinese_moves_no_column() -> None:
    lines = list(aligned([["NAME", "IMAGE"], ["\u955c\u50cf\u526f\u672c", "x"], ["a", "y"]]))
    assert {columns_of(line[:-1]) for line in lines[1:]} == {10}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("one two three four five six", ["one two three four", "  five six"], id="words"),
        pytest.param("\u955c\u50cf" * 7, ["\u955c\u50cf" * 5, "  " + "\u955c\u50cf" * 2], id="chinese"),
        pytest.param("pull \u955c\u50cf\u526f\u672c\u955c\u50cf\u526f\u672c now", None, id="both"),
        pytest.param(
            "see image-mirror/skip-it-now please", ["see", "  image-mirror/skip-it-now", "please"], id="hyphens"
        ),
        pytest.param("", [""], id="empty"),
    ],
)
def test_a_line_ends_between_two_words_or_two_chinese_characters(text: str, lines: list[str] | None) -> None:
    found = folded(text, width=20)
    if lines is not None:
        assert [line.strip() for line in found] == [line.strip() for line in lines]
    assert all(columns_of(line) <= 20 or " " not in line for line in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(
    text=st.text(st.sampled_from("ab -\u955c\uff1a"), max_size=80),
    indent=st.sampled_from(["", "    "]),
    width=st.integers(20, 40),
)
def test_folding_loses_nothing_and_only_a_long_word_is_wider(text: str, indent: str, width: int) -> None:
    found = folded(text, indent, width)
    assert "".join("".join(found).split()) == "".join(text.split())
    longest = max((columns_of(word) for word in re.split(r"[ \u955c\uff1a]", text)), default=0)
    assert all(columns_of(line) <= max(width, longest) for line in found) or longest > width
