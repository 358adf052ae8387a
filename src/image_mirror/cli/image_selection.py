"""Finds the records that an operator names: by an image as in a manifest, by the name of its copy in ECR, or by a glob.

A command then prints a line for each record, and its exit code is for all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import typer

from image_mirror.cli.output import say
from image_mirror.cli.terminal import bar, each
from image_mirror.decisions import Mirror
from image_mirror.record import Record
from image_mirror.reference import (
    Destination,
    InvalidReferenceError,
    NoDestinationError,
    destination_named,
    parse_reference,
)
from image_mirror.table import Records

_GLOB = frozenset("*?[")  # fnmatch's characters; a reference can only contain "[", and such a name is not in ECR


MOST_RACES = 5
"""How often a command tries to change a record that something else changes at the same time."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that were named, each once, and the names and globs for which there is no record."""

    records: list[Record]
    missing: list[str]


def is_glob(text: str) -> bool:
    """Return whether `text` is a pattern."""
    return not _GLOB.isdisjoint(text)


def title(record: Record) -> str:
    """Return the image's name for people: its source, or the copy's name if an older deployment wrote no source."""
    return record.source or record.destination


def selected_destination(image: str, mirror: Mirror) -> Destination | None:
    """Return the destination of an image that an operator names; None if no name in ECR is possible for it.

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
    """Read the whole table. A terminal shows a counter."""
    found: list[Record] = []
    with bar("reading records") as advance:
        for page in records.pages():
            found += page
            advance(len(page))
    return found


def matching(glob: str, records: Iterable[Record]) -> list[Record]:
    """Return the records whose image matches `glob`. "*" also matches "/", and upper and lower case differ."""
    return [record for record in records if fnmatchcase(title(record), glob)]


def select(images: Sequence[str], records: Records, mirror: Mirror) -> Selection:
    """Find the records of `images`: read one record for each name, and the whole table once for all globs."""
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
    return Selection(list(found.values()), missing)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What was done with an image, for people, and whether the user's request was carried out."""

    text: str
    ok: bool = True


def each_image(heading: str, step: Callable[[Record], ImageResult], found: Selection) -> bool:
    """Do the step for each record and print the results in order, then an error for each missing record.

    Return whether all results are ok and no record is missing. After an error or Ctrl-C, the number of unchanged
    records is printed.
    """
    results: dict[str, ImageResult] = {}

    def take(record: Record) -> None:
        results[record.destination] = step(record)

    try:
        each(heading, take, found.records)
    finally:
        for record in found.records:
            if record.destination in results:
                say(f"{title(record)}: {results[record.destination].text}", err=False)
        if undone := len(found.records) - len(results):
            say(f"Ended early: {undone:,} of {len(found.records):,} images are unchanged.")
    for image in found.missing:
        cause = "no record has this name"
        if is_glob(image):
            cause = "no record matches; a glob must match the whole name, such as docker.io/library/nginx:1.29"
        say(f"Error: {image}: {cause}; `image-mirror status` lists all records")
    return not found.missing and all(result.ok for result in results.values())
