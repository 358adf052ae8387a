"""Asks the operator before a command changes something."""

from collections.abc import Sequence

import typer

from image_mirror.cli.output import say
from image_mirror.cli.terminal import is_terminal


def is_confirmed(todo: Sequence[str], *, yes: bool, err: bool = False) -> bool:
    """Show what is to be done, on standard error if `err`, and return whether the operator wants it."""
    say("To do:", err=err)
    for step in todo:
        say(step, err=err, indent="  ")
    if yes:
        return True
    if not is_terminal():
        say("Nothing has been changed; --yes does it.", err=err)
        return False
    try:
        if ask("Do this?", err=err):
            return True
    except KeyboardInterrupt:
        say("Nothing has been changed.")
        raise
    say("Nothing has been changed.", err=err)
    return False


def ask(question: str, *, err: bool = False) -> bool:
    """Ask the operator, on standard error if `err`. Raises KeyboardInterrupt after Ctrl-C."""
    try:
        return typer.confirm(question, err=err)
    except typer.Abort:  # Ctrl-C
        raise KeyboardInterrupt from None
