"""No test depends on the machine's speed: none bounds a time that has passed, none gives up on another in seconds."""

import ast
from collections.abc import Iterator

import pytest

from support.templates import ROOT

LEAST = 60
CLOCKS = {"monotonic", "perf_counter"}
WAITING = {"wait", "join"}  # their first argument is a timeout
# File and line of code: the reason why it stands.
EXCEPTIONS = {
    ("tests/e2e/test_operators_records.py", "assert time.monotonic() - began < 20"): "it is what the test is of",
    ("tests/e2e/processes.py", "process.wait(10)"): "a grace, after which it is killed",
}


def _has_elapsed(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.BinOp) and isinstance(each.op, ast.Sub) and bool(CLOCKS & _called(each))
        for each in ast.walk(node)
    )


def _called(node: ast.AST) -> set[str]:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in calls}


def _bounded(compare: ast.Compare) -> bool:
    """Say whether a time that has passed stands on the smaller side."""
    sides = [compare.left, *compare.comparators]
    for left, op, right in zip(sides, compare.ops, sides[1:], strict=False):
        smaller = left if isinstance(op, ast.Lt | ast.LtE) else right if isinstance(op, ast.Gt | ast.GtE) else None
        if smaller is not None and _has_elapsed(smaller):
            return True
    return False


def _short(call: ast.Call) -> bool:
    given = [each.value for each in call.keywords if each.arg == "timeout"]
    if isinstance(call.func, ast.Attribute) and call.func.attr in WAITING:
        given += call.args[:1]
    return any(
        isinstance(each, ast.Constant) and isinstance(each.value, int | float) and each.value < LEAST for each in given
    )


def violations(source: str) -> Iterator[str]:
    """Yield the code of each bound and each short timeout."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and any(
            isinstance(each, ast.Compare) and _bounded(each) for each in ast.walk(node.test)
        ):
            yield f"assert {ast.unparse(node.test)}"
        if isinstance(node, ast.Call) and _short(node) and "Choices" not in ast.unparse(node.func):  # of a webhook
            yield ast.unparse(node)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("assert time.monotonic() - began < 20", True, id="below"),
        pytest.param("assert 20 >= perf_counter() - began, 'slow'", True, id="turned-round"),
        pytest.param("assert time.monotonic() - began > 125", False, id="at-least"),
        pytest.param("assert end - began < 20", False, id="of-other-things"),
        pytest.param("event.wait(5)", True, id="positional"),
        pytest.param("run(command, timeout=59.9)", True, id="by-name"),
        pytest.param("event.wait(60)", False, id="long"),
        pytest.param("event.wait()", False, id="for-ever"),
        pytest.param("', '.join(words)", False, id="of-text"),
    ],
)
def test_what_is_found(source: str, found: bool) -> None:
    assert bool(list(violations(source))) is found


def test_no_test_depends_on_the_speed_of_the_machine() -> None:
    found = {
        (str(path.relative_to(ROOT)), code)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for code in violations(path.read_text())
    }
    assert found - set(EXCEPTIONS) == set()
