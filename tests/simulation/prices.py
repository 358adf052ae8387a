"""Published prices, and what a run would have cost by them.

In USD, on demand, without free tiers, as listed for us-west-2 (Oregon) in 2025. The regions in China have lists of
their own, in CNY; Oregon's stands in for them here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DATE = "2025"
PRICES: Mapping[str, float] = {
    "HTTP API request": 1.00 / 1e6,
    "Lambda invocation": 0.20 / 1e6,
    "Lambda GB-second": 0.0000166667,
    "DynamoDB write unit": 0.625 / 1e6,
    "DynamoDB read unit": 0.125 / 1e6,
    "CodeBuild minute": 0.005,  # BUILD_GENERAL1_SMALL, each build rounded up
    "Secrets Manager call": 0.05 / 1e4,
    "secret a month": 0.40,
    "GB out to the internet": 0.09,  # a copy crosses from the global region to China
    "ECR GB-month": 0.10,
    "CloudWatch Logs GB": 0.50,
}
_WEEKS_A_MONTH = 365.25 / 12 / 7
_LOGGED = 600  # bytes that an invocation leaves in the log: Lambda's START, END and REPORT, and a line of its own
_SECRETS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a week used, in the units of the prices; `image_gigabytes` is the size of one image, all platforms."""

    webhook_invocations: int
    webhook_seconds: float
    reconciler_invocations: int
    reconciler_seconds: float
    write_units: int
    read_units: int
    build_minutes: int
    secret_calls: int
    pushes: int
    images: int
    image_gigabytes: float


def cost(usage: Usage) -> dict[str, float]:
    """Return what each service costs in USD."""
    invocations = usage.webhook_invocations + usage.reconciler_invocations
    gigabyte_seconds = usage.webhook_seconds * 1.0 + usage.reconciler_seconds * 0.5  # MemorySize 1024 and 512
    return {
        "API Gateway": usage.webhook_invocations * PRICES["HTTP API request"],
        "Lambda": invocations * PRICES["Lambda invocation"] + gigabyte_seconds * PRICES["Lambda GB-second"],
        "DynamoDB": usage.write_units * PRICES["DynamoDB write unit"] + usage.read_units * PRICES["DynamoDB read unit"],
        "Secrets Manager": usage.secret_calls * PRICES["Secrets Manager call"]
        + _SECRETS * PRICES["secret a month"] / _WEEKS_A_MONTH,
        "CloudWatch Logs": invocations * _LOGGED / 1e9 * PRICES["CloudWatch Logs GB"],
        "CodeBuild": usage.build_minutes * PRICES["CodeBuild minute"],
        "data transfer": usage.pushes * usage.image_gigabytes * PRICES["GB out to the internet"],
        "ECR storage": usage.images * usage.image_gigabytes * PRICES["ECR GB-month"] / _WEEKS_A_MONTH,
    }
