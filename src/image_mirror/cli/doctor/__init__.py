"""`image-mirror doctor`: asks both accounts, the webhook and the cluster, and says what is wrong and how to fix it.

Each subject is one module: what is fetched, the pure functions that judge it, and last its CHECKS, in which one line
makes a check. `runner` runs them, and `report` prints their results.
"""

from collections.abc import Sequence

from image_mirror.cli.doctor import cluster, codebuild, dynamodb, functions, keys, stacks, triggers, webhook
from image_mirror.cli.doctor.runner import CheckResult, Context, run

# In the order in which things are fixed.
CHECKS = (
    *stacks.CHECKS,
    *keys.CHECKS,
    *codebuild.CHECKS,
    *dynamodb.CHECKS,
    *triggers.CHECKS,
    *functions.CHECKS,
    *webhook.CHECKS,
)


def examine(context: Context) -> Sequence[CheckResult]:
    """Run all checks, the cluster's where there is a cluster; return their results, none of which holds a secret."""
    return run((*CHECKS, *cluster.CHECKS) if context.cluster else CHECKS, context)
