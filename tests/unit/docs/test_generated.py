"""Tables and lists in the pages that repeat a part of the code or of a template, compared with that part.

Elsewhere: the parameters' defaults and the commands' reference in test_docs.py; metrics, alarms and log events in
tests/unit/templates/test_alarms.py.
"""

import re
from dataclasses import fields
from typing import Any

import botocore.session
import pytest
import typer

from e2e.fakes.policies import grants
from e2e.harness import federated
from e2e.harness.stacks import CHINA, GLOBAL, Stack
from image_mirror.build_result import EXIT_CODES, read_build
from image_mirror.cli import app, errors
from image_mirror.lifecycle import BACKOFF
from image_mirror.metrics import Metric
from image_mirror.record import MINUTE, MOST_ATTEMPTS, BuildResult, Record, Status
from image_mirror.reference import parse_reference
from image_mirror.rules import DEFAULT_REASONS, DEFAULT_RULES, parse_rules
from image_mirror.table import DUE_INDEX
from support.copy_program import PROGRAM
from support.pages import quoted, section, table, words
from support.stolen import LIMITS, STOLEN
from support.templates import ROOT, load_template, sam_template, webhook_configuration

ALARMS, DESIGN, DEVELOPMENT, MONITORING, PARAMETERS, RECORDS, RULES, DEFAULT, SECURITY, TROUBLESHOOTING = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        *("alarms", "design", "development", "monitoring", "parameters", "records", "rules", "default-rules"),
        *("security", "troubleshooting"),
    )
)
NUMBERS = {5: "five", 9: "nine", 25: "25"}
ORDINALS = {5: "fifth"}


# ---- the templates ----


def parameter_rows(template: str) -> dict[str, tuple[str, str]]:
    """Return each parameter in the page's table of a template, with its default and its meaning."""
    found = {}
    for names, default, meaning in table(PARAMETERS.partition(f"Of `{template}`")[2], "parameter"):
        for name in quoted(names):
            assert name not in found
            found[name] = (default, meaning)
    return found


@pytest.mark.parametrize("template", ["sam-template.yaml", "image-pulling.yaml"])
def test_the_page_has_a_row_for_each_parameter_and_no_other(template: str) -> None:
    assert parameter_rows(template).keys() == load_template(template)["Parameters"].keys()


@pytest.mark.parametrize("template", ["sam-template.yaml", "image-pulling.yaml"])
def test_the_page_says_which_parameters_are_required_and_which_are_empty(template: str) -> None:
    for name, parameter in load_template(template)["Parameters"].items():
        default = parameter_rows(template)[name][0]
        assert (default == "**required**") == ("Default" not in parameter), name
        assert (default == "empty") == (parameter.get("Default") == ""), name


def test_the_page_has_the_days_that_logs_may_be_kept() -> None:
    def named(template: str) -> list[int]:
        days = re.search(r"([\d, or]+) days", parameter_rows(template)["LogRetentionDays"][1])
        assert days
        return [int(day) for day in re.findall(r"\d+", days[1])]

    def allowed(template: str) -> list[int]:
        days: list[int] = load_template(template)["Parameters"]["LogRetentionDays"]["AllowedValues"]
        return days

    assert named("sam-template.yaml") == allowed("sam-template.yaml")
    more = set(allowed("image-pulling.yaml")) - set(allowed("sam-template.yaml"))
    assert "the same, or" in parameter_rows("image-pulling.yaml")["LogRetentionDays"][1]
    assert named("image-pulling.yaml") == sorted(more)
    assert set(allowed("sam-template.yaml")) <= set(allowed("image-pulling.yaml"))


def test_the_page_about_rules_has_the_default_rules() -> None:
    named = re.search(r"The default copies from (.*?);", words(section(RULES, "Which images")))
    assert named
    assert re.split(r", | and ", named[1].replace("\\", "")) == DEFAULT_RULES.split()


def test_the_page_has_each_default_rule_with_its_reason() -> None:
    assert {quoted(rule)[0]: reason for rule, reason in table(DEFAULT, "rule")} == DEFAULT_REASONS
    assert [quoted(rule)[0] for rule, _ in table(DEFAULT, "rule")] == DEFAULT_RULES.split()
    assert f"""'MirrorRules="{DEFAULT_RULES}"'""" in DEFAULT, "the command that gives them to an older stack"


def test_what_the_page_says_is_omitted_is_in_no_default_rule() -> None:
    rules = parse_rules(DEFAULT_RULES)
    for name, _ in table(section(DEFAULT, "Left out"), "registry"):
        host = quoted(name)[0].replace("*", "a")
        assert rules.match(parse_reference(f"{host}/a/b:1")) is None, host


def test_the_page_has_the_webhook_s_policy_and_timeout() -> None:
    [webhook] = webhook_configuration()["webhooks"]
    named = section(RULES, "Ignore or Fail")
    assert f"`failurePolicy: {webhook['failurePolicy']}`" in named
    assert f"`timeoutSeconds` ({webhook['timeoutSeconds']})" in named


def test_the_make_targets_that_the_page_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9]+):", makefile, re.MULTILINE))
    named = {name for row in table(DEVELOPMENT, "command") for name in quoted(row[0])}
    assert {name.removeprefix("make ") for name in named} <= targets


def test_the_page_has_the_number_of_alarms_and_metrics() -> None:
    alarms = [each for each in sam_template()["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert f"The stack has {NUMBERS[len(alarms)]} alarms," in ALARMS
    costs = words(section(MONITORING, "What watching costs"))
    assert f"all {NUMBERS[len(Metric)]} together cost {0.30 * len(Metric):.2f} at most" in costs


# ---- the table of copies ----


def test_the_page_has_the_attributes_of_an_item() -> None:
    named = [name for row in table(section(RECORDS, "The item"), "attribute") for name in quoted(row[0])]
    assert sorted(named) == sorted(["due", *(field.name for field in fields(Record) if field.init)])


def test_the_page_names_the_index_and_the_states() -> None:
    rows = {row[0]: row[1] for row in table(section(RECORDS, "The item"), "attribute")}
    assert quoted(rows["`status`"]) == list(Status)
    assert quoted(rows["`due`, `due_at`"]) == [DUE_INDEX]
    diagram = re.findall(r"^ +(\S+) --> (\S+): ", DESIGN, re.MULTILINE)
    assert {state for arrow in diagram for state in arrow} == {"[*]", *Status}


def test_the_pages_have_the_attempts_and_their_pauses() -> None:
    *pauses, last = [pause // MINUTE for pause in BACKOFF]
    assert f"Attempts back off by {', '.join(map(str, pauses))} and {last} minutes" in words(DESIGN)
    assert f"COPYING --> FAILED: the {ORDINALS[MOST_ATTEMPTS]} attempt" in DESIGN
    assert f"its source refused {NUMBERS[MOST_ATTEMPTS]} times, over about 80 minutes" in words(ALARMS)
    assert 75 <= sum(BACKOFF) / MINUTE <= 85


# ---- the builds' results ----


def build_result(code: str) -> BuildResult:
    exported: list[Any] = [{"name": "COPY_RESULT", "value": code}, {"name": "COPY_REASON", "value": "because"}]
    return read_build({"buildStatus": "FAILED", "exportedEnvironmentVariables": exported}).result


def test_the_script_ends_with_the_exit_codes_that_the_package_reads() -> None:
    assert set(PROGRAM.EXIT_CODES.values()) == {0, *EXIT_CODES}
    assert all(PROGRAM.EXIT_CODES[result] == code for code, result in EXIT_CODES.items())


def test_troubleshooting_has_each_result() -> None:
    for result in EXIT_CODES.values():
        assert f"`{result}" in TROUBLESHOOTING, result


def test_the_page_has_the_results_that_cost_an_attempt() -> None:
    named = re.search(r"time is over, cost an attempt \(([^)]*)\)", words(DESIGN))
    assert named
    assert set(quoted(named[1])) == {
        result for result in EXIT_CODES.values() if build_result(result) is BuildResult.REFUSED
    }


# ---- the commands ----


def test_the_exit_codes_that_are_explained_are_those_there_are() -> None:
    explained = {int(code) for code in re.findall(r"^(\d+) ", errors.__doc__ or "", re.MULTILINE)}
    assert explained == {0, 130, *errors.ExitCode}


def test_the_page_says_of_each_command_what_it_asks_and_writes() -> None:
    named = [name for row in table(SECURITY, "command") for name in quoted(row[0])]
    assert sorted(named) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


# ---- what a stolen key may change ----


def test_the_overrides_that_the_page_calls_harmless_exist_and_are_not_denied() -> None:
    members = botocore.session.get_session().get_service_model("codebuild").operation_model("StartBuild").input_shape
    assert members
    named = [name for row in table(SECURITY, "override") for name in quoted(row[0])]
    assert named
    assert set(named) <= members.members.keys()
    statements = load_template("image-pulling.yaml")["Resources"]["StartCopies"]["Properties"]["PolicyDocument"]
    keys = {key for each in statements["Statement"] for key in each.get("Condition", {}).get("Null", {})}
    # A key names the object that its override is in: codebuild:environment.image is imageOverride.
    denied = {key.partition(":")[2].replace(".", "").lower() for key in keys}
    covered = {name for name in members.members if any(name.removesuffix("Override").lower() in key for key in denied)}
    assert {"imageOverride", "sourceLocationOverride", "environmentTypeOverride"} <= covered
    assert not covered & set(named)


# ---- what a stolen token or session can do ----


IN_CHINA = Stack("sam-template.yaml", CHINA, WebhookToken="t" * 32, **federated.IN_CHINA)
GLOBALLY = Stack("image-pulling.yaml", GLOBAL, Region=CHINA.region, **federated.GLOBALLY)


@pytest.mark.parametrize(
    ("of", "asker", "role", "here", "there"),
    [
        pytest.param("the reconciler", "ReconcilerRole", "StartRole", IN_CHINA, GLOBALLY, id="from China"),
        pytest.param("a build", "CodeBuildRole", "PushRole", GLOBALLY, IN_CHINA, id="to China"),
    ],
)
def test_the_page_says_what_a_stolen_token_or_session_opens_and_for_how_long(
    of: str, asker: str, role: str, here: Stack, there: Stack
) -> None:
    token, session = STOLEN[f"a token of {of}"], STOLEN[f"a session of {role}"]
    statements = [each for document in here.policies(asker) for each in document["Statement"]]
    [ask] = [each for each in statements if each["Action"] == "sts:GetWebIdentityToken"]
    longest = there.properties(role)["MaxSessionDuration"]
    assert token.opens == [role]
    assert token.seconds == [int(ask["Condition"]["NumericLessThanEquals"]["sts:DurationSeconds"]), longest]
    assert set(session.opens) == {grant.action for grant in grants(there.policies(role))}
    assert session.seconds[0] == longest


def test_the_page_says_what_each_limit_of_a_thief_means() -> None:
    assert LIMITS.keys() == {limit for each in STOLEN.values() for limit in each.limits}
