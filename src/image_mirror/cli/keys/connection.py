"""The two keys that connect the two deployed stacks: whether the stacks fit, how the keys stand, and their renewal."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from image_mirror.cli.agreement import judge_agreement
from image_mirror.cli.doctor.findings import State
from image_mirror.cli.keys.builds_underway import still_underway, underway_since
from image_mirror.cli.keys.link import Finding, Link, examine, one_rotation
from image_mirror.cli.keys.plan import NotWellError
from image_mirror.cli.keys.probe import can_copy, can_push
from image_mirror.cli.keys.rotation import prepare
from image_mirror.cli.keys.secret import KeySecret, Names
from image_mirror.cli.stacks import Stack
from image_mirror.cli.terminal import waiting

_DEPLOYED = ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
_PAUSE = 10.0  # seconds between two looks at the builds
_LONGEST_WAIT = 900.0  # seconds: most builds take two to five minutes


def examined(china: Stack, world: Stack, *, rotate: bool) -> list[Finding]:
    """Examine both links. Raises NotWellError for all that is wrong with either, or with how the stacks fit."""
    if faults := _faults(china, world):
        raise NotWellError(*faults)
    findings: list[Finding] = []
    problems: list[str] = []
    for link in (_for_pushing(china, world), _for_copying(china, world)):
        try:
            findings.append(examine(link, rotate=rotate))
        except NotWellError as error:
            problems += error.problems
    if problems:
        raise NotWellError(*problems)
    return one_rotation(findings)


def renew(findings: Sequence[Finding], say: Callable[[str], None]) -> None:
    """Do each step for both keys before the next: no old key is touched before both new ones work."""
    renewals = [prepare(finding, say) for finding in findings]
    for renewal in renewals:
        renewal.prove()
    for renewal in renewals:
        renewal.give()
    for renewal in reversed(renewals):  # first the one that no build needs
        renewal.retire()


def _for_pushing(china: Stack, world: Stack) -> Link:
    """The key in China with which the builds push."""
    names = Names("Region", "AccessKey", "AccessSecretKey")
    secret = KeySecret(world.account, world.output("ImagePullSecretArn"), names, of_a_stack=world.name)
    longest = timedelta(minutes=int(world.parameter("BuildTimeoutMinutes")))

    def wait_for_builds(before: datetime) -> None:
        codebuild, project = world.account.client("codebuild"), world.output("ProjectName")
        builds = underway_since(codebuild, project, before, longest)
        if not builds:
            return
        deadline = time.monotonic() + _LONGEST_WAIT
        with waiting(f"Waiting for builds that began with the old key ({len(builds)}), at most 15 minutes ..."):
            while builds and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                builds = still_underway(codebuild, builds)
        if builds:
            raise NotWellError(
                f"builds that began with the old key for China still run ({len(builds)}); the new key is in its place, "
                "and the old one is deleted by `image-mirror connect --rotate` when they have ended"
            )

    return Link(
        user=china.output("ImagePushUserName"),
        owner=china.account,
        iam=china.account.client("iam"),
        secret=secret,
        region=china.account.region,
        prove=lambda key: can_push(china.account, key),
        wait_for_users=wait_for_builds,
    )


def _for_copying(china: Stack, world: Stack) -> Link:
    """The key in the global account with which China's side starts builds."""
    names = Names("G_AWS_REGION", "G_ACCESS_KEY", "G_SECRET_KEY")
    project = world.output("ProjectName")
    return Link(
        user=world.output("ImagePullUserName"),
        owner=world.account,
        iam=world.account.client("iam"),
        secret=KeySecret(china.account, china.output("GlobalSecret"), names, of_a_stack=None),
        region=world.output("GlobalRegion"),
        prove=lambda key: can_copy(world.account, key, project),
        # The function that holds the old key reads the secret again as soon as AWS refuses it.
        wait_for_users=lambda _: None,
    )


def _faults(china: Stack, world: Stack) -> list[str]:
    """Say what keeps a key from being of use, each with its remedy: a stack that is not whole, or not of the other."""
    remedies = {True: "wait until it has ended, then run this again", False: "see to its events, and deploy it again"}
    unfinished = [
        f"{stack.account}: the stack {stack.name} is {stack.status}; {remedies[stack.status.endswith('_IN_PROGRESS')]}"
        for stack in (china, world)
        if stack.status not in _DEPLOYED
    ]
    judged = () if unfinished else judge_agreement(china, world)
    return unfinished + [f"{each.found}; {each.remedy}" for each in judged if each.state is State.FAILED]
