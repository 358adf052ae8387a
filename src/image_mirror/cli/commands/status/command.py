"""The command itself: it reads the records and prints them."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.status.build import BuildDetails, ask
from image_mirror.cli.commands.status.records import by_attention, full, listing, record_row, summary, table
from image_mirror.cli.commands.status.verification import (
    all_in_order,
    verified_rows,
    verified_summary,
    verified_table,
)
from image_mirror.cli.commands.status.watch import watch
from image_mirror.cli.errors import ExitCode, NoAnswerError, remedy
from image_mirror.cli.held_copies import Held, look_up, look_up_one
from image_mirror.cli.image_selection import all_records, is_glob, matching, selected_destination, title
from image_mirror.cli.options import ChinaProfile, ChinaRegion, GlobalProfile, GlobalRegion, StackName
from image_mirror.cli.output import Output, OutputOption, aligned, as_data, current_time, show
from image_mirror.cli.plan import explain
from image_mirror.cli.stacks import Stack, china_stack, mirror_of, records_of
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.record import Record, Status
from image_mirror.reference import Destination
from image_mirror.table import Records


def status(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE|GLOB",
            help="One image, to show it in full; or a quoted pattern.",
            autocompletion=completion.images,
        ),
    ] = None,
    states: Annotated[
        list[Status] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            case_sensitive=False,
            help="Only show this state: REQUESTED, COPYING, COPIED or FAILED. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all COPIED records with ECR; change nothing.")
    ] = False,
    watching: Annotated[bool, typer.Option("-w", "--watch", help="Read again every 5 seconds, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
    global_profile: GlobalProfile = None,
    global_region: GlobalRegion = None,
) -> None:
    """Show all copies and their states, what needs attention first; or one copy in full, with its build and its log.

    \b
    image-mirror status
    image-mirror status --state FAILED 'gcr.io/*'
    image-mirror status gcr.io/google-samples/hello-app:1.0
    image-mirror status --verify

    Name an image as in a manifest, or by its copy in ECR. A pattern must match the whole source, with docker.io, as in
    '*/library/nginx:*'. "*" also matches "/", and upper and lower case differ. AGE is the time since the copy was
    requested, CHANGED the time since its record was written. ATTEMPTS is how many of its five attempts are used.

    A copy with an unexpected push comes first: ECR holds, or held for a time, a digest that none of our builds pushed.
    The key in ImagePullSecret may be stolen: `image-mirror connect --rotate` replaces it. Pods still use the copy.
    `image-mirror retry --unexpected` makes it again from its source.

    The global account is asked only if you name one image: for the phases of its build and the last 20 lines of the
    log. ECR is then asked too, if the record says that the copy has arrived. Without --verify, a list shows only what
    the records say.

    --verify compares all COPIED records, or those that match the pattern, with ECR. A copy is held; or it is gone; or
    it is archived in ECR, and cannot be pulled; or its tag has another digest than the record, because somebody has
    pushed it since. `image-mirror retry --gone` requests the lost copies again. It is not served if its name is of an
    earlier registry or prefix; then ECR is not asked.

    \b
    --output json (or yaml) prints a list of objects, one for each record, with the keys
      image         the source
      copy          its name in ECR
      state         REQUESTED, COPYING, COPIED, FAILED; null if an older deployment wrote the record
      requested_at, updated_at, due_at
                    when it was requested, written, and is due next; in ISO 8601 and UTC, or null
      attempts      how often the source has refused since it was requested
      waits         how often it was delayed for another reason
      build         the latest build's ID, or null
      digest        of the image in ECR, or null
      signatures    how many were copied with it, or why none or fewer, or null
      reason        of the latest failure or delay, or null
      requested_by  NAMESPACE/KIND/NAME of the pod's controller or of the pod that requested
                    it; null for a request by an operator or of an older release
      unexpected_push
                    null, or an object with before, after (digests) and noticed_at: the latest
                    push that none of our builds made
    For one image it prints one object with these keys and
      in_ecr        held, gone, archived, other digest, not served; null if the copy has not
                    arrived, or if ECR gave no answer
      build_details null, or an object with build, status, log_group, log_stream,
                    phases (each with phase, status, seconds, message) and log (a list of lines)
    With --verify it prints a list of objects, one for each COPIED record, with the keys
      image, copy, digest
                    as above
      in_ecr        held, gone, archived, other digest, not served
      digest_in_ecr of the image that has the tag in ECR, or null

    Exits with 1 if the named image has no record. Standard error then says what the webhook would do with it. With
    --verify, exits with 1 if ECR lacks a copy or has another digest.
    """
    one = image if image is not None and not is_glob(image) else None
    if watching and not output.is_table:
        raise typer.BadParameter("cannot be combined with --watch", param_hint=f"--output {output}")
    if one is not None and states:
        raise typer.BadParameter("cannot be combined with the name of one image", param_hint="--state")
    if verify and (watching or states):
        raise typer.BadParameter("cannot be combined with --watch or --state", param_hint="--verify")
    if verify and one is not None:
        cause = "cannot be combined with the name of one image, for which ECR is always asked"
        raise typer.BadParameter(cause, param_hint="--verify")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = records_of(stack)
    if one is not None:
        mirror = mirror_of(stack)
        destination = selected_destination(one, mirror)
        if watching:
            watch(lambda: _get(records, destination))
        found = _get(records, destination)
        if not found:
            name = f" ({destination.by_tag})" if destination else ""
            message = f"{one}: there is no record{name}; {explain(one, mirror)}"
            typer.echo(f"Error: {printable(message)}", err=True)
            raise typer.Exit(ExitCode.NOT_WELL)
        held, trouble = _ask_ecr(stack.account, mirror, found[0])
        _show_one(found[0], held, Account("global", global_profile, global_region), output)
        if trouble:
            typer.echo(f"Note: it is not known whether ECR holds the copy: {printable(trouble)}", err=True)
        return

    def filtered(found: Iterable[Record]) -> list[Record]:
        some = matching(image, found) if image else found
        return [record for record in some if not states or record.status in states]

    if watching:
        watch(lambda: filtered(record for page in records.pages() for record in page))
    found = filtered(all_records(records))
    if verify:
        _verify(stack, [record for record in found if record.status is Status.COPIED], output)
    else:
        _show(found, output)


def _get(records: Records, destination: Destination | None) -> list[Record]:
    record = records.get(destination.repo, destination.tag) if destination else None
    return [record] if record else []


def _show(found: Sequence[Record], output: Output) -> None:
    ordered, now = by_attention(found), current_time()
    lines = listing if sys.stdout.isatty() else table
    rows = [record_row(record) for record in ordered]
    show(rows, output, name=lambda row: row.image, table=lambda: lines(ordered, now))
    typer.echo(summary(found), err=True)


def _verify(stack: Stack, copied: Sequence[Record], output: Output) -> None:
    held = look_up(stack.account.client("ecr"), mirror_of(stack), copied)
    rows = verified_rows(copied, held)
    show(rows, output, name=lambda row: row.image, table=lambda: verified_table(rows))
    typer.echo(verified_summary(rows, held), err=True)
    if not all_in_order(rows):
        raise typer.Exit(ExitCode.NOT_WELL)


def _ask_ecr(account: Account, mirror: Mirror, record: Record) -> tuple[Held | None, str | None]:
    """Return what ECR holds of a copy that has arrived by its record, or why that is not known; never raises."""
    if record.digest is None:
        return None, None
    try:
        return look_up_one(account.client("ecr"), mirror, record), None
    except NoAnswerError as error:
        return None, str(error)
    except (BotoCoreError, ClientError) as error:
        return None, remedy(error)


def _show_one(record: Record, held: Held | None, account: Account, output: Output) -> None:
    details, trouble = ask(account, record.build_id) if record.build_id else (None, None)
    if output is Output.NAME:
        typer.echo(title(record))
    elif not output.is_table:
        shown = asdict(record_row(record))
        shown |= {"in_ecr": held and held.state, "build_details": asdict(details) if details else None}
        typer.echo(as_data(shown, output))
    else:
        for line in full(record, held, current_time()):
            typer.echo(line)
        if details:
            _show_build(details)
    if trouble:
        missing = "its log is not shown" if details else "its build is not shown"
        typer.echo(f"Note: {missing}: {printable(trouble)}", err=True)


def _show_build(details: BuildDetails) -> None:
    typer.echo(f"\n{printable(details.build)}: {printable(details.status)}")
    phases = [
        (each.phase, each.status, "-" if each.seconds is None else str(each.seconds), each.message or "")
        for each in details.phases
    ]
    for line in aligned([("PHASE", "STATUS", "SECONDS", "MESSAGE"), *phases]):
        typer.echo(f"  {line}")
    if details.log:
        typer.echo(f"\nThe last lines of the log {printable(f'{details.log_group}, {details.log_stream}')}")
        for line in details.log:
            typer.echo(f"  {printable(line)}")
