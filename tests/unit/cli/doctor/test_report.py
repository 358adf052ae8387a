"""How doctor's results become rows: in the table, checks skipped because of the same missing result are one row."""

import pytest

from image_mirror.cli.doctor.report import Row, rows, short_rows
from image_mirror.cli.doctor.runner import CheckResult, State, fail, fine, skip


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
