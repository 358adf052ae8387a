"""Whether the fast lane is switched on, and how a probe and an update are judged."""

from dataclasses import replace
from typing import Any

import pytest

from image_mirror.cli import agreement, fast_lane, probe_builds, stack_updates
from image_mirror.cli.accounts import Account
from image_mirror.cli.stacks import Stack

FAST = "ImagePullProjectFast"
BUILD = f"{FAST}:12345678-0000-4000-8000-000000000000"


def china(used: str | None, status: str = "UPDATE_COMPLETE") -> Stack:
    """China's stack; None is one of an older release, without the parameter."""
    parameters = {} if used is None else {"GlobalFastProjectName": used}
    return Stack(Account("china", "china", "cn-northwest-1"), "image-mirror", status, {}, parameters)


def other(offered: str | None) -> Stack:
    """The global stack, with or without a fast lane."""
    outputs = {"ProjectName": "ImagePullProject"} | ({"FastProjectName": offered} if offered else {})
    return Stack(Account("global", "global", "us-west-2"), "image-pulling", "UPDATE_COMPLETE", outputs, {})


@pytest.mark.parametrize(
    ("used", "offered", "project", "words"),
    [
        pytest.param("", FAST, FAST, "", id="there-and-not-used"),
        pytest.param(FAST, FAST, None, "", id="used"),
        pytest.param("", None, None, "", id="not-there"),
        pytest.param(None, None, None, "", id="two-older-releases"),
        pytest.param(
            None,
            FAST,
            None,
            "china account (profile china): the stack image-mirror is of an older release, which has one lane only; "
            "deploy this release there first",
            id="an-older-release-in-china",
        ),
        pytest.param(
            FAST,
            None,
            None,
            f"China's GlobalFastProjectName is {FAST}, the global stack has no fast lane: no copy is made in the fast "
            "lane; `sam deploy --profile china --region cn-northwest-1 --stack-name image-mirror "
            """--parameter-overrides 'GlobalFastProjectName=""'`""",
            id="used-and-no-longer-there",
        ),
        pytest.param(
            "Other",
            FAST,
            None,
            f"China's GlobalFastProjectName is Other, the global stack's is {FAST}: no copy is made in the fast lane; "
            "`sam deploy --profile china --region cn-northwest-1 --stack-name image-mirror "
            f"--parameter-overrides GlobalFastProjectName={FAST}`",
            id="another-project",
        ),
    ],
)
def test_the_fast_lane_is_switched_on_if_it_is_there_and_not_used(
    used: str | None, offered: str | None, project: str | None, words: str
) -> None:
    planned = fast_lane.plan(china(used), other(offered))
    assert planned.project == project
    assert (planned.note or "").startswith(words)
    assert bool(planned.note) is bool(words)
    assert len(list(planned.steps(china(used)))) == (2 if project else 0)


def test_a_lane_that_differs_is_no_reason_to_stop_copies() -> None:
    fault = agreement.fast_lane_fault(china("Other"), other(FAST))
    assert fault is not None
    assert not fault.stops_copies


def build(status: str, result: str | None = None, phase: str = "BUILD", message: str = "") -> dict[str, Any]:
    exported = [] if result is None else [{"name": "COPY_RESULT", "value": result}]
    failed = [{"phaseType": phase, "phaseStatus": status, "contexts": [{"message": message}]}]
    return {
        "id": BUILD,
        "buildStatus": status,
        "phases": [] if status == "SUCCEEDED" else failed,
        "exportedEnvironmentVariables": exported,
    }


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        pytest.param(build("SUCCEEDED", "PROBED"), None, id="it-has-logged-in"),
        pytest.param(build("SUCCEEDED"), "its COPY_RESULT is missing, not PROBED", id="it-exports-nothing"),
        pytest.param(build("SUCCEEDED", "COPIED"), "its COPY_RESULT is COPIED, not PROBED", id="it-has-copied"),
        pytest.param(
            build("FAILED", "TARGET_LOGIN", message="no login"), "TARGET_LOGIN: no login", id="the-login-fails"
        ),
        pytest.param(
            build("FAILED", phase="PROVISIONING", message="no such image"),
            "the build failed in phase PROVISIONING: no such image",
            id="it-does-not-start",
        ),
        pytest.param(build("FAULT", message="it broke"), "CodeBuild failed: it broke", id="codebuild-fails"),
        pytest.param(build("STOPPED"), "the build was stopped by hand", id="stopped"),
    ],
)
def test_only_a_probe_that_has_logged_in_and_said_so_is_fit(ended: dict[str, Any], expected: str | None) -> None:
    assert probe_builds.why_unfit(ended) == expected


@pytest.mark.parametrize(
    ("used", "status", "expected"),
    [
        pytest.param(FAST, "UPDATE_COMPLETE", None, id="done"),
        pytest.param(FAST, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", None, id="all-but-tidied"),
        pytest.param(FAST, "UPDATE_IN_PROGRESS", None, id="running"),
        pytest.param(
            "",
            "UPDATE_COMPLETE",
            "GlobalFastProjectName of the stack image-mirror is empty after the update",
            id="without-effect",
        ),
        *(
            pytest.param("", status, f"the update has failed: the stack image-mirror is {status}", id=status)
            for status in ("UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED")
        ),
    ],
)
def test_an_update_has_succeeded_only_with_the_project_in_the_stack(
    used: str, status: str, expected: str | None
) -> None:
    assert (
        stack_updates.why_not_updated(replace(china(used), status=status), {"GlobalFastProjectName": FAST}) == expected
    )
