"""`image-mirror warm`: has images copied before anyone deploys them, by the same records and builds as pods."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import CopyRequest
from image_mirror.cli.accounts import Account
from image_mirror.cli.copy_progress import CopyProgress, Lines, Standing, arrival, board, followed
from image_mirror.cli.errors import ExitCode, NoAnswerError
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.manifests import Manifests, read_manifests
from image_mirror.cli.options import ChinaProfile, ChinaRegion, Kubeconfig, KubeContext, StackName
from image_mirror.cli.output import Output, OutputOption, aligned, as_json
from image_mirror.cli.plan import ImagesToCopy, pods_as_written, wanted
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.pod_images import SKIP_LABEL
from image_mirror.record import Policy, Record
from image_mirror.recorder import KnownRecords, NotRecordedError, Recorder
from image_mirror.reference import Destination
from image_mirror.table import Records

if TYPE_CHECKING:
    from collections.abc import Callable


def warm(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="A manifest, a directory of them, or - for standard input."),
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Copy what runs in a cluster now.")] = False,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be copied; write nothing.")] = False,
    timeout: Annotated[
        int, typer.Option(metavar="MINUTES", min=1, help="Stop waiting after this time; the copies go on.")
    ] = 240,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Copy the images of manifests, or of a whole cluster, before anyone deploys them; and wait for the copies.

    \b
    helm template CHART | image-mirror warm -
    image-mirror warm --cluster --dry-run

    Each image is recorded as a pod's would be, and copied by the same builds, each once. What is in ECR already is not
    copied again; a copy that has failed is tried anew. --cluster asks the cluster by kubectl, with --kubeconfig and
    --context where they are given. A copy whose source refuses is tried five times in an hour and a half; Ctrl-C and
    --timeout end the waiting, not the copies.

    \b
    --output json prints a list of objects, one for each copy, with the keys
      image      the source
      copy       its name in ECR
      state      COPIED, FAILED, or as far as it has come: REQUESTED, COPYING; NEW in a dry run; GONE
      attempts   how often the source has refused
      build      the latest build's ID, or null
      reason     of the latest failure or wait, or null
      waited     seconds

    Exits with 1 where a copy has failed or has not arrived in time, with 2 where a manifest or an option is wrong.
    """
    china = Account("china", china_profile, china_region)
    by_cluster = cluster or kubeconfig is not None or context is not None
    if by_cluster == bool(files):
        raise typer.BadParameter("name manifests, or - for standard input, or else --cluster")
    manifests = None if by_cluster else _read(files or [])
    stack = china_stack(china, stack_name)
    mirror = mirror_of(stack)
    found = wanted(manifests or _running(Cluster(kubeconfig, context), mirror), mirror)
    records = Records(china.client("dynamodb"), stack.output("ImageListTableName"))
    if dry_run:
        return _print(planned(records, found), found, output)
    with _told_how_to_go_on():
        arrivals = _wait(found, records, requested(records, found), timeout)
    _print(arrivals, found, output)
    if not all(each.arrived for each in arrivals):
        raise typer.Exit(ExitCode.NOT_WELL)
    return None


def _read(files: list[str]) -> Manifests:
    manifests = read_manifests(files)
    for problem in manifests.problems:
        typer.echo(f"Error: {problem}", err=True)
    if manifests.problems:
        raise typer.Exit(ExitCode.WRONG_INPUT)
    return manifests


def _running(cluster: Cluster, mirror: Mirror) -> Manifests:
    namespaces = cluster.get("namespaces", f"--selector={SKIP_LABEL}=true")["items"]
    return pods_as_written(cluster.pods(), namespaces, mirror)


def _wait(
    found: ImagesToCopy, records: Records, standing: dict[Destination, Record], minutes: int
) -> list[CopyProgress]:
    """Show the copies until all have ended or the time is over, and return how they stand."""
    began = time.monotonic()

    def describe(latest: Standing) -> list[CopyProgress]:
        waited = time.monotonic() - began
        return [
            arrival(destination, str(copy.source), latest[destination], waited)
            for destination, copy in found.copies.items()
        ]

    arrivals: list[CopyProgress] = []
    with _display() as show:
        for arrivals in followed(
            records, {destination: standing[destination] for destination in found.copies}, describe, time.sleep
        ):
            show(arrivals)
            if time.monotonic() - began > minutes * 60:
                break
    return arrivals


@contextmanager
def _display() -> "Iterator[Callable[[list[CopyProgress]], None]]":
    if not sys.stderr.isatty():
        yield Lines()
        return
    # Here, for it costs 15 ms, which a pipe need not pay.
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, transient=True) as live:
        yield lambda arrivals: live.update(board(arrivals, *console.size), refresh=True)


@contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            "Stopped waiting. What is recorded is copied all the same; run the command again to watch.", err=True
        )
        raise


def _print(arrivals: list[CopyProgress], found: ImagesToCopy, output: Output) -> None:
    for sentence in found.left.values():
        typer.echo(printable(sentence), err=True)
    if output is Output.JSON:
        typer.echo(as_json(arrivals))
        return
    if not arrivals:
        typer.echo("No image to copy.", err=True)
        return
    lines = [["STATE", "IMAGE", "COPY", "REASON"]]
    lines += [[each.state, each.image, each.copy, each.reason or ""] for each in arrivals]
    for line in aligned(lines):
        typer.echo(line)


_AT_ONE_TIME = 100
_RECORDED_WITHIN = 60.0  # seconds for so many
_PARALLEL = 8
# Whoever asks wants a failed copy tried again now, whatever a pod would have to wait for.
_POLICY = Policy(retry_failed=0)


def planned(records: Records, found: ImagesToCopy) -> list[CopyProgress]:
    """Tell of each copy how it stands; NEW is what would be asked for, a failed copy among it."""
    with ThreadPoolExecutor(_PARALLEL) as threads:
        standing = list(threads.map(lambda destination: records.get(destination.repo, destination.tag), found.copies))
    planned = []
    for (destination, copy), record in zip(found.copies.items(), standing, strict=True):
        told = arrival(destination, str(copy.source), record, 0)
        if record is None or record.status is None:  # an older deployment's record is asked for anew
            told = replace(told, state="NEW", reason=None)
        elif told.ended and not told.arrived:
            told = replace(told, state="NEW", reason=f"it failed before: {told.reason}")
        planned.append(told)
    return planned


def requested(records: Records, found: ImagesToCopy) -> dict[Destination, Record]:
    """Have each copy recorded. Raises NoAnswerError, ClientError, BotoCoreError."""
    recorder = Recorder(records, _POLICY, KnownRecords())
    copy_requests = [CopyRequest(copy, pull_always=False) for copy in found.copies.values()]
    standing: dict[Destination, Record] = {}
    for start in range(0, len(copy_requests), _AT_ONE_TIME):
        some = copy_requests[start : start + _AT_ONE_TIME]
        try:
            standing |= recorder.record(some, now=int(time.time() * 1000), seconds=_RECORDED_WITHIN, dry_run=False)
        except NotRecordedError as error:
            if isinstance(error.__cause__, ClientError | BotoCoreError):
                raise error.__cause__ from None
            raise NoAnswerError(f"{error}; run the command again") from error
    return standing
