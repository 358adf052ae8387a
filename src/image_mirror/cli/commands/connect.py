"""`image-mirror connect`: the two access keys by which the two accounts reach each other, made, proven and kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli import agreement
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import ExitCode, NoAnswerError
from image_mirror.cli.keys.plan import NotWellError, Take
from image_mirror.cli.keys.rotation import Finding, examine, for_copying, for_pushing, one_rotation, renew
from image_mirror.cli.options import (
    GLOBAL_STACK,
    ChinaProfile,
    ChinaRegion,
    GlobalProfile,
    GlobalRegion,
    GlobalStackName,
    StackName,
)
from image_mirror.cli.stacks import Stack, china_stack, global_stack
from image_mirror.messages import printable

_DEPLOYED = ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def connect(
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
    rotate: Annotated[bool, typer.Option("--rotate", help="Put new keys in the place of those that work.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Let the two accounts reach each other: make their access keys, try them, keep each in the other's secret.

    Both stacks must be there. The key with which builds push to China is kept in the global secret ImagePullSecret,
    the key with which China's side starts builds in China's secret (GlobalAKSK), which is made where there is none:

    \b
    image-mirror connect --china-profile china --global-profile global

    Each key is tried by a real call that is signed with it: a login to ECR in China, BatchGetBuilds of the project.
    A new one may be refused for some seconds; it is tried for a minute. No key is ever printed, only the last four
    characters of its ID.

    Where both keys work, nothing is changed; so run it again after any failure. It stops before any key is made where
    the two stacks do not fit together, and says what to correct.

    --rotate makes new keys, and deletes the old ones once the new ones work and are in their places. An old key for
    China is deleted when the builds that began with it have ended: after 15 minutes of waiting the command ends with 1,
    and deletes the key when it is run again. Within a day that only ends the rotation: no further key is made, and it
    says so; run it once more for yet newer keys.

    A user may have two keys. Where both are there and a new one is to be made, the one that the secret gave before
    makes room, or an inactive one. An active key that nobody can account for is never deleted, but named, with the
    command that deletes it.

    Ctrl-C at any time: what works goes on working, and the same command goes on from there.

    Exits with 1 where the stacks do not fit together, where a key is refused, where there is no room for a new one, or
    where an old one could not be deleted yet, with 3 where AWS does not answer or refuses.
    """
    try:
        china = china_stack(Account("china", china_profile, china_region), stack_name)
        world = global_stack(Account("global", global_profile, global_region), global_stack_name)
        findings = _examined(china, world, rotate=rotate)
    except NotWellError as error:
        raise _not_well(error) from error
    except KeyboardInterrupt:
        typer.echo("Nothing has been changed.", err=True)
        raise
    for finding in findings:
        for line in finding.stands():
            typer.echo(printable(line))
    steps = [step for finding in findings for step in finding.steps()]
    if not steps:
        typer.echo("Both accounts are connected; there is nothing to change.")
        return
    if dry_run:
        typer.echo("To do, and not done (--dry-run):")
        for step in steps:
            typer.echo(printable(f"  {step}"))
        return
    with _told_how_to_go_on():
        renew(findings, lambda line: typer.echo(printable(line)))
    typer.echo("Both accounts are connected.")
    # One with which a rotation goes on that has already given its new key.
    kept = [finding.link.whose for finding in findings if rotate and finding.plan.take is Take.CURRENT]
    if kept:
        typer.echo(
            "An earlier rotation is ended, and no further key was made, for the new ones are less than a day old: "
            f"{printable(' and '.join(kept))}. For yet newer keys, run this again."
        )


def _examined(china: Stack, world: Stack, *, rotate: bool) -> list[Finding]:
    """Examine both links. Raises NotWellError for all that is wrong with either, or with how the stacks fit."""
    if faults := _faults(china, world):
        raise NotWellError(*faults)
    findings: list[Finding] = []
    problems: list[str] = []
    for link in (for_pushing(china, world), for_copying(china, world)):
        try:
            findings.append(examine(link, rotate=rotate))
        except NotWellError as error:
            problems += error.problems
    if problems:
        raise NotWellError(*problems)
    return one_rotation(findings)


def _faults(china: Stack, world: Stack) -> list[str]:
    """Say what keeps a key from being of use, each with its remedy: a stack that is not whole, or not of the other."""
    remedies = {True: "wait until it has ended, then run this again", False: "see to its events, and deploy it again"}
    unfinished = [
        f"{stack.account}: the stack {stack.name} is {stack.status}; {remedies[stack.status.endswith('_IN_PROGRESS')]}"
        for stack in (china, world)
        if stack.status not in _DEPLOYED
    ]
    if unfinished:
        return unfinished
    return [f"{each.found}; {each.remedy}" for each in agreement.faults(china, world) if each.stops_copies]


def _not_well(error: NotWellError) -> typer.Exit:
    for problem in error.problems:
        typer.echo(f"Error: {printable(problem)}", err=True)
    return typer.Exit(ExitCode.NOT_WELL)


@contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    """Say how things stand where the work is cut off, and then by what."""
    try:
        yield
    except (KeyboardInterrupt, NotWellError, NoAnswerError, ClientError, BotoCoreError) as error:
        typer.echo("What is told above stands, and what worked works. The same command goes on from there.", err=True)
        if isinstance(error, NotWellError):
            raise _not_well(error) from error
        raise
