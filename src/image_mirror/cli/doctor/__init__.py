"""`image-mirror doctor`: checks both accounts, the webhook and the cluster, and finds what is wrong and how to fix it.

Each subject is one module: first what is fetched, then the pure functions that judge it, and last its CHECKS, one in a
line. `runner` runs the checks, and `report` prints their results.
"""

from collections.abc import Sequence

from image_mirror.cli.doctor import (
    cluster,
    codebuild,
    dynamodb,
    fast_lane,
    federation,
    functions,
    keys,
    logins,
    repositories,
    stacks,
    triggers,
    webhook,
)
from image_mirror.cli.doctor.runner import CheckResult, Context, run

# In the order in which faults are fixed.
CHECKS = (
    *stacks.CHECKS,
    *keys.CHECKS,
    *federation.CHECKS,
    *logins.CHECKS,
    *codebuild.CHECKS,
    *fast_lane.CHECKS,
    *dynamodb.CHECKS,
    *triggers.CHECKS,
    *functions.CHECKS,
    *repositories.CHECKS,
    *webhook.CHECKS,
)


def examine(context: Context) -> Sequence[CheckResult]:
    """Run all checks, the cluster's only if a cluster is named; return their results. No result contains a secret."""
    return run((*CHECKS, *cluster.CHECKS) if context.cluster else CHECKS, context)
