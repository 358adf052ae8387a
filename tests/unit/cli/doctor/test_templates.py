"""Facts about the templates in doctor's code, compared with the templates: if one changes, the other must change."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from image_mirror.cli.doctor import fast_lane, functions, keys, stacks, triggers, webhook
from image_mirror.cli.stacks import FAST_PARAMETER, FAST_PROJECT
from image_mirror.cli.webhook_manifest import shipped_configuration
from support.operators import URL
from support.templates import ROOT, carry_out, load_template, parameters_of, sam_template

# Outputs for people, which no command reads. A stack may lack them.
UNREAD = {"sam-template.yaml": {"AccessLogGroup", "DashboardName"}, "image-pulling.yaml": {"BuildLogGroup"}}
# Outputs without which there is no fast lane or no federation, which is no fault.
OPTIONAL = {
    "sam-template.yaml": {"PushRoleArn", "ReconcilerFunctionName", "ReconcilerRoleArn", "WebhookRoleArn"},
    "image-pulling.yaml": {FAST_PROJECT, "BuildRoleArn", "StartRoleArn"},
}


def in_china(*path: str) -> Any:
    """Return a part of China's template as deployed with the prefix `mirror`."""
    return _part(sam_template(), path, RepositoryPrefix="mirror")


def in_global(*path: str) -> Any:
    return _part(load_template("image-pulling.yaml"), path)


def _part(template: Any, path: tuple[str, ...], **parameters: str) -> Any:
    part = template
    for name in path:
        part = part[name]
    return carry_out(part, template, parameters_of(template, **parameters), lambda name, _: name)


def actions(policies: Any, sid: str) -> set[str]:
    [found] = [each for policy in policies for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == sid]
    return set(found["Action"])


def event(name: str) -> Any:
    return in_china("Resources", "ReconcilerFunction", "Properties", "Events", name)["Properties"]


def filters() -> list[Any]:
    return [json.loads(each["Pattern"]) for each in event("Requests")["FilterCriteria"]["Filters"]]


@pytest.mark.parametrize(
    ("known", "found"),
    [
        pytest.param(
            {*stacks.CHINA_OUTPUTS, *UNREAD["sam-template.yaml"], *OPTIONAL["sam-template.yaml"]},
            lambda: set(sam_template()["Outputs"]),
            id="chinas-outputs",
        ),
        pytest.param(
            {*stacks.GLOBAL_OUTPUTS, *UNREAD["image-pulling.yaml"], *OPTIONAL["image-pulling.yaml"]},
            lambda: set(load_template("image-pulling.yaml")["Outputs"]),
            id="the-global-outputs",
        ),
        pytest.param([triggers.STREAM_FILTER], filters, id="the-filter-of-the-stream"),
        pytest.param(
            ["ReportBatchItemFailures"], lambda: event("Requests")["FunctionResponseTypes"], id="single-failures"
        ),
        pytest.param(triggers.RATE, lambda: event("EveryMinute")["Schedule"], id="the-schedule"),
        pytest.param(triggers.ecr_pattern("mirror"), lambda: event("EcrHints")["Pattern"], id="the-pattern-of-events"),
        pytest.param(
            set(functions.PUSHING),
            lambda: actions(in_china("Resources", "ImagePushUser", "Properties", "Policies"), "Push"),
            id="what-the-push-user-may",
        ),
        pytest.param(
            webhook.SLOW,
            lambda: shipped_configuration(URL)["webhooks"][0]["timeoutSeconds"],
            id="how-long-an-api-server-waits",
        ),
        pytest.param(
            set(keys.CHINA_KEY.entries),
            lambda: set(
                json.loads(in_global("Resources", "ECRSecertManager", "Properties", "SecretString")),
            ),
            id="the-entries-of-the-global-secret",
        ),
        pytest.param(
            ("LINUX_CONTAINER", "BUILD_GENERAL1_SMALL"),
            lambda: tuple(
                in_global("Resources", "CodeBuildProject", "Properties", "Environment")[each]
                for each in ("Type", "ComputeType")
            ),
            id="whose-quota-is-looked-at",
        ),
        pytest.param(
            fast_lane.ENVIRONMENT,
            lambda: tuple(
                in_global("Resources", "FastCodeBuildProject", "Properties", "Environment")[each]
                for each in ("Type", "ComputeType")
            ),
            id="whose-quota-is-looked-at-in-the-fast-lane",
        ),
        pytest.param("", lambda: in_china("Parameters", FAST_PARAMETER, "Default"), id="one-lane-by-default"),
    ],
)
def test_what_doctor_knows_is_what_the_templates_say(known: Any, found: Callable[[], Any]) -> None:
    assert known == found()


def test_a_stack_has_to_have_the_outputs_that_a_command_reads_and_no_other() -> None:
    lists = Path(stacks.__file__)
    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py") if path != lists)
    code += re.sub(r"^[A-Z_]+_OUTPUTS = \(.*?\)$", "", lists.read_text(), flags=re.DOTALL | re.MULTILINE)
    read = {*stacks.CHINA_OUTPUTS, *stacks.GLOBAL_OUTPUTS, *set().union(*OPTIONAL.values())}
    assert {each for each in read | set().union(*UNREAD.values()) if f'"{each}"' in code} == read


@pytest.mark.parametrize("expire_days", ["0", "90"])
@pytest.mark.parametrize("pull_accounts", ["", "210987654321"])
def test_the_role_is_asked_for_what_the_template_gives_it(expire_days: str, pull_accounts: str) -> None:
    path = ("Resources", "ReconcilerRole", "Properties", "Policies")
    parameters = {"RepositoryPrefix": "mirror", "ExpireDays": expire_days, "PullAccounts": pull_accounts}
    policies = _part(sam_template(), path, **parameters)
    assert set(functions.creating(expire_days, pull_accounts)) == actions(policies, "Repositories")
