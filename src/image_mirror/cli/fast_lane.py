"""Switches the fast lane on: a build there as a probe, and when that has succeeded an update of China's stack.

The fast lane is a second CodeBuild project, on Lambda compute, and it only makes copies start sooner. Not every account
may run builds there. So the stack in China uses it only after a build has run and has logged in to ECR. Whatever fails
here leaves the one lane as it is, and is no error of the command.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from image_mirror.cli import agreement, stack_updates
from image_mirror.cli.probe_builds import NotProvenError, prove
from image_mirror.cli.remedies import FAST_QUOTA, aws_of, raise_quota
from image_mirror.cli.stack_updates import AGAIN, NotUpdatedError
from image_mirror.cli.stacks import FAST_PARAMETER, Stack, offered_fast_project, used_fast_project

_LONGEST_PROBE = 5  # minutes: a build there starts in seconds, and installs for less than a minute
_WANTED = 10  # builds at once


class NotSwitchedOnError(Exception):
    """The fast lane stays off. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What to do: use `project` as the fast lane, None for nothing. `note` says what does not fit, None for nothing."""

    project: str | None = None
    note: str | None = None

    def steps(self, china: Stack) -> Iterator[str]:
        """Yield as lines for people what is to be done, in this order."""
        if self.project:
            yield f"fast lane: start a build of {self.project} that only logs in to ECR, as a probe (at most 5 minutes)"
            yield (
                f"fast lane: when it has succeeded, set {FAST_PARAMETER}={self.project} in the stack {china.name} "
                "(china), and change nothing else there"
            )


def plan(china: Stack, global_side: Stack) -> LanePlan:
    """Decide whether the fast lane is to be switched on."""
    offered, used = offered_fast_project(global_side), used_fast_project(china)
    if fault := agreement.fast_lane_fault(china, global_side):
        return LanePlan(note=f"{fault.found}; {fault.remedy}")
    if offered and used is None:
        cause = f"the stack {china.name} is of an older release, which has one lane only"
        return LanePlan(note=f"{china.account}: {cause}; deploy this release there first, then {AGAIN}")
    return LanePlan(project=None if used else offered)


def switch_on(project: str, china: Stack, global_side: Stack, report: Callable[[str], None]) -> None:
    """Start the probe and wait for it; then update China's stack and wait for that.

    `report` is called with each step that was done. Raises NotSwitchedOnError. After Ctrl-C, what had begun is stopped
    or named on standard error.
    """

    def tell(line: str) -> None:
        report(f"fast lane: {line}")

    account = global_side.account
    more = f"ask for builds on Lambda compute: {raise_quota(aws_of(account), FAST_QUOTA, _WANTED)}"
    try:
        prove(project, account, {}, minutes=_LONGEST_PROBE, more_builds=more, report=tell)
        tell("the probe has logged in to ECR")
        stack_updates.update(china, {FAST_PARAMETER: project}, tell)
    except (NotProvenError, NotUpdatedError) as error:
        raise NotSwitchedOnError(str(error)) from error
    tell(f"the stack {china.name} (china) uses {project}")
