"""Asks the operator before a command changes something."""

from collections.abc import Sequence

import typer

from image_mirror.cli.output import say
from image_mirror.cli.terminal import is_terminal


def is_confirmed(todo: Sequence[str], *, yes: bool) -> bool:
    """Show what is to be done, and return whether the operator wants it."""
    say("To do:", err=False)
    for step in todo:
        say(step, err=False, indent="  ")
    if yes:
        return True
    if not is_terminal():
        say("Nothing has been changed; --yes does it.", err=False)
        return False
    try:
        if ask("Do this?"):
            return True
    except KeyboardInterrupt:
        say("Nothing has been changed.")
        raise
    say("Nothing has been changed.", err=False)
    return False


def ask(question: str) -> bool:
    """Ask the operator. Raises KeyboardInterrupt after Ctrl-C."""
    try:
        return typer.confirm(question)
    except typer.Abort:  # Ctrl-C
        raise KeyboardInterrupt from None
