"""Ctrl-C while a call must not be cut off: it takes effect at the end, a second one at once."""

import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import islice

import pytest

from image_mirror.cli.terminal import again, delayed_interrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def work(presses: int, error: Exception | None = None) -> list[str]:
    """Work while Ctrl-C is delayed; return what was done after it, which the list has even if this raises."""
    with delayed_interrupt():
        for _ in range(presses):
            press()
        DONE.append("to the end")
        if error:
            raise error
    return DONE


DONE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@pytest.mark.parametrize(
    ("presses", "done"),
    [pytest.param(1, ["to the end"], id="at the end"), pytest.param(2, [], id="a second one at once")],
)
def test_a_ctrl_c_takes_effect(presses: int, done: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(presses)
    assert done == DONE
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_ctrl_c_nothing_is_raised() -> None:
    assert work(0) == ["to the end"]


def test_an_error_is_raised_although_ctrl_c_was_pressed() -> None:
    with pytest.raises(ValueError, match="x"):
        work(1, ValueError("x"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_sigint_is_ignored_it_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with delayed_interrupt():
            press()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_can_use_it_and_leaves_the_handler_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with delayed_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(60)
    assert seen == [signal.default_int_handler]


def readings(*results: int | Exception) -> Callable[[], int]:
    left = list(results)

    def read() -> int:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return read


def of_network(error: Exception) -> str | None:
    return str(error) if isinstance(error, ConnectionError) else None


def test_after_a_reading_that_failed_the_one_before_is_shown_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    found = list(islice(again(readings(1, ConnectionError("no network"), 2), 5, of_network), 3))
    assert found == [(1, ""), (1, "no network"), (2, "")]
    assert pauses == [5, 5]


@pytest.mark.parametrize(
    "results",
    [
        pytest.param((ConnectionError("no network"),), id="the first reading"),
        pytest.param((1, ZeroDivisionError("a bug")), id="a bug later"),
    ],
)
def test_a_reading_that_cannot_be_explained_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, results: tuple[int | Exception, ...]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises((ConnectionError, ZeroDivisionError)):
        list(islice(again(readings(*results), 5, of_network), 2))
