"""The dashboard and the alarms name metrics that exist; docs/alarms.md and docs/monitoring.md explain all of them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from image_mirror.metrics import Metric
from image_mirror.record import MINUTE
from image_mirror.slots import LONGEST_KEY_WAIT
from image_mirror.table import DUE_INDEX
from support.pages import section
from support.templates import ROOT, carry_out, load_template, parameters_of, sam_template

Json = dict[str, Any]
TEMPLATE = sam_template()
RESOURCES: Json = TEMPLATE["Resources"]
ALARMS = [name for name, each in RESOURCES.items() if each["Type"] == "AWS::CloudWatch::Alarm"]
ALARMS_PAGE, MONITORING = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("alarms.md", "monitoring.md")
)
# The pages for operators. The others name classes, fields of other programs and operations of AWS too.
PAGES = (
    *("alarms", "fast-lane", "federation", "install", "monitoring", "operation", "parameters", "quick-start"),
    *("recovery", "rules", "troubleshooting", "undo", "uninstall", "upgrade", "waiting-pods"),
)
STACK, REGION, ACCOUNT = "image-mirror", "cn-northwest-1", "123456789012"
API, WEBHOOK, RECONCILER = "WebhookApi's Ref", "ApiFunction's Ref", "ReconcilerFunction's Ref"
TABLE, QUEUE, TOPIC = "ImageListTable's Ref", "DeadLetters's QueueName", "AlarmTopic's Ref"

# AWS's own metrics: those used here in each namespace, and the dimensions that select ours. AWS/ApiGateway as for an
# HTTP API; a REST API has other metrics and dimensions.
PUBLISHED_BY_AWS = {
    ("AWS/ApiGateway", frozenset({("ApiId", API)})): {"Count", "4xx", "5xx", "Latency", "IntegrationLatency"},
    ("AWS/Lambda", frozenset({("FunctionName", WEBHOOK)})): {"Invocations", "Errors", "Throttles", "Duration"},
    ("AWS/Lambda", frozenset({("FunctionName", RECONCILER)})): {
        "Invocations",
        "Errors",
        "Throttles",
        "Duration",
        "IteratorAge",
    },
    ("AWS/DynamoDB", frozenset({("TableName", TABLE)})): {"ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"},
    ("AWS/DynamoDB", frozenset({("TableName", TABLE), ("GlobalSecondaryIndexName", DUE_INDEX)})): {
        "ConsumedReadCapacityUnits",
        "ConsumedWriteCapacityUnits",
    },
    ("AWS/SQS", frozenset({("QueueName", QUEUE)})): {"ApproximateNumberOfMessagesVisible"},
}
OWN = {metric.label: metric for metric in Metric}


def deployed(name: str, region: str = REGION, **parameters: str) -> Json:
    """Return a resource's properties in a deployed stack."""
    values = parameters_of(TEMPLATE, **parameters) | {
        "AWS::StackName": STACK,
        "AWS::Region": region,
        "AWS::Partition": "aws-cn",
        "AWS::AccountId": ACCOUNT,
    }
    resource = carry_out(RESOURCES[name], TEMPLATE, values, lambda logical, attribute: f"{logical}'s {attribute}")
    properties: Json = resource.get("Properties", {})
    return properties


def body() -> Json:
    loaded: Json = json.loads(deployed("Dashboard")["DashboardBody"])
    return loaded


def widgets() -> list[Json]:
    return [widget["properties"] for widget in body()["widgets"] if widget["type"] == "metric"]


def shown() -> Iterator[tuple[str, str, frozenset[tuple[str, str]], Json]]:
    """Return each metric on the dashboard: namespace, name, dimensions, options."""
    for widget in widgets():
        for namespace, name, *rest in widget["metrics"]:
            *dimensions, options = rest
            yield namespace, name, frozenset(zip(dimensions[::2], dimensions[1::2], strict=True)), options


def watched(name: str) -> Iterator[tuple[str, str, frozenset[tuple[str, str]]]]:
    """Return each metric of an alarm."""
    alarm = deployed(name)
    for each in [alarm] if "MetricName" in alarm else [m["MetricStat"]["Metric"] for m in alarm["Metrics"][1:]]:
        dimensions = frozenset((pair["Name"], pair["Value"]) for pair in each["Dimensions"])
        yield each["Namespace"], each["MetricName"], dimensions


def assert_exists(namespace: str, name: str, dimensions: frozenset[tuple[str, str]]) -> None:
    if namespace == "ImageMirror":
        assert name in OWN
        assert dimensions == {("service", STACK)}
    else:
        assert name in PUBLISHED_BY_AWS[namespace, dimensions]


# ---- the metrics' namespace ----


def test_both_functions_publish_under_the_namespace_and_the_stack_s_name() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "ImageMirror"
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
    own = {name for name in variables if name.startswith("POWERTOOLS_")}
    assert own == {"POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_SERVICE_NAME"}, "no variable that turns metrics off"


def test_the_loggers_keep_names_of_their_own() -> None:
    """With POWERTOOLS_SERVICE_NAME all of them would have the same name."""
    for module in ("webhook", "reconciler"):
        source = (ROOT / "src" / "image_mirror" / f"{module}.py").read_text()
        assert len(re.findall(r"\bLogger\(", source)) == len(re.findall(r'\bLogger\(service="', source)) == 1


# ---- the dashboard ----


def test_the_dashboard_shows_metrics_that_exist() -> None:
    found = list(shown())
    assert found
    for namespace, name, dimensions, _ in found:
        assert_exists(namespace, name, dimensions)


def test_the_dashboard_shows_every_metric_of_our_own() -> None:
    assert {name for namespace, name, *_ in shown() if namespace == "ImageMirror"} == OWN.keys()


def test_each_metric_is_summed_or_measured_as_its_kind_asks() -> None:
    measured = {"Latency", "TimeToCopied"}
    greatest = {"OldestDue", "OldestFirstCopy", "Due", "IteratorAge", "ApproximateNumberOfMessagesVisible"}
    for _, name, _, options in shown():
        expected = {"p50", "p99"} if name in measured else {"Maximum"} if name in greatest else {"Sum"}
        assert options["stat"] in expected, name


def test_the_widgets_fill_rows_and_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for widget in body()["widgets"]:
        assert widget["x"] + widget["width"] <= 24
        mine = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not mine & cells
        cells |= mine
    assert len(cells) == 24 * (1 + max(y for _, y in cells)), "no gaps"


def test_each_widget_has_a_title_and_looks_at_the_stack_s_region() -> None:
    titles = [widget["title"] for widget in widgets()]
    assert len(set(titles)) == len(titles)
    assert all(widget["region"] == REGION for widget in widgets())


def test_the_dashboard_shows_the_state_of_every_alarm() -> None:
    [alarms] = [widget["properties"]["alarms"] for widget in body()["widgets"] if widget["type"] == "alarm"]
    assert sorted(alarms) == sorted(f"{name}'s Arn" for name in ALARMS)


def test_the_dashboards_of_two_stacks_and_of_two_regions_have_different_names() -> None:
    """The name of a dashboard is unique in an account, over all regions."""
    assert deployed("Dashboard")["DashboardName"] == "image-mirror-cn-northwest-1"
    assert deployed("Dashboard", "cn-north-1")["DashboardName"] == "image-mirror-cn-north-1"
    assert TEMPLATE["Outputs"]["DashboardName"]["Value"] == {"Ref": "Dashboard"}


# ---- the alarms ----


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_looks_at_metrics_that_exist(name: str) -> None:
    found = list(watched(name))
    assert found
    for each in found:
        assert_exists(*each)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_has_the_stack_s_name_and_says_where_to_read_on(name: str) -> None:
    alarm = deployed(name)
    assert alarm["AlarmName"].startswith(f"{STACK}-")
    anchor = re.search(r" docs/alarms\.md#([a-z-]+)$", alarm["AlarmDescription"])
    assert anchor
    assert alarm["AlarmName"] == f"{STACK}-{anchor[1]}"
    titles = re.findall(r"^#+ (.*)$", ALARMS_PAGE, re.MULTILINE)
    assert anchor[1] in {title.lower().replace(" ", "-") for title in titles}
    assert len(alarm["AlarmDescription"]) <= 160, "one line"


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_is_mailed_only_where_an_address_is_given(name: str) -> None:
    for kind in ("AlarmActions", "OKActions"):
        assert deployed(name)[kind] == []
        assert deployed(name, AlarmEmail="ops@example.com")[kind] == [TOPIC]


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_is_also_sent_to_a_topic_that_is_given(name: str) -> None:
    given = "arn:aws-cn:sns:cn-northwest-1:123456789012:chat"
    for kind in ("AlarmActions", "OKActions"):
        assert deployed(name, AlarmTopicArn=given)[kind] == [given]
        assert deployed(name, AlarmTopicArn=given, AlarmEmail="ops@example.com")[kind] == [TOPIC, given]


def test_the_topic_and_its_subscription_come_with_the_address_and_the_topic_is_not_encrypted() -> None:
    for name in ("AlarmTopic", "AlarmSubscription"):
        assert RESOURCES[name]["Condition"] == "AlarmsAreMailed"
    assert deployed("AlarmTopic", AlarmEmail="ops@example.com") == {}, (
        "under alias/aws/sns CloudWatch could not publish"
    )
    subscription = deployed("AlarmSubscription", AlarmEmail="ops@example.com")
    assert subscription == {"TopicArn": TOPIC, "Protocol": "email", "Endpoint": "ops@example.com"}


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("", True),
        ("ops@example.com", True),
        ("first.last+tag@mail.example.com.cn", True),
        ("ops", False),
        ("ops@example", False),
        ("ops@example.com, b@example.com", False),
        ("a@b@example.com", False),
        ("@example.com", False),
    ],
)
def test_the_address_is_one_or_none(address: str, allowed: bool) -> None:
    pattern = TEMPLATE["Parameters"]["AlarmEmail"]["AllowedPattern"]
    assert (re.fullmatch(pattern, address) is not None) is allowed


def rule(name: str) -> tuple[int, int, int, float, str]:
    """Return the alarm's condition: M of N periods, the seconds of a period, the threshold, and how no data counts."""
    alarm = deployed(name)
    assert alarm["ComparisonOperator"].startswith("GreaterThan")
    period = alarm["Period"] if "Period" in alarm else alarm["Metrics"][1]["MetricStat"]["Period"]
    periods = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm") or periods
    return needed, periods, period, float(alarm["Threshold"]), alarm["TreatMissingData"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("CopyFailedAlarm", (1, 1, 300, 0, "notBreaching"), id="each failed copy"),
        pytest.param("OldestDueAlarm", (5, 5, 60, 900, "breaching"), id="a quarter of an hour, or silence"),
        pytest.param("OldestFirstCopyAlarm", (3, 6, 300, 7200, "notBreaching"), id="two hours without a copy"),
        pytest.param("KeyRefusedAlarm", (2, 24, 300, 0, "notBreaching"), id="twice in two hours"),
        pytest.param("DeadLettersAlarm", (1, 1, 300, 0, "notBreaching"), id="each dead letter"),
        pytest.param("WebhookFailsAlarm", (2, 12, 300, 1, "notBreaching"), id="one in a hundred, twice in an hour"),
        pytest.param("ManyBuildsAlarm", (1, 1, 86_400, 3000, "notBreaching"), id="more builds than expected in a day"),
        pytest.param("RefusedRequestsAlarm", (2, 3, 300, 300, "notBreaching"), id="one a second for ten minutes"),
        pytest.param("UnexpectedPushesAlarm", (1, 1, 3600, 1, "notBreaching"), id="two pushes in an hour"),
    ],
)
def test_an_alarm_rings(name: str, expected: tuple[int, int, int, float, str]) -> None:
    assert rule(name) == expected
    _, periods, period, *_ = expected
    assert periods * period <= 86_400, "CloudWatch evaluates a day at most"


def test_every_alarm_is_in_the_table_of_rules() -> None:
    assert len(ALARMS) == 9


def test_the_access_log_has_neither_the_path_nor_the_body() -> None:
    """The path contains the token."""
    settings = deployed("WebhookStage")["AccessLogSettings"]
    fields = json.loads(settings["Format"])
    assert set(fields) == {"requestId", "time", "ip", "status", "integrationStatus", "latency", "length"}
    assert not [
        each for each in fields.values() if re.search("path|route|query|authorizer|header|error", each, re.IGNORECASE)
    ]
    assert settings["DestinationArn"] == "AccessLogs's Arn"


def test_the_alarm_of_a_key_that_stays_refused_stays_in_alarm() -> None:
    """A copy that waits for the key tries at least once in the longest wait, so twice in the time of the alarm."""
    needed, periods, period, *_ = rule("KeyRefusedAlarm")
    assert needed * LONGEST_KEY_WAIT <= periods * period * 1000
    assert period * 1000 > MINUTE, "a refusal and its retry a minute later count once"


def test_the_alarm_on_the_webhook_takes_the_share_of_what_failed() -> None:
    share, errors, requests = deployed("WebhookFailsAlarm")["Metrics"]
    assert (share["Expression"], share["ReturnData"]) == ("100 * errors / requests", True)
    assert [(each["Id"], each["MetricStat"]["Metric"]["MetricName"]) for each in (errors, requests)] == [
        ("errors", "5xx"),
        ("requests", "Count"),
    ]
    assert all(each["ReturnData"] is False and each["MetricStat"]["Stat"] == "Sum" for each in (errors, requests))


# ---- docs/alarms.md, docs/monitoring.md ----


def test_the_page_has_the_table_of_metrics_that_the_code_has() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", section(MONITORING, "Metrics"), re.MULTILINE)
    assert rows == [(metric.label, metric.unit, metric.meaning) for metric in Metric]


def test_the_page_explains_each_alarm_by_its_name() -> None:
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", ALARMS_PAGE, re.MULTILINE)}
    assert titles == {deployed(name)["AlarmName"].removeprefix(f"{STACK}-") for name in ALARMS}


def test_the_chinese_page_has_the_name_of_each_alarm_in_its_title() -> None:
    page = (ROOT / "docs" / "zh-CN" / "alarms.md").read_text(encoding="utf-8")
    names = re.findall(r"^## .*（(.*)）$", page, re.MULTILINE)
    assert sorted(names) == sorted(deployed(name)["AlarmName"].removeprefix(f"{STACK}-") for name in ALARMS)


def test_the_page_names_the_events_that_the_functions_log() -> None:
    logged = {
        event
        for module in (ROOT / "src" / "image_mirror").glob("*.py")
        for event in re.findall(r'(?:_logger|getLogger\(__name__\))\.\w+\(\s*"([^"]+)"', module.read_text())
    }
    assert "record changed" in logged
    named = set(
        re.findall(r"^\| `([^`]+)` \| (?:webhook|reconciler|both) \|", section(MONITORING, "Logs"), re.MULTILINE)
    )
    assert named == logged


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_metrics_parameters_outputs_and_indexes_that_exist(page: str) -> None:
    other = load_template("image-pulling.yaml")
    known = OWN.keys() | {name for names in PUBLISHED_BY_AWS.values() for name in names}
    known |= {"ImageMirror", "RetryAttemptsExhausted", "ImagePullBackOff", "ErrImagePull"}
    known |= {"AssumeRoleWithWebIdentity", "GetWebIdentityToken", TEMPLATE["Parameters"]["TableName"]["Default"]}
    for template in (TEMPLATE, other):
        known |= template["Parameters"].keys() | template["Outputs"].keys() | template["Resources"].keys()
    known |= {each["Properties"].get("Name") for each in other["Resources"].values()}
    known |= {index["IndexName"] for index in RESOURCES["ImageListTable"]["Properties"]["GlobalSecondaryIndexes"]}
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", text):
        assert name in known, name
