"""`image-mirror forget`: removes records, so that the next pod requests the copies again. --force also stops builds."""

from functools import partial
from typing import Annotated

import typer

from image_mirror.cli import completion, forgetting
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.forgetting import Builds, has_build
from image_mirror.cli.image_selection import ImageResult, each_image, select
from image_mirror.cli.options import ChinaProfile, ChinaRegion, GlobalProfile, GlobalRegion, StackName
from image_mirror.cli.stacks import china_stack, mirror_of, records_of
from image_mirror.record import Record, Status


def forget(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|GLOB",
            help="An image as in a manifest, its copy in ECR, or a quoted pattern.",
            autocompletion=completion.images,
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also forget what is requested or being copied; stop its build.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
    global_profile: GlobalProfile = None,
    global_region: GlobalRegion = None,
) -> None:
    """Remove the records of images. The next pod with such an image requests it again.

    \b
    image-mirror forget nginx:1.27

    The copies stay in ECR, and pods can still pull them. `image-mirror prune` removes copies that nobody pulls. The
    webhook remembers a record for a minute. In that minute a new pod still gets the copy, and requests nothing.

    A copy that is requested or being copied needs --force, because pods may be waiting for it. Nothing starts its build
    without its record. The waiting pods get the copy only if another pod requests it again.

    With --force, a build that makes the copy now is stopped in the global account first, and no other build. If the
    account does not stop it, the record stays. Without a profile for that account, or with --global-profile '', the
    record is removed and the build continues. It can only push this image under its own name; `image-mirror prune`
    shows it later.

    The next pod writes the record again. So the command acts at once, without --yes; --dry-run shows what it would do.

    Prints a line for each image. Exits with 1 if an image has no record, if its record was not removed, or if its build
    is that of another copy.
    """
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = records_of(stack)
    found = select(images, records, mirror_of(stack))
    builds = Builds(global_profile, global_region) if force else None

    def step(record: Record) -> ImageResult:
        if dry_run:
            return _preview(record, builds)
        return forgetting.forget(records, record, builds, partial(_kept, force=force))

    if not each_image("forgetting", step, found):
        raise typer.Exit(ExitCode.NOT_WELL)


def _preview(record: Record, builds: Builds | None) -> ImageResult:
    kept = _kept(record, force=builds is not None)
    if kept is not None:
        return kept
    if builds is None or not has_build(record):
        return ImageResult("would be forgotten")
    stop = builds.stop(record, dry_run=True)
    if stop.may_run:
        return ImageResult(f"would be unchanged; {stop.text}", ok=False)
    return ImageResult(f"would be forgotten; {stop.text}", ok=stop.ok)


def _kept(record: Record, *, force: bool) -> ImageResult | None:
    """Return why the record is not removed without --force; None if it is removed."""
    if force:
        return None
    if record.status is Status.COPYING:
        return ImageResult(f"unchanged: its build {record.build_id} is running; --force forgets it anyway", ok=False)
    if record.status is Status.REQUESTED and record.digest is None:
        return ImageResult("unchanged: pods may be waiting for it; --force forgets it anyway", ok=False)
    return None
