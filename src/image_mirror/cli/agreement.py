"""Finds where the two stacks do not fit together. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from image_mirror.cli.remedies import deploy_china, deploy_global
from image_mirror.cli.stacks import FAST_PARAMETER, Stack, offered_fast_project, used_fast_project


@dataclass(frozen=True, slots=True)
class Fault:
    """What was found, and what to do; `stops_copies` is False if copies are still made."""

    found: str
    remedy: str
    stops_copies: bool = True


def faults(china: Stack, global_side: Stack) -> Iterator[Fault]:
    """Yield the differences between the stacks: those that stop copies, an empty ChinaAccountId, and `fast_lane_fault`.

    Raises NoAnswerError if a stack lacks a parameter or an output that is compared.
    """
    account = china.output("CopiesPrefix").partition(".")[0]
    for name, wanted, then in (
        ("RepositoryPrefix", china.parameter("RepositoryPrefix"), ""),
        # If Region changes, CloudFormation sets the secret back to the keys that were the template's parameters.
        (
            "Region",
            china.account.region,
            ", then `image-mirror connect`, because this resets the secret ImagePullSecret",
        ),
    ):
        if (is_now := global_side.parameter(name)) != wanted:
            yield Fault(
                f"{name} of the global stack is {is_now or 'empty'}, China's is {wanted}: StartBuild is denied",
                deploy_global(global_side, f"{name}={wanted}") + then,
            )
    is_now = global_side.parameter("ChinaAccountId")
    if is_now and is_now != account:
        yield Fault(
            f"ChinaAccountId of the global stack is {is_now}, China's account is {account}: StartBuild is denied",
            deploy_global(global_side, f"ChinaAccountId={account}"),
        )
    if not is_now:
        yield Fault(
            "ChinaAccountId of the global stack is empty: any account that its key can push to may receive copies",
            deploy_global(global_side, f"ChinaAccountId={account}"),
            stops_copies=False,
        )
    asked, project = china.parameter("GlobalProjectName"), global_side.output("ProjectName")
    if asked != project:
        yield Fault(
            f"China's GlobalProjectName is {asked}, the global stack's project is {project}: no copy is started",
            deploy_china(china, f"GlobalProjectName={project}"),
        )
    if fault := fast_lane_fault(china, global_side):
        yield fault


def fast_lane_fault(china: Stack, global_side: Stack) -> Fault | None:
    """Return the difference if China's stack uses another fast project than the global one has; None if it uses none.

    It stops no copy: after a refusal all copies are made in the other lane.
    """
    used, offered = used_fast_project(china), offered_fast_project(global_side)
    if not used or used == offered:
        return None
    # The quotes inside are SAM's, which takes nothing else for an empty value.
    wanted = offered or '""'
    is_now = f"the global stack's is {offered}" if offered else "the global stack has no fast lane"
    return Fault(
        f"China's {FAST_PARAMETER} is {used}, {is_now}: no copy is made in the fast lane",
        deploy_china(china, f"{FAST_PARAMETER}={wanted}"),
        stops_copies=False,
    )
