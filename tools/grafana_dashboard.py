"""Writes docs/grafana-dashboard.json out of the CloudWatch dashboard and the alarms of sam-template.yaml: `make docs`.

@grafana/schema has the fields: Dashboard, CloudWatchMetricsQuery, CloudWatchAnnotationQuery.
"""

import json
from collections.abc import Iterator, Mapping
from string import ascii_uppercase
from typing import Any

from image_mirror.metrics import Metric
from support.templates import ROOT, sam_template

Json = dict[str, Any]
PAGE = ROOT / "docs" / "grafana-dashboard.json"

SOURCE = {"type": "cloudwatch", "uid": "${DS_CLOUDWATCH}"}
"""The data source. Grafana's import asks for it, because it is in __inputs."""

VARIABLES: Mapping[str, str] = {
    "${AWS::Region}": "$region",
    "${AWS::StackName}": "$stack",
    "${WebhookApi}": "$api",
    "${ApiFunction}": "$webhook",
    "${ReconcilerFunction}": "$reconciler",
    "${ImageListTable}": "$table",
    "${DeadLetters.QueueName}": "$queue",
}
"""What the template's dashboard names, and the dashboard's variable in its place."""

_QUERIES = (
    # variable, its label, the metric that has the dimension, the dimension, which of its values
    ("stack", "Stack", "ImageMirror", "OldestDue", "service", ""),
    ("webhook", "Webhook function", "AWS/Lambda", "Invocations", "FunctionName", "/^$stack-ApiFunction-/"),
    ("reconciler", "Reconciler function", "AWS/Lambda", "Invocations", "FunctionName", "/^$stack-ReconcilerFunction-/"),
    ("api", "API (start of APIGatewayURL)", "AWS/ApiGateway", "Count", "ApiId", ""),
    ("table", "Table", "AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", "/^ImageListTable/"),
    ("queue", "Dead letters", "AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "/^$stack-DeadLetters-/"),
)
_UNITS = {"Milliseconds": "ms", "Seconds": "s", "Count": "short"}
_UNITS_OF_AWS = {"Latency": "ms", "Duration": "ms", "IteratorAge": "ms"}
_COLORS = ("orange", "red")
_ROW_HEIGHT = 8


def dashboard() -> Json:
    """Return the dashboard as Grafana's export "for sharing externally" writes one."""
    widgets = metric_widgets(VARIABLES)
    rows = sorted({widget["y"] for widget in widgets})
    return {
        "__inputs": [
            {
                "name": "DS_CLOUDWATCH",
                "label": "CloudWatch",
                "description": "A CloudWatch data source of the account in China",
                "type": "datasource",
                "pluginId": "cloudwatch",
                "pluginName": "CloudWatch",
            }
        ],
        "__elements": {},
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            {"type": "datasource", "id": "cloudwatch", "name": "CloudWatch", "version": "1.0.0"},
            {"type": "panel", "id": "timeseries", "name": "Time series", "version": ""},
        ],
        "annotations": {"list": list(_annotations(sam_template()["Resources"]))},
        "description": "The panels of the stack's CloudWatch dashboard, with its alarms as annotations",
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": [_panel(number, widget, rows) for number, widget in enumerate(widgets, 1)],
        "refresh": "1m",
        "schemaVersion": 38,
        "tags": ["image-mirror"],
        "templating": {"list": [_region(), *(_variable(*query) for query in _QUERIES)]},
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "title": "image-mirror",
        "uid": "image-mirror",
        "version": 1,
    }


def text() -> str:
    """Return the text of the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def metric_widgets(values: Mapping[str, str]) -> list[Json]:
    """Return the template's panels of metrics, with `values` in the place of what the stack fills in."""
    body = sam_template()["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return [widget for widget in json.loads(_filled(body, values))["widgets"] if widget["type"] == "metric"]


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _annotations(resources: Json) -> Iterator[Json]:
    """Yield an annotation for the history of each alarm.

    Grafana compares an alarm's own statistic, so an alarm on an expression of several metrics has no annotation: some
    versions fail on it, and would fail on a prefix of all alarms' names.
    """
    yield {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    for each in resources.values():
        if each["Type"] == "AWS::CloudWatch::Alarm" and "Statistic" in each["Properties"]:
            name = _filled(each["Properties"]["AlarmName"]["Fn::Sub"], VARIABLES)
            yield {
                "datasource": SOURCE,
                "enable": True,
                "hide": True,
                "iconColor": "red",
                "name": name.removeprefix("$stack-"),
                "target": {
                    "refId": "Anno",
                    "queryMode": "Annotations",
                    "region": "$region",
                    "prefixMatching": True,
                    "alarmNamePrefix": name,
                    "actionPrefix": "",
                    "namespace": "",
                    "metricName": "",
                    "dimensions": {},
                    "statistic": each["Properties"]["Statistic"],
                    "period": "",
                },
            }


def _panel(number: int, widget: Json, rows: list[int]) -> Json:
    properties = widget["properties"]
    targets = list(_targets(properties))
    units = {target["label"]: _unit(target) for target in targets}
    unit = next(iter(units.values()))
    right = [metric[-1].get("label", metric[1]) for metric in properties["metrics"] if metric[-1].get("yAxis")]
    limits = [each["value"] for each in properties.get("annotations", {}).get("horizontal", ())]
    return {
        "id": number,
        "type": "timeseries",
        "title": properties["title"],
        "datasource": SOURCE,
        "gridPos": {
            "x": widget["x"],
            "y": rows.index(widget["y"]) * _ROW_HEIGHT,
            "w": widget["width"],
            "h": _ROW_HEIGHT,
        },
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 0,
                    "showPoints": "auto",
                    "spanNulls": False,
                    "thresholdsStyle": {"mode": "line" if limits else "off"},
                },
                "thresholds": {
                    "mode": "absolute",
                    "steps": [
                        {"color": "green", "value": None},
                        *({"color": color, "value": limit} for color, limit in zip(_COLORS, limits, strict=False)),
                    ],
                },
            },
            "overrides": [
                *(_override(label, "unit", other) for label, other in units.items() if other != unit),
                *(_override(label, "custom.axisPlacement", "right") for label in right),
            ],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _targets(properties: Json) -> Iterator[Json]:
    for letter, (namespace, name, *dimensions, options) in zip(ascii_uppercase, properties["metrics"], strict=False):
        yield {
            "refId": letter,
            "id": "",
            "datasource": SOURCE,
            "queryMode": "Metrics",
            "metricQueryType": 0,
            "metricEditorMode": 0,
            "region": properties["region"],
            "namespace": namespace,
            "metricName": name,
            "dimensions": dict(zip(dimensions[::2], dimensions[1::2], strict=True)),
            "matchExact": True,
            "statistic": options["stat"],
            "period": str(properties["period"]),
            "label": options.get("label", name),
            "expression": "",
            "sqlExpression": "",
        }


def _unit(target: Json) -> str:
    own = {metric.label: _UNITS[metric.unit] for metric in Metric}
    found = own if target["namespace"] == "ImageMirror" else _UNITS_OF_AWS
    return found.get(target["metricName"], "short")


def _override(label: str, name: str, value: str) -> Json:
    return {"matcher": {"id": "byName", "options": label}, "properties": [{"id": name, "value": value}]}


def _region() -> Json:
    query = _query("regions")
    found = _query_variable("region", "Region", query, "/^cn-/")
    return found | {"current": {"selected": False, "text": "cn-northwest-1", "value": "cn-northwest-1"}}


def _variable(name: str, label: str, namespace: str, metric: str, dimension: str, regex: str) -> Json:
    query = _query("dimensionValues", region="$region", namespace=namespace, metricName=metric, dimensionKey=dimension)
    return _query_variable(name, label, query, regex)


def _query(kind: str, **more: str) -> Json:
    empty = dict.fromkeys(
        ("namespace", "region", "metricName", "dimensionKey", "instanceID", "attributeName", "resourceType"), ""
    )
    filters: Json = {"dimensionFilters": {}, "ec2Filters": {}, "tags": {}}
    return {"refId": "CloudWatchVariableQueryEditor-VariableQuery", "queryType": kind, **empty, **filters, **more}


def _query_variable(name: str, label: str, query: Json, regex: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": query,
        "regex": regex,
        "options": [],
        "refresh": 1,
        "sort": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "skipUrlSync": False,
    }


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
