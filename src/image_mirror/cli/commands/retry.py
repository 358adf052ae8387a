"""`image-mirror retry`: requests copies again: failed, waiting, gone from ECR, or pushed by another client."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.copy_progress import WORDS, CopyProgress, counted, progress_of, shown
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.held_copies import Held, look_up, look_up_one
from image_mirror.cli.image_selection import MOST_RACES, ImageResult, Selection, all_records, each_image, select, title
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.output import current_time, say
from image_mirror.cli.stacks import china_stack, mirror_of, records_of
from image_mirror.cli.waiting import LONGEST_WAIT, wait_for
from image_mirror.record import Record, Status, asked_again
from image_mirror.reference import Destination
from image_mirror.state_item import StateItem
from image_mirror.table import Records, UnusableRecordError


def retry(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|GLOB",
            help="An image as in a manifest, its copy in ECR, or a quoted pattern.",
            autocompletion=completion.images,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only copies that are FAILED; all, or of IMAGE.")] = False,
    gone: Annotated[
        bool, typer.Option("--gone", help="Only copies that are COPIED and that ECR no longer holds; all, or of IMAGE.")
    ] = False,
    unexpected: Annotated[
        bool,
        typer.Option("--unexpected", help="Only copies with a push that no build made; all, or of IMAGE."),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until the copies have been made or have failed, and show their progress."),
    ] = False,
    timeout: Annotated[
        int | None,
        typer.Option(
            metavar="MINUTES",
            min=1,
            help="With --wait: stop waiting after this time; the copies continue.",
            show_default=str(LONGEST_WAIT),
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Request copies again that failed, that ECR has lost, or that another client has pushed; start those that wait.

    \b
    image-mirror retry gcr.io/google-samples/hello-app:1.0 'quay.io/*'
    image-mirror retry --failed --wait
    image-mirror retry --failed 'docker.io/*'
    image-mirror retry --gone 'gcr.io/*'
    image-mirror retry --unexpected

    The copy is requested again and has all five attempts again. The build starts at once, or when CodeBuild has
    capacity. A copy that is being made does not change. If the record is COPIED, ECR is asked: a copy that is there
    does not change, and one that was deleted or archived is requested again. `image-mirror status --verify` only shows
    these. A copy with an unexpected push is requested again too, and pods use what was pushed until a build has
    replaced it. If the key is stolen, run `image-mirror connect --rotate` first. If the accounts federate, first end
    the sessions of PushRole (docs/by-hand.md). Pods that wait for the copy start when it is in ECR. Pods that were
    created while the record was FAILED keep their source image.

    A copy under a registry or prefix that the stack no longer serves does not change, because no build starts for it.

    If AWS has refused a key or the exchange for a role, one copy tries it every half an hour. After you have corrected
    the cause, this command starts all copies that wait for it.

    The command removes nothing. So it acts at once, without --yes; --dry-run shows what it would do.

    With --wait it then shows the progress of these copies, also of those that were already requested or being copied.
    A refresh that fails counts as failed, although pods still use the older copy. Ctrl-C and --timeout only stop the
    waiting.

    Prints a line for each image. Exits with 1 if an image has no record, if it is no longer served, or if its record
    was removed or changed again and again in the meantime; with --wait also if a copy has failed or is not ready in
    time.
    """
    if failed and (gone or unexpected):
        raise typer.BadParameter("cannot be combined with --gone or --unexpected", param_hint="--failed")
    if gone and unexpected:
        raise typer.BadParameter("cannot be combined with --gone", param_hint="--unexpected")
    if not (failed or gone or unexpected or images):
        raise typer.BadParameter("give images, --failed, --gone or --unexpected")
    if wait and dry_run:
        raise typer.BadParameter("cannot be combined with --dry-run", param_hint="--wait")
    if timeout is not None and not wait:
        raise typer.BadParameter("needs --wait", param_hint="--timeout")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = records_of(stack)
    mirror = mirror_of(stack)
    found = select(images, records, mirror) if images else Selection(all_records(records), [])
    if failed:
        found = Selection([record for record in found.records if record.status is Status.FAILED], found.missing)
    if unexpected:
        found = Selection([record for record in found.records if record.unexpected_push], found.missing)
    ecr = stack.account.client("ecr")
    held = look_up(ecr, mirror, [record for record in found.records if record.status is Status.COPIED])
    if gone:
        lost = [record for record in found.records if record.destination in held and held[record.destination].lost]
        found = Selection(lost, found.missing)
    if not found.records and (failed or gone or unexpected):
        none = "is FAILED" if failed else "is gone from ECR" if gone else "has an unexpected push"
        say(f"No copy {none}.")
    after: dict[str, Record | None] = {}

    def step(record: Record) -> ImageResult:
        if not mirror.serves(record.repo):
            return _unserved(record, mirror.copies_prefix)
        if dry_run:
            return _preview(record, held.get(record.destination))
        result, after[record.destination] = _retry(
            records, record, held.get(record.destination), lambda other: look_up_one(ecr, mirror, other)
        )
        return result

    if found.records and not dry_run:
        item = StateItem(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
        state = item.read()
        if state is not None and state.refusal is not None:
            item.forget_refusal(current_time())
    well = each_image("requesting again", step, found)
    if wait:
        well = _wait(records, after, timeout or LONGEST_WAIT) and well
    if not well:
        raise typer.Exit(ExitCode.NOT_WELL)


def _wait(records: Records, after: Mapping[str, Record | None], minutes: int) -> bool:
    """Wait for the copies that are requested or being made, print how they ended, and return whether all were made."""
    pending = {_key(record): record for record in after.values() if record and record.is_under_way}
    if not pending:
        return True
    copies = wait_for(records, pending, lambda key, *latest: _progress(key, title(pending[key]), *latest), minutes)
    for line in shown(copies, wide=False):
        typer.echo(line)
    say(f"{counted(copies, WORDS)}.")
    return all(copy.is_copied for copy in copies)


def _key(record: Record) -> Destination:
    registry, _, repository = record.repo.partition("/")
    return Destination(registry, repository, record.tag, None)


def _progress(key: Destination, image: str, record: Record | None, waited: float) -> CopyProgress:
    """Return the progress of the latest request. Pods may use an older copy meanwhile, and that is not what counts."""
    progress = progress_of(key, image, record, waited)
    if record is None:
        return progress
    if record.status is Status.COPIED and record.error is not None:
        return replace(progress, state=str(Status.FAILED), reason=f"{record.error}; pods use the older copy")
    return replace(progress, state=str(record.status or Status.REQUESTED), reason=record.error)


def _unserved(record: Record, served: str) -> ImageResult:
    """Return why the record does not change: the reconciler starts no build for it."""
    cause = f"its copy's name, {record.destination}, does not begin with {served}, so the stack no longer serves it"
    text = f"unchanged: {cause}; `image-mirror forget` removes its record"
    return ImageResult(text, ok=record.status is Status.COPIED)


def _preview(record: Record, held: Held | None) -> ImageResult:
    lost = held is not None and held.lost
    if asked_again(record, current_time(), lost=lost) is None:
        return _unchanged(record, held)
    return ImageResult(f"would be requested again{_why(held)}")


def _retry(
    records: Records, record: Record, held: Held | None, look: Callable[[Record], Held]
) -> tuple[ImageResult, Record | None]:
    """Request the copy again, also if the reconciler changes the record at the same time. Return the record too.

    `held` is what ECR holds of a copy whose record is COPIED; if the record has become COPIED since, `look` asks ECR.
    """
    current = record
    for _ in range(MOST_RACES):
        again = asked_again(current, current_time(), lost=held is not None and held.lost)
        if again is None:
            return _unchanged(current, held), current
        try:
            found = records.replace(current, again)
        except UnusableRecordError:
            remedy = f"image-mirror forget --force {title(current)} removes it"
            return ImageResult(f"unchanged: the table refuses its record; {remedy}", ok=False), None
        if found is again:
            return ImageResult(f"requested again{_why(held)}"), again
        if found is None:
            return ImageResult("its record was removed in the meantime; the next pod requests it", ok=False), None
        current, held = found, look(found) if found.status is Status.COPIED else None
    return ImageResult("unchanged: its record keeps changing; try again", ok=False), current


def _why(held: Held | None) -> str:
    """Return what follows "requested again" for a copy that was COPIED, "" for others."""
    if held is None:
        return ""
    return f": {held}" if held.lost else ": none of our builds made its latest push"


def _unchanged(record: Record, held: Held | None) -> ImageResult:
    if held is not None:
        return ImageResult(f"unchanged: {held}; after `image-mirror forget` the next pod requests it again")
    if record.status is Status.COPYING:
        return ImageResult(f"unchanged: its build {record.build_id} is running")
    if record.status is Status.REQUESTED:
        return ImageResult("unchanged: it is already due and starts when a build is free")
    return ImageResult("unchanged: an older deployment wrote its record; the next pod requests it")
