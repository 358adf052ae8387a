"""One step for each record that was named, a line for what came of it, and the exit code of all."""

from collections.abc import Callable
from dataclasses import dataclass

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.image_selection import Named, is_glob, title
from image_mirror.cli.terminal import each
from image_mirror.messages import printable
from image_mirror.record import Record


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What came of an image, for people, and whether it is what was asked for."""

    said: str
    well: bool = True


def each_image(heading: str, step: Callable[[Record], ImageResult], found: Named) -> None:
    """Take each record's step and print what came of it, in order; what is missing is told as an error.

    What an error or Ctrl-C leaves undone is counted. Raises typer.Exit(1) where not all is well.
    """
    outcomes: dict[str, ImageResult] = {}

    def take(record: Record) -> None:
        outcomes[record.destination] = step(record)

    try:
        each(heading, take, found.records)
    finally:
        for record in found.records:
            if record.destination in outcomes:
                typer.echo(printable(f"{title(record)}: {outcomes[record.destination].said}"))
        if undone := len(found.records) - len(outcomes):
            typer.echo(f"Ended early: {undone:,} of {len(found.records):,} images are as they were.", err=True)
    for image in found.missing:
        told = "no record is of this name"
        if is_glob(image):
            told = "no record's name matches; globs are compared with whole names, such as docker.io/library/nginx:1.29"
        message = f"{image}: {told}; `image-mirror status` shows those there are"
        typer.echo(f"Error: {printable(message)}", err=True)
    if found.missing or not all(outcome.well for outcome in outcomes.values()):
        raise typer.Exit(ExitCode.NOT_WELL)
