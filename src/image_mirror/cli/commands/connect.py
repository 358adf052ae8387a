"""`image-mirror connect`: lets the two accounts reach each other, by access keys or by federation.

When they do, it switches the fast lane on, where there is one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli import agreement, fast_lane, stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.consent import ask, is_confirmed
from image_mirror.cli.errors import ExitCode, NoAnswerError
from image_mirror.cli.fast_lane import NotSwitchedOnError
from image_mirror.cli.federation import delete_keys as unneeded
from image_mirror.cli.federation.carry_out import carry_out as federate_by
from image_mirror.cli.federation.examine import examine as examine_federation
from image_mirror.cli.federation.plan import (
    is_federated,
    is_half_federated,
    knows_federation,
    older,
    problems,
    steps,
)
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
from image_mirror.cli.terminal import is_terminal

_FEDERATE = "run `image-mirror connect --federate`"
_HINT = "`image-mirror connect --federate` connects the accounts without keys."
_CONNECTED = "Both accounts are connected; `image-mirror selftest` copies a small image to show it."
_DEPLOYED = ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def connect(
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
    federate: Annotated[
        bool, typer.Option("--federate", help="Connect the accounts by roles that trust each other, without keys.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Connect them by keys, also where the accounts federate.")
    ] = False,
    rotate: Annotated[bool, typer.Option("--rotate", help="Replace keys that work with new ones.")] = False,
    delete_keys: Annotated[
        bool, typer.Option("--delete-keys", help="With --federate: delete the keys that are no longer needed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --federate: do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
) -> None:
    """Connect the two accounts: by access keys, or without keys by federation.

    Deploy both stacks first. By default the accounts are connected by two access keys. The builds use one key to push
    to ECR in China. It is stored in the global account, in the secret ImagePullSecret. The reconciler in China uses the
    other key to start builds. It is stored in China, in the secret GlobalAKSK, which is created if it does not exist:

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

    With --federate, each account trusts one role of the other account, and no key is needed. AWS calls it outbound
    identity federation:

    \b
    image-mirror connect --federate --china-profile china --global-profile global

    The command shows what is left to do, and asks before it does it. Without a terminal it only shows it; --yes does it
    without a question. Outbound federation is switched on for the whole of each account, and never switched off here.
    Each stack gets a role and an OIDC provider for the other account; a provider for the same issuer that exists is
    used, and gets the audience image-mirror. Then a build logs in to ECR with the role in China, before builds use
    that role; also one in the fast lane, if that is in use, but no copy depends on it. Last, the reconciler gets its
    role, and is invoked with a probe. A role that does not pass its test is not used. Keys stay as they are, and can be
    used again.

    --federate --delete-keys also deletes the keys in the two secrets, when a copy has been made without them, no build
    that has one is running, and none was used since that copy began. An active key that is not in a secret is never
    deleted.

    Without options, keys that work are not changed, and accounts that federate get no keys; with --keys they do.

    Last, it switches the fast lane on, if the global stack has one and China's stack does not use it, also
    if you have switched it off. It first starts a build there that only logs in to ECR. If that succeeds within five
    minutes, it sets GlobalFastProjectName in China's stack, with the template and all other values as they are. If not,
    copies are made in one lane as before: a note says why and what to do, and the exit code is 0.

    You can press Ctrl-C at any time. Keys that work still work, and the same command continues later. A build that is a
    probe is stopped. An update of a stack that has begun continues.

    Exits with 1 if the stacks do not fit together, if AWS refuses a key, if there is no room for a new key, if a key
    cannot be deleted yet, or if a role does not pass its test; with 3 if AWS does not answer or denies a call.
    """
    _check_options(federate=federate, keys=keys, rotate=rotate, delete_keys=delete_keys, yes=yes)
    try:
        china = stacks.china_stack(Account("china", china_profile, china_region), stack_name)
        global_stack = stacks.global_stack(Account("global", global_profile, global_region), global_stack_name)
        if faults := _faults(china, global_stack):
            raise NeedsAttentionError(*faults)
        work = _work(china, global_stack, federate=federate, keys=keys, rotate=rotate, dry_run=dry_run)
        if isinstance(work, Federation):
            work.prepare(delete_keys=delete_keys)
    except NeedsAttentionError as error:
        raise _print_problems(error) from error
    except KeyboardInterrupt:
        say("Nothing has been changed.")
        raise
    for line in work.describe():
        say(line, err=False)
    todo = list(work.steps())
    lane = fast_lane.plan(china, global_stack)
    if dry_run and (todo or lane.project):
        say("To do; with --dry-run nothing is done:", err=False)
        for step in (*todo, *lane.steps(china)):
            say(step, err=False, indent="  ")
    elif todo:
        if isinstance(work, Federation) and not is_confirmed([*todo, *lane.steps(china)], yes=yes):
            return
        with _explain_how_to_continue():
            work.carry_out(lambda line: say(line, err=False))
        say(_CONNECTED, err=False)
        for line in work.remarks():
            say(line, err=False)
    else:
        nothing = "" if lane.project else "; there is nothing to change"
        say(f"Both accounts are connected{nothing}.", err=False)
    if lane.note:
        say(f"Note: {lane.note}")
    if lane.project and not dry_run:
        _use(lane.project, china, global_stack)


def _check_options(*, federate: bool, keys: bool, rotate: bool, delete_keys: bool, yes: bool) -> None:
    if federate and (keys or rotate):
        raise typer.BadParameter("cannot be combined with --federate", param_hint="--keys" if keys else "--rotate")
    if (delete_keys or yes) and not federate:
        raise typer.BadParameter("needs --federate", param_hint="--delete-keys" if delete_keys else "--yes")


def _work(
    china: Stack, global_stack: Stack, *, federate: bool, keys: bool, rotate: bool, dry_run: bool
) -> "Keys | Federation":
    """Return what is to be done, by keys or by federation. Raises NeedsAttentionError."""
    if federate:
        return Federation(china, global_stack)
    is_plain = not (keys or rotate)
    if is_plain and is_federated(china, global_stack):
        return Keys([], rotate=False, hint="Both directions use roles. No key is needed.")
    users = (china, "ImagePushUserName"), (global_stack, "ImagePullUserName")
    can_federate = knows_federation(china, global_stack)
    if can_federate and any(user not in stack.outputs for stack, user in users):
        raise NeedsAttentionError(f"there is no user for keys (AccessKeyUsers is false); {_FEDERATE}")
    states = _examine_both(china, global_stack, rotate=rotate)
    if not is_plain or not can_federate:
        return Keys(states, rotate=rotate)
    if any(state.plan.source is not KeySource.CURRENT for state in states):
        if is_half_federated(china, global_stack):
            raise NeedsAttentionError(f"one direction uses a role already; {_FEDERATE}, or with --keys to create keys")
        if not any(state.content.stored.current for state in states) and not dry_run and _is_offer_taken():
            return Federation(china, global_stack)
    return Keys(states, rotate=rotate, hint=_HINT)


def _is_offer_taken() -> bool:
    """Ask whether accounts without keys are to federate; without a terminal nobody can answer."""
    return is_terminal() and ask("There are no keys yet. Connect the accounts by federation, which needs none?")


class Keys:
    """The two keys: what there is, and what is to be done."""

    def __init__(self, states: Sequence[KeyState], *, rotate: bool, hint: str | None = None) -> None:
        """Take the states of both keys; `hint` is printed with them."""
        self._states = states
        self._rotate = rotate
        self._hint = hint

    def describe(self) -> Iterator[str]:
        """Yield what there is."""
        for state in self._states:
            yield from state.describe()
        if self._hint:
            yield self._hint

    def steps(self) -> Iterator[str]:
        """Yield what is to be done."""
        for state in self._states:
            yield from state.steps()

    def carry_out(self, report: Callable[[str], None]) -> None:
        """Do it. Raises NeedsAttentionError."""
        carry_out(self._states, report)

    def remarks(self) -> Iterator[str]:
        """Yield what is worth knowing afterwards."""
        # These keys were already new: this run has only finished their rotation.
        finished = [
            state.setup.user_label for state in self._states if self._rotate and state.plan.source is KeySource.CURRENT
        ]
        if finished:
            yield (
                "This run has finished an earlier rotation. It has created no other key for "
                f"{' and '.join(finished)}, because the new one is less than a day old. "
                "To create even newer keys, run this again."
            )


class Federation:
    """The two roles: what there is, and what is to be done."""

    def __init__(self, china: Stack, global_stack: Stack) -> None:
        self._china = china
        self._global_stack = global_stack
        self._unused: list[unneeded.UnusedKeys] = []

    def prepare(self, *, delete_keys: bool) -> None:
        """Read both accounts. Raises NeedsAttentionError, NoAnswerError."""
        if found := older(self._china, self._global_stack):
            raise NeedsAttentionError(*found)
        self._found = examine_federation(self._china, self._global_stack)
        if wrong := problems(self._found):
            raise NeedsAttentionError(*wrong)
        if delete_keys:
            self._unused = unneeded.unused(self._china, self._global_stack)

    def describe(self) -> Iterator[str]:
        """Yield what there is."""
        for side in (self._found.china, self._found.world):
            is_on = f"on, its issuer is {side.issuer}" if side.issuer else "off"
            yield f"{side.name}: outbound identity federation is {is_on}"
        answer = self._found.answer
        result = "works" if answer.error is None else f"fails: {answer.error}"
        yield f"china: the reconciler's BatchGetBuilds by {answer.role or 'the key'} {result}"
        for each in self._unused:
            yield from each.notes()

    def steps(self) -> Iterator[str]:
        """Yield what is to be done."""
        for step in steps(self._found):
            yield from step.lines
        for each in self._unused:
            yield from (f"{line}, when a copy has been made without it" for line in each.steps())

    def carry_out(self, report: Callable[[str], None]) -> None:
        """Do it. Raises NeedsAttentionError, NoAnswerError."""
        federate_by(self._found, report)
        if any(each.deleted for each in self._unused):
            china, global_stack = stacks.again(self._china), stacks.again(self._global_stack)
            image = unneeded.require_no_use(china, global_stack, self._unused)
            report(f"{image} was copied without a key")
            unneeded.delete(self._unused, report)

    def remarks(self) -> Iterator[str]:
        """Yield what is worth knowing afterwards."""
        if not self._unused:
            yield (
                "The keys were not changed. When a copy has been made, `image-mirror connect --federate --delete-keys` "
                "deletes them."
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
    """Examine both keys. Raises NeedsAttentionError with all problems of either."""
    states: list[KeyState] = []
    troubles: list[str] = []
    for setup in (for_pushing(china, global_stack), for_copying(china, global_stack)):
        try:
            states.append(examine(setup, rotate=rotate))
        except NeedsAttentionError as error:
            troubles += error.problems
    if troubles:
        raise NeedsAttentionError(*troubles)
    return one_rotation(states)


def _faults(china: Stack, global_stack: Stack) -> list[str]:
    """Return why keys would be useless, each with its remedy: a stack is incomplete, or the two do not fit together."""
    remedies = {True: "wait until it has ended, then run this again", False: "check its events, and deploy it again"}

    def ends(stack: Stack) -> bool:
        # A stack in review has a change set that nobody has carried out.
        return stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS"

    unfinished = [
        f"{stack.account}: the stack {stack.name} is {stack.status}; {remedies[ends(stack)]}"
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
