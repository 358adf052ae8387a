"""The repositories of copies in ECR: lifecycle policies that others have put there."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, fetch, fine, warn
from image_mirror.cli.doctor.stacks import china_stack
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import Stack
from image_mirror.expiry import is_released_policy

POLICIES = "lifecycle policies"

_MOST_ASKED = 500  # one call for each repository
_PARALLEL = 10
_MOST_NAMED = 5
_NO_POLICY = ("LifecyclePolicyNotFoundException", "RepositoryNotFoundException")


@dataclass(frozen=True, slots=True)
class Policies:
    """The repositories with a lifecycle policy that no release wrote, among the first `asked` of `all`."""

    foreign: Sequence[str]
    asked: int
    all: int


@fetch(POLICIES)
def foreign_policies(context: Context) -> Policies:
    """Return which repositories below the prefix have a lifecycle policy that no release wrote."""
    stack = context.answer(china_stack)
    prefix = stack.output("CopiesPrefix").partition("/")[2]
    ecr = stack.account.client("ecr")
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1000})
    names = sorted(
        repository["repositoryName"]
        for page in pages
        for repository in page["repositories"]
        if repository["repositoryName"].startswith(prefix)
    )

    def has_foreign(name: str) -> bool:
        try:
            return not is_released_policy(ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
        except ClientError as error:
            if code_of(error) in _NO_POLICY:
                return False
            raise

    asked = names[:_MOST_ASKED]
    with ThreadPoolExecutor(_PARALLEL) as threads:
        foreign = [name for name, found in zip(asked, threads.map(has_foreign, asked), strict=True) if found]
    return Policies(foreign, len(asked), len(names))


def judge_policies(policies: Policies, china: Stack) -> Sequence[CheckResult]:
    """Judge the lifecycle policies: one that no release wrote can delete or archive copies that pods use."""
    asked = f"{policies.all} repositories"
    if policies.asked < policies.all:
        asked = f"the first {policies.asked} of {asked}"
    if not policies.foreign:
        return [fine(POLICIES, f"{asked}, none with a policy that is not the mirror's")]
    named = ", ".join(policies.foreign[:_MOST_NAMED])
    more = len(policies.foreign) - _MOST_NAMED
    remove = aws_of(china.account)("ecr", "delete-lifecycle-policy", "--repository-name", policies.foreign[0])
    return [
        warn(
            POLICIES,
            f"{len(policies.foreign)} of {asked} have a lifecycle policy that is not the mirror's, which may delete or "
            f"archive copies that pods use: {named}" + (f" and {more} more" if more > 0 else ""),
            f"if you do not need it: {remove}; the parameter ExpireDays deletes copies that nobody uses",
        )
    ]


CHECKS = (Check(POLICIES, judge_policies, (foreign_policies, china_stack)),)
