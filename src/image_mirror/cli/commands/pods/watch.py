"""Reads the pods again and again. A terminal is drawn again; in a pipe each change is a line or a document."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

import typer

from image_mirror.cli.commands.pods.groups import Group, shown, summary
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.output import Output, folded
from image_mirror.cli.terminal import again, print_stream, say_new
from image_mirror.messages import printable

_EVERY = 10.0  # seconds: a reading runs kubectl four times

Reading = tuple[list[Group], list[str]]
Readings = Iterator[Reading]


def watch(read: Callable[[], Reading], output: Output, *, missed: bool, all_phases: bool = False) -> NoReturn:
    """Show what `read` returns until Ctrl-C: groups and notes.

    Raises an error of the first reading; a later one, if the cluster gives no answer, is shown as a note.
    """
    readings = ((groups, [trouble] if trouble else notes) for (groups, notes), trouble in again(read, _EVERY, _trouble))
    wide = output is Output.WIDE
    if not output.is_table:
        print_stream(readings, [], changed_groups, output)
    elif sys.stdout.isatty():
        _draw(readings, wide=wide, missed=missed, all_phases=all_phases)
    else:
        _print_changes(readings, wide=wide)
    raise AssertionError("the readings never end")


def _trouble(error: Exception) -> str | None:
    return f"the pods cannot be read now: {error}" if isinstance(error, NoAnswerError) else None


def changes(before: Sequence[Group], after: Sequence[Group]) -> list[str]:
    """Return a line for each image and cause that more or fewer pods have. A reason's times do not count."""
    old = {(group.image, group.cause): group for group in before}
    new = {(group.image, group.cause): group for group in after}
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            lines.append(f"{0:>4}  {key[0]}  no longer: {old[key].why}")
        elif key not in old or old[key].count != new[key].count:
            lines.append(f"{new[key].count:>4}  {key[0]}  {new[key].why}")
    return [printable(line) for line in lines]


def changed_groups(before: Sequence[Group], after: Sequence[Group]) -> list[Group]:
    """Return the groups that are new, or have other pods or another remedy; one that is gone has no pods.

    A reason's times do not count.
    """
    old, new = _by_key(before), _by_key(after)

    def content(group: Group) -> tuple[object, ...]:
        return group.count, group.do, {(pod.namespace, pod.name, pod.field, pod.phase, pod.node) for pod in group.pods}

    changed = [group for key, group in new.items() if key not in old or content(group) != content(old[key])]
    return changed + [replace(group, count=0, pods=[]) for key, group in old.items() if key not in new]


def _by_key(groups: Sequence[Group]) -> dict[tuple[str, str], Group]:
    """Return the groups by image and cause, as `changes` compares them; two that have both are one."""
    found: dict[tuple[str, str], Group] = {}
    for group in groups:
        key = group.image, group.cause
        if key in found:
            both = replace(found[key], pods=found[key].pods + group.pods)
            group = replace(both, count=len(both.names))
        found[key] = group
    return found


def _print_changes(readings: Readings, *, wide: bool) -> None:
    known: list[Group] | None = None
    noted: Sequence[str] = ()
    for groups, notes in readings:
        noted = say_new(notes, noted)
        if known is None:
            for line in shown(groups, None, wide=wide):
                typer.echo(line)
        else:
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            for line in changes(known, groups):
                typer.echo(f"{clock}  {line}")
        known = groups


def _draw(readings: Readings, *, wide: bool, missed: bool, all_phases: bool = False) -> None:
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    from image_mirror.cli import drawing  # noqa: PLC0415

    # What does not fit is cut off: the rows with the most pods are first.
    drawing.draw_again(
        readings,
        lambda reading, console: Text("\n").join(
            Text.from_ansi(line)
            for line in frame(*reading, console.width, wide=wide, missed=missed, all_phases=all_phases)
        ),
    )


def frame(
    groups: Sequence[Group], notes: Sequence[str], width: int, *, wide: bool, missed: bool, all_phases: bool = False
) -> list[str]:
    """Return the lines that a terminal of this width shows: the time and the counts, the notes, the groups."""
    clock = datetime.now().astimezone().strftime("%H:%M:%S")
    head = [
        f"{clock}  {summary(groups, missed=missed, all_phases=all_phases)}  (Ctrl-C ends)",
        *(f"Note: {each}" for each in notes),
    ]
    return [line for text in head for line in folded(text)] + (shown(groups, width, wide=wide) if groups else [])
