"""`image-mirror retry`: has copies that failed, or that wait for their next attempt, asked for again now."""

import time
from typing import Annotated

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.image_selection import ImageResult, Named, all_records, each_image, named
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.record import Record, Status, asked_again
from image_mirror.table import Records

_MOST_RACES = 5


def retry(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE|GLOB", help="As in a manifest, by the copy in ECR, or a pattern, quoted."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that are FAILED.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Have copies that failed, or that wait for their next attempt, made now.

    \b
    image-mirror retry gcr.io/google-samples/hello-app:1.0
    image-mirror retry --failed

    The record is written as asked for anew, with all five attempts before it, and the build starts at once; where
    CodeBuild is full, in its turn. What is being copied, and what is there already, stays as it is. Pods that wait for
    the copy get it without being made anew; new pods kept the image they name while the record said FAILED.

    What lies under a registry or a prefix that the stack no longer serves is left, for no build is started for it.

    It removes nothing; so it acts at once, without --yes, and --dry-run shows what it would do.

    Prints a line for each image. Exits with 1 where one has no record, lies under what is no longer served, is gone
    meanwhile, or changes all the time.
    """
    if failed == bool(images):
        raise typer.BadParameter("name images, or else --failed")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
    mirror = mirror_of(stack)
    if failed:
        found = Named([record for record in all_records(records) if record.status is Status.FAILED], [])
    else:
        found = named(images or [], records, mirror)
    if failed and not found.records:
        typer.echo("No copy is FAILED.", err=True)
    served = mirror.copies_prefix

    def step(record: Record) -> ImageResult:
        if not record.repo.startswith(served) and record.status is not Status.COPIED:
            return _unserved(record, served)
        return _foresee(record) if dry_run else _retry(records, record)

    each_image("asking again", step, found)


def _unserved(record: Record, served: str) -> ImageResult:
    """Say why nothing is written: the reconciler leaves such a record alone, and builds nothing for it."""
    said = f"left, for its copy's name, {record.destination}, does not begin with {served}, which alone is served now"
    return ImageResult(f"{said}; `image-mirror forget` removes its record", well=False)


def _foresee(record: Record) -> ImageResult:
    return ImageResult("would be asked for again") if asked_again(record, _now()) else _left(record)


def _retry(records: Records, record: Record) -> ImageResult:
    """Ask for the copy again, whatever the reconciler writes meanwhile, and say what came of it."""
    standing: Record | None = record
    for _ in range(_MOST_RACES):
        if standing is None:
            return ImageResult("its record is gone meanwhile; the next pod that names it has it copied", well=False)
        anew = asked_again(standing, _now())
        if anew is None:
            return _left(standing)
        standing = records.replace(standing, anew)
        if standing is anew:
            return ImageResult("asked for again")
    return ImageResult("left, for its record changes all the time; try again", well=False)


def _left(record: Record) -> ImageResult:
    if record.status is Status.COPIED:
        return ImageResult("it is there; after `image-mirror forget` the next pod has it copied anew")
    if record.status is Status.COPYING:
        return ImageResult(f"left, for its build {record.build_id} runs")
    if record.status is Status.REQUESTED:
        return ImageResult("left, for it is due already and starts within a minute")
    return ImageResult("left, for an older deployment wrote its record; the next pod that names it has it copied")


def _now() -> int:
    return int(time.time() * 1000)
