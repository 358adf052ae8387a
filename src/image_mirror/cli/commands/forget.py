"""`image-mirror forget`: removes records, so that the next pod has the copies made anew."""

from typing import Annotated

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.image_selection import ImageResult, each_image, named
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.record import Record, Status
from image_mirror.table import Records

_MOST_RACES = 5


def forget(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|GLOB", help="As in a manifest, by the copy in ECR, or a pattern, quoted."),
    ],
    force: Annotated[bool, typer.Option("--force", help="Forget also what is asked for or being copied now.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Remove the records of images, so that the next pod that names one has it copied anew.

    \b
    image-mirror forget nginx:1.27

    The copies stay in ECR, and pods go on pulling them; `image-mirror prune` removes what nobody pulls. The webhook
    remembers a record for a minute: a pod that comes within it is still sent to the copy, and asks for none.

    A copy that is on its way needs --force: pods may wait for it, and once its record is gone nobody starts its build,
    or looks after the one that runs. Pods that wait get it only if that build succeeds, or if another pod asks anew.

    What it removes, the next pod has written again; so it acts at once, without --yes, and --dry-run shows what it
    would do.

    Prints a line for each image. Exits with 1 where one has no record or was left.
    """
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
    found = named(images, records, mirror_of(stack))
    step = (lambda record: _foresee(record, force)) if dry_run else (lambda record: _forget(records, record, force))
    each_image("forgetting", step, found)


def _foresee(record: Record, force: bool) -> ImageResult:
    return _kept(record, force) or ImageResult("would be forgotten")


def _forget(records: Records, record: Record, force: bool) -> ImageResult:
    """Remove the record, whatever the reconciler writes meanwhile, and say what came of it."""
    standing: Record | None = record
    for _ in range(_MOST_RACES):
        if standing is None:
            return ImageResult("its record is gone already")
        kept = _kept(standing, force)
        if kept is not None:
            return kept
        if records.remove(standing):
            running = f"; its build {standing.build_id} goes on" if standing.status is Status.COPYING else ""
            return ImageResult(f"forgotten{running}")
        standing = records.get(record.repo, record.tag)
    return ImageResult("left, for its record changes all the time; try again", well=False)


def _kept(record: Record, force: bool) -> ImageResult | None:
    """Say why the record is not removed without --force, or return None where it is."""
    if force:
        return None
    if record.status is Status.COPYING:
        return ImageResult(f"left, for its build {record.build_id} runs; --force forgets it all the same", well=False)
    if record.status is Status.REQUESTED and record.digest is None:
        return ImageResult("left, for pods may wait for it; --force forgets it all the same", well=False)
    return None
