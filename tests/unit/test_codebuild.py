"""Builds in the global account."""

from dataclasses import replace
from typing import Any

import pytest

from image_mirror.aws import connect
from image_mirror.build_result import UNKNOWN
from image_mirror.codebuild import Builds
from image_mirror.global_access import GlobalAccount, SecretKey
from image_mirror.lifecycle import delayed
from image_mirror.record import Build, BuildResult, Lane, Record, idempotency_token, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.settings import Settings
from support.cloud import LIMITS, REGISTRY, Cloud

NOW = 1_800_000_000_000
DIGEST = "sha256:" + "a" * 64


def fresh(image: str = "gcr.io/team/app:1") -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, NOW)


@pytest.fixture
def builds(cloud: Cloud, settings: Settings) -> Builds:
    account = GlobalAccount(
        SecretKey(cloud.secrets, "GlobalAKSK", lambda: 0.0), lambda key: connect("codebuild", LIMITS, key)
    )
    return Builds(account, settings.project)


class RecordingAccount:
    """Replaces the global account and remembers the calls of StartBuild."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def call(self, _name: str, operation: Any) -> Any:
        return operation(self)

    def start_build(self, **request: Any) -> Any:
        self.requests.append(request)
        return {"build": {"id": "x"}}


@pytest.mark.parametrize(
    ("image", "target"),
    [
        pytest.param("gcr.io/team/app:1", f"{REGISTRY}/mirror/gcr.io/team/app:1", id="tag"),
        pytest.param(
            f"gcr.io/team/app:1@{DIGEST}", f"{REGISTRY}/mirror/gcr.io/team/app:digest-sha256-{'a' * 64}", id="digest"
        ),
    ],
)
def test_a_build_gets_the_two_variables_and_no_other_override(settings: Settings, image: str, target: str) -> None:
    account = RecordingAccount()
    record = fresh(image)
    Builds(account, settings.project).start(record)  # type: ignore[arg-type]
    assert account.requests == [
        {
            "projectName": "ImagePullProject",
            "environmentVariablesOverride": [
                {"name": "DOCKER_IMAGE", "value": record.source, "type": "PLAINTEXT"},
                {"name": "NEW_DOCKER_IMAGE", "value": target, "type": "PLAINTEXT"},
            ],
            "idempotencyToken": idempotency_token(record),
        }
    ]


FAST_PROJECT = "ImagePullProjectFast"


def test_a_build_of_the_fast_lane_starts_in_its_project_under_another_token(settings: Settings) -> None:
    account = RecordingAccount()
    builds = Builds(account, settings.project, FAST_PROJECT)  # type: ignore[arg-type]
    fast, main = replace(fresh(), lane=Lane.FAST), replace(fresh(), lane=Lane.MAIN)
    for each in (fast, main, fresh()):
        builds.start(each)
    first, second, third = account.requests
    assert first == {**second, "projectName": FAST_PROJECT, "idempotencyToken": idempotency_token(fast)}
    assert second == third
    assert first["idempotencyToken"] != second["idempotencyToken"]


@pytest.mark.parametrize(
    ("fast_project", "build_id", "lane"),
    [
        pytest.param(FAST_PROJECT, "ImagePullProjectFast:1", Lane.FAST, id="the fast project"),
        pytest.param(FAST_PROJECT, "ImagePullProject:1", Lane.MAIN, id="its name begins with the main one's"),
        pytest.param("", "ImagePullProjectFast:1", Lane.MAIN, id="one lane: CodeBuild is not asked of it"),
        pytest.param(FAST_PROJECT, "Other:1", Lane.MAIN, id="another project"),
    ],
)
def test_a_build_belongs_to_the_lane_of_its_project(
    settings: Settings, fast_project: str, build_id: str, lane: Lane
) -> None:
    builds = Builds(RecordingAccount(), settings.project, fast_project)  # type: ignore[arg-type]
    assert builds.lane_of(build_id) is lane
    assert builds.lanes == ([Lane.MAIN, Lane.FAST] if fast_project else [Lane.MAIN])


def test_one_project_for_both_lanes_is_one_lane(settings: Settings) -> None:
    """Otherwise all builds would hold slots of the fast lane, and the main one would start more without end."""
    builds = Builds(RecordingAccount(), settings.project, settings.project)  # type: ignore[arg-type]
    assert builds.lanes == [Lane.MAIN]
    assert builds.lane_of(f"{settings.project}:0") is Lane.MAIN


def test_a_build_starts_in_the_region_and_project_that_secret_and_settings_name(cloud: Cloud, builds: Builds) -> None:
    build_id = builds.start(fresh())
    [build] = cloud.codebuild.batch_get_builds(ids=[build_id])["builds"]
    assert build["projectName"] == "ImagePullProject"


def test_all_parameters_of_a_build_follow_from_the_record(settings: Settings) -> None:
    account = RecordingAccount()
    builds = Builds(account, settings.project)  # type: ignore[arg-type]
    record = fresh()
    retried = delayed(replace(record, build_id="ImagePullProject:1"), "FAULT", NOW + 5)
    for each in (record, record, retried):
        builds.start(each)
    first, again, later = account.requests
    assert first == again
    assert first["idempotencyToken"] == idempotency_token(record)
    assert later == {**first, "idempotencyToken": idempotency_token(retried)}
    assert first["idempotencyToken"] != later["idempotencyToken"]


def test_a_text_that_is_no_build_s_id_is_not_asked_for_because_codebuild_would_refuse_the_whole_call(
    settings: Settings,
) -> None:
    class Account(RecordingAccount):
        def batch_get_builds(self, **request: Any) -> Any:
            self.requests.append(request)
            return {"builds": []}

    account = Account()
    builds = Builds(account, settings.project, FAST_PROJECT)  # type: ignore[arg-type]
    assert builds.look_up([f"{FAST_PROJECT}:1"]) == {f"{FAST_PROJECT}:1": UNKNOWN}
    assert account.requests.pop() == {"ids": [f"{FAST_PROJECT}:1"]}
    project = "ImagePullProject"
    odd = [f"{project}:", f"{project}:a b", f"{project}:1\n", f"{project}:{'1' * 300}", "x", "", f"{project}2:1"]
    known = builds.look_up([*odd, f"{project}:c697cf04-b1c0"])
    assert account.requests == [{"ids": [f"{project}:c697cf04-b1c0"]}]
    assert known == dict.fromkeys([*odd, f"{project}:c697cf04-b1c0"], UNKNOWN)


def test_builds_are_looked_up_and_unknown_ones_are_said_to_be(builds: Builds) -> None:
    build_id = builds.start(fresh())
    known = builds.look_up([build_id, "ImagePullProject:00000000-0000-0000-0000-000000000000"])
    assert known[build_id] == Build(BuildResult.COPIED)  # moto says that each build has succeeded
    assert known["ImagePullProject:00000000-0000-0000-0000-000000000000"] == UNKNOWN
