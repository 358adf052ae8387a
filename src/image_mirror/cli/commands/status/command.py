"""The command: which records it shows, and how."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.status.build import BuildDetails, ask
from image_mirror.cli.commands.status.records import by_attention, full, listing, record_row, summary, table
from image_mirror.cli.commands.status.watch import watch
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.image_selection import all_records, is_glob, matching, selected_destination
from image_mirror.cli.options import ChinaProfile, ChinaRegion, GlobalProfile, GlobalRegion, StackName
from image_mirror.cli.output import Output, OutputOption, aligned, as_json
from image_mirror.cli.plan import explain
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.messages import printable
from image_mirror.record import Record, Status
from image_mirror.reference import Destination
from image_mirror.table import Records


def status(
    image: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE|GLOB", help="One image, for all that is known of it; or a pattern, quoted."),
    ] = None,
    states: Annotated[
        list[Status] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            case_sensitive=False,
            help="Only REQUESTED, COPYING, COPIED or FAILED ones; once for each.",
            show_default=False,
        ),
    ] = None,
    watching: Annotated[bool, typer.Option("--watch", help="Look again every 5 seconds, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
    global_profile: GlobalProfile = None,
    global_region: GlobalRegion = None,
) -> None:
    """Show every copy and how it stands, what needs attention first; or one in full, with its build and its log.

    \b
    image-mirror status
    image-mirror status --state FAILED 'gcr.io/*'
    image-mirror status gcr.io/google-samples/hello-app:1.0

    An image is named as in a manifest, or by its copy in ECR. A pattern is matched with the source, docker.io written
    out, as in '*/library/nginx:*'; "*" stands for "/" too, and case counts. AGE is the time since the copy was asked
    for, CHANGED since its record was written; ATTEMPTS counts what the source has refused.

    The global account is asked for one image alone: for its build's phases and the last 20 lines of its log.

    \b
    --output json prints a list of objects, one for each record, with the keys
      image         the source
      copy          its name in ECR
      state         REQUESTED, COPYING, COPIED, FAILED; null where an older deployment wrote the record
      requested_at, updated_at, due_at
                    when it was asked for, written, and is looked at next; in ISO 8601 and UTC, or null
      attempts      how often the source has refused since it was asked for
      waits         how often it was put off, at no fault of the source
      build         the latest build's ID, or null
      digest        of what ECR holds, or null
      reason        of the latest failure or wait, or null
    and for one image an object with these and
      build_details null, or an object with build, status, log_group, log_stream,
                    phases (each with phase, status, seconds, message) and log (a list of lines)

    Exits with 1 where the one image has no record; standard error then says what the webhook would make of it.
    """
    one = image if image is not None and not is_glob(image) else None
    if watching and output is Output.JSON:
        raise typer.BadParameter("cannot be watched; leave out one of the two", param_hint="--output json")
    if one is not None and states:
        raise typer.BadParameter("chooses among many images; leave it out with one", param_hint="--state")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
    if one is not None:
        mirror = mirror_of(stack)
        destination = selected_destination(one, mirror)
        if watching:
            watch(lambda: _get(records, destination))
        found = _get(records, destination)
        if not found:
            where = f" (looked for {destination.by_tag})" if destination else ""
            message = f"{one}: there is no record of it{where}; {explain(one, mirror)}"
            typer.echo(f"Error: {printable(message)}", err=True)
            raise typer.Exit(ExitCode.NOT_WELL)
        _show_one(found[0], Account("global", global_profile, global_region), output)
        return

    def chosen(found: Iterable[Record]) -> list[Record]:
        some = matching(image, found) if image else found
        return [record for record in some if not states or record.status in states]

    if watching:
        watch(lambda: chosen(record for page in records.pages() for record in page))
    _show(chosen(all_records(records)), output)


def _get(records: Records, destination: Destination | None) -> list[Record]:
    record = records.get(destination.repo, destination.tag) if destination else None
    return [record] if record else []


def _show(found: Sequence[Record], output: Output) -> None:
    ordered, now = by_attention(found), int(time.time() * 1000)
    if output is Output.JSON:
        typer.echo(as_json(record_row(record) for record in ordered))
    elif ordered:
        # One text: thousands of lines, each flushed by itself, would take longer than reading them from AWS.
        typer.echo("\n".join((listing if sys.stdout.isatty() else table)(ordered, now)))
    typer.echo(summary(found), err=True)


def _show_one(record: Record, account: Account, output: Output) -> None:
    details, trouble = ask(account, record.build_id) if record.build_id else (None, None)
    if output is Output.JSON:
        shown = asdict(record_row(record)) | {"build_details": asdict(details) if details else None}
        typer.echo(json.dumps(shown, indent=2))
    else:
        for line in full(record, int(time.time() * 1000)):
            typer.echo(line)
        if details:
            _show_build(details)
    if trouble:
        what = "its log is not shown" if details else "its build is not shown"
        typer.echo(f"Note: {what}: {printable(trouble)}", err=True)


def _show_build(details: BuildDetails) -> None:
    typer.echo(f"\n{printable(details.build)}: {printable(details.status)}")
    phases = [
        (each.phase, each.status, "-" if each.seconds is None else str(each.seconds), each.message or "")
        for each in details.phases
    ]
    for line in aligned([("PHASE", "STATUS", "SECONDS", "MESSAGE"), *phases]):
        typer.echo(f"  {line}")
    if details.log:
        typer.echo(f"\nThe log's last lines, of {printable(f'{details.log_group}, {details.log_stream}')}")
        for line in details.log:
            typer.echo(f"  {printable(line)}")
