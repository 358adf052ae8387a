"""Published prices, and the cost of a run by them.

In USD, on demand, without free tiers, for US East (N. Virginia). The regions in China have their own prices, in CNY;
these are used instead. Not counted, because it is only cents: the table's storage, the schedule's events, mails of
alarms, and the traffic out of the API Gateway.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from image_mirror.metrics import Metric
from support.templates import sam_template


class Price(NamedTuple):
    """USD for one unit, with the source and the date."""

    usd: float
    listed: str


DATE = "24 November 2026"
"""When these were looked up: not on AWS's own pages, but on pages that quote them, as of the date beside each."""
PRICES: Mapping[str, Price] = {
    "HTTP API request": Price(1.00 / 1e6, "AWS whitepaper on private APIs; go-cloud.io, 2026"),
    "Lambda invocation": Price(0.20 / 1e6, "AWS whitepaper How AWS Pricing Works"),
    "Lambda GB-second": Price(0.0000166667, "cloudchipr.com, 2024; AWS whitepaper How AWS Pricing Works"),
    "DynamoDB write unit": Price(0.625 / 1e6, "airbyte.com, July 2025 (since November 2024)"),
    "DynamoDB read unit": Price(0.125 / 1e6, "airbyte.com, July 2025 (since November 2024)"),
    "CodeBuild minute": Price(0.005, "c3x.dev, undated: BUILD_GENERAL1_SMALL on Linux, each build rounded up"),
    "CodeBuild second": Price(
        0.0024 / 60,
        "dora1998/gha-meetup-tokyo-03-lt, May 2024, of AWS's page: lambda.x86-64.2GB (seen 29 November 2026)",
    ),
    "Secrets Manager call": Price(0.05 / 1e4, "hivebook.wiki, undated"),
    "secret a month": Price(0.40, "hivebook.wiki, undated"),
    "GB out to the internet": Price(0.09, "cloudburn.io, March 2026: the first 10 TB a month; Oregon's is the same"),
    "GB out of Tokyo": Price(
        0.114, "repositories on GitHub that quote APN1-DataTransfer-Out-Bytes, the first 10 TB (seen 30 November 2026)"
    ),
    "ECR GB-month": Price(0.10, "cloudburn.io, March 2026"),
    "CloudWatch Logs GB": Price(0.50, "factualminds.com, June 2026"),
    "metric a month": Price(0.30, "signoz.io, February 2026: the first 10,000 of one's own"),
    "alarm a month": Price(0.10, "api-evangelist/cloudwatch, May 2026: of standard resolution, by metric"),
    "dashboard a month": Price(3.00, "factualminds.com, June 2026"),
}
DAYS_A_MONTH = 365.25 / 12
# Bytes that an invocation leaves in the log: Lambda's START, END and REPORT, and a line of metrics or of its own.
_LOGGED = 700
# And the webhook's line about the copies that a pod needs: some 300 bytes, and 150 for each copy.
_NAMED = 450
_SECRETS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run has used, in the units of the prices; `image_gigabytes` is the size of one image, all platforms."""

    webhook_invocations: int
    webhook_seconds: float
    reconciler_invocations: int
    reconciler_seconds: float
    write_units: int
    read_units: float
    build_minutes: int
    fast_build_seconds: int
    secret_calls: int
    pushes: int
    images: int
    image_gigabytes: float


def cost(usage: Usage, days: float = 7) -> dict[str, float]:
    """Return the cost of each service in USD, for a run of so many days."""
    months = days / DAYS_A_MONTH
    invocations = usage.webhook_invocations + usage.reconciler_invocations
    gigabyte_seconds = usage.webhook_seconds * 1.0 + usage.reconciler_seconds * 0.5  # MemorySize 1024 and 512
    watching = usd("metric a month", len(Metric)) + _monitoring()
    return {
        "API Gateway": usd("HTTP API request", usage.webhook_invocations),
        "Lambda": usd("Lambda invocation", invocations) + usd("Lambda GB-second", gigabyte_seconds),
        "DynamoDB": usd("DynamoDB write unit", usage.write_units) + usd("DynamoDB read unit", usage.read_units),
        "Secrets Manager": usd("Secrets Manager call", usage.secret_calls) + months * usd("secret a month", _SECRETS),
        "logs": usd("CloudWatch Logs GB", (invocations * _LOGGED + usage.webhook_invocations * _NAMED) / 1e9),
        "metrics, alarms, dashboard": months * watching,
        "CodeBuild": usd("CodeBuild minute", usage.build_minutes) + usd("CodeBuild second", usage.fast_build_seconds),
        "data transfer": usd("GB out to the internet", usage.pushes * usage.image_gigabytes),
        "ECR storage": months * usd("ECR GB-month", usage.images * usage.image_gigabytes),
    }


def idle(days: float = 7) -> float:
    """Return the cost in USD of a fleet that does nothing."""
    return sum(cost(Usage(**{each.name: 0 for each in fields(Usage)}), days).values())


def caused(usage: Usage) -> float:
    """Return the cost in USD of what was used, without what a fleet costs that does nothing, and without the copies."""
    return sum(cost(replace(usage, pushes=0, images=0)).values()) - idle()


def usd(what: str, units: float) -> float:
    """Return the price of so many units in USD."""
    return PRICES[what].usd * units


def _monitoring() -> float:
    """Return the monthly cost of the template's alarms and dashboards; an alarm counts once for each of its metrics."""
    total = 0.0
    for resource in sam_template()["Resources"].values():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            queries = resource["Properties"].get("Metrics", ())
            total += usd("alarm a month", sum("MetricStat" in query for query in queries) or 1)
        elif resource["Type"] == "AWS::CloudWatch::Dashboard":
            total += usd("dashboard a month", 1)
    return total
