"""`image-mirror connect`: creates, tests and stores the two access keys between the two accounts.

With both keys, it switches the fast lane on, where there is one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli import agreement, fast_lane, stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import ExitCode, NoAnswerError
from image_mirror.cli.fast_lane import NotSwitchedOnError
from image_mirror.cli.keys.plan import KeySource, NeedsAttentionError
from image_mirror.cli.keys.rotation import KeyState, carry_out, examine, for_copying, for_pushing, one_rotation
from image_mirror.cli.options import (
    GLOBAL_STACK,
    ChinaProfile,
    ChinaRegion,
    GlobalProfile,
    GlobalRegion,
    GlobalStackName,
    StackName,
)
from image_mirror.cli.output import say
from image_mirror.cli.stacks import Stack

_DEPLOYED = ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def connect(
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
    rotate: Annotated[bool, typer.Option("--rotate", help="Replace keys that work with new ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
) -> None:
    """Create or rotate the access keys between the two accounts.

    Deploy both stacks first. The builds use one key to push to ECR in China. It is stored in the global account, in the
    secret ImagePullSecret. The reconciler in China uses the other key to start builds. It is stored in China, in the
    secret GlobalAKSK, which is created if it does not exist:

    \b
    image-mirror connect --china-profile china --global-profile global

    Each key is tested with a real call: a login to ECR in China, and BatchGetBuilds of the project. AWS can refuse a
    new key for some seconds, so the call is repeated for a minute. Keys are never printed, only the last four
    characters of their IDs.

    If both keys work, they are not changed. So you can run the command again after any failure. If the two stacks do
    not fit together, it creates no key and says what to correct.

    --rotate creates new keys. When both work and are stored, it deletes the old keys. The old key for China is deleted
    after the builds that started with it have ended. If they take longer than 15 minutes, the command ends with 1. Run
    it again later to delete the key. If you do that within a day, it only finishes the rotation, and says so. To create
    even newer keys, run it once more.

    A user can have two keys. If both exist and a new key is needed, the key that was in the secret before is deleted
    first, or an inactive key. An active key that was not in the secret is never deleted. The command then prints which
    key it is, and how to delete it.

    After the keys, it switches the fast lane on, if the global stack has one and China's stack does not use it, also
    if you have switched it off. It first starts a build there that only logs in to ECR. If that succeeds within five
    minutes, it sets GlobalFastProjectName in China's stack, with the template and all other values as they are. If not,
    copies are made in one lane as before: a note says why and what to do, and the exit code is 0.

    You can press Ctrl-C at any time. Keys that work still work, and the same command continues later. The build in the
    fast lane is stopped. An update of the stack that has begun goes on.

    Exits with 1 if the stacks do not fit together, if AWS refuses a key, if there is no room for a new key, or if an
    old key cannot be deleted yet; with 3 if AWS does not answer or denies a call.
    """
    try:
        china = stacks.china_stack(Account("china", china_profile, china_region), stack_name)
        global_stack = stacks.global_stack(Account("global", global_profile, global_region), global_stack_name)
        states = _examine_both(china, global_stack, rotate=rotate)
    except NeedsAttentionError as error:
        raise _print_problems(error) from error
    except KeyboardInterrupt:
        say("Nothing has been changed.")
        raise
    for state in states:
        for line in state.describe():
            say(line, err=False)
    steps = [step for state in states for step in state.steps()]
    lane = fast_lane.plan(china, global_stack)
    if dry_run and (steps or lane.project):
        say("To do; with --dry-run nothing is done:", err=False)
        for step in (*steps, *lane.steps(china)):
            say(step, err=False, indent="  ")
    elif steps:
        _carry_out(states, rotate=rotate)
    else:
        nothing = "" if lane.project else "; there is nothing to change"
        say(f"Both accounts are connected{nothing}.", err=False)
    if lane.note:
        say(f"Note: {lane.note}")
    if lane.project and not dry_run:
        _use(lane.project, china, global_stack)


def _carry_out(states: Sequence[KeyState], *, rotate: bool) -> None:
    with _explain_how_to_continue():
        carry_out(states, lambda line: say(line, err=False))
    say("Both accounts are connected.", err=False)
    # These keys were already new: this run has only finished their rotation.
    finished = [state.setup.user_label for state in states if rotate and state.plan.source is KeySource.CURRENT]
    if finished:
        say(
            "This run has finished an earlier rotation. It has created no other key for "
            f"{' and '.join(finished)}, because the new one is less than a day old. "
            "To create even newer keys, run this again.",
            err=False,
        )


def _use(project: str, china: Stack, global_stack: Stack) -> None:
    """Switch the fast lane on, or say why that is not possible: it is not needed for copies."""
    try:
        fast_lane.switch_on(project, china, global_stack, lambda line: say(line, err=False))
    except KeyboardInterrupt:
        say("Both accounts are connected. To continue with the fast lane, run the same command.")
        raise
    except NotSwitchedOnError as error:
        say(f"Note: copies are made in one lane, and the fast lane is not used: {error}")


def _examine_both(china: Stack, global_stack: Stack, *, rotate: bool) -> list[KeyState]:
    """Examine both keys. Raises NeedsAttentionError with all problems of either, or if the stacks do not fit."""
    if faults := _faults(china, global_stack):
        raise NeedsAttentionError(*faults)
    states: list[KeyState] = []
    problems: list[str] = []
    for setup in (for_pushing(china, global_stack), for_copying(china, global_stack)):
        try:
            states.append(examine(setup, rotate=rotate))
        except NeedsAttentionError as error:
            problems += error.problems
    if problems:
        raise NeedsAttentionError(*problems)
    return one_rotation(states)


def _faults(china: Stack, global_stack: Stack) -> list[str]:
    """Return why keys would be useless, each with its remedy: a stack is incomplete, or the two do not fit together."""
    remedies = {True: "wait until it has ended, then run this again", False: "check its events, and deploy it again"}
    unfinished = [
        f"{stack.account}: the stack {stack.name} is {stack.status}; {remedies[stack.status.endswith('_IN_PROGRESS')]}"
        for stack in (china, global_stack)
        if stack.status not in _DEPLOYED
    ]
    if unfinished:
        return unfinished
    return [f"{each.found}; {each.remedy}" for each in agreement.faults(china, global_stack) if each.stops_copies]


def _print_problems(error: NeedsAttentionError) -> typer.Exit:
    for problem in error.problems:
        say(f"Error: {problem}")
    return typer.Exit(ExitCode.NOT_WELL)


@contextmanager
def _explain_how_to_continue() -> Iterator[None]:
    """If the work is interrupted, print how to continue, and then the error."""
    try:
        yield
    except (KeyboardInterrupt, NeedsAttentionError, NoAnswerError, ClientError, BotoCoreError) as error:
        say("The steps above are done, and keys that worked still work. To continue, run the same command.")
        if isinstance(error, NeedsAttentionError):
            raise _print_problems(error) from error
        raise
