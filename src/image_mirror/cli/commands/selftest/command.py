"""The command itself: its options, its plan, and the order of its checks."""

import math
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from image_mirror.cli import agreement, stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.selftest import permissions, results, reviews
from image_mirror.cli.commands.selftest.copies import COPY, MISSING, Run, judge, judge_builds
from image_mirror.cli.commands.selftest.removal import Removal
from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.commands.selftest.samples import IMAGES, Sample, choose, taken
from image_mirror.cli.commands.selftest.samples import MISSING as MISSING_IMAGES
from image_mirror.cli.consent import is_confirmed
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.forgetting import Builds
from image_mirror.cli.options import (
    GLOBAL_STACK,
    ChinaProfile,
    ChinaRegion,
    GlobalProfile,
    GlobalRegion,
    GlobalStackName,
    StackName,
)
from image_mirror.cli.output import Output, OutputOption, say, show
from image_mirror.cli.stacks import Stack, fast_project_in_use, mirror_of, records_of
from image_mirror.record import Lane

_MINUTES = 15
# USD, by AWS's published prices of November 2026: a minute of the smallest machine, rounded up for each build; a minute
# of Lambda compute with 2 GB; what leaves the global region for images of a few MB.
_MAIN_MINUTE, _FAST_MINUTE, _TRAFFIC = 0.005, 0.0024, 0.01
_MOST_BUILDS = 2
"""For each image: one that fails may have a second one, which is stopped."""


def selftest(
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="A small image that nothing uses, in place of a default one. Repeated: one for each lane.",
            show_default=False,
        ),
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            "--missing",
            metavar="IMAGE",
            help="An image that does not exist, in place of a default one. Repeated: one for each lane.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(metavar="MINUTES", min=1, max=120, help="Give up after this time, and remove what was made."),
    ] = _MINUTES,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost; do nothing.")] = False,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
) -> None:
    """Copy a small image through both accounts, time each phase, and remove it again.

    Run it once after the first deployment and `image-mirror connect`. It checks what can be seen only on real AWS:

    \b
    webhook        a pod's review is sent to the stack's URL as a dry run, six times; the patch is applied and compared
    permissions    IAM itself says what each role and user may do (SimulatePrincipalPolicy), and what it must not do
    copy           a small public image, once in each lane, until its record says COPIED
    missing image  an image that does not exist, once in each lane, until its first build has said NOT_FOUND
    build          what CodeBuild says of these builds, which other commands rely on
    removal        what this run has made is gone

    It first shows its plan and its highest cost, and asks. Without a terminal it only shows it; --yes does it without a
    question.

    The lane that copies use by themselves is tested by a real review, so the copy goes the whole way of a pod's. Where
    there are two lanes, the main lane is tested with a record that says that the image is not for the fast lane.

    Images that have a record or a copy already are refused: choose others with --image and --missing. At the end, also
    after Ctrl-C, a failure or --timeout, it removes the records, the running builds, the tags, and the repositories
    that did not exist before, and nothing else. If something is left, it is named with the command that removes it. For
    a minute afterwards, do not use these images in pods: the webhook still remembers their records.

    \b
    --output json (or yaml) prints a list of objects, one for each result, with the keys
      check    what was checked
      state    ok, warning, failed, or skipped: a permission is missing
      found    what was found
      remedy   what to do, or null
      lane     fast or main, or null
      image    the image, or null
      seconds  the measured times by name. Of the webhook: first, median. Of a copy: admission, start (from the
               record to StartBuild), queue, provisioning, copying, arrival (from the push to COPIED), total

    Exits with 0 only if every check has passed, or if it has only shown its plan; with 1 if a check has failed or was
    skipped or something is left, with 2 if an option is wrong or an image is used already: nothing was done; with 3 if
    AWS does not answer.
    """
    china = stacks.china_stack(Account("china", china_profile, china_region), stack_name)
    world = stacks.global_stack(Account("global", global_profile, global_region), global_stack_name)
    if faults := [f"{each.found}; {each.remedy}" for each in agreement.faults(china, world) if each.stops_copies]:
        for fault in faults:
            say(f"Error: {fault}")
        raise typer.Exit(ExitCode.NOT_WELL)
    samples = choose(mirror_of(china), lanes_of(china, world), images or IMAGES, missing or MISSING_IMAGES)
    records, ecr = records_of(china), china.account.client("ecr")
    before, reasons = taken(samples, records, ecr)
    if reasons:
        for reason in reasons:
            say(f"Error: {reason}")
        raise typer.Exit(ExitCode.WRONG_INPUT)
    asked = permissions.table(china, world)
    todo = list(plan(samples, asked, timeout))
    if dry_run:
        for line in todo:
            say(line, err=not output.is_table)
        return
    if not is_confirmed(todo, yes=yes, err=not output.is_table):
        return
    name = f"selftest-{uuid.uuid4().hex[:8]}"
    run = Run(china, world, records, name, time.monotonic() + timeout * 60)
    removal = Removal(run, before, Builds(global_profile, global_region))
    found, ended_by = _carry_out(_steps(run, samples, asked, timeout, ecr), removal)
    on_terminal = sys.stdout.isatty()
    show(
        found,
        output,
        name=lambda each: each.check,
        table=lambda: (results.listing if on_terminal else results.table)(found),
    )
    if ended_by is not None:
        raise ended_by
    if not all(each.has_passed for each in found):
        raise typer.Exit(ExitCode.NOT_WELL)


def lanes_of(china: Stack, world: Stack) -> list[Lane]:
    """Return the lanes in which copies are made, the one that a first copy prefers first."""
    return [Lane.FAST, Lane.MAIN] if fast_project_in_use(china, world) else [Lane.MAIN]


def plan(samples: Sequence[Sample], asked: Sequence[permissions.Expected], minutes: int) -> Iterator[str]:
    """Yield as lines what a run does, and what it costs at most."""
    principals = len({each.principal for each in asked})
    yield f"send {reviews.CALLS} dry runs of a pod with {samples[0].image} to the webhook; they record nothing"
    yield f"ask IAM about {len(asked)} requests of {principals} roles and users, without making them"
    for sample in samples:
        how = "by a record, because only that chooses the lane" if sample.forced else "by a review, as for a pod"
        end = "which does not exist, until its build says so" if sample.missing else "until it is COPIED"
        yield f"copy {sample.image} in the {sample.lane} lane, requested {how}, {end}"
    yield "remove what this has made: records, builds, tags, and repositories that do not exist now"
    yield (
        f"this starts {len(samples)} builds, at most {_MOST_BUILDS * len(samples)}; it gives up after {minutes} "
        f"minutes; it costs at most {highest_price(samples, minutes):.2f} USD, and about 0.09 USD for each GB of "
        "larger images"
    )


def highest_price(samples: Sequence[Sample], minutes: int) -> float:
    """Return what a run with small images costs at most, in USD, rounded up to a cent.

    The images are copied at the same time, one in each lane, and the missing ones after them. In the worst case a
    build for each lane runs in the main lane for the whole time.
    """
    lanes = {each.lane for each in samples}
    price = len(lanes) * minutes * _MAIN_MINUTE + _MOST_BUILDS * len(samples) * _MAIN_MINUTE + _TRAFFIC
    if Lane.FAST in lanes:
        price += minutes * _FAST_MINUTE
    return math.ceil(round(price * 100, 6)) / 100


def _carry_out(steps: Iterator[list[Result]], removal: Removal) -> tuple[list[Result], BaseException | None]:
    """Run the checks, then remove what they made. Return all results, and what has ended the checks early."""
    found: list[Result] = []
    ended_by: BaseException | None = None
    try:
        for some in steps:
            found += some
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - after any error what was made is removed and shown
        ended_by = error
    try:
        if isinstance(ended_by, KeyboardInterrupt):
            say("Interrupted. What was made is removed now; press Ctrl-C again to leave it.")
    finally:
        found.append(removal.carry_out())
    return found, ended_by


def _steps(
    run: Run, samples: Sequence[Sample], asked: Sequence[permissions.Expected], minutes: int, ecr: Any
) -> Iterator[list[Result]]:
    first, becomes = samples[0], str(samples[0].copy.destination)
    sent, replies = reviews.dry_runs(run.china, first.image, run.name)
    is_recorded = run.records.get(*first.key) is not None
    yield [reviews.judge(sent, replies, becomes, run.china, is_recorded=is_recorded)]
    yield permissions.check(run.china, run.world, asked)
    all_followed = []
    for check, is_missing in ((COPY, False), (MISSING, True)):
        some = [each for each in samples if each.missing is is_missing]
        if run.is_over:  # a request now would start a build that nobody waits for
            found = f"not requested: the {minutes} minutes were over"
            yield [Result(check, State.FAILED, f"{each.image}: {found}", lane=str(each.lane)) for each in some]
            continue
        fast = [each for each in some if each.lane is Lane.FAST]
        if fast and (why := run.wait_for_fast_lane()):
            yield [Result(check, State.FAILED, f"{each.image}: not requested: {why}", lane="fast") for each in fast]
            some = [each for each in some if each not in fast]
        followed = run.copy(some)
        for each in followed:
            pushed = pushed_at(ecr, each.sample) if each.copied else None
            yield judge(each, minutes, pushed)
        all_followed += followed
    yield judge_builds(all_followed, run.world)


def pushed_at(ecr: Any, sample: Sample) -> Any:
    """Return when ECR got a copy; None if there is none."""
    try:
        [image] = ecr.describe_images(
            repositoryName=sample.repository, imageIds=[{"imageTag": sample.copy.destination.tag}]
        )["imageDetails"]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        return None
    return image.get("imagePushedAt")
