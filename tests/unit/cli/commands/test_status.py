"""`image-mirror status`: images that need attention come last, one image is shown in full, errors are reported."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import EndpointConnectionError
from botocore.parsers import ResponseParserError
from rich.console import Console

from image_mirror.cli import terminal
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.status import build as status_build
from image_mirror.cli.commands.status import command as status_command
from image_mirror.cli.commands.status import watch as status_watch
from image_mirror.cli.commands.status.records import RecordRow, change, changed_rows, listing, record_row, summary
from image_mirror.cli.commands.status.verification import VerifiedRow
from image_mirror.cli.commands.status.watch import Reading
from image_mirror.cli.held_copies import InECR, look_up
from image_mirror.cli.output import columns_of, moment, span, utc
from image_mirror.decisions import Mirror
from image_mirror.record import HOUR, MINUTE, Lane, Record, Status
from image_mirror.rules import parse_rules
from image_mirror.table import Records
from support.clock import NOON
from support.cloud import REGISTRY
from support.ecr_registry import Registry
from support.operators import CHINA_OUTPUTS, TOKEN, Operated, Reply
from support.recorded import BUILD, DIGEST, REASON, now, record, run, write
from support.templates import ROOT

pytestmark = pytest.mark.usefixtures("noon")

FAILED = record("gcr.io/broken:1", Status.FAILED, hours=3, at=NOON)
WAITING = record(
    "quay.io/waiting:1",
    Status.REQUESTED,
    hours=5,
    error="RATE_LIMITED: toomanyrequests",
    waits=2,
    requested_by="shop/ReplicaSet/web-5d9c",
    at=NOON,
)
COPYING = record("nginx:1.27", Status.COPYING, hours=0.5, at=NOON)
REFRESHING = record("redis:7", Status.COPYING, hours=20, digest=DIGEST, at=NOON)
COPIED = record("gcr.io/fine:1", Status.COPIED, hours=100, at=NOON)
OLDER = Record(repo=f"{REGISTRY}/mirror/quay.io/old", tag="1")
BY_ATTENTION = (FAILED, WAITING, COPYING, REFRESHING, OLDER, COPIED)
TABLE = "ImageListTable"
OTHER_DIGEST = "sha256:" + "b" * 64


@pytest.fixture
def table(operated: Operated) -> Operated:
    write(operated.cloud.dynamodb, reversed(BY_ATTENTION))
    return operated


@pytest.fixture
def compared(table: Operated, registry: Registry) -> Operated:
    """More records that are all COPIED, and an ECR that has something else for most of them."""
    names = ("lost", "archived", "other", "elsewhere")
    copied = [record(f"gcr.io/{name}:1", Status.COPIED, hours=100, at=NOON) for name in names]
    copied[-1] = replace(copied[-1], repo=f"{REGISTRY}/before/gcr.io/elsewhere")
    write(table.cloud.dynamodb, copied)
    registry.push("mirror/gcr.io/fine", "1", digest=DIGEST)
    registry.push("mirror/gcr.io/archived", "1", digest=DIGEST).status = "ARCHIVED"
    registry.push("mirror/gcr.io/other", "1", digest=OTHER_DIGEST)
    return table


@pytest.fixture
def build(table: Operated, answer: Callable[[str, str, Reply], None]) -> dict[str, Any]:  # noqa: ARG001 - the AWS it is of
    """CodeBuild's answer about BUILD, and the build's log."""
    said: dict[str, Any] = {
        "id": BUILD,
        "buildStatus": "FAILED",
        "logs": {"groupName": "builds", "streamName": "c697"},
        "phases": [
            {"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED", "durationInSeconds": 0},
            {
                "phaseType": "BUILD",
                "phaseStatus": "FAILED",
                "durationInSeconds": 12,
                "contexts": [{"statusCode": "COMMAND_EXECUTION_ERROR", "message": "exit status 44"}],
            },
            {"phaseType": "COMPLETED"},
        ],
    }
    answer("codebuild", "BatchGetBuilds", lambda asked: {"builds": [said] if asked["ids"] == [BUILD] else []})
    logs = boto3.client("logs", region_name="us-west-2")
    logs.create_log_group(logGroupName="builds")
    logs.create_log_stream(logGroupName="builds", logStreamName="c697")
    events = [{"timestamp": now(), "message": f"line {number}\x1b[31m\n"} for number in range(30)]
    logs.put_log_events(logGroupName="builds", logStreamName="c697", logEvents=events)
    return said


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = run("status", "--output", "json", *arguments)
    assert result.exit_code == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_what_needs_attention_comes_last_in_a_whole_line_each_and_the_counts_on_standard_error(
    table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("IMAGE_MIRROR_GLOBAL_PROFILE")
    again = replace(WAITING, repo=f"{WAITING.repo}2", source="quay.io/again:1", attempts=2, due_at=NOON + 4 * MINUTE)
    write(table.cloud.dynamodb, [replace(again, requested_at=NOON - MINUTE), replace(WAITING, due_at=NOON)])
    result = run("status")
    assert result.exit_code == 0
    assert [re.split("  +", line) for line in result.stdout.splitlines()] == [
        ["STATE", "TRY", "NEXT", "AGE", "IMAGE", "REASON"],
        ["COPIED", "-", "-", "4d4h", "gcr.io/fine:1", "-"],
        ["-", "-", "-", "-", OLDER.destination, "-"],
        ["COPYING", "0/5", "-", "20h", "docker.io/library/redis:7", "-"],
        ["COPYING", "0/5", "-", "30m", "docker.io/library/nginx:1.27", "-"],
        ["REQUESTED", "0/5", "now", "5h", "quay.io/waiting:1", "RATE_LIMITED: toomanyrequests"],
        ["REQUESTED", "2/5", "in 4m", "1m", "quay.io/again:1", "RATE_LIMITED: toomanyrequests"],
        ["FAILED", "5/5", "-", "3h", "gcr.io/broken:1", REASON],
    ]
    assert result.stderr == (
        "7 records: 1 FAILED, 2 REQUESTED, 2 COPYING, 1 COPIED, 1 of an older deployment\n"
        "4 requested: 2 running or queued, 2 to be tried again\n"
    )


@pytest.mark.usefixtures("table")
def test_the_wide_table_has_the_build_and_the_name_of_the_copy_too() -> None:
    head, *lines = run("status", "-o", "wide").stdout.splitlines()
    assert head.split() == ["STATE", "TRY", "NEXT", "AGE", "IMAGE", "REASON", "CHANGED", "LANE", "BUILD", "COPY"]
    assert lines[-1].split()[-4:] == ["2h50m", "main", BUILD, f"{REGISTRY}/mirror/gcr.io/broken:1"]


FAST_BUILD = "ImagePullProjectFast:c697cf04-b1c0-462e-b45d-be6db350d519"
NOT_FAST = "not the fast one: "


@pytest.mark.parametrize(
    ("changes", "lane", "line"),
    [
        pytest.param({}, None, "-", id="not-chosen-yet"),
        pytest.param({"lane": Lane.FAST, "claimed_at": NOON}, "fast", "fast", id="being-started"),
        pytest.param(
            {"status": Status.COPYING, "lane": Lane.FAST, "build_id": FAST_BUILD}, "fast", "fast", id="in-the-fast-lane"
        ),
        pytest.param({"status": Status.COPYING, "build_id": BUILD}, "main", "main", id="of-a-stack-with-one-lane"),
        pytest.param({"status": Status.COPIED, "lane": Lane.MAIN, "build_id": BUILD}, "main", "main", id="copied"),
        pytest.param(
            {"build_id": FAST_BUILD, "not_fast": "OUT_OF_TIME", "error": "fast lane: OUT_OF_TIME: 13 minutes"},
            "main",
            f"main; {NOT_FAST}OUT_OF_TIME, this image takes longer than a build there may",
            id="too-slow-for-it",
        ),
        pytest.param(
            {"not_fast": "TOO_LARGE"},
            "main",
            f"main; {NOT_FAST}TOO_LARGE, this image is larger than FastLaneGigabytes",
            id="too-large-for-it",
        ),
        pytest.param(
            {"lane": Lane.MAIN, "not_fast": "UNEXPLAINED"},
            "main",
            f"main; {NOT_FAST}UNEXPLAINED, a build there failed without a reason; the next request may use it",
            id="it-has-failed-there",
        ),
    ],
)
def test_the_lane_of_a_copy_is_shown_and_why_it_is_not_the_fast_one(
    operated: Operated, changes: dict[str, Any], lane: str | None, line: str
) -> None:
    write(operated.cloud.dynamodb, [replace(record("gcr.io/lane:1", Status.REQUESTED, at=NOON), **changes)])
    [row] = listed()
    assert row["lane"] == lane
    wide = run("status", "-o", "wide").stdout.splitlines()[-1]
    assert wide.split()[-3] == (lane or "-")
    shown = run("status", "gcr.io/lane:1", "--global-profile", "").stdout
    assert re.findall("^lane +(.*)$", shown, re.MULTILINE) == [line]
    details = json.loads(run("status", "gcr.io/lane:1", "-o", "json").stdout)
    assert (details["lane"], details["not_fast"]) == (lane, changes.get("not_fast"))


def test_a_copy_that_is_being_started_is_no_change_of_its_row() -> None:
    requested = record("gcr.io/lane:1", Status.REQUESTED, at=NOON)
    claimed = replace(requested, lane=Lane.FAST, claimed_at=NOON, updated_at=NOON)
    copying = replace(claimed, status=Status.COPYING, build_id=FAST_BUILD)
    before, starting, after = ({"x": record_row(each, {})} for each in (requested, claimed, copying))
    assert changed_rows(before, starting) == []
    [row] = changed_rows(starting, after)
    assert (row.state, row.lane, row.build) == ("COPYING", "fast", FAST_BUILD)


QUEUED = record("gcr.io/queued:1", Status.COPYING, hours=0.5, at=NOON, build_id="ImagePullProject:1")


def test_a_build_in_codebuilds_queue_is_told_from_one_that_runs(
    table: Operated, answer: Callable[[str, str, Reply], None]
) -> None:
    asked: list[list[str]] = []
    odd = replace(QUEUED, repo=f"{QUEUED.repo}2", source="gcr.io/odd:1", build_id="written by hand")
    write(table.cloud.dynamodb, [QUEUED, odd])

    def builds(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(sorted(request["ids"]))
        phases = {BUILD: "BUILD", "ImagePullProject:1": "QUEUED"}
        return {
            "builds": [
                {"id": each, "buildStatus": "IN_PROGRESS", "currentPhase": phases[each]} for each in request["ids"]
            ]
        }

    answer("codebuild", "BatchGetBuilds", builds)
    result = run("status", "--state", "COPYING")
    assert (result.exit_code, result.stderr) == (0, "4 records: 4 COPYING\n"), "the others count in an estimate"
    assert asked == [sorted(["ImagePullProject:1", BUILD])]
    assert {line.split()[4]: line.split()[0] for line in result.stdout.splitlines()[1:]} == {
        "docker.io/library/nginx:1.27": "COPYING",
        "docker.io/library/redis:7": "COPYING",
        "gcr.io/queued:1": "QUEUED",
        "gcr.io/odd:1": "COPYING",
    }
    assert "5 requested: 2 running, 1 queued, 1 running or queued, 1 to be tried again\n" in run("status").stderr
    assert {row["image"]: (row["state"], row["queued"]) for row in listed("gcr.io/*")} == {
        "gcr.io/queued:1": ("COPYING", True),
        "gcr.io/odd:1": ("COPYING", None),
        "gcr.io/broken:1": ("FAILED", None),
        "gcr.io/fine:1": ("COPIED", None),
    }


def test_at_most_a_hundred_builds_are_asked_for_in_one_call(
    operated: Operated, answer: Callable[[str, str, Reply], None]
) -> None:
    asked: list[int] = []

    def builds(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(len(request["ids"]))
        return {"builds": []}

    answer("codebuild", "BatchGetBuilds", builds)
    ids = [f"ImagePullProject:{number}" for number in range(130)]
    write(
        operated.cloud.dynamodb,
        (record(f"gcr.io/x:{number}", Status.COPYING, build_id=each) for number, each in enumerate(ids)),
    )
    assert run("status").exit_code == 0
    assert asked == [100, 30]


@pytest.mark.usefixtures("table")
def test_a_list_without_an_answer_of_codebuild_is_shown_and_says_why(refuse: Callable[..., None]) -> None:
    refuse("codebuild", "BatchGetBuilds")
    result = run("status")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + len(BY_ATTENTION)
    assert "Note: it is not known which builds run and which wait: global account (profile global): " in result.stderr
    assert "2 running or queued" in result.stderr


@pytest.mark.usefixtures("table")
def test_a_global_region_that_does_not_answer_delays_a_list_by_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(status_build, "_PATIENCE", 0.01)
    client = Account.client

    def waiting(self: Account, service: str, *key: Any) -> Any:
        if service == "codebuild":
            answered.wait(60)
        return client(self, service, *key)

    monkeypatch.setattr(Account, "client", waiting)
    try:
        result = run("status")
    finally:
        answered.set()
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + len(BY_ATTENTION)
    assert "which wait: global account (profile global): no answer within" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "images"),
    [
        pytest.param(["gcr.io/*"], ["gcr.io/broken:1", "gcr.io/fine:1"], id="below-a-registry"),
        pytest.param(["*nginx*"], ["docker.io/library/nginx:1.27"], id="anywhere"),
        pytest.param(["*NGINX*"], [], id="case-counts"),
        pytest.param(["*/[nr]*:?*"], ["docker.io/library/nginx:1.27", "docker.io/library/redis:7"], id="classes"),
        pytest.param(["--state", "FAILED"], ["gcr.io/broken:1"], id="of-a-state"),
        pytest.param(["--state", "failed"], ["gcr.io/broken:1"], id="in-lower-case"),
        pytest.param(
            ["--state", "FAILED", "--state", "COPIED", "gcr.io/[f]*"],
            ["gcr.io/fine:1"],
            id="of-two-states-and-a-pattern",
        ),
    ],
)
@pytest.mark.usefixtures("table")
def test_patterns_and_states_choose(arguments: list[str], images: list[str]) -> None:
    assert [row["image"] for row in listed(*arguments)] == images


@pytest.mark.usefixtures("table")
def test_json_has_all_that_the_records_say() -> None:
    rows = listed()
    assert list(rows[0]) == list(RecordRow.__dataclass_fields__)
    assert rows[1] == {
        "image": "quay.io/waiting:1",
        "copy": f"{REGISTRY}/mirror/quay.io/waiting:1",
        "state": "REQUESTED",
        "requested_at": utc(WAITING.requested_at),
        "updated_at": utc(WAITING.updated_at),
        "due_at": utc(WAITING.due_at),
        "attempts": 0,
        "waits": 2,
        "build": None,
        "lane": None,
        "queued": None,
        "digest": None,
        "signatures": None,
        "reason": "RATE_LIMITED: toomanyrequests",
        "requested_by": "shop/ReplicaSet/web-5d9c",
        "unexpected_push": None,
    }
    assert (rows[4]["state"], rows[4]["requested_at"]) == (None, None)


def test_the_help_names_each_key_of_the_json_output() -> None:
    words = run("status", "--help").stdout.replace(",", " ").replace("(", " ").replace(")", " ").split()
    keys = [
        *RecordRow.__dataclass_fields__,
        "rule",
        "do",
        "not_fast",
        "in_ecr",
        "build_details",
        "status",
        "log_group",
        "log_stream",
        "phases",
        "log",
    ]
    assert [key for key in keys if key not in words] == []


@pytest.mark.usefixtures("operated")
def test_an_empty_table_is_no_error() -> None:
    result = run("status")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 records\n")
    assert listed() == []


def test_an_item_that_was_damaged_by_hand_hides_no_other(table: Operated) -> None:
    spoilt = {"repo": {"S": "x/y"}, "tag": {"S": "\x1b[2J"}, "status": {"S": "FAILED"}, "requested_at": {"N": "1.5"}}
    table.cloud.dynamodb.put_item(TableName=TABLE, Item={**spoilt, "updated_at": {"N": "9e40"}})
    result = run("status")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + len(BY_ATTENTION) + 1
    assert "x/y:\\x1b[2J" in result.stdout
    assert listed("x/y*")[0]["updated_at"] is None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gcr.io/broken:1", id="as-in-a-manifest"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/broken:1", id="by-its-copy"),
    ],
)
@pytest.mark.usefixtures("build")
def test_one_image_is_shown_in_full_with_its_build_and_the_end_of_its_log(name: str) -> None:
    result = run("status", name)
    assert (result.exit_code, result.stderr) == (0, "")
    record_lines, build_lines, log_lines, do = (part.splitlines() for part in result.stdout.split("\n\n"))
    fields = dict(line.split(None, 1) for line in record_lines)
    assert fields["image"] == "gcr.io/broken:1"
    assert fields["copy"] == f"{REGISTRY}/mirror/gcr.io/broken:1"
    assert fields["state"] == "FAILED"
    assert re.search(r"[+]\d\d:\d\d \(3h ago\)$", fields["requested"])
    assert fields["attempts"] == "5 of 5 used, 0 delayed for a reason that costs none"
    assert fields["rule"] == "gcr.io"
    assert fields["reason"] == REASON
    assert fields["requester"] == "not a pod, or a pod of an older release"
    assert build_lines[0] == f"{BUILD}: FAILED"
    assert [line.split(None, 3) for line in build_lines[1:]] == [
        ["PHASE", "STATUS", "SECONDS", "MESSAGE"],
        ["SUBMITTED", "SUCCEEDED", "0"],
        ["BUILD", "FAILED", "12", "exit status 44"],
        ["COMPLETED", "IN_PROGRESS", "-"],
    ]
    remedy = "correct the name in the manifest; if it is right now, image-mirror retry gcr.io/broken:1"
    assert do == [f"Do:         {remedy}"]
    assert log_lines[1:] == [f"  line {number}\\x1b[31m" for number in range(10, 30)]


@pytest.mark.usefixtures("table")
def test_one_image_is_shown_with_who_requested_it() -> None:
    result = run("status", "quay.io/waiting:1")
    assert dict(line.split(None, 1) for line in result.stdout.splitlines())["requester"] == "shop/ReplicaSet/web-5d9c"


def test_a_copy_with_an_unexpected_push_comes_last_with_both_digests_and_what_to_do(table: Operated) -> None:
    marked = replace(COPIED, unexpected=f"{OTHER_DIGEST} {DIGEST} {NOON - 2 * HOUR}")
    write(table.cloud.dynamodb, [marked])
    result = run("status")
    assert re.split("  +", result.stdout.splitlines()[-1])[-2:] == [
        "gcr.io/fine:1",
        f"unexpected push of {DIGEST}; `image-mirror status IMAGE` says what to do",
    ]
    assert " 1 of an older deployment; 1 with an unexpected push\n" in result.stderr
    assert listed()[0]["unexpected_push"] == {
        "before": OTHER_DIGEST,
        "after": DIGEST,
        "noticed_at": utc(NOON - 2 * HOUR),
    }
    shown = run("status", "gcr.io/fine:1").stdout
    [line] = re.findall("^unexpected  (.*)$", shown, re.MULTILINE)
    assert line.startswith(f"{DIGEST} in place of {OTHER_DIGEST}, noticed ")
    assert "(2h ago)" in line
    do = "if nobody of yours has pushed it: image-mirror connect --rotate, then image-mirror retry gcr.io/fine:1"
    assert shown.endswith(f"Do:         {do}\n")
    assert change(COPIED, marked) is not None
    assert len(listing([marked], {}, NOON, 120, wide=False)[1]) == 3


@pytest.mark.parametrize(
    ("image", "in_ecr", "line"),
    [
        pytest.param("gcr.io/fine:1", "held", "held", id="held"),
        pytest.param("redis:7", "gone", "gone", id="gone-while-a-build-makes-the-next-one"),
        pytest.param("gcr.io/lost:1", "gone", "gone", id="gone"),
        pytest.param("gcr.io/archived:1", "archived", "archived", id="archived"),
        pytest.param("gcr.io/other:1", "other digest", f"other digest, {OTHER_DIGEST}", id="other-digest"),
        pytest.param("quay.io/waiting:1", None, "-", id="not-arrived"),
    ],
)
@pytest.mark.usefixtures("compared", "build")
def test_one_image_is_shown_with_what_ecr_holds(image: str, in_ecr: str | None, line: str) -> None:
    result = run("status", image)
    assert (result.exit_code, result.stderr) == (0, "")
    [shown] = re.findall("^in ECR +(.*)$", result.stdout, re.MULTILINE)
    assert shown == line
    assert json.loads(run("status", "--output", "json", image).stdout)["in_ecr"] == in_ecr


@pytest.mark.usefixtures("compared", "build")
def test_where_ecr_says_nothing_the_record_is_shown_and_why(refuse: Callable[..., None]) -> None:
    refuse("ecr", "DescribeImages")
    result = run("status", "gcr.io/fine:1")
    assert result.exit_code == 0
    assert re.search("^in ECR +not known$", result.stdout, re.MULTILINE)
    assert result.stderr.startswith("Note: it is not known whether ECR holds the copy: china account (profile china): ")
    assert "ask for this permission" in result.stderr
    shown = json.loads(run("status", "--output", "json", "gcr.io/fine:1").stdout)
    assert (shown["state"], shown["in_ecr"]) == ("COPIED", None)


def test_a_verification_shows_all_copied_records_with_what_is_gone_last_and_changes_nothing(
    compared: Operated,
) -> None:
    before = compared.cloud.items()
    result = run("status", "--verify")
    assert result.exit_code == 1
    assert [line.split("  ") for line in re.sub("  +", "  ", result.stdout).splitlines()] == [
        ["IN ECR", "IMAGE", "DIGEST IN ECR"],
        ["held", "gcr.io/fine:1"],
        ["not served", "gcr.io/elsewhere:1"],
        ["other digest", "gcr.io/other:1", OTHER_DIGEST],
        ["archived", "gcr.io/archived:1"],
        ["gone", "gcr.io/lost:1"],
    ]
    assert result.stderr == (
        "5 COPIED records: 1 gone, 1 archived, 1 other digest, 1 not served, 1 held; "
        "`image-mirror retry --gone` requests the lost copies again\n"
    )
    assert compared.cloud.items() == before


@pytest.mark.usefixtures("compared")
def test_a_verification_as_json_has_both_digests() -> None:
    result = run("status", "--verify", "--output", "json", "gcr.io/[ao]*")
    assert result.exit_code == 1
    prefix = f"{REGISTRY}/mirror/gcr.io"
    assert [tuple(row.values()) for row in json.loads(result.stdout)] == [
        ("gcr.io/archived:1", f"{prefix}/archived:1", "archived", DIGEST, DIGEST),
        ("gcr.io/other:1", f"{prefix}/other:1", "other digest", DIGEST, OTHER_DIGEST),
    ]
    words = run("status", "--help").stdout.replace(",", " ").split()
    assert [key for key in VerifiedRow.__dataclass_fields__ if key not in words] == []
    assert [state for state in InECR if state not in " ".join(words)] == []


@pytest.mark.parametrize(
    ("pattern", "code", "counts"),
    [
        pytest.param("gcr.io/fine:*", 0, "1 COPIED record: 1 held", id="held"),
        pytest.param("gcr.io/else*", 0, "1 COPIED record: 1 not served", id="not-served"),
        pytest.param("gcr.io/other*", 1, "1 COPIED record: 1 other digest", id="other-digest"),
        pytest.param("quay.io/*", 0, "0 COPIED records", id="none"),
    ],
)
@pytest.mark.usefixtures("compared")
def test_a_verification_ends_with_1_only_if_ecr_differs(pattern: str, code: int, counts: str) -> None:
    result = run("status", "--verify", pattern)
    assert (result.exit_code, result.stderr) == (code, f"{counts}\n")


@pytest.mark.usefixtures("compared")
def test_a_verification_without_ecr_s_answer_ends_with_3(refuse: Callable[..., None]) -> None:
    refuse("ecr", "DescribeImages")
    result = run("status", "--verify")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "DescribeImages: AccessDeniedException" in result.stderr


def test_a_terminal_sees_how_far_a_verification_is(monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[tuple[str, int | None]] = []

    @contextmanager
    def bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        progress.append((title, total))
        yield lambda done: progress.append((title, done))

    class NoImages:
        exceptions = SimpleNamespace(RepositoryNotFoundException=KeyError)

        def get_paginator(self, _: str) -> Any:
            return SimpleNamespace(paginate=lambda **_: [])

    monkeypatch.setattr(terminal, "bar", bar)
    mirror = Mirror(REGISTRY, "mirror", parse_rules(""))
    records = [record(f"gcr.io/{name}:{tag}") for name in "ab" for tag in "123"]
    assert {each.state for each in look_up(NoImages(), mirror, records).values()} == {InECR.GONE}
    assert progress == [("asking ECR", 2), ("asking ECR", 1), ("asking ECR", 1)]


@pytest.mark.usefixtures("build")
def test_one_image_as_json_is_an_object_with_its_build() -> None:
    result = run("status", "--output", "json", "gcr.io/broken:1")
    shown = json.loads(result.stdout)
    assert shown["state"] == "FAILED"
    details = shown["build_details"]
    assert (details["status"], details["log_group"], len(details["log"])) == ("FAILED", "builds", 20)
    assert details["phases"][1] == {"phase": "BUILD", "status": "FAILED", "seconds": 12, "message": "exit status 44"}


@pytest.mark.usefixtures("table")
def test_an_image_whose_build_has_not_begun_asks_the_global_account_nothing(refuse: Callable[..., None]) -> None:
    refuse("codebuild", "BatchGetBuilds")
    result = run("status", "quay.io/waiting:1")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("hinder", "words", "shown"),
    [
        pytest.param(
            lambda refuse, _build, _env: refuse("codebuild", "BatchGetBuilds"),
            ["its build is not shown", "AccessDeniedException", "ask for this permission"],
            False,
            id="denied",
        ),
        pytest.param(
            lambda _refuse, _build, env: env("IMAGE_MIRROR_GLOBAL_PROFILE", ""),
            ["its build is not shown", "cn-northwest-1 is not outside China; give --global-profile"],
            False,
            id="no-profile",
        ),
        pytest.param(
            lambda _refuse, _build, env: env("IMAGE_MIRROR_GLOBAL_PROFILE", "nobody"),
            ["its build is not shown", "nobody", "aws configure list-profiles"],
            False,
            id="no-such-profile",
        ),
        pytest.param(
            lambda _refuse, build, _env: build.update(logs={}),
            ["its log is not shown", "the build has ended, and CodeBuild has no log of it"],
            True,
            id="no-log-at-all",
        ),
        pytest.param(
            lambda _refuse, build, _env: build.update(logs={}, buildStatus="IN_PROGRESS"),
            ["its log is not shown", "the build has no log yet"],
            True,
            id="no-log-yet",
        ),
        pytest.param(
            lambda _refuse, build, _env: build.update(logs={"groupName": "gone", "streamName": "x"}),
            ["its log is not shown", "ResourceNotFoundException"],
            True,
            id="log-expired",
        ),
        pytest.param(
            lambda refuse, _build, _env: refuse("logs", "GetLogEvents"),
            ["its log is not shown", "logs:GetLogEvents"],
            True,
            id="log-denied",
        ),
    ],
)
def test_where_the_global_account_says_nothing_the_record_is_shown_and_why(
    hinder: Callable[..., None],
    words: Sequence[str],
    shown: bool,
    build: dict[str, Any],
    refuse: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hinder(refuse, build, monkeypatch.setenv)
    result = run("status", "gcr.io/broken:1")
    assert result.exit_code == 0
    assert REASON in result.stdout
    assert (f"{BUILD}: {build['buildStatus']}" in result.stdout) is shown
    assert result.stderr.startswith("Note: ")
    assert [word for word in words if word not in result.stderr] == []


@pytest.mark.usefixtures("build")
def test_a_build_that_codebuild_no_longer_knows_is_reported(answer: Callable[[str, str, Reply], None]) -> None:
    answer("codebuild", "BatchGetBuilds", lambda _: {"builds": [], "buildsNotFound": [BUILD]})
    result = run("status", "gcr.io/broken:1")
    assert f"CodeBuild in us-west-2 has no build {BUILD}" in result.stderr


@pytest.mark.parametrize(
    ("image", "words"),
    [
        pytest.param(
            "gcr.io/new:1",
            f"gcr.io/new:1 is copied to {REGISTRY}/mirror/gcr.io/new:1 when a pod names it: rule gcr.io",
            id="copy",
        ),
        pytest.param("mcr.azure.cn/x", "mcr.azure.cn/x stays as written: no rule names it", id="no-rule"),
        pytest.param("auto", "it is a placeholder", id="placeholder"),
        pytest.param("gcr.io/x:sha256-" + "a" * 64, "tags of the form sha256-<hex>", id="no-destination"),
        pytest.param(
            f"{REGISTRY}/mirror/gcr.io/new:1", "stays as written: it is already in this registry", id="a-copy"
        ),
    ],
)
@pytest.mark.usefixtures("table")
def test_an_image_without_a_record_ends_with_1_and_what_the_webhook_would_make_of_it(image: str, words: str) -> None:
    result = run("status", image)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {image}: there is no record")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param("gcr.io !gcr.io/own", "gcr.io/own/x:1 stays as written: rule !gcr.io/own", id="left"),
        pytest.param(
            "gcr.io/own=asia.gcr.io",
            "gcr.io/own/x:1 is pulled from asia.gcr.io/x:1: rule gcr.io/own=asia.gcr.io",
            id="rewritten",
        ),
    ],
)
def test_the_stacks_own_rules_decide(rules: str, words: str, operated: Operated) -> None:
    operated.deploy(
        "sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, WebhookToken=TOKEN, MirrorRules=rules
    )
    result = run("status", "gcr.io/own/x:1")
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["-w", "-o", "name"], "--output name: cannot be combined with --watch", id="watched-names"),
        pytest.param(["-w", "--exit-code"], "--exit-code: cannot be combined with --watch", id="watched-exit-code"),
        pytest.param(["gcr.io/x:1", "--all"], "--all: cannot be combined with the name of one image", id="all-of-one"),
        pytest.param(
            ["gcr.io/x:1", "--state", "FAILED"],
            "--state: cannot be combined with the name of one image",
            id="state-of-one",
        ),
        pytest.param(["--state", "LOST"], "LOST", id="no-such-state"),
        pytest.param(
            ["--verify", "--watch"], "--verify: cannot be combined with --watch or --state", id="verify-watched"
        ),
        pytest.param(
            ["--verify", "--state", "COPIED"], "--verify: cannot be combined with --watch or --state", id="verify-state"
        ),
        pytest.param(
            ["--verify", "gcr.io/x:1"],
            "--verify: cannot be combined with the name of one image, for which ECR is always asked",
            id="verify-one",
        ),
        pytest.param(["gcr.io/X:1"], "the repository has upper case", id="no-reference"),
        pytest.param([""], "it is empty", id="empty"),
    ],
)
@pytest.mark.usefixtures("operated")
def test_wrong_input_is_named_and_ends_with_2(arguments: list[str], words: str) -> None:
    result = run("status", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.usefixtures("table")
def test_a_denied_scan_ends_with_3_and_the_remedy(refuse: Callable[..., None]) -> None:
    refuse("dynamodb", "Scan")
    result = run("status")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "china account (profile china): Scan: AccessDeniedException" in result.stderr
    assert "ask for this permission" in result.stderr


@pytest.mark.usefixtures("table")
def test_no_network_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    result = run("status")
    assert result.exit_code == 3
    assert "check the network" in result.stderr


def test_watching_in_a_pipe_prints_each_change_once_until_ctrl_c(
    table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, pages = iter(range(6)), Records.pages

    def unreachable(_: Records) -> None:
        raise EndpointConnectionError(endpoint_url="https://dynamodb")

    def sleep(_: float) -> None:
        look = next(looks)
        monkeypatch.setattr(Records, "pages", unreachable if look == 1 else pages)
        if look == 2:
            done = replace(COPYING, status=Status.COPIED, digest=DIGEST)
            write(
                table.cloud.dynamodb,
                [done, replace(WAITING, updated_at=now()), record("gcr.io/new:1", Status.REQUESTED)],
            )
            table.cloud.dynamodb.delete_item(
                TableName=TABLE, Key={"repo": {"S": COPIED.repo}, "tag": {"S": COPIED.tag}}
            )
        if look == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    result = run("status", "--watch")
    assert result.exit_code == 130
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(BY_ATTENTION) + 3
    assert [line.split(None, 1)[1].strip() for line in lines[-3:]] == [
        "COPIED     docker.io/library/nginx:1.27",
        "GONE       gcr.io/fine:1",
        "REQUESTED  gcr.io/new:1",
    ]
    assert "Note: the records cannot be read now: Could not connect to the endpoint URL" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("table")
def test_a_proxys_page_does_not_end_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(3))

    def proxy(_: Records) -> None:
        raise ResponseParserError("<html>")

    def sleep(_: float) -> None:
        if next(looks) == 2:
            raise KeyboardInterrupt
        monkeypatch.setattr(Records, "pages", proxy)

    monkeypatch.setattr(time, "sleep", sleep)
    result = run("status", "--watch")
    assert result.exit_code == 130
    assert (
        result.stderr.count("Note: the records cannot be read now: the answer is not from AWS, perhaps from a proxy")
        == 1
    )
    assert "<html>" not in result.output


def turns(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], None]) -> None:
    """Do one step before each further reading; after the last one, Ctrl-C."""
    left = list(steps)

    def sleep(_: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)


def changed(table: Operated, monkeypatch: pytest.MonkeyPatch, first: Record, *others: Record) -> None:
    """Write the first record now, and the others before further readings."""
    write(table.cloud.dynamodb, [first])
    steps = [lambda each=each: write(table.cloud.dynamodb, [each]) for each in others]
    turns(monkeypatch, *steps)


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_program_that_watches_gets_each_record_that_is_new_or_changed_and_gone_for_a_removed_one(
    output: str, table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGE_MIRROR_GLOBAL_PROFILE")
    dynamodb = table.cloud.dynamodb
    done = replace(COPYING, status=Status.COPIED, digest=DIGEST)
    key = {"repo": {"S": COPIED.repo}, "tag": {"S": COPIED.tag}}
    turns(
        monkeypatch,
        lambda: write(dynamodb, [replace(WAITING, updated_at=NOON, due_at=NOON)]),
        lambda: write(dynamodb, [done]),
        lambda: dynamodb.delete_item(TableName=TABLE, Key=key) and None,
    )
    result = run("status", "-w", "-o", output)
    assert result.exit_code == 130
    if output == "json":
        rows = list(map(json.loads, result.stdout.splitlines()))
    else:
        assert result.stdout.startswith("---\nimage: gcr.io/broken:1\n")
        rows = list(yaml.safe_load_all(result.stdout))
    assert all(list(row) == list(RecordRow.__dataclass_fields__) for row in rows)
    assert [(row["image"], row["state"]) for row in rows] == [
        ("gcr.io/broken:1", "FAILED"),
        ("quay.io/waiting:1", "REQUESTED"),
        ("docker.io/library/nginx:1.27", "COPYING"),
        ("docker.io/library/redis:7", "COPYING"),
        (OLDER.destination, None),
        ("gcr.io/fine:1", "COPIED"),
        ("docker.io/library/nginx:1.27", "COPIED"),
        ("gcr.io/fine:1", "GONE"),
    ]


@pytest.mark.parametrize("output", ["json", "table"])
@pytest.mark.parametrize("one", [[], ["nginx:1.27"]], ids=["all", "one"])
def test_a_round_in_which_codebuild_does_not_answer_changes_nothing(
    one: list[str],
    output: str,
    table: Operated,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[str, str, Reply], None],
) -> None:
    denied = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
    queueing = {"id": BUILD, "buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"}
    says: dict[str, Any] = {"builds": [queueing]}
    answer("codebuild", "BatchGetBuilds", lambda _: says)

    def say(new: dict[str, Any]) -> None:
        says.clear()
        says.update(new)

    dynamodb = table.cloud.dynamodb
    turns(
        monkeypatch,
        lambda: say(denied),
        lambda: say({"builds": [queueing]}),
        lambda: say({"builds": [queueing | {"currentPhase": "BUILD"}]}),
        lambda: write(dynamodb, [replace(COPYING, status=Status.FAILED, error=REASON)]),
    )
    result = run("status", "-w", *one, "-o", output)
    assert "Note: " in result.stderr
    if output == "json":
        rows = [each for each in map(json.loads, result.stdout.splitlines()) if "nginx" in each["image"]]
        assert [(each["state"], each["queued"]) for each in rows] == [
            ("COPYING", True),
            ("COPYING", False),
            ("FAILED", None),
        ]
    elif not one:
        told = [line for line in result.stderr.splitlines() if "requested: " in line]
        assert told == [
            "3 requested: 2 queued, 1 to be tried again",
            "3 requested: 2 running, 1 to be tried again",
            "2 requested: 1 running, 1 to be tried again",
        ]


def test_one_image_as_json_says_whether_its_build_waits_in_the_queue(build: dict[str, Any]) -> None:
    build |= {"buildStatus": "IN_PROGRESS", "phases": [{"phaseType": "QUEUED"}]}
    assert json.loads(run("status", "nginx:1.27", "-o", "json").stdout)["queued"] is True
    build["phases"] = [{"phaseType": "QUEUED", "phaseStatus": "SUCCEEDED"}, {"phaseType": "BUILD"}]
    assert json.loads(run("status", "nginx:1.27", "-o", "json").stdout)["queued"] is False


@pytest.mark.parametrize(
    ("service", "operation", "image", "words"),
    [
        pytest.param("codebuild", "BatchGetBuilds", "nginx:1.27", "its build is not shown", id="codebuild"),
        pytest.param("logs", "GetLogEvents", "nginx:1.27", "its log is not shown", id="logs"),
        pytest.param("ecr", "DescribeImages", "gcr.io/fine:1", "whether ECR holds the copy", id="ecr"),
    ],
)
@pytest.mark.usefixtures("compared", "build")
def test_a_page_of_a_proxy_in_place_of_an_answer_does_not_hide_the_record(
    service: str, operation: str, image: str, words: str, answer: Callable[[str, str, Reply], None]
) -> None:
    def page(_: dict[str, Any]) -> dict[str, Any]:
        raise ResponseParserError("<html>")

    answer(service, operation, page)
    result = run("status", image)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("image ")
    assert words in result.stderr
    assert "the answer is not from AWS, perhaps from a proxy" in result.stderr


def test_one_image_is_followed_from_before_it_is_recorded_to_its_copy(
    table: Operated, monkeypatch: pytest.MonkeyPatch, build: dict[str, Any]
) -> None:
    new = record("gcr.io/new:1", Status.REQUESTED)
    copying = replace(new, status=Status.COPYING, build_id=BUILD)
    logs = boto3.client("logs", region_name="us-west-2")
    build["phases"] = [{"phaseType": "QUEUED", "phaseStatus": "SUCCEEDED", "durationInSeconds": 3}]

    def more() -> None:
        build["phases"].append({"phaseType": "BUILD"})
        event = {"timestamp": now(), "message": "pushed \x1b[31m"}
        logs.put_log_events(logGroupName="builds", logStreamName="c697", logEvents=[event])

    def end() -> None:
        build["phases"][-1] |= {"phaseStatus": "SUCCEEDED", "durationInSeconds": 40}
        write(table.cloud.dynamodb, [replace(copying, status=Status.COPIED, digest=DIGEST)])

    turns(
        monkeypatch,
        lambda: write(table.cloud.dynamodb, [new]),
        lambda: write(table.cloud.dynamodb, [copying]),
        more,
        end,
    )
    result = run("status", "--watch", "gcr.io/new:1")
    assert result.exit_code == 0
    assert result.stderr == (
        f"Note: gcr.io/new:1: there is no record ({REGISTRY}/mirror/gcr.io/new:1); gcr.io/new:1 is copied to "
        f"{REGISTRY}/mirror/gcr.io/new:1 when a pod names it: rule gcr.io\n"
    )
    assert [line.split("  ", 1)[1] for line in result.stdout.splitlines()] == [
        "REQUESTED  gcr.io/new:1",
        "COPYING    gcr.io/new:1",
        "phase QUEUED SUCCEEDED after 3 s",
        *(f"| line {number}\\x1b[31m" for number in range(10, 30)),
        "phase BUILD IN_PROGRESS",
        "| pushed \\x1b[31m",
        "phase BUILD SUCCEEDED after 40 s",
        "COPIED     gcr.io/new:1",
    ]


@pytest.mark.parametrize(
    ("last", "code"),
    [
        pytest.param(replace(COPYING, status=Status.FAILED, error=REASON), 1, id="failed"),
        pytest.param(replace(COPYING, status=Status.COPIED, digest=DIGEST), 0, id="copied"),
        pytest.param(
            replace(COPYING, status=Status.COPIED, digest=DIGEST, error=REASON), 1, id="a-refresh-that-has-failed"
        ),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_following_one_image_ends_with_its_copy_or_its_failure(
    last: Record,
    code: int,
    output: str,
    table: Operated,
    refuse: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse("codebuild", "BatchGetBuilds")
    changed(table, monkeypatch, COPYING, replace(COPYING, updated_at=NOON), last)
    result = run("status", "--watch", "nginx:1.27", "-o", output)
    assert result.exit_code == code, result.output
    if output == "json":
        assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["COPYING", last.status]
        assert result.stderr.count("Note: it is not known which builds run and which wait: global account") == 1
    else:
        lines = [line.split("  ", 1)[1] for line in result.stdout.splitlines()]
        assert lines == [change(None, COPYING), change(None, last)]
        assert result.stderr.count("Note: global account (profile global): BatchGetBuilds: AccessDenied") == 1


@pytest.mark.usefixtures("table")
def test_an_image_that_can_have_no_copy_is_not_followed() -> None:
    result = run("status", "-w", "gcr.io/x:sha256-" + "a" * 64)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no record" in result.stderr


def test_a_record_that_is_removed_while_it_is_followed_is_told(
    table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"repo": {"S": WAITING.repo}, "tag": {"S": WAITING.tag}}
    turns(monkeypatch, lambda: table.cloud.dynamodb.delete_item(TableName=TABLE, Key=key) and None)
    result = run("status", "-w", "quay.io/waiting:1")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("  GONE       quay.io/waiting:1")


def test_a_copy_whose_refresh_had_failed_before_it_was_watched_is_there(
    table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(table, monkeypatch, replace(COPIED, error=REASON))
    assert run("status", "-w", "gcr.io/fine:1").exit_code == 0


@pytest.mark.parametrize("height", [10, 14, 40])
@pytest.mark.parametrize("width", [50, 100])
@pytest.mark.parametrize("wide", [False, True])
def test_a_frame_fits_the_terminal_and_keeps_what_needs_attention_most(height: int, width: int, wide: bool) -> None:
    console = Console(width=width, height=height, file=io.StringIO())
    reading = Reading(BY_ATTENTION, {BUILD: True})
    text = status_watch.frame(reading, "", NOON, console, everything=True, wide=wide)
    assert len(text.wrap(console, width)) <= height
    names = ("gcr.io/broken:1", "waiting:1", "nginx", "redis", "old:1", "fine")
    images = [image for image in names if image in text.plain]
    left = len(BY_ATTENTION) - len(images)
    assert tuple(images) == names[: len(images)]
    assert (f"and {left} more, which need attention less" in text.plain) is (left > 0)
    assert left == 0 or height < 40 or wide
    assert "3 requested: 2 queued, 1 to be tried again" in text.plain


@pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 20), (40, 6), (80, 24)])
def test_the_entry_that_needs_attention_most_is_cut_if_it_does_not_fit(width: int, height: int) -> None:
    long = replace(FAILED, error="UNEXPLAINED: " + "some words of a log " * 100)
    console = Console(width=width, height=height, file=io.StringIO())
    text = status_watch.frame(Reading([long, *BY_ATTENTION[1:]]), "", NOON, console)
    lines = [line.plain for line in text.wrap(console, width)]
    assert len(lines) <= height
    assert "gcr.io/broken:1" in text.plain
    assert [line for line in lines if line.endswith("...")] == [lines[-1]]
    assert "and 4 more, which need attention less" in " ".join(text.plain.split())


def test_a_frame_counts_the_copies_that_are_in_order() -> None:
    console = Console(width=80, height=40, file=io.StringIO())
    text = status_watch.frame(Reading(BY_ATTENTION), "", NOON, console)
    assert "1 COPIED not shown (--all)" in text.plain
    assert "gcr.io/fine:1" not in text.plain
    text = status_watch.frame(Reading([COPIED]), "", NOON, console)
    assert text.plain.splitlines()[1:] == ["1 COPIED not shown (--all)"]


def test_a_frame_says_why_it_is_an_older_reading_and_why_builds_are_not_known() -> None:
    console = Console(width=80, height=40, file=io.StringIO())
    text = status_watch.frame(Reading(BY_ATTENTION, {}, "denied"), "no network", NOON, console)
    assert "the records cannot be read now: no network" in text.plain
    assert "it is not known which builds run and which wait: denied" in text.plain


ON_A_TERMINAL = """
import sys
from image_mirror.cli import app
from support.recorded import record
from image_mirror.record import Status
from image_mirror.cli.commands.status import command
from image_mirror.cli.commands.status.watch import Reading
from image_mirror.cli.output import Output
command._show(Reading([
    record({long!r}, Status.FAILED, error="NOT_FOUND: " + "manifest unknown " * 9),
    record("registry.k8s.io/ingress-nginx/controller:v1.12.1", Status.COPYING),
    record("gcr.io/fine:1"),
    record("gcr.io/fine:2"),
]), Output({output!r}), everything={everything})
"""


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, program: str) -> list[str]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests"))))
    monkeypatch.setenv("COLUMNS", str(width))
    reader, writer = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=writer, check=True)
    os.close(writer)
    text = os.read(reader, 100_000).decode().replace("\r", "")
    os.close(reader)
    return text.splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("output", ["table", "wide"])
def test_a_terminal_gets_colours_no_broken_word_and_a_count_of_what_is_in_order(
    width: int, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "gcr.io/" + "a/" * 30 + "b:1"
    lines = on_a_terminal(monkeypatch, width, ON_A_TERMINAL.format(long=long, output=output, everything=False))
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert [line for line in plain if len(line) > width and max(map(len, line.split())) <= width] == []
    assert plain[0].split() == ["STATE", "TRY", "NEXT", "AGE", "IMAGE"]
    [failed] = [number for number, line in enumerate(lines) if line.startswith("\x1b[31mFAILED\x1b[0m")]
    [copying] = [number for number, line in enumerate(lines) if line.startswith("\x1b[36mCOPYING\x1b[0m")]
    assert copying < failed
    assert long in " ".join(plain[failed : failed + 2]).split()
    assert " ".join(plain).count("manifest") == 9
    assert any(BUILD in line for line in plain) is (output == "wide")
    assert any(f"{REGISTRY}/mirror/{long}" in line for line in plain) is (output == "wide")
    assert "2 COPIED not shown (--all)" in plain
    assert "gcr.io/fine:1" not in " ".join(plain)
    assert plain[-2] == "4 records: 1 FAILED, 1 COPYING, 2 COPIED"


def test_a_terminal_shows_all_if_it_is_asked_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    program = ON_A_TERMINAL.format(long="gcr.io/x:1", output="table", everything=True)
    lines = on_a_terminal(monkeypatch, 240, program)
    assert [line.split()[0] for line in lines[1:3]] == ["\x1b[32mCOPIED\x1b[0m"] * 2
    assert lines[0].endswith("REASON\x1b[0m")
    assert "not shown" not in " ".join(lines)


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        pytest.param([], False, "1 COPIED not shown (--all)", id="counted"),
        pytest.param(["gcr.io/*"], False, "1 COPIED not shown (--all)", id="counted-of-a-pattern"),
        pytest.param(["--all"], True, None, id="all"),
        pytest.param(["--state", "COPIED"], True, None, id="its-state"),
        pytest.param(["-o", "json"], True, None, id="for-programs"),
        pytest.param(["--verify"], False, "1 held not shown (--all)", id="verified"),
        pytest.param(["--verify", "--all"], True, None, id="all-verified"),
    ],
)
@pytest.mark.usefixtures("compared")
def test_on_a_terminal_what_is_in_order_is_counted_unless_it_is_asked_for(
    arguments: list[str], shown: bool, hidden: str | None, table: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lost", "archived", "other", "elsewhere"):
        prefix = "before" if name == "elsewhere" else "mirror"
        key = {"repo": {"S": f"{REGISTRY}/{prefix}/gcr.io/{name}"}, "tag": {"S": "1"}}
        table.cloud.dynamodb.delete_item(TableName=TABLE, Key=key)
    monkeypatch.setattr(status_command, "_width", lambda: 200)
    result = run("status", *arguments)
    assert result.exit_code == 0, result.output
    assert ("gcr.io/fine:1" in result.stdout) is shown
    assert [line for line in result.stderr.splitlines() if "not shown" in line] == ([hidden] if hidden else [])


@pytest.mark.parametrize(
    ("found", "code"),
    [
        pytest.param(COPIED, 0, id="copied"),
        pytest.param(OLDER, 0, id="of-an-older-deployment"),
        pytest.param(replace(COPIED, error="the refresh failed"), 0, id="a-refresh-failed"),
        pytest.param(COPYING, 0, id="copying"),
        pytest.param(replace(COPYING, attempts=1), 1, id="refused-by-its-source"),
        pytest.param(replace(REFRESHING, attempts=1), 0, id="a-refresh-refused"),
        pytest.param(replace(WAITING, requested_at=NOON - 2 * HOUR), 0, id="delayed"),
        pytest.param(replace(WAITING, requested_at=NOON - 2 * HOUR - 1), 1, id="without-a-copy-for-two-hours"),
        pytest.param(FAILED, 1, id="failed"),
        pytest.param(replace(COPIED, unexpected=f"{OTHER_DIGEST} {DIGEST} {NOON}"), 1, id="unexpected-push"),
    ],
)
def test_the_exit_code_says_whether_a_record_needs_attention(
    found: Record, code: int, operated: Operated, registry: Registry
) -> None:
    write(operated.cloud.dynamodb, [found])
    for each in (COPIED, REFRESHING):
        registry.push(each.repo.partition("/")[2], each.tag, digest=DIGEST)
    assert run("status", "--exit-code").exit_code == code
    assert run("status").exit_code == 0
    name = found.source.split("@")[0] or found.destination
    assert run("status", "--exit-code", name).exit_code == code
    assert run("status", name).exit_code == 0


@pytest.mark.usefixtures("compared")
def test_a_verification_with_the_exit_code_looks_at_the_other_records_too() -> None:
    assert run("status", "--verify", "--exit-code", "gcr.io/[fb]*").exit_code == 1
    assert run("status", "--verify", "gcr.io/[fb]*").exit_code == 0
    assert run("status", "--verify", "--exit-code", "gcr.io/fine*").exit_code == 0


@pytest.mark.parametrize(
    ("image", "code"),
    [
        pytest.param("gcr.io/fine:1", 0, id="held"),
        pytest.param("gcr.io/lost:1", 1, id="gone"),
        pytest.param("gcr.io/other:1", 1, id="other-digest"),
        pytest.param("gcr.io/elsewhere:1", 0, id="not-asked"),
    ],
)
@pytest.mark.usefixtures("compared", "build")
def test_the_exit_code_of_one_image_says_whether_ecr_has_its_copy(image: str, code: int) -> None:
    name = f"{REGISTRY}/before/{image}" if "elsewhere" in image else image
    assert run("status", "--exit-code", name).exit_code == code


@pytest.mark.parametrize(
    ("image", "do"),
    [
        pytest.param("gcr.io/fine:1", None, id="held"),
        pytest.param("gcr.io/lost:1", "image-mirror retry gcr.io/lost:1", id="gone"),
        pytest.param("gcr.io/other:1", "if nobody of yours has pushed it: image-mirror connect --rotate", id="pushed"),
        pytest.param("quay.io/waiting:1", "wait, or set RegistryAuthSecretArn", id="delayed"),
        pytest.param(
            OLDER.destination,
            "image-mirror warm --cluster, or recreate the pod (kubectl rollout restart)",
            id="older",
        ),
    ],
)
@pytest.mark.usefixtures("compared", "build")
def test_one_image_is_shown_with_what_to_do(image: str, do: str | None) -> None:
    result = run("status", image)
    assert re.findall("^Do: +(.*)$", result.stdout, re.MULTILINE) == [do or "nothing"]
    assert json.loads(run("status", "-o", "json", image).stdout)["do"] == do


@pytest.mark.parametrize(
    ("image", "then"),
    [
        pytest.param("gcr.io/other:1", "", id="pushed"),
        pytest.param("gcr.io/fine:1", ", then image-mirror retry gcr.io/fine:1", id="a push that was noticed"),
    ],
)
@pytest.mark.usefixtures("build")
def test_where_a_role_can_push_its_sessions_are_to_be_ended_and_the_key_is_to_be_deleted_or_replaced(
    compared: Operated, image: str, then: str
) -> None:
    push = {"PushRoleArn": "arn:aws-cn:iam::123456789012:role/push"}
    compared.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS | push, WebhookToken=TOKEN)
    write(compared.cloud.dynamodb, [replace(COPIED, unexpected=f"{OTHER_DIGEST} {DIGEST} {NOON - 2 * HOUR}")])
    do = json.loads(run("status", "-o", "json", image).stdout)["do"]
    assert do == (
        "if nobody of yours has pushed it: end the sessions of PushRole (docs/by-hand.md), and run image-mirror "
        f"connect --federate --delete-keys, or image-mirror connect --rotate if builds still use a key{then}"
    )


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        pytest.param("gcr.io", "gcr.io", id="copied"),
        pytest.param("gcr.io !gcr.io/fine", "gcr.io/fine:1 stays as written: rule !gcr.io/fine", id="left-now"),
        pytest.param(
            "gcr.io=asia.gcr.io",
            "gcr.io/fine:1 is pulled from asia.gcr.io/fine:1: rule gcr.io=asia.gcr.io",
            id="elsewhere-now",
        ),
    ],
)
@pytest.mark.usefixtures("build")
def test_one_image_is_shown_with_what_the_deployed_rules_do_now(rules: str, rule: str, table: Operated) -> None:
    table.deploy(
        "sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, WebhookToken=TOKEN, MirrorRules=rules
    )
    shown = json.loads(run("status", "-o", "json", "gcr.io/fine:1").stdout)["rule"]
    assert shown == rule
    assert f"rule        {rule}\n" in run("status", "gcr.io/fine:1").stdout


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        pytest.param(None, FAILED, f"FAILED     gcr.io/broken:1  {REASON}", id="new"),
        pytest.param(FAILED, None, "GONE       gcr.io/broken:1", id="gone"),
        pytest.param(
            OLDER,
            replace(OLDER, source="quay.io/old:1", status=Status.REQUESTED),
            "REQUESTED  quay.io/old:1",
            id="adopted",
        ),
        pytest.param(COPYING, replace(COPYING, updated_at=0, due_at=0), None, id="looked-at"),
        pytest.param(
            WAITING,
            replace(WAITING, attempts=1),
            "REQUESTED  quay.io/waiting:1  RATE_LIMITED: toomanyrequests",
            id="attempt",
        ),
    ],
)
def test_a_change_is_what_people_would_call_one(before: Record | None, after: Record | None, line: str | None) -> None:
    assert change(before, after) == line


def test_the_counts_of_thousands_are_readable() -> None:
    assert summary([COPIED] * 4_997 + [FAILED] * 3) == "5,000 records: 3 FAILED, 4,997 COPIED"


def test_a_copy_that_is_well_has_one_line() -> None:
    def lines(each: Record) -> int:
        return len(listing([each, COPYING], {}, NOON, 60, wide=False)[1])

    assert lines(COPIED) == 1
    assert lines(replace(COPIED, error="the refresh failed")) == 2


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        pytest.param(-5, "0s", id="a-clock-behind"),
        pytest.param(59_999, "59s", id="seconds"),
        pytest.param(12 * MINUTE + 5_000, "12m", id="minutes"),
        pytest.param(3 * HOUR, "3h", id="hours"),
        pytest.param(47 * HOUR + 59 * MINUTE, "47h59m", id="hours-and-minutes"),
        pytest.param(48 * HOUR, "2d", id="days"),
        pytest.param(100 * HOUR, "4d4h", id="days-and-hours"),
    ],
)
def test_lengths_of_time(milliseconds: int, text: str) -> None:
    assert span(milliseconds) == text


def test_moments_say_how_far_away_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert moment(1_700_000_000_000, 1_700_000_000_000 + HOUR) == "2023-11-15T06:13:20+08:00 (1h ago)"
        assert moment(1_700_000_000_000, 1_700_000_000_000 - MINUTE) == "2023-11-15T06:13:20+08:00 (in 1m)"
        assert moment(0, 5) == "-"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("width", [80, 90, 100, 120])
def test_a_reason_in_chinese_makes_no_line_wider_than_the_terminal(width: int) -> None:
    reason = "DENIED: " + "\u955c\u50cf\u4e0d\u5b58\u5728\uff0c\u8bf7\u68c0\u67e5\u540d\u79f0" * 3
    shown = listing([record("gcr.io/a:1", Status.FAILED, error=reason)], {}, now(), width, wide=False)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for entry in shown for line in entry]
    assert max(map(columns_of, lines)) <= width
    assert "\u540d\u79f0" in "".join(lines)
