"""`image-mirror retry`: requests copies again that have failed, or that wait for their next attempt."""

from typing import Annotated

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.image_selection import ImageResult, Selection, all_records, each_image, select
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.output import current_time
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.record import Record, Status, asked_again
from image_mirror.table import Records

_MOST_RACES = 5


def retry(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE|GLOB", help="An image as in a manifest, its copy in ECR, or a quoted pattern."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All copies that are FAILED.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Request failed copies again, and start copies that wait for their next attempt now.

    \b
    image-mirror retry gcr.io/google-samples/hello-app:1.0
    image-mirror retry --failed

    The copy is requested again and has all five attempts again. The build starts at once, or when CodeBuild has
    capacity. A copy that is being made or is in ECR already does not change. Pods that wait for the copy start when it
    is in ECR. Pods that were created while the record was FAILED keep their source image.

    A copy under a registry or prefix that the stack no longer serves does not change, because no build starts for it.

    The command removes nothing. So it acts at once, without --yes; --dry-run shows what it would do.

    Prints a line for each image. Exits with 1 if an image has no record, if it is no longer served, or if its record
    was removed or changed again and again in the meantime.
    """
    if failed == bool(images):
        raise typer.BadParameter("give either images or --failed")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
    mirror = mirror_of(stack)
    if failed:
        found = Selection([record for record in all_records(records) if record.status is Status.FAILED], [])
    else:
        found = select(images or [], records, mirror)
    if failed and not found.records:
        typer.echo("No copy is FAILED.", err=True)

    def step(record: Record) -> ImageResult:
        if not mirror.serves(record.repo) and record.status is not Status.COPIED:
            return _unserved(record, mirror.copies_prefix)
        return _preview(record) if dry_run else _retry(records, record)

    each_image("requesting again", step, found)


def _unserved(record: Record, served: str) -> ImageResult:
    """Return why the record does not change: the reconciler starts no build for it."""
    cause = f"its copy's name, {record.destination}, does not begin with {served}, so the stack no longer serves it"
    return ImageResult(f"unchanged: {cause}; `image-mirror forget` removes its record", ok=False)


def _preview(record: Record) -> ImageResult:
    return ImageResult("would be requested again") if asked_again(record, current_time()) else _unchanged(record)


def _retry(records: Records, record: Record) -> ImageResult:
    """Request the copy again, also if the reconciler changes the record at the same time."""
    current: Record | None = record
    for _ in range(_MOST_RACES):
        if current is None:
            return ImageResult("its record was removed in the meantime; the next pod requests it", ok=False)
        again = asked_again(current, current_time())
        if again is None:
            return _unchanged(current)
        current = records.replace(current, again)
        if current is again:
            return ImageResult("requested again")
    return ImageResult("unchanged: its record keeps changing; try again", ok=False)


def _unchanged(record: Record) -> ImageResult:
    if record.status is Status.COPIED:
        return ImageResult("unchanged: it is copied; after `image-mirror forget` the next pod requests it again")
    if record.status is Status.COPYING:
        return ImageResult(f"unchanged: its build {record.build_id} is running")
    if record.status is Status.REQUESTED:
        return ImageResult("unchanged: it is already due and starts within a minute")
    return ImageResult("unchanged: an older deployment wrote its record; the next pod requests it")
