"""YACE's configuration asks for what the CloudWatch dashboard shows, and the page names metrics that it exports."""

import re
from typing import Any

import pytest
import yaml

from image_mirror.metrics import Metric
from support.templates import ROOT, sam_template
from tools import yace_config
from tools.grafana_dashboard import metric_widgets

Json = dict[str, Any]
WRITTEN: Json = yaml.safe_load(yace_config.FILE.read_text(encoding="utf-8"))
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def prometheus(text: str) -> str:
    """Return a name as YACE's PromString does."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[ ,/.:=@<>()-]", "_", spaced).lower()


def exported() -> set[str]:
    """Return the names of all metrics that YACE exports with this file (BuildMetricName in its pkg/promutil)."""
    found = set()
    for job in WRITTEN["static"]:
        namespace = prometheus(job["namespace"].lower())
        start = namespace if namespace.startswith("aws") else f"aws_{namespace}"
        found |= {
            f"{start}_{prometheus(each['name'])}_{prometheus(statistic)}"
            for each in job["metrics"]
            for statistic in each["statistics"]
        }
    return found


def test_it_is_what_the_template_says() -> None:
    assert yace_config.FILE.read_text(encoding="utf-8") == yace_config.text(), "run: make docs"


def test_each_metric_of_the_dashboard_is_read_with_its_dimensions_and_statistics() -> None:
    wanted: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for widget in metric_widgets(yace_config.VALUES):
        for namespace, name, *dimensions, options in widget["properties"]["metrics"]:
            wanted.setdefault((namespace, name, tuple(dimensions)), set()).add(options["stat"])
    found: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for job in WRITTEN["static"]:
        pairs = tuple(text for pair in job["dimensions"] for text in (pair["name"], pair["value"]))
        found |= {(job["namespace"], each["name"], pairs): set(each["statistics"]) for each in job["metrics"]}
    assert found == wanted
    own = {each["name"] for job in WRITTEN["static"] if job["namespace"] == "ImageMirror" for each in job["metrics"]}
    assert own == {metric.label for metric in Metric}


def test_each_job_is_one_that_yace_accepts() -> None:
    assert WRITTEN.keys() == {"apiVersion", "sts-region", "static"}
    assert len({job["name"] for job in WRITTEN["static"]}) == len(WRITTEN["static"])
    for job in WRITTEN["static"]:
        assert job.keys() == {"name", "namespace", "regions", "dimensions", "metrics"}
        for each in job["metrics"]:
            assert each.keys() - {"nilToZero"} == {"name", "statistics", "period", "length"}
            assert each["length"] >= each["period"], "YACE refuses a shorter one"
            assert all(re.fullmatch(r"Sum|Maximum|p\d\d", statistic) for statistic in each["statistics"])


def test_what_is_measured_is_never_zero_for_want_of_a_value() -> None:
    for job in WRITTEN["static"]:
        for each in job["metrics"]:
            measured = each["name"] in ("Latency", "TimeToCopied", "OldestDue", "OldestFirstCopy", "Due", "IteratorAge")
            assert each.get("nilToZero", False) is not measured, each


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\baws_[a-z0-9_]+\b", MONITORING))))
def test_a_metric_that_the_page_names_is_exported(name: str) -> None:
    assert name in exported()


def test_the_page_has_an_expression_for_each_alarm() -> None:
    table = MONITORING.partition("| alarm | expression |")[2].partition("\n\n")[0]
    rows = {line.split("|")[1].partition(";")[0].strip(): line for line in table.splitlines()[2:]}
    alarms = {
        each["Properties"]["AlarmName"]["Fn::Sub"].partition("-")[2].replace("-", " ").capitalize(): each["Properties"]
        for each in sam_template()["Resources"].values()
        if each["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert rows.keys() == alarms.keys()
    for name in ("Copy failed", "Oldest due", "Oldest first copy", "Key refused", "Dead letters", "Refused requests"):
        limit = re.findall(r"[<>]=? (\d+)`", rows[name])
        assert [float(each) for each in limit] == [float(alarms[name]["Threshold"])], name


def test_each_resource_to_fill_in_is_one_of_the_stack() -> None:
    names = set(re.findall(r"<(\w+)>", re.sub("^#.*$", "", yace_config.FILE.read_text("utf-8"), flags=re.MULTILINE)))
    assert (
        names
        == {"WebhookApi", "ApiFunction", "ReconcilerFunction", "DeadLetters"}
        <= sam_template()["Resources"].keys()
    )
    assert " ".join(("WebhookApi", "ApiFunction", "ReconcilerFunction", "DeadLetters")) in MONITORING
