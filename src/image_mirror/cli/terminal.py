"""What a command shows while it works: a bar that says how far it is, what it waits for; and eight calls at once.

It goes to standard error: drawn where somebody watches; elsewhere only what is waited for is said, once.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import typer

from image_mirror.messages import printable

PARALLEL = 8
Subject = TypeVar("Subject")


def is_terminal() -> bool:
    """Say whether somebody watches: no bar ends up in a pipe or in a file."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far something is, where somebody watches; yield what takes the number just done."""
    if not is_terminal():
        yield lambda _: None
        return
    from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

    with drawing.progress_bar(title, total) as advance:
        yield advance


def each(title: str, work: Callable[[Subject], None], subjects: Sequence[Subject]) -> None:
    """Call `work` with each subject, eight at once.

    At the first error, and at Ctrl-C, nothing more is begun; what has begun ends, and the error is raised.
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


def pause(title: str, seconds: int) -> None:
    """Let `seconds` pass."""
    with bar(title, seconds) as advance:
        for _ in range(seconds):
            time.sleep(1)
            advance(1)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for while the context lasts."""
    if not is_terminal():
        typer.echo(printable(what), err=True)
        yield
        return
    from image_mirror.cli import drawing  # noqa: PLC0415 - only for a terminal

    with drawing.spinner(printable(what)):
        yield
