"""Follows one copy to its end: the changes of its record, and the phases and the log of its builds, a line each."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NoReturn

import typer

from image_mirror.cli.commands.status.build import NO_LOG_YET, BuildDetails, Builds
from image_mirror.cli.commands.status.records import RecordRow, change, changed_rows, record_row, unknown_builds
from image_mirror.cli.errors import ExitCode, describe_aws_error
from image_mirror.cli.output import Output, print_document, say
from image_mirror.cli.terminal import again, say_new
from image_mirror.record import Record, Status

_EVERY = 5.0  # seconds


def follow(read: Callable[[], Record | None], builds: Builds, output: Output) -> NoReturn:
    """Print what changes until the copy is made or has failed; then end the command.

    It ends with 1 if the copy is FAILED, if a refresh has failed that was under way, or if the record was removed.
    Raises an error of the first reading; later errors of AWS are notes. Programs get a row for each change.
    """
    readings = again(read, _EVERY, describe_aws_error)
    before: Record | None = None
    for record in _rows(readings, builds, output) if not output.is_table else _lines(readings, builds):
        if record is None and before is not None:
            raise typer.Exit(ExitCode.NOT_WELL)
        if record is not None and record.status is Status.COPIED:
            has_failed = before is not None and record.error is not None
            raise typer.Exit(ExitCode.NOT_WELL if has_failed else 0)
        if record is not None and record.status is Status.FAILED:
            raise typer.Exit(ExitCode.NOT_WELL)
        before = record
    raise AssertionError("the readings never end")


Readings = Iterator[tuple[Record | None, str]]


def _rows(readings: Readings, builds: Builds, output: Output) -> Iterator[Record | None]:
    known: dict[str, RecordRow] = {}
    queued: dict[str, bool] = {}
    noted: Sequence[str] = ()
    for record, trouble in readings:
        copying = [record.build_id] if record and record.status is Status.COPYING and record.build_id else []
        found, missing = builds.queued(copying)
        queued |= found  # without an answer it is as before
        noted = say_new([*_notes(trouble), *([unknown_builds(missing)] if missing else [])], noted)
        latest = {record.destination: record_row(record, queued)} if record else {}
        for row in changed_rows(known, latest):
            print_document(row, output)
        known = latest
        yield record


def _lines(readings: Readings, builds: Builds) -> Iterator[Record | None]:
    before: Record | None = None
    phases: dict[tuple[str, str], str] = {}
    noted: Sequence[str] = ()
    for record, trouble in readings:
        changed = change(before, record)
        # A build whose end has changed the record is looked at once more, for the end of its log.
        running = [each for each in (record, before) if each is not None and each.status is Status.COPYING]
        builds_of = [each.build_id for each in running if each.build_id]
        details, missing = builds.look(builds_of[0]) if builds_of else (None, None)
        news = list(_news(details, phases)) if details else []
        is_over = record is None or record.status is not Status.COPYING
        lines = [*news, changed] if is_over else [changed, *news]
        clock = datetime.now().astimezone().isoformat(timespec="seconds")
        for line in filter(None, lines):
            say(f"{clock}  {line}", err=False)
        noted = say_new([*_notes(trouble), *([missing] if missing and missing != NO_LOG_YET else [])], noted)
        before = record
        yield record


def _news(details: BuildDetails, phases: dict[tuple[str, str], str]) -> Iterator[str]:
    """Yield a line for each phase that is new or has ended, and for each new line of the log."""
    for each in details.phases:
        if phases.get((details.build, each.phase)) != each.status and each.phase != "COMPLETED":
            phases[details.build, each.phase] = each.status
            length = f" after {each.seconds} s" if each.seconds is not None else ""
            message = f": {each.message}" if each.message else ""
            yield f"phase {each.phase} {each.status}{length}{message}"
    yield from (f"| {line}" for line in details.log)


def _notes(trouble: str) -> list[str]:
    return [f"the record cannot be read now: {trouble}"] if trouble else []
