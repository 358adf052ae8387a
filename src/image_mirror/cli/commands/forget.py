"""`image-mirror forget`: removes records, so that the next pod requests the copies again."""

from typing import Annotated

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.image_selection import ImageResult, each_image, select
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.stacks import china_stack, mirror_of, records_of
from image_mirror.record import Record, Status
from image_mirror.table import Records

_MOST_RACES = 5


def forget(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|GLOB",
            help="An image as in a manifest, its copy in ECR, or a quoted pattern.",
            autocompletion=completion.images,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Also forget what is requested or being copied.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Remove the records of images. The next pod with such an image requests it again.

    \b
    image-mirror forget nginx:1.27

    The copies stay in ECR, and pods can still pull them. `image-mirror prune` removes copies that nobody pulls. The
    webhook remembers a record for a minute. In that minute a new pod still gets the copy, and requests nothing.

    A copy that is requested or being copied needs --force, because pods may be waiting for it. Without its record,
    nobody starts its build or watches a running build. The waiting pods get the copy only if that build succeeds, or if
    another pod requests it again.

    The next pod writes the record again. So the command acts at once, without --yes; --dry-run shows what it would do.

    Prints a line for each image. Exits with 1 if an image has no record, or if its record was not removed.
    """
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = records_of(stack)
    found = select(images, records, mirror_of(stack))
    step = (lambda record: _preview(record, force)) if dry_run else (lambda record: _forget(records, record, force))
    each_image("forgetting", step, found)


def _preview(record: Record, force: bool) -> ImageResult:
    return _kept(record, force) or ImageResult("would be forgotten")


def _forget(records: Records, record: Record, force: bool) -> ImageResult:
    """Remove the record, also if the reconciler changes it at the same time."""
    current: Record | None = record
    for _ in range(_MOST_RACES):
        if current is None:
            return ImageResult("its record was already removed")
        kept = _kept(current, force)
        if kept is not None:
            return kept
        if records.remove(current):
            running = f"; its build {current.build_id} continues" if current.status is Status.COPYING else ""
            return ImageResult(f"forgotten{running}")
        current = records.get(record.repo, record.tag)
    return ImageResult("unchanged: its record keeps changing; try again", ok=False)


def _kept(record: Record, force: bool) -> ImageResult | None:
    """Return why the record is not removed without --force; None if it is removed."""
    if force:
        return None
    if record.status is Status.COPYING:
        return ImageResult(f"unchanged: its build {record.build_id} is running; --force forgets it anyway", ok=False)
    if record.status is Status.REQUESTED and record.digest is None:
        return ImageResult("unchanged: pods may be waiting for it; --force forgets it anyway", ok=False)
    return None
