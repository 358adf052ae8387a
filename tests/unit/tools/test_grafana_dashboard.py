"""Grafana's dashboard shows what the stack's CloudWatch dashboard shows, and Grafana can import it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.healthy import API, RECONCILER
from support.templates import carry_out, parameters_of, sam_template
from tools import grafana_dashboard

Json = dict[str, Any]
WRITTEN: Json = json.loads(grafana_dashboard.PAGE.read_text(encoding="utf-8"))
VARIABLES: Json = {each["name"]: each for each in WRITTEN["templating"]["list"]}
RESOURCES: Json = sam_template()["Resources"]
DEPLOYED = {
    "region": "cn-northwest-1",
    "stack": "image-mirror",
    "api": "a1b2c3d4e5",
    "webhook": API,
    "reconciler": RECONCILER,
    "table": "ImageListTable",
    "queue": "image-mirror-DeadLetters-1A2B3C",
}
"""The values of the variables for one stack."""
RETURNED = {
    ("WebhookApi", "Ref"): "api",
    ("ApiFunction", "Ref"): "webhook",
    ("ReconcilerFunction", "Ref"): "reconciler",
    ("ImageListTable", "Ref"): "table",
    ("DeadLetters", "QueueName"): "queue",
}


def interpolated(value: Any) -> Any:
    """Return a value of the dashboard as Grafana queries it, with the variables replaced."""
    if isinstance(value, dict):
        return {key: interpolated(each) for key, each in value.items()}
    return re.sub(r"\$(\w+)", lambda match: DEPLOYED[match[1]], value) if isinstance(value, str) else value


def deployed(name: str) -> Json:
    """Return a resource's properties in that stack."""
    values = parameters_of(sam_template()) | {
        "AWS::StackName": DEPLOYED["stack"],
        "AWS::Region": DEPLOYED["region"],
        "AWS::Partition": "aws-cn",
        "AWS::AccountId": "123456789012",
    }

    def returned(logical: str, attribute: str) -> str:
        return DEPLOYED[RETURNED[logical, attribute]] if attribute != "Arn" else f"{logical}'s Arn"

    properties: Json = carry_out(RESOURCES[name], sam_template(), values, returned)["Properties"]
    return properties


def cloudwatch() -> Iterator[Json]:
    """Yield each line of the CloudWatch dashboard."""
    for widget in json.loads(deployed("Dashboard")["DashboardBody"])["widgets"]:
        for namespace, name, *dimensions, options in widget["properties"].get("metrics", ()):
            yield {
                "panel": widget["properties"]["title"],
                "region": widget["properties"]["region"],
                "period": widget["properties"]["period"],
                "namespace": namespace,
                "metric": name,
                "dimensions": dict(zip(dimensions[::2], dimensions[1::2], strict=True)),
                "statistic": options["stat"],
                "label": options.get("label", name),
                "axis": options.get("yAxis", "left"),
            }


def grafana() -> Iterator[Json]:
    """Yield each line of the dashboard in the file, with the values of the deployed stack."""
    for panel in WRITTEN["panels"]:
        right = {
            each["matcher"]["options"]
            for each in panel["fieldConfig"]["overrides"]
            if each["properties"] == [{"id": "custom.axisPlacement", "value": "right"}]
        }
        for target in panel["targets"]:
            yield {
                "panel": panel["title"],
                "region": interpolated(target["region"]),
                "period": int(target["period"]),
                "namespace": target["namespace"],
                "metric": target["metricName"],
                "dimensions": interpolated(target["dimensions"]),
                "statistic": target["statistic"],
                "label": target["label"],
                "axis": "right" if target["label"] in right else "left",
            }


def test_it_is_what_the_template_says() -> None:
    assert grafana_dashboard.PAGE.read_text(encoding="utf-8") == grafana_dashboard.text(), "run: make docs"


def test_each_line_of_the_cloudwatch_dashboard_is_there_and_no_other() -> None:
    assert list(grafana()) == list(cloudwatch())


def test_the_limits_of_alarms_are_drawn_where_cloudwatch_draws_them() -> None:
    widgets = [each["properties"] for each in json.loads(deployed("Dashboard")["DashboardBody"])["widgets"]]
    limits = {
        each["title"]: [limit["value"] for limit in each.get("annotations", {}).get("horizontal", ())]
        for each in widgets
        if "metrics" in each
    }
    drawn = {
        panel["title"]: [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]
        for panel in WRITTEN["panels"]
    }
    assert drawn == limits
    assert limits["Due"] == [900, 7200]


def test_each_alarm_is_an_annotation_but_the_one_on_an_expression_which_grafana_cannot_show() -> None:
    alarms = {
        deployed(name)["AlarmName"]: deployed(name)["Statistic"]
        for name, each in RESOURCES.items()
        if each["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" not in each["Properties"]
    }
    targets = [each["target"] for each in WRITTEN["annotations"]["list"] if "target" in each]
    assert {interpolated(each["alarmNamePrefix"]): each["statistic"] for each in targets} == alarms
    assert len(alarms) == 8
    assert {(each["queryMode"], each["prefixMatching"], each["period"]) for each in targets} == {
        ("Annotations", True, "")
    }
    assert not [name for name in alarms for other in alarms if name != other and name.startswith(other)]


def test_the_import_asks_for_the_data_source_and_everything_uses_it() -> None:
    [asked] = WRITTEN["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "cloudwatch")
    named = re.findall(r'"uid": "(\$\{\w+\})"', grafana_dashboard.PAGE.read_text(encoding="utf-8"))
    assert set(named) == {f"${{{asked['name']}}}"}
    places = [
        *WRITTEN["panels"],
        *VARIABLES.values(),
        *(each for panel in WRITTEN["panels"] for each in panel["targets"]),
    ]
    assert all(each["datasource"] == grafana_dashboard.SOURCE for each in places)
    assert len(named) == len(places) + 8, "and each alarm's annotation"


def test_each_variable_that_is_used_is_asked_for_and_each_that_is_asked_for_is_used() -> None:
    text = json.dumps({key: WRITTEN[key] for key in ("panels", "annotations")}).replace("${DS_CLOUDWATCH}", "")
    assert set(re.findall(r"\$(\w+)", text)) == VARIABLES.keys() == DEPLOYED.keys()


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_variable_offers_the_stack_s_own_value(name: str) -> None:
    regex = interpolated(VARIABLES[name]["regex"]).strip("/")
    assert re.search(regex, DEPLOYED[name])
    if name in ("webhook", "reconciler", "queue"):
        assert not re.search(regex, DEPLOYED[name].replace("image-mirror", "image-mirror-2"))


def test_a_variable_comes_after_those_that_its_query_uses() -> None:
    before: set[str] = set()
    for name, each in VARIABLES.items():
        assert set(re.findall(r"\$(\w+)", json.dumps(each).replace("${DS_CLOUDWATCH}", ""))) <= before
        before.add(name)


def test_the_panels_have_ids_and_letters_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in WRITTEN["panels"]}) == len(WRITTEN["panels"]) == 12
    cells = [
        (x, y)
        for each in (panel["gridPos"] for panel in WRITTEN["panels"])
        for x in range(each["x"], each["x"] + each["w"])
        for y in range(each["y"], each["y"] + each["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    for panel in WRITTEN["panels"]:
        assert len({each["refId"] for each in panel["targets"]}) == len(panel["targets"])


def test_each_line_is_a_metric_search_of_the_builder() -> None:
    for panel in WRITTEN["panels"]:
        for target in panel["targets"]:
            kind = {key: target[key] for key in ("queryMode", "metricQueryType", "metricEditorMode", "matchExact")}
            assert kind == {"queryMode": "Metrics", "metricQueryType": 0, "metricEditorMode": 0, "matchExact": True}
            assert (target["expression"], target["sqlExpression"]) == ("", "")


@pytest.mark.parametrize(
    ("title", "label", "unit"),
    [
        ("Webhook latency", "p99", "ms"),
        ("Time to copied", "p50", "ms"),
        ("Due", "Oldest, seconds", "s"),
        ("Due", "Records", "short"),
        ("Stream: age of what is read", "Milliseconds", "ms"),
        ("Cost: Lambda", "Webhook ms", "ms"),
        ("Cost: Lambda", "Webhook runs", "short"),
    ],
)
def test_a_line_has_its_unit(title: str, label: str, unit: str) -> None:
    [panel] = [each for each in WRITTEN["panels"] if each["title"] == title]
    overrides = {
        each["matcher"]["options"]: each["properties"][0]["value"]
        for each in panel["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "unit"
    }
    assert overrides.get(label, panel["fieldConfig"]["defaults"]["unit"]) == unit
