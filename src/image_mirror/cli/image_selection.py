"""From what an operator types to records: an image as in a manifest, the name of its copy in ECR, or a glob.

What a command does with each record that was named is told with a line for each, and by the exit code of all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.terminal import bar, each
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.record import Record
from image_mirror.reference import (
    Destination,
    InvalidReferenceError,
    NoDestinationError,
    destination_named,
    parse_reference,
)
from image_mirror.table import Records

_GLOB = frozenset("*?[")  # fnmatch's; of these only "[" may stand in a reference, and ECR holds no such name


@dataclass(frozen=True, slots=True)
class Named:
    """The records that were named, each once, and those of the texts that name none."""

    records: list[Record]
    missing: list[str]


def is_glob(text: str) -> bool:
    """Say whether `text` names images by a pattern."""
    return not _GLOB.isdisjoint(text)


def title(record: Record) -> str:
    """Return the name by which people know the image: its source; its copy's where an older deployment wrote none."""
    return record.source or record.destination


def selected_destination(image: str, mirror: Mirror) -> Destination | None:
    """Return the destination of an image that an operator names, None where ECR has no such name.

    Raises typer.BadParameter.
    """
    try:
        return destination_named(parse_reference(image), mirror.registry, mirror.prefix)
    except InvalidReferenceError as error:
        raise typer.BadParameter(
            f"{error}; name it as in a manifest, or by its copy in ECR", param_hint="IMAGE"
        ) from error
    except NoDestinationError:
        return None


def all_records(records: Records) -> list[Record]:
    """Read the whole table, counting on a terminal."""
    found: list[Record] = []
    with bar("reading records") as advance:
        for page in records.pages():
            found += page
            advance(len(page))
    return found


def matching(glob: str, records: Iterable[Record]) -> list[Record]:
    """Return the records whose image matches `glob`, in which "*" stands for "/" too, and case counts."""
    return [record for record in records if fnmatchcase(title(record), glob)]


def named(images: Sequence[str], records: Records, mirror: Mirror) -> Named:
    """Find the records of `images`: by one read for each name, and by one of the whole table for all globs."""
    destinations = {image: selected_destination(image, mirror) for image in images if not is_glob(image)}
    everything = all_records(records) if any(map(is_glob, images)) else []
    found: dict[str, Record] = {}
    missing: list[str] = []
    for image in dict.fromkeys(images):
        destination = destinations.get(image)
        if is_glob(image):
            some = matching(image, everything)
        else:
            one = records.get(destination.repo, destination.tag) if destination else None
            some = [one] if one else []
        found |= {record.destination: record for record in some}
        missing += [] if some else [image]
    return Named(list(found.values()), missing)


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
