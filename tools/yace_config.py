"""Writes docs/yace.yml, which lets Prometheus read the metrics of the stack's CloudWatch dashboard: `make docs`.

YACE is prometheus-community/yet-another-cloudwatch-exporter; its docs/configuration.md explains the fields.
"""

from collections.abc import Iterator
from typing import Any

from image_mirror.metrics import Metric
from support.templates import ROOT
from tools.grafana_dashboard import metric_widgets

FILE = ROOT / "docs" / "yace.yml"
VALUES = {
    "${AWS::Region}": "cn-northwest-1",
    "${AWS::StackName}": "image-mirror",
    "${WebhookApi}": "<WebhookApi>",
    "${ApiFunction}": "<ApiFunction>",
    "${ReconcilerFunction}": "<ReconcilerFunction>",
    "${ImageListTable}": "ImageListTable",
    "${DeadLetters.QueueName}": "<DeadLetters>",
}
"""What the template's dashboard names, and the text in its place; <NAME> is a resource of the stack."""

_HEAD = """\
# The metrics of the CloudWatch dashboard for Prometheus, read by YACE (yet-another-cloudwatch-exporter).
# Written by `make docs` out of sam-template.yaml. docs/monitoring.md says what to put in place of <NAME>.
apiVersion: v1alpha1
sts-region: cn-northwest-1
static:
"""
_MEASURED = {metric.label for metric in Metric if metric.unit != "Count"} | {"Due", "Latency", "IteratorAge"}
"""What has no value while nothing is measured. Everything else counts, and no value is 0."""

Key = tuple[str, tuple[str, ...]]
"""A namespace, and the dimensions' names and values in turn."""


def text() -> str:
    """Return the text of the file."""
    jobs: dict[Key, dict[str, tuple[list[str], int]]] = {}
    for properties in (widget["properties"] for widget in metric_widgets(VALUES)):
        for namespace, name, *dimensions, options in properties["metrics"]:
            metrics = jobs.setdefault((namespace, tuple(dimensions)), {})
            statistics, period = metrics.get(name, ([], properties["period"]))
            more = [each for each in [options["stat"]] if each not in statistics]
            metrics[name] = ([*statistics, *more], min(period, properties["period"]))
    return _HEAD + "".join(line + "\n" for key, metrics in jobs.items() for line in _job(key, metrics))


def _job(key: Key, metrics: dict[str, Any]) -> Iterator[str]:
    namespace, pairs = key
    yield f"  - name: {'-'.join([namespace, *pairs[1::2]]).replace('/', '-')}"
    yield f"    namespace: {namespace}"
    yield "    regions: [cn-northwest-1]"
    yield "    dimensions:"
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        yield f"      - {{name: {name}, value: {value}}}"
    yield "    metrics:"
    for name, (statistics, period) in metrics.items():
        zero = "" if name in _MEASURED else ", nilToZero: true"
        listed = ", ".join(statistics)
        yield f"      - {{name: {name}, statistics: [{listed}], period: {period}, length: {max(period, 300)}{zero}}}"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
