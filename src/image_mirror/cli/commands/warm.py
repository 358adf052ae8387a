"""`image-mirror warm`: copies images before anyone deploys them, with the same records and builds as for pods."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import CopyRequest
from image_mirror.cli.accounts import Account
from image_mirror.cli.copy_progress import WORDS, CopyProgress, counted, progress_of, shown
from image_mirror.cli.errors import ExitCode, NoAnswerError
from image_mirror.cli.held_copies import Held, look_up
from image_mirror.cli.image_selection import MOST_RACES
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.manifests import Manifests, read_manifests, report
from image_mirror.cli.nudging import Nudged, Wish, as_lines, nudge_pods
from image_mirror.cli.options import ChinaProfile, ChinaRegion, Kubeconfig, KubeContext, Recursive, StackName, is_given
from image_mirror.cli.output import Output, OutputOption, current_time, say, show
from image_mirror.cli.plan import ImagesToCopy, images_to_copy, pods_as_written
from image_mirror.cli.pod_reading import Where
from image_mirror.cli.stacks import Stack, china_stack, mirror_of, records_of
from image_mirror.cli.terminal import each
from image_mirror.cli.waiting import LONGEST_WAIT, CopyRecords, wait_for
from image_mirror.decisions import Mirror
from image_mirror.metrics import Metric
from image_mirror.pod_images import SKIP_LABEL
from image_mirror.record import DAY, Policy, Record, asked_again
from image_mirror.recorder import KnownRecords, NotRecordedError, Recorder
from image_mirror.reference import Destination, InvalidReferenceError, parse_reference
from image_mirror.table import Records


def warm(
    ctx: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="A manifest, a directory of them, or - for standard input."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image", metavar="IMAGE", help="An image as in a manifest. Can be repeated.", show_default=False
        ),
    ] = None,
    recursive: Recursive = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="Copy the images that a cluster runs now.")] = False,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    nudge: Annotated[
        bool, typer.Option("--nudge", help="Then let the pods that wait for these copies pull at once.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be copied; change nothing.")] = False,
    timeout: Annotated[
        int, typer.Option(metavar="MINUTES", min=1, help="Stop waiting after this time; the copies continue.")
    ] = LONGEST_WAIT,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Copy the images of manifests, or of a whole cluster, before anyone deploys them, and wait for the copies.

    \b
    helm template CHART | image-mirror warm -
    image-mirror warm --image nginx:1.29 --image quay.io/team/tool:2
    image-mirror warm --cluster --dry-run

    Each image is requested as for a pod, and copied once by the same builds. An image that is already in ECR is not
    copied again. A failed copy is requested again, and so is one that ECR has deleted or archived. --cluster asks the
    cluster with kubectl; --kubeconfig and --context choose another cluster. If the source refuses an image, it is tried
    five times in an hour and a half. Ctrl-C and --timeout only stop the waiting; the copies continue.

    --nudge patches the pods of all namespaces that wait for these copies, when the copies are there, as image-mirror
    nudge does. Pods that run once are left. What was done is printed on standard error.

    The last line counts the images. A dry run also names the cluster and the stack that were asked. --output wide adds
    the copies' names in ECR.

    \b
    --output json (or yaml) prints a list of objects, one for each copy, with the keys
      image      the source
      copy       its name in ECR
      state      REQUESTED, COPYING, COPIED or FAILED; GONE if its record was removed;
                 NEW if a run without --dry-run would request it
      attempts   how often the source has refused
      build      the latest build's ID, or null
      reason     of the latest failure or delay, or null
      waited     seconds

    Exits with 1 if a copy has failed or is not ready in time, or if --nudge has left a pod that waits; with 2 if a
    manifest or an option is wrong: the images of the other manifests are copied nevertheless.
    """
    china = Account("china", china_profile, china_region)
    # With --nudge and manifests or images, the other two say in which cluster the pods wait.
    named = is_given(ctx, "kubeconfig") or is_given(ctx, "context")
    if named and images and not (cluster or nudge):
        raise typer.BadParameter("--context and --kubeconfig say which cluster: give --cluster or --nudge too")
    by_cluster = cluster or (named and not (nudge and (files or images)))
    if by_cluster and files:
        raise typer.BadParameter("give either manifests (- for standard input) or --cluster")
    if not (by_cluster or files or images):
        raise typer.BadParameter("give manifests (- for standard input), --image or --cluster")
    _check(images or [])
    manifests = read_manifests(files, recursive=recursive) if files else Manifests()
    report(manifests)
    if manifests.problems and not (manifests.pods or images):
        raise typer.Exit(ExitCode.WRONG_INPUT)
    stack = china_stack(china, stack_name)
    mirror = mirror_of(stack)
    source = Cluster(kubeconfig, context) if by_cluster else None
    found = images_to_copy(_running(source, mirror) if source else manifests, mirror, images or [])
    records = records_of(stack)
    ecr = china.client("ecr")

    def look(existing: CopyRecords) -> dict[str, Held]:
        return look_up(ecr, mirror, [record for record in existing.values() if record is not None and record.digest])

    if dry_run:
        copies = plan_copies(records, found, look)
        _print(copies, found, output, _PLANNED)
        if output.is_table:
            say(_asked(source, stack))
    else:
        existing = request_lost(records, request_copies(records, found), look)
        copies = _wait(found, records, existing, timeout)
        _print(copies, found, output, WORDS)
    nudged = Nudged()
    if nudge and found.copies:
        wish = Wish(where=Where(None), only=found.copies.keys(), dry_run=dry_run)
        nudged = nudge_pods(Cluster(kubeconfig, context), stack, wish)
        for line in as_lines(nudged):
            say(line)
        nudged.require_all()
    if manifests.problems:
        count = len({(problem.file, problem.document) for problem in manifests.problems})
        what = "1 document or file" if count == 1 else f"{count} documents or files"
        say(f"Error: {what} could not be read, as said above; the images of the others were read")
        raise typer.Exit(ExitCode.WRONG_INPUT)
    if not dry_run and not (nudged.is_well and all(copy.is_copied for copy in copies)):
        raise typer.Exit(ExitCode.NOT_WELL)


def _check(images: Iterable[str]) -> None:
    """Raise typer.BadParameter for a text that is not an image."""
    for image in images:
        try:
            parse_reference(image)
        except InvalidReferenceError as error:
            raise typer.BadParameter(str(error), param_hint="--image") from error


def _running(cluster: Cluster, mirror: Mirror) -> Manifests:
    namespaces = cluster.get("namespaces", f"--selector={SKIP_LABEL}=true")["items"]
    return pods_as_written(cluster.pods(), namespaces, mirror)


def _wait(found: ImagesToCopy, records: Records, existing: CopyRecords, minutes: int) -> list[CopyProgress]:
    def describe(destination: Destination, record: Record | None, waited: float) -> CopyProgress:
        return progress_of(destination, str(found.copies[destination].source), record, waited)

    return wait_for(records, {each: existing.get(each) for each in found.copies}, describe, minutes)


_PLANNED = {"NEW": "to copy", **WORDS}


def _print(copies: Sequence[CopyProgress], found: ImagesToCopy, output: Output, words: Mapping[str, str]) -> None:
    for sentence in found.not_copied.values():
        say(sentence)
    show(copies, output, name=lambda each: each.image, table=lambda: shown(copies, wide=output is Output.WIDE))
    if output.is_table:
        left = f", {len(found.not_copied):,} left unchanged" if found.not_copied else ""
        say(f"{counted(copies, words)}{left}." if copies else f"There is no image to copy{left}.")


def _asked(cluster: Cluster | None, stack: Stack) -> str:
    """Return the sentence that names what a dry run asked."""
    asked = ""
    if cluster:
        named = cluster.named()
        asked = f"the context {named[0]} ({named[1]}) and " if named else f"the cluster of {cluster} and "
    return f"Asked: {asked}the stack {stack.name} in {stack.account.region}. Nothing was changed."


_BATCH = 100
_BATCH_SECONDS = 60.0  # the longest time for recording a batch
_PARALLEL = 8
# A pod waits before it requests a failed copy again. An operator does not have to.
# The stack's VerifyHours is not known here, so no copy is checked too late.
_POLICY = Policy(retry_failed=0, verify=100 * 365 * DAY)


Look = Callable[[CopyRecords], dict[str, Held]]
"""Returns what ECR holds of the copies that have arrived by their records, by the copies' names."""


def plan_copies(records: Records, found: ImagesToCopy, look: Look) -> list[CopyProgress]:
    """Return the progress of each copy. NEW is a copy that would be requested, also after a failure or a loss."""
    with ThreadPoolExecutor(_PARALLEL) as threads:
        read = threads.map(lambda destination: records.get(destination.repo, destination.tag), found.copies)
        existing = dict(zip(found.copies, read, strict=True))
    held = look(existing)
    copies = []
    for destination, copy in found.copies.items():
        record = existing[destination]
        progress = progress_of(destination, str(copy.source), record, 0)
        if record is None or record.status is None:  # the record of an older deployment is requested again
            progress = replace(progress, state="NEW", reason=None)
        elif record.destination in held and held[record.destination].lost:
            progress = replace(progress, state="NEW", reason=str(held[record.destination]))
        elif progress.ended and not progress.is_copied:
            progress = replace(progress, state="NEW", reason=f"it failed before: {progress.reason}")
        copies.append(progress)
    return copies


def request_copies(records: Records, found: ImagesToCopy) -> dict[Destination, Record]:
    """Record each copy. Raises NoAnswerError, ClientError, BotoCoreError."""

    def report(metric: Metric, copy: str, reason: str) -> None:
        if metric is Metric.RECORDS_UNUSABLE:
            say(f"Error: the table refuses the record of {copy}: {reason}")

    recorder = Recorder(records, _POLICY, KnownRecords(), _BATCH, report)
    copy_requests = [CopyRequest(copy, pull_always=False) for copy in found.copies.values()]
    existing: dict[Destination, Record] = {}
    for start in range(0, len(copy_requests), _BATCH):
        some = copy_requests[start : start + _BATCH]
        try:
            found_now = recorder.record(some, now=current_time(), seconds=_BATCH_SECONDS, dry_run=False)
        except NotRecordedError as error:
            if isinstance(error.__cause__, ClientError | BotoCoreError):
                raise error.__cause__ from None
            raise NoAnswerError(f"{error}; run the command again") from error
        existing |= {destination: record for destination, record in found_now.items() if isinstance(record, Record)}
    return existing


def request_lost(records: Records, existing: Mapping[Destination, Record], look: Look) -> CopyRecords:
    """Request the copies again that ECR no longer holds. Return all records, None for one that was removed meanwhile.

    Raises ClientError, BotoCoreError.
    """
    held, after = look(existing), dict[Destination, Record | None](existing)

    def request(destination: Destination) -> None:
        record = existing[destination]
        again = asked_again(record, current_time(), lost=True) or record
        found: Record | None = record
        for _ in range(MOST_RACES):  # an equal record has changed only in what a record does not keep
            if found is None or found != record:
                break
            found = records.replace(found, again)
        after[destination] = found

    lost = [key for key, record in existing.items() if record.destination in held and held[record.destination].lost]
    if lost:
        each("requesting again", request, lost)
    return after
