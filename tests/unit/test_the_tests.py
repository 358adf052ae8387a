"""No test depends on the machine's speed: none bounds a time that has passed, none gives up on another in seconds."""

import ast
from collections.abc import Iterator

import pytest

from support.templates import ROOT

LEAST = 60
CLOCKS = {"monotonic", "perf_counter", "time"}
# Where a call's timeout is, by the call's name, if it is not given by name.
TIMEOUTS = {"wait": 0, "join": 0, "result": 0, "settimeout": 0, "get": 1, "communicate": 1, "select": 3}
PARAMETERS = {"timeout", "seconds"}
# File and line of code: the reason why it stays.
EXCEPTIONS = {
    ("tests/e2e/processes.py", "process.wait(10)"): "after it the process is killed, so a slow one ends all the same",
    ("tests/e2e/processes.py", "probe.settimeout(0.5)"): "it is tried again until the caller's time is over",
    ("tests/e2e/stage.py", "policy_of: seconds"): "the webhook configuration's timeoutSeconds",
}


def _elapsed(node: ast.AST, names: frozenset[str]) -> bool:
    """Say whether an expression has a difference of clock readings, or a name in which one was kept."""
    return any(
        (isinstance(each, ast.BinOp) and isinstance(each.op, ast.Sub) and bool(CLOCKS & _called(each)))
        or (isinstance(each, ast.Name) and each.id in names)
        for each in ast.walk(node)
    )


def _called(node: ast.AST) -> set[str]:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in calls}


def _bounded(compare: ast.Compare, names: frozenset[str]) -> bool:
    """Say whether a time that has passed is on the smaller side."""
    sides = [compare.left, *compare.comparators]
    for left, op, right in zip(sides, compare.ops, sides[1:], strict=False):
        smaller = left if isinstance(op, ast.Lt | ast.LtE) else right if isinstance(op, ast.Gt | ast.GtE) else None
        if smaller is not None and _elapsed(smaller, names):
            return True
    return False


def _is_short(value: ast.AST | None) -> bool:
    is_number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
    return is_number and not isinstance(value.value, bool) and 0 < value.value < LEAST  # type: ignore[union-attr]


def _short_call(call: ast.Call) -> bool:
    given: list[ast.AST] = [each.value for each in call.keywords if each.arg == "timeout"]
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    position = TIMEOUTS.get(name)
    if position is not None:
        given += call.args[position : position + 1]
    return any(map(_is_short, given))


def _short_defaults(function: ast.FunctionDef) -> Iterator[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    for argument, default in [*defaults, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        if argument.arg in PARAMETERS and _is_short(default):
            yield f"{function.name}: {argument.arg}"


def violations(source: str) -> Iterator[str]:
    """Yield the code of each bound and each short timeout."""
    tree = ast.parse(source)
    names = frozenset(
        target.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.BinOp) and _elapsed(each.value, frozenset())
        for target in each.targets
        if isinstance(target, ast.Name)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and any(
            isinstance(each, ast.Compare) and _bounded(each, names) for each in ast.walk(node.test)
        ):
            yield f"assert {ast.unparse(node.test)}"
        if isinstance(node, ast.Call) and _short_call(node) and "Choices" not in ast.unparse(node.func):  # of a webhook
            yield ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            yield from _short_defaults(node)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("assert time.monotonic() - began < 20", True, id="below"),
        pytest.param("assert 20 >= perf_counter() - began, 'slow'", True, id="turned-round"),
        pytest.param("assert time.monotonic() - began > 125", False, id="at-least"),
        pytest.param("assert end - began < 20", False, id="of-other-things"),
        pytest.param("event.wait(5)", True, id="positional"),
        pytest.param("run(command, timeout=59.9)", True, id="by-name"),
        pytest.param("took = time.monotonic() - began\nassert took < 5", True, id="kept"),
        pytest.param("queue.get(True, 5)", True, id="queue"),
        pytest.param("future.result(5)", True, id="future"),
        pytest.param("socket.settimeout(0.5)", True, id="socket"),
        pytest.param("select.select([a], [], [], 10)", True, id="select"),
        pytest.param("def wait_for(found, seconds=30): pass", True, id="default"),
        pytest.param("def wait_for(found, *, seconds=60): pass", False, id="long-default"),
        pytest.param("found.get(key, 5)", True, id="looks-like-a-queue"),
        pytest.param("select.select([a], [], [], 0)", False, id="no-wait"),
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
    assert found == set(EXCEPTIONS)
