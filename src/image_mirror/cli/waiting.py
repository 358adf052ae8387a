"""Says on standard error what a command waits for: once, or, where somebody watches, for as long as it does."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from image_mirror.cli.terminal import is_terminal
from image_mirror.messages import printable


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for while the context lasts."""
    if not is_terminal():
        typer.echo(printable(what), err=True)
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(printable(what))):
        yield
