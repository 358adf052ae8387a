"""What a command shows while it works: its progress, and what it waits for. Also runs eight calls at once.

It is shown on standard error: drawn on a terminal; else only what the command waits for is printed, once.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from image_mirror.cli.output import Output, print_document, say
from image_mirror.messages import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PARALLEL = 8
Subject = TypeVar("Subject")
Reading = TypeVar("Reading")


def is_terminal() -> bool:
    """Say whether both outputs go to a terminal: a pipe or a file must not get a progress bar."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if both outputs go to a terminal.

    Yields a function that takes how many more are done.
    """
    if not is_terminal():
        yield lambda _: None
        return
    from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

    with drawing.progress_bar(title, total) as advance:
        yield advance


def each(title: str, work: Callable[[Subject], None], subjects: Sequence[Subject]) -> None:
    """Call `work` with each subject, eight at once.

    After the first error, or Ctrl-C, no other call is started; those that run are finished, and the error is raised.
    """
    with bar(title, len(subjects)) as advance, ThreadPoolExecutor(PARALLEL) as threads:
        begun = [threads.submit(work, subject) for subject in subjects]
        try:
            for future in as_completed(begun):
                future.result()
                advance(1)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Let a Ctrl-C take effect at the end of the context. A second one takes effect at once."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed:
            signal.default_int_handler(number, frame)
        pressed.append(number)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def pause(title: str, seconds: int) -> None:
    """Wait for `seconds`, and show how many have passed."""
    with bar(title, seconds) as advance:
        for _ in range(seconds):
            time.sleep(1)
            advance(1)


def again(
    read: Callable[[], Reading], seconds: float, trouble: Callable[[Exception], str | None]
) -> Iterator[tuple[Reading, str]]:
    """Yield what `read` returns, every so many seconds, without an end; and why it could not be read again, or "".

    Raises an error of the first reading, and a later one of which `trouble` says None. After another one, the reading
    before is yielded.
    """
    reading, cause = read(), ""
    while True:
        yield reading, cause
        time.sleep(seconds)
        try:
            reading, cause = read(), ""
        except Exception as error:
            text = trouble(error)
            if text is None:
                raise
            cause = text


def say_new(notes: Sequence[str], before: Sequence[str]) -> Sequence[str]:
    """Print the notes of a reading that the reading before did not have, and return those of this one."""
    for note in dict.fromkeys(notes):
        if note not in before:
            say(f"Note: {note}")
    return notes


def print_stream(
    readings: Iterable[tuple[Reading, Sequence[str]]],
    first: Reading,
    changed: "Callable[[Reading, Reading], Iterable[DataclassInstance]]",
    output: Output,
) -> None:
    """Print each row that `changed` finds between two readings as a document, and the notes; `first` has no row."""
    known: Reading = first
    noted: Sequence[str] = ()
    for latest, notes in readings:
        noted = say_new(notes, noted)
        for row in changed(known, latest):
            print_document(row, output)
        known = latest


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what the command waits for, as long as the context lasts."""
    if not is_terminal():
        say(what)
        yield
        return
    from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

    with drawing.spinner(printable(what)):
        yield
