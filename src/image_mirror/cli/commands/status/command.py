"""The command itself: it reads the records and prints them."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.status.build import BuildDetails, Builds
from image_mirror.cli.commands.status.follow import follow
from image_mirror.cli.commands.status.one import OneCopy, full, one_copy
from image_mirror.cli.commands.status.records import (
    by_attention,
    listing,
    needs_attention,
    record_row,
    summary,
    table,
    unknown_builds,
)
from image_mirror.cli.commands.status.verification import (
    all_in_order,
    verified_rows,
    verified_summary,
    verified_table,
)
from image_mirror.cli.commands.status.watch import Reading, not_shown, split, watch
from image_mirror.cli.errors import ExitCode, no_answer_errors, why_no_answer
from image_mirror.cli.held_copies import Held, InECR, look_up, look_up_one
from image_mirror.cli.image_selection import all_records, is_glob, matching, selected_destination, title
from image_mirror.cli.options import ChinaProfile, ChinaRegion, GlobalProfile, GlobalRegion, StackName
from image_mirror.cli.output import Output, OutputOption, aligned, as_data, current_time, folded, say, show
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
    everything: Annotated[
        bool, typer.Option("--all", help="On a terminal, show the copies that are in order too.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all COPIED records with ECR; change nothing.")
    ] = False,
    watching: Annotated[
        bool,
        typer.Option(
            "-w", "--watch", help="Read again every 5 seconds, until Ctrl-C; or until the end of the named copy."
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if one of the records needs attention.")
    ] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
    global_profile: GlobalProfile = None,
    global_region: GlobalRegion = None,
) -> None:
    """Show all copies and their states, what needs attention last; or one copy in full, with its build and its log.

    \b
    image-mirror status
    image-mirror status --state FAILED 'gcr.io/*'
    image-mirror status gcr.io/google-samples/hello-app:1.0
    image-mirror status -w
    image-mirror status --verify

    Name an image as in a manifest, or by its copy in ECR. A pattern must match the whole source, with docker.io, as in
    '*/library/nginx:*'. "*" also matches "/", and upper and lower case differ.

    What needs attention is last, next to the prompt. A terminal only counts the COPIED that are in order: --all or
    --state COPIED shows them. A pipe gets all. JSON, YAML and names begin with what needs attention.

    TRY is how many of its five attempts the source has refused, NEXT when a REQUESTED copy is tried next, AGE the time
    since the copy was requested. QUEUED is a COPYING one whose build waits in CodeBuild's queue. This needs the global
    account: one call for each 100 builds, if --global-profile or its variable is set. Without it, COPYING can be both.
    --output wide adds CHANGED, the time since the record was written, the lane, the build, and the copy's name.

    A line on standard error counts the copies that were requested together, and estimates how long the rest takes:
    "50 requested: 21 copied, 5 running, 3 queued, 21 waiting; 2.1 a minute, about 14 minutes left". A copy that waits
    has no build yet. The rate is that of the last 15 minutes, from the times in the records.

    A copy with an unexpected push needs attention most: ECR holds, or held for a time, a digest that none of our builds
    pushed. The key in ImagePullSecret may be stolen: `image-mirror connect --rotate` replaces it. If the accounts
    federate, a session of PushRole may be stolen: docs/by-hand.md says how to end its sessions. Pods still use the
    copy. `image-mirror retry --unexpected` makes it again from its source.

    One image is shown with the rule that decides about it now, what ECR holds, the phases of its build, the last 20
    lines of the log, and what to do. With --watch, each change of its record, each phase and each line of the log is
    printed, until it is COPIED (the exit code is 0) or FAILED (1). A refresh that fails meanwhile ends with 1 too,
    although pods still use the older copy, and so does a record that is removed.

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
      lane          fast or main: where that build runs or ran, or the next one will; or null
      queued        whether a COPYING one waits in CodeBuild's queue; null if that is not known
      digest        of the image in ECR, or null
      signatures    how many were copied with it, or why none or fewer, or null
      reason        of the latest failure or delay, or null
      requested_by  NAMESPACE/KIND/NAME of the pod's controller or of the pod that requested
                    it; null for a request by an operator or of an older release
      unexpected_push
                    null, or an object with before, after (digests) and noticed_at: the latest
                    push that none of our builds made
    For one image it prints one object with these keys and
      rule          the deployed rule that copies the source, or what the rules do instead, or null
      do            what to do, or null
      not_fast      why this image is not copied in the fast lane: OUT_OF_TIME (too slow),
                    TOO_LARGE, UNEXPLAINED (failed for an unknown reason); or null
      in_ecr        held, gone, archived, other digest, not served; null if the copy has not
                    arrived, or if ECR gave no answer
      build_details null, or an object with build, status, log_group, log_stream,
                    phases (each with phase, status, seconds, message) and log (a list of lines)
    With --watch it prints an object on one line (with yaml: a document that begins with ---) for
    each record that is new or has changed, with the keys of the list; also for one image. Changes
    of updated_at, due_at and lane alone do not count. A record that was removed has the state GONE.
    With --verify it prints a list of objects, one for each COPIED record, with the keys
      image, copy, digest
                    as above
      in_ecr        held, gone, archived, other digest, not served
      digest_in_ecr of the image that has the tag in ECR, or null

    Exits with 1 if the named image has no record. Standard error then says what the webhook would do with it. With
    --verify, exits with 1 if ECR lacks a copy or has another digest.

    With --exit-code, exits with 1 if a record that was asked for is FAILED, has an unexpected push, or has no copy yet
    and was refused by its source or requested more than two hours ago; for one image also if ECR lacks its copy or has
    another digest.
    """
    one = image if image is not None and not is_glob(image) else None
    if watching and output is Output.NAME:
        raise typer.BadParameter("cannot be combined with --watch", param_hint=f"--output {output}")
    if watching and exit_code:
        raise typer.BadParameter("cannot be combined with --watch", param_hint="--exit-code")
    for option, given in (("--state", states), ("--all", everything)):
        if one is not None and given:
            raise typer.BadParameter("cannot be combined with the name of one image", param_hint=option)
    if verify and (watching or states):
        raise typer.BadParameter("cannot be combined with --watch or --state", param_hint="--verify")
    if verify and one is not None:
        cause = "cannot be combined with the name of one image, for which ECR is always asked"
        raise typer.BadParameter(cause, param_hint="--verify")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    builds = Builds(Account("global", global_profile, global_region))
    if one is not None:
        _one(one, stack, builds, output, watching=watching, exit_code=exit_code)
        return
    records, everything = records_of(stack), everything or Status.COPIED in (states or ())

    def reading(found: Iterable[Record]) -> Reading:
        some = matching(image, found) if image else found
        chosen = [record for record in some if not states or record.status in states]
        copying = [record.build_id for record in chosen if record.status is Status.COPYING and record.build_id]
        queued, note = builds.queued(copying) if global_profile is not None else ({}, None)
        return Reading(chosen, queued, note, all_states=not states)

    if watching:
        watch(lambda: reading(record for page in records.pages() for record in page), output, everything=everything)
    found = all_records(records)
    if verify:
        shown = matching(image, found) if image else found
        _verify(stack, [record for record in shown if record.status is Status.COPIED], output, everything=everything)
    else:
        read = reading(found)
        shown = list(read.records)
        _show(read, output, everything=everything)
    if exit_code and any(needs_attention(record, current_time()) for record in shown):
        raise typer.Exit(ExitCode.NOT_WELL)


def _one(image: str, stack: Stack, builds: Builds, output: Output, *, watching: bool, exit_code: bool) -> None:
    """Show or follow one image. Raises typer.Exit, typer.BadParameter."""
    records, mirror = records_of(stack), mirror_of(stack)
    destination = selected_destination(image, mirror)
    record = _get(records, destination)
    if record is None:
        name = f" ({destination.by_tag})" if destination else ""
        message = f"{image}: there is no record{name}; {explain(image, mirror)}"
        if not watching or destination is None:
            typer.echo(f"Error: {printable(message)}", err=True)
            raise typer.Exit(ExitCode.NOT_WELL)
        say(f"Note: {message}")
    if record is None or watching:
        follow(lambda: _get(records, destination), builds, output)
    held, trouble = _ask_ecr(stack.account, mirror, record)
    one = one_copy(record, held, mirror, current_time(), role_pushes="PushRoleArn" in stack.outputs)
    _show_one(one, builds, output)
    if trouble:
        say(f"Note: it is not known whether ECR holds the copy: {trouble}")
    differs = held is not None and (held.lost or held.state is InECR.OTHER_DIGEST)
    if exit_code and (differs or needs_attention(record, current_time())):
        raise typer.Exit(ExitCode.NOT_WELL)


def _get(records: Records, destination: Destination | None) -> Record | None:
    return records.get(destination.repo, destination.tag) if destination else None


def _width() -> int | None:
    """Return how wide the terminal is, or None for a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _show(read: Reading, output: Output, *, everything: bool) -> None:
    now, width, wide = current_time(), _width(), output is Output.WIDE
    hidden = 0
    if not output.is_table:
        rows = [record_row(record, read.queued) for record in by_attention(read.records)]
        show(rows, output, name=lambda row: row.image, table=lambda: ())
    else:
        records, hidden = split(read.records, everything=everything or width is None)
        lines = table(records, read.queued, now, wide=wide)
        if width is not None and records:
            lines = (line for each in listing(records, read.queued, now, width, wide=wide) for line in each)
        if records:
            typer.echo("\n".join(lines))
    if hidden:
        say(not_shown(hidden))
    say(summary(read.records))
    if progress := read.progress(now):
        say(str(progress))
    if read.note:
        say(f"Note: {unknown_builds(read.note)}")


def _verify(stack: Stack, copied: Sequence[Record], output: Output, *, everything: bool) -> None:
    held = look_up(stack.account.client("ecr"), mirror_of(stack), copied)
    rows, width = verified_rows(copied, held), _width()
    shown = rows
    if output.is_table and width is not None:
        shown = [row for row in rows if everything or row.in_ecr != InECR.HELD]

    def lines() -> Iterable[str]:
        found = verified_table(shown)
        return found if width is None else (part for line in found for part in folded(line))

    show(shown, output, name=lambda row: row.image, table=lines)
    if len(shown) < len(rows):
        say(f"{len(rows) - len(shown):,} held not shown (--all)")
    say(verified_summary(rows, held))
    if not all_in_order(rows):
        raise typer.Exit(ExitCode.NOT_WELL)


def _ask_ecr(account: Account, mirror: Mirror, record: Record) -> tuple[Held | None, str | None]:
    """Return what ECR holds of a copy that has arrived by its record, or why that is not known."""
    if record.digest is None:
        return None, None
    try:
        return look_up_one(account.client("ecr"), mirror, record), None
    except no_answer_errors() as error:
        return None, why_no_answer(error)


def _show_one(one: OneCopy, builds: Builds, output: Output) -> None:
    record, held = one.record, one.held
    details, trouble = builds.look(record.build_id) if record.build_id else (None, None)
    if output is Output.NAME:
        typer.echo(title(record))
    elif not output.is_table:
        shown = asdict(record_row(record, {details.build: details.is_queued} if details else {}))
        shown |= {"rule": one.rule, "do": one.do, "not_fast": record.not_fast, "in_ecr": held and held.state}
        typer.echo(as_data(shown | {"build_details": asdict(details) if details else None}, output))
    else:
        *lines, do = full(one, current_time())
        for line in lines:
            say(line, err=False)
        if details:
            _show_build(details)
            typer.echo()
        say(do, err=False)
    if trouble:
        missing = "its log is not shown" if details else "its build is not shown"
        say(f"Note: {missing}: {trouble}")


def _show_build(details: BuildDetails) -> None:
    typer.echo()
    say(f"{details.build}: {details.status}", err=False)
    phases = [
        (each.phase, each.status, "-" if each.seconds is None else str(each.seconds), each.message or "")
        for each in details.phases
    ]
    for line in aligned([("PHASE", "STATUS", "SECONDS", "MESSAGE"), *phases]):
        say(f"  {line}", err=False)
    if details.log:
        typer.echo()
        say(f"The last lines of the log {details.log_group}, {details.log_stream}", err=False)
        for line in details.log:
            say(f"  {line}", err=False)
