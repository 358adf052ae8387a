"""No test depends on the machine's speed: no assert limits an elapsed time, and no timeout is only some seconds.

No module reads the clock when it is collected either, because its tests may run minutes later.
"""

import ast
from collections.abc import Iterator

import pytest

from support.templates import ROOT

LEAST = 60
CLOCKS = {"monotonic", "perf_counter", "time", "process_time", "thread_time"}
# Functions that return the date: of the standard library, and of support/.
DATES = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "now", "ago"}
# The position of the timeout among a call's arguments, by the call's name, for timeouts without a name.
TIMEOUTS = {
    **dict.fromkeys(("join", "result", "exception", "settimeout", "Timer"), (0,)),
    **dict.fromkeys(("get", "acquire", "communicate", "as_completed"), (1,)),
    "wait": (0, 1),  # of an event, a thread's barrier or a process; of futures
    "wait_for": (1, 2),  # of a condition; of e2e/harness/processes.py
    "select": (3,),
    "server": (4,),  # of e2e/harness/processes.py
}
PARAMETERS = {"timeout", "seconds"}
WAIT_SECONDS = {"wait_for", "server", "run_script"}  # in other calls `seconds` may be the tested value
# Exceptions, by file and line of code, each with the reason.
EXCEPTIONS = {
    ("tests/e2e/harness/processes.py", "process.wait(10)"): "then it is killed, so a slow one ends all the same",
    ("tests/e2e/harness/processes.py", "probe.settimeout(0.5)"): "it is tried again until the caller's time is over",
    ("tests/e2e/test_recipes.py", "process.communicate(answer, timeout=1)"): "it is called again for five minutes",
    ("tests/e2e/harness/stage.py", "policy_of: seconds"): "the webhook configuration's timeoutSeconds",
}


def _name(node: ast.AST) -> str:
    """Return the last part of a dotted name, "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _reads_clock(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and _name(each.func) in CLOCKS for each in ast.walk(node))


def _kept(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name (or attribute) that is assigned, with the assigned value."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Assign):
            yield from ((_name(target), each.value) for target in each.targets)
        elif isinstance(each, ast.AnnAssign | ast.NamedExpr) and each.value is not None:
            yield _name(each.target), each.value


class _Times:
    """Return the names of a module that have a time of a clock, and those that have a difference of two times."""

    def __init__(self, tree: ast.AST) -> None:
        kept = [(name, value) for name, value in _kept(tree) if name]
        self._readings = {name for name, value in kept if isinstance(value, ast.Call) and _name(value.func) in CLOCKS}
        self._differences: set[str] = set()
        self._differences = {name for name, value in kept if self.has_passed(value)}

    def has_passed(self, node: ast.AST) -> bool:
        """Return whether an expression contains an elapsed time."""
        return any(
            (isinstance(each, ast.BinOp) and isinstance(each.op, ast.Sub) and self._is_difference(each))
            or _name(each) in self._differences
            for each in ast.walk(node)
        )

    def _is_difference(self, node: ast.BinOp) -> bool:
        return _reads_clock(node) or {_name(node.left), _name(node.right)} <= self._readings


def _bounded(compare: ast.Compare, times: _Times) -> bool:
    """Return whether an elapsed time is on the smaller side."""
    sides = [compare.left, *compare.comparators]
    for left, op, right in zip(sides, compare.ops, sides[1:], strict=False):
        smaller = left if isinstance(op, ast.Lt | ast.LtE) else right if isinstance(op, ast.Gt | ast.GtE) else None
        if smaller is not None and times.has_passed(smaller):
            return True
    return False


def _is_short(value: ast.AST | None) -> bool:
    is_number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
    return is_number and not isinstance(value.value, bool) and 0 < value.value < LEAST  # type: ignore[union-attr]


def _short_call(call: ast.Call) -> bool:
    name = _name(call.func)
    by_name = PARAMETERS if name in WAIT_SECONDS else {"timeout"}
    given: list[ast.AST] = [each.value for each in call.keywords if each.arg in by_name]
    for position in TIMEOUTS.get(name, ()):
        given += call.args[position : position + 1]
    return any(map(_is_short, given))


def _short_deadline(node: ast.AST) -> bool:
    """Return whether seconds are added to a time of a clock."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Add)
        and isinstance(node.left, ast.Call)
        and _name(node.left.func) in CLOCKS
        and _is_short(node.right)
    )


def _short_defaults(function: ast.FunctionDef) -> Iterator[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    for argument, default in [*defaults, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        if argument.arg in PARAMETERS and _is_short(default):
            yield f"{function.name}: {argument.arg}"


def _when_collected(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a module that run when it is imported; of functions only decorators and defaults."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        below: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
        below += [] if isinstance(node, ast.Lambda) else node.decorator_list
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
        below = []
    else:
        below = [*ast.iter_child_nodes(node)]
    for each in below:
        if each is not None:
            yield from _when_collected(each)


def _says_date(call: ast.Call) -> bool:
    if ".".join(ast.unparse(call.func).split(".")[-2:]) in DATES:
        return True
    # A record without a time has the current time.
    return ast.unparse(call.func) == "record" and not any(each.arg == "at" for each in call.keywords)


def violations(source: str) -> Iterator[str]:
    """Yield the code of each bound, each short timeout, and each date that is read when the module is collected."""
    tree = ast.parse(source)
    times = _Times(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and any(
            isinstance(each, ast.Compare) and _bounded(each, times) for each in ast.walk(node.test)
        ):
            yield f"assert {ast.unparse(node.test)}"
        if isinstance(node, ast.Call) and _short_call(node) and "Choices" not in ast.unparse(node.func):  # of a webhook
            yield ast.unparse(node)
        if _short_deadline(node):
            yield ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            yield from _short_defaults(node)
    for node in _when_collected(tree):
        if isinstance(node, ast.Call) and _says_date(node):
            yield f"when collected: {ast.unparse(node)}"


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
        pytest.param(
            "self.took: float = perf_counter() - began\nassert self.took <= 5", True, id="kept-in-an-attribute"
        ),
        pytest.param("assert (took := time.monotonic() - began) < 5", True, id="kept-in-the-assert"),
        pytest.param("a = perf_counter()\nb = perf_counter()\nassert b - a < 5", True, id="two-readings"),
        pytest.param("a = perf_counter()\nassert b - a < 5", False, id="one-reading-and-another-thing"),
        pytest.param("took = time.monotonic() - began\nassert took > 125", False, id="kept-at-least"),
        pytest.param("queue.get(True, 5)", True, id="queue"),
        pytest.param("process.communicate(None, 5)", True, id="communicate"),
        pytest.param("thread.join(5)", True, id="thread"),
        pytest.param("wait(futures, 5)", True, id="futures"),
        pytest.param("wait_for(lambda: found, 'it is found', 5)", True, id="condition"),
        pytest.param("wait_for(lambda: found, 'it is found', seconds=5)", True, id="condition-by-name"),
        pytest.param("server(command, log, port, 'etcd', 5)", True, id="server"),
        pytest.param("limit(request, seconds=5)", False, id="seconds-of-what-is-tested"),
        pytest.param("threading.Timer(2.0, opened.set).start()", True, id="timer"),
        pytest.param("deadline = time.monotonic() + 5", True, id="deadline"),
        pytest.param("deadline = time.monotonic() + seconds", False, id="deadline-of-the-caller"),
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
        pytest.param("NOW = int(time.time() * 1000)", True, id="date-when-collected"),
        pytest.param("class A:\n    at = datetime.datetime.now(UTC)", True, id="date-in-a-class"),
        pytest.param("def ago(at=datetime.now(UTC)): pass", True, id="date-as-a-default"),
        pytest.param("@parametrize('at', [date.today()])\ndef test(at): pass", True, id="date-as-a-parameter"),
        pytest.param("OLD = record('gcr.io/a:1', hours=3)", True, id="record-of-now"),
        pytest.param("OLD = record('gcr.io/a:1', hours=3, at=NOON)", False, id="record-of-a-date"),
        pytest.param("def now():\n    return time.time()", False, id="date-when-called"),
        pytest.param("made = field(default_factory=lambda: datetime.now(UTC))", False, id="date-when-made"),
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
