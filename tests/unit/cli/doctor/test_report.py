"""How doctor's results become rows: in the table, checks skipped because of the same missing result are one row."""

import re

import pytest

from image_mirror.cli.doctor.report import Row, failures_last, listing, rows, short_rows, summary
from image_mirror.cli.doctor.runner import CheckResult, State, fail, fine, skip, warn


def waits(topic: str, needs: str) -> CheckResult:
    return CheckResult(topic, State.SKIPPED, f'not asked: it needs "{needs}"', None, needs)


def test_what_needs_the_same_result_is_one_row_with_its_count_where_the_first_was() -> None:
    results = [fail("stack", "gone", "deploy"), waits("table", "stack"), fine("quota", "20"), waits("queue", "stack")]
    assert short_rows(results) == [
        Row("stack", State.FAILED, "gone", "deploy"),
        Row("2 checks", State.SKIPPED, 'not asked: they need "stack"', None),
        Row("quota", State.OK, "20", None),
    ]
    assert len(rows(results)) == 4


def test_what_is_missing_in_the_first_place_is_named() -> None:
    results = [waits("secret", "stack"), waits("key", "secret"), waits("call", "key")]
    assert short_rows(results) == [Row("3 checks", State.SKIPPED, 'not asked: they need "stack"', None)]


@pytest.mark.parametrize(
    "results",
    [
        pytest.param([waits("table", "china stack"), waits("project", "global stack")], id="one-of-each"),
        pytest.param([skip("queue", "not permitted"), skip("table", "not permitted")], id="each-for-itself"),
    ],
)
def test_other_rows_stay_as_they_are(results: list[CheckResult]) -> None:
    assert short_rows(results) == rows(results)


def test_what_has_failed_is_last_and_rows_of_one_state_keep_their_order() -> None:
    results = [fail("a", "x", "do"), fine("b", "x"), skip("c", "x"), fail("d", "x", "do"), warn("e", "x", "do")]
    assert [row.topic for row in failures_last(rows(results))] == ["b", "c", "e", "a", "d"]


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (False, "2 ok, 1 warning, 1 failed, 1 skipped"),
        (True, "1 warning, 1 failed; not shown: 2 ok, 1 skipped"),
    ],
)
def test_all_results_are_counted_and_those_that_are_not_shown_named_so(problems: bool, said: str) -> None:
    results = [fine("a", "x"), fine("b", "x"), skip("c", "x"), fail("d", "x", "do"), warn("e", "x", "do")]
    assert summary(results, problems=problems) == said


def test_on_a_terminal_a_row_is_folded_below_its_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = "arn:" + "x" * 40
    printed = [
        re.sub(r"\x1b\[[0-9;]*m", "", line)
        for line in listing(
            rows([fail("china stack", "there is no stack here, in this region", "deploy it"), fine("key", long)])
        )
    ]
    assert printed == [
        "failed   china stack: there is no stack",
        "           here, in this region",
        "         -> deploy it",
        "ok       key: " + long,
    ]
