"""`image-mirror retry` and `forget`: the records they write, those they leave, and writes by others meanwhile."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from image_mirror import reconciler
from image_mirror.build_result import read_build
from image_mirror.cli import terminal, waiting
from image_mirror.codebuild import Builds
from image_mirror.decisions import Mirror
from image_mirror.lifecycle import Step, next_step
from image_mirror.record import (
    HOUR,
    MINUTE,
    MOST_ATTEMPTS,
    Build,
    Lane,
    Policy,
    Record,
    Status,
    asked_again,
    idempotency_token,
)
from image_mirror.reference import destination_named, parse_reference
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.table import Records, UnusableRecordError, to_item
from support.clock import NOON
from support.cloud import REGISTRY
from support.ecr_registry import Registry
from support.operators import Operated, Reply
from support.recorded import BUILD, DIGEST, now, record, run, write

TABLE = "ImageListTable"
pytestmark = pytest.mark.usefixtures("noon")

FAILED = record("gcr.io/broken:1", Status.FAILED, hours=3, at=NOON)
WAITING = record(
    "quay.io/waiting:1", Status.REQUESTED, hours=5, error="NOT_FOUND", waits=2, attempts=3, build_id=BUILD, at=NOON
)
DUE = record("quay.io/due:1", Status.REQUESTED, due_at=NOON - 1, at=NOON)
COPYING = record("nginx:1.27", Status.COPYING, at=NOON)
REFRESHING = record("redis:7", Status.COPYING, digest=DIGEST, at=NOON)
REFRESH_ASKED = record("redis:6", Status.REQUESTED, digest=DIGEST, due_at=NOON - 1, at=NOON)
COPIED = record("gcr.io/fine:1", Status.COPIED, at=NOON)
OLDER = Record(repo=f"{REGISTRY}/mirror/quay.io/old", tag="1")
ALL = (FAILED, WAITING, DUE, COPYING, REFRESHING, REFRESH_ASKED, COPIED, OLDER)
MIRROR = Mirror(REGISTRY, "mirror", parse_rules(DEFAULT_RULES))


@pytest.fixture
def records(operated: Operated, registry: Registry) -> Records:
    write(operated.cloud.dynamodb, ALL)
    registry.push("mirror/gcr.io/fine", "1", digest=DIGEST)
    return Records(operated.cloud.dynamodb, TABLE)


def read(records: Records, record: Record) -> Record | None:
    return records.get(record.repo, record.tag)


def of_status(*statuses: Status | None) -> st.SearchStrategy[Record]:
    return st.builds(
        Record,
        repo=st.just("r/x"),
        tag=st.just("1"),
        source=st.just("gcr.io/x:1"),
        status=st.sampled_from(statuses),
        requested_at=st.integers(0, 2_000),
        updated_at=st.integers(0, 2_000),
        attempts=st.integers(0, 5),
        waits=st.integers(0, 9),
        build_id=st.none() | st.just(BUILD),
        digest=st.none() | st.just(DIGEST),
        error=st.none() | st.just("NOT_FOUND"),
        due_at=st.none() | st.integers(0, 2_000),
    )


@given(of_status(Status.FAILED, Status.REQUESTED), st.integers(0, 2_000))
def test_a_copy_requested_again_starts_at_once_with_all_its_attempts(record: Record, now: int) -> None:
    again = asked_again(record, now)
    if again is None:
        assert record.status is Status.REQUESTED
        assert (record.due_at or 0) <= now
        return
    assert next_step(again, None, now, Policy()) == Step.START
    assert (again.attempts, again.waits, again.error, again.due_at) == (0, 0, None, now)
    assert (again.digest, again.source, again.destination) == (record.digest, record.source, record.destination)


@given(of_status(*Status), st.integers(0, 2_000))
def test_a_copy_that_ecr_lost_is_made_again_and_nothing_is_believed_of_the_lost_one(record: Record, now: int) -> None:
    again = asked_again(record, now, lost=True)
    assert again is not None
    assert (again.digest, again.pushed, again.signatures, again.open_build) == (None, None, None, None)
    if record.status is Status.COPYING:
        assert again == replace(record, digest=None, updated_at=now), "its build continues"
    else:
        assert again.status is Status.REQUESTED
        assert next_step(again, None, now, Policy()) == Step.START
    if record.status is Status.COPIED:
        assert (again.requested_at, again.due_at, again.requested_by) == (now, now, None)
        assert now == record.requested_at or idempotency_token(again) != idempotency_token(record)


@given(of_status(None, Status.COPYING, Status.COPIED), st.integers(0, 2_000))
def test_a_running_build_and_an_existing_copy_are_never_requested_again(record: Record, now: int) -> None:
    assert asked_again(record, now) is None


def test_a_failed_copy_is_a_new_request_to_codebuild_and_one_that_waits_keeps_its_age() -> None:
    again = asked_again(FAILED, now())
    assert again is not None
    assert idempotency_token(again) != idempotency_token(FAILED)
    assert again.requested_at > FAILED.requested_at
    waiting = asked_again(WAITING, now())
    assert waiting is not None
    assert waiting.requested_at == WAITING.requested_at


def test_a_new_request_by_an_operator_names_no_pod_and_one_that_is_hurried_keeps_its_pod() -> None:
    again = asked_again(replace(FAILED, requested_by="shop/Pod/p"), now())
    hurried = asked_again(replace(WAITING, requested_by="shop/Pod/p"), now())
    assert again is not None
    assert hurried is not None
    assert (again.requested_by, hurried.requested_by) == (None, "shop/Pod/p")


MARKED = record("gcr.io/fine:1", Status.COPIED, at=NOON, unexpected=f"sha256:{'b' * 64} {DIGEST} {NOON - HOUR}")


@pytest.mark.parametrize(
    "arguments", [["gcr.io/fine:1"], ["--unexpected"], ["--unexpected", "gcr.io/*"]], ids=["named", "all", "of a glob"]
)
def test_a_copy_with_an_unexpected_push_is_made_again_and_stays_in_use_until_then(
    records: Records, operated: Operated, arguments: list[str]
) -> None:
    write(operated.cloud.dynamodb, [MARKED])
    reason = "none of our builds made its latest push"
    dry = run("retry", "--dry-run", *arguments)
    assert (dry.exit_code, dry.stdout) == (0, f"gcr.io/fine:1: would be requested again: {reason}\n")
    assert read(records, MARKED) == MARKED
    result = run("retry", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"gcr.io/fine:1: requested again: {reason}\n")
    after = read(records, MARKED)
    assert after is not None
    assert next_step(after, None, now(), Policy()) == Step.START
    assert (after.digest, after.unexpected) == (DIGEST, MARKED.unexpected)
    assert read(records, FAILED) == FAILED
    assert idempotency_token(after) != idempotency_token(MARKED)


def test_without_an_unexpected_push_nothing_is_requested_again(records: Records) -> None:
    result = run("retry", "--unexpected")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No copy has an unexpected push.\n")
    assert read(records, COPIED) == COPIED


def test_each_image_is_requested_again_or_the_reason_is_printed(records: Records) -> None:
    result = run("retry", *(each.source or each.destination for each in ALL))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "gcr.io/broken:1: requested again",
        "quay.io/waiting:1: requested again",
        "quay.io/due:1: unchanged: it is already due and starts when a build is free",
        f"docker.io/library/nginx:1.27: unchanged: its build {BUILD} is running",
        f"docker.io/library/redis:7: unchanged: its build {BUILD} is running",
        "docker.io/library/redis:6: unchanged: it is already due and starts when a build is free",
        "gcr.io/fine:1: unchanged: ECR holds it; after `image-mirror forget` the next pod requests it again",
        f"{OLDER.destination}: unchanged: an older deployment wrote its record; the next pod requests it",
    ]
    for before in (FAILED, WAITING):
        after = read(records, before)
        assert after is not None
        assert (after.status, after.attempts, after.waits, after.error) == (Status.REQUESTED, 0, 0, None)
        assert after.due_at == now()
    for before in (DUE, COPYING, REFRESHING, COPIED, OLDER):
        assert read(records, before) == before


@pytest.mark.parametrize(
    ("named", "code", "images"),
    [
        pytest.param(["gcr.io/*"], 0, ["gcr.io/broken:1"], id="a-pattern"),
        pytest.param(["gcr.io/fine:1"], 0, [], id="one-that-has-not-failed"),
        pytest.param(["gcr.io/broken:1", "gcr.io/no:1"], 1, ["gcr.io/broken:1"], id="one-without-a-record"),
    ],
)
def test_failed_copies_can_be_named(
    named: list[str], code: int, images: list[str], records: Records, operated: Operated
) -> None:
    write(operated.cloud.dynamodb, [record("quay.io/broken:1", Status.FAILED, at=NOON)])
    result = run("retry", "--failed", *named)
    assert result.exit_code == code
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == images
    assert ("No copy is FAILED." in result.stderr) is (not images)
    still = read(records, record("quay.io/broken:1"))
    assert still is not None
    assert still.status is Status.FAILED


def test_every_failed_copy_is_requested_again_and_no_other(records: Records, operated: Operated) -> None:
    write(operated.cloud.dynamodb, [record(f"gcr.io/broken:{number}", Status.FAILED) for number in range(40)])
    result = run("retry", "--failed")
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == sorted(f"gcr.io/broken:{n}: requested again" for n in range(40))
    assert read(records, WAITING) == WAITING
    result = run("retry", "--failed")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No copy is FAILED.\n")


def test_a_dry_run_says_the_same_and_writes_nothing(records: Records) -> None:
    result = run("retry", "--dry-run", "gcr.io/*")
    assert sorted(result.stdout.splitlines()) == [
        "gcr.io/broken:1: would be requested again",
        "gcr.io/fine:1: unchanged: ECR holds it; after `image-mirror forget` the next pod requests it again",
    ]
    assert read(records, FAILED) == FAILED
    result = run("forget", "--dry-run", "nginx:1.27", "gcr.io/fine:1")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "gcr.io/fine:1: would be forgotten"
    assert read(records, COPIED) == COPIED


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["written", "dry-run"])
def test_what_the_stack_no_longer_serves_is_reported_and_not_written(
    dry_run: list[str], records: Records, operated: Operated
) -> None:
    old = replace(FAILED, repo=f"{REGISTRY}/mirrors/gcr.io/broken")
    there = replace(COPIED, repo=f"{REGISTRY}/before/gcr.io/fine")
    write(operated.cloud.dynamodb, [old, there])
    result = run("retry", *dry_run, old.destination, there.destination)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"gcr.io/broken:1: unchanged: its copy's name, {old.destination}, does not begin with {REGISTRY}/mirror/, "
        "so the stack no longer serves it; `image-mirror forget` removes its record",
        f"gcr.io/fine:1: unchanged: its copy's name, {there.destination}, does not begin with {REGISTRY}/mirror/, "
        "so the stack no longer serves it; `image-mirror forget` removes its record",
    ]
    assert (read(records, old), read(records, there)) == (old, there)
    assert run("retry", *dry_run, there.destination).exit_code == 0, "there is nothing to start for a copy"


@pytest.mark.parametrize("command", ["retry", "forget"])
@pytest.mark.usefixtures("records")
def test_an_image_without_a_record_ends_with_1_and_the_others_are_done(command: str) -> None:
    named = ["gcr.io/broken:1", "gcr.io/broken:1", "gcr.io/none:1", "lscr.io/*", "gcr.io/x:sha256-" + "a" * 64]
    result = run(command, *named)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    lines = result.stderr.splitlines()
    assert [line.split(": no record")[0] for line in lines] == [f"Error: {image}" for image in named[2:]]
    whole = "a glob must match the whole name, such as docker.io/library/nginx:1.29; `image-mirror status` lists"
    assert [whole in line for line in lines] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["retry"], "give images, --failed, --gone or --unexpected", id="nothing"),
        pytest.param(
            ["retry", "--failed", "--gone"],
            "--failed: cannot be combined with --gone or --unexpected",
            id="both-options",
        ),
        pytest.param(["retry", "--failed", "--unexpected"], "--gone or --unexpected", id="failed-with-unexpected"),
        pytest.param(
            ["retry", "--gone", "--unexpected"],
            "--unexpected: cannot be combined with --gone",
            id="gone-with-unexpected",
        ),
        pytest.param(
            ["retry", "gcr.io/broken:1", "gcr.io/X:1"], "the repository has upper case", id="retry-no-reference"
        ),
        pytest.param(
            ["forget", "gcr.io/fine:1", "gcr.io/x:"], "'gcr.io/x:' is not an image reference", id="no-reference"
        ),
        pytest.param(["forget"], "Missing argument", id="forget-nothing"),
        pytest.param(
            ["retry", "--failed", "--wait", "--dry-run"], "--wait: cannot be combined with --dry-run", id="wait-dry-run"
        ),
        pytest.param(["retry", "--failed", "--timeout", "5"], "--timeout: needs --wait", id="time-without-wait"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(arguments: list[str], words: str, records: Records) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert (read(records, FAILED), read(records, COPIED)) == (FAILED, COPIED)


def test_forget_removes_a_record_and_needs_force_while_a_build_runs(records: Records) -> None:
    named = [each.source or each.destination for each in ALL]
    result = run("forget", *named)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines == [
        "gcr.io/broken:1: forgotten",
        "quay.io/waiting:1: unchanged: pods may be waiting for it; --force forgets it anyway",
        "quay.io/due:1: unchanged: pods may be waiting for it; --force forgets it anyway",
        f"docker.io/library/nginx:1.27: unchanged: its build {BUILD} is running; --force forgets it anyway",
        f"docker.io/library/redis:7: unchanged: its build {BUILD} is running; --force forgets it anyway",
        "docker.io/library/redis:6: forgotten",
        "gcr.io/fine:1: forgotten",
        f"{OLDER.destination}: forgotten",
    ]
    for before, line in zip(ALL, lines, strict=True):
        assert read(records, before) == (None if line.endswith("forgotten") else before)
    result = run("forget", "--force", "quay.io/*")
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == ["quay.io/due:1: forgotten", "quay.io/waiting:1: forgotten"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[], Any], times: int) -> None:
    """Make somebody else write before each of the first calls of a method of Records."""
    original, left = getattr(Records, method), iter(range(times))

    def racing(self: Records, *arguments: Any) -> Any:
        if next(left, None) is not None:
            change()
        return original(self, *arguments)

    monkeypatch.setattr(Records, method, racing)


@pytest.mark.parametrize(
    ("command", "method", "becomes", "code", "text"),
    [
        pytest.param("retry", "replace", WAITING, 0, "requested again", id="retry-of-what-waits-by-now"),
        pytest.param(
            "retry", "replace", COPYING, 0, f"unchanged: its build {BUILD} is running", id="retry-of-what-is-copied"
        ),
        pytest.param("retry", "replace", COPIED, 0, "unchanged: ECR holds it", id="retry-of-what-has-arrived"),
        pytest.param("retry", "replace", None, 1, "its record was removed in the meantime", id="retry-of-what-is-gone"),
        pytest.param("forget", "remove", COPIED, 0, "forgotten", id="forget-of-what-has-arrived"),
        pytest.param("forget", "remove", COPYING, 1, "unchanged: its build", id="forget-of-what-is-copied"),
        pytest.param("forget", "remove", None, 0, "its record was already removed", id="forget-of-what-is-gone"),
    ],
)
def test_what_the_reconciler_writes_at_the_same_time_is_read_again_and_judged_again(
    command: str,
    method: str,
    becomes: Record | None,
    code: int,
    text: str,
    records: Records,
    operated: Operated,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.push("mirror/gcr.io/broken", "1", digest=DIGEST)

    def change() -> None:
        if becomes is None:
            key = {"repo": {"S": FAILED.repo}, "tag": {"S": FAILED.tag}}
            operated.cloud.dynamodb.delete_item(TableName=TABLE, Key=key)
        else:
            write(operated.cloud.dynamodb, [replace(becomes, repo=FAILED.repo, tag=FAILED.tag, source=FAILED.source)])

    meanwhile(monkeypatch, method, change, times=1)
    result = run(command, "gcr.io/broken:1")
    assert result.exit_code == code
    assert text in result.stdout
    after = read(records, FAILED)
    kept = becomes if command == "retry" or code else None
    assert (after and after.status) == (kept and kept.status)


@pytest.mark.parametrize(("command", "method"), [("retry", "replace"), ("forget", "remove")])
@pytest.mark.usefixtures("records")
def test_a_record_that_changes_at_each_attempt_is_reported(
    command: str, method: str, operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(1_000, 2_000))

    def change() -> None:
        write(operated.cloud.dynamodb, [replace(FAILED, updated_at=next(count))])

    meanwhile(monkeypatch, method, change, times=100)
    result = run(command, "gcr.io/broken:1")
    assert result.exit_code == 1
    assert "unchanged: its record keeps changing; try again" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        pytest.param(["retry", "gcr.io/broken:1"], "GetItem", id="retry-read"),
        pytest.param(["retry", "--failed"], "Scan", id="retry-scan"),
        pytest.param(["retry", "--failed"], "UpdateItem", id="retry-write"),
        pytest.param(["forget", "gcr.io/fine:1"], "DeleteItem", id="forget-write"),
    ],
)
def test_a_denial_ends_with_3_and_the_remedy(
    arguments: list[str], operation: str, records: Records, refuse: Callable[..., None]
) -> None:
    refuse("dynamodb", operation)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"Error: china account (profile china): {operation}: AccessDeniedException" in result.stderr
    assert "ask for this permission" in result.stderr
    assert (read(records, FAILED), read(records, COPIED)) == (FAILED, COPIED)


@pytest.mark.parametrize("command", ["retry", "forget"])
@pytest.mark.usefixtures("records")
def test_no_network_ends_with_3(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    result = run(command, "gcr.io/broken:1")
    assert result.exit_code == 3
    assert "check the network" in result.stderr


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a command has called off what has not begun."""
    event = threading.Event()

    class Threads(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            if cancel_futures:
                super().shutdown(wait=False, cancel_futures=True)
                event.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(terminal, "ThreadPoolExecutor", Threads)
    return event


def test_ctrl_c_prints_what_is_done_and_what_is_not(
    records: Records, operated: Operated, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    write(operated.cloud.dynamodb, [record(f"gcr.io/broken:{number}", Status.FAILED) for number in range(40)])

    begun, replace_ = iter(range(40)), Records.replace
    held = threading.Event()

    def held_back(self: Records, *arguments: Any) -> Any:
        """Let ten writes be done; those that are begun then end after Ctrl-C, and no more may begin."""
        if next(begun) >= 10:
            held.set()
            assert cancelled.wait(60)
        return replace_(self, *arguments)

    def interrupted(futures: Any) -> Any:
        done = as_completed(futures)
        for _ in range(10):
            yield next(done)
        assert held.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "replace", held_back)
    monkeypatch.setattr(terminal, "as_completed", interrupted)
    result = run("retry", "--failed")
    assert result.exit_code == 130
    done = result.stdout.splitlines()
    pages = [each for page in records.pages() for each in page if each.source.startswith("gcr.io/broken")]
    assert len(done) == sum(each.status is Status.REQUESTED for each in pages)
    assert 10 < len(done) <= 10 + terminal.PARALLEL
    assert f"Ended early: {40 - len(done)} of 40 images are unchanged." in result.stderr
    assert "Traceback" not in result.output


def test_after_an_error_nothing_is_begun_and_what_has_begun_ends(cancelled: threading.Event) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("no")
        assert cancelled.wait(60)
        ended.append(number)

    with pytest.raises(ValueError, match="no"):
        terminal.each("working", work, range(100))
    assert sorted(ended) == sorted(begun)[1:]
    assert len(begun) <= terminal.PARALLEL + 1


@pytest.mark.parametrize(
    ("image", "key"),
    [
        pytest.param("nginx", ("docker.io/library/nginx", "latest"), id="short"),
        pytest.param("gcr.io/x:1", ("gcr.io/x", "1"), id="source"),
        pytest.param("mcr.example/x:1", ("mcr.example/x", "1"), id="of-no-rule"),
        pytest.param("r.io:5000/x", ("r.io_5000/x", "latest"), id="port"),
        pytest.param(f"gcr.io/x:1@{DIGEST}", ("gcr.io/x", "digest-sha256-" + "a" * 64), id="digest"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/x:1", ("gcr.io/x", "1"), id="copy"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/x", ("gcr.io/x", "latest"), id="copy-without-tag"),
        pytest.param(
            f"{REGISTRY}/mirror/gcr.io/x@{DIGEST}", ("gcr.io/x", "digest-sha256-" + "a" * 64), id="copy-by-digest"
        ),
        pytest.param(
            f"{REGISTRY}/mirror/gcr.io/x:digest-sha256-" + "a" * 64,
            ("gcr.io/x", "digest-sha256-" + "a" * 64),
            id="copy-by-digest-tag",
        ),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/x:1@{DIGEST}", ("gcr.io/x", "1"), id="copy-by-tag-and-digest"),
        pytest.param(
            f"{REGISTRY}/mirror/gcr.io/x:digest-sha256-{'a' * 64}@{DIGEST}",
            ("gcr.io/x", "digest-sha256-" + "a" * 64),
            id="copy-by-digest-tag-and-digest",
        ),
    ],
)
def test_every_name_of_an_image_leads_to_the_key_of_its_record(image: str, key: tuple[str, str]) -> None:
    destination = destination_named(parse_reference(image), REGISTRY, "mirror")
    assert (destination.repo, destination.tag) == (f"{REGISTRY}/mirror/{key[0]}", key[1])


@pytest.mark.usefixtures("records")
def test_names_are_read_one_by_one_and_the_table_only_for_patterns(refuse: Callable[..., None]) -> None:
    refuse("dynamodb", "Scan")
    assert run("forget", "gcr.io/fine:1").exit_code == 0
    assert run("forget", "gcr.io/*").exit_code == 3


class CodeBuild:
    """The global account's CodeBuild: its builds by ID, each with the copy that it makes, and what was stopped."""

    def __init__(self, answer: Callable[[str, str, Reply], None]) -> None:
        self.builds: dict[str, tuple[str, str]] = {}
        self.asked: list[str] = []
        self.stopped: list[str] = []
        self.at_stop: Callable[[], Any] = lambda: None
        answer("codebuild", "BatchGetBuilds", self._look)
        answer("codebuild", "StopBuild", self._stop)

    def _look(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.asked += wanted["ids"]
        return {
            "builds": [
                {
                    "id": build,
                    "buildStatus": self.builds[build][1],
                    "environment": {
                        "environmentVariables": [
                            {"name": "DOCKER_IMAGE", "value": "x"},
                            {"name": "NEW_DOCKER_IMAGE", "value": self.builds[build][0]},
                        ]
                    },
                }
                for build in wanted["ids"]
                if build in self.builds
            ]
        }

    def _stop(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.stopped.append(wanted["id"])
        self.at_stop()
        return {"build": {"id": wanted["id"]}}


@pytest.fixture
def codebuild(answer: Callable[[str, str, Reply], None]) -> CodeBuild:
    made = CodeBuild(answer)
    made.builds[BUILD] = (COPYING.destination, "IN_PROGRESS")
    return made


OTHER_BUILD = "ImagePullProject:00000000-b1c0-462e-b45d-be6db350d519"


def test_forget_by_force_stops_the_build_of_a_copy_that_is_being_made_and_no_other(
    records: Records, operated: Operated, codebuild: CodeBuild
) -> None:
    codebuild.builds[OTHER_BUILD] = (COPIED.destination, "IN_PROGRESS")
    signing = replace(COPIED, open_build=OTHER_BUILD, build_id=OTHER_BUILD)
    write(operated.cloud.dynamodb, [signing, replace(WAITING, build_id=OTHER_BUILD)])
    dry = run("forget", "--force", "--dry-run", "nginx:1.27")
    assert (dry.exit_code, dry.stdout) == (
        0,
        f"docker.io/library/nginx:1.27: would be forgotten; its build {BUILD} would be stopped\n",
    )
    assert (codebuild.stopped, read(records, COPYING)) == ([], COPYING)
    result = run("forget", "--force", "nginx:1.27", "gcr.io/fine:1", "quay.io/waiting:1")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            f"docker.io/library/nginx:1.27: forgotten; its build {BUILD} is stopped",
            "gcr.io/fine:1: forgotten",
            "quay.io/waiting:1: forgotten",
        ],
    )
    assert codebuild.stopped == [BUILD]
    assert [read(records, each) for each in (COPYING, COPIED, WAITING)] == [None] * 3


def test_forget_by_force_stops_a_build_of_the_fast_lane_too(
    records: Records, operated: Operated, codebuild: CodeBuild
) -> None:
    build = "ImagePullProjectFast:00000000-b1c0-462e-b45d-be6db350d519"
    codebuild.builds[build] = (COPYING.destination, "IN_PROGRESS")
    write(operated.cloud.dynamodb, [replace(COPYING, build_id=build, lane=Lane.FAST, claimed_at=NOON)])
    result = run("forget", "--force", "nginx:1.27")
    assert result.stdout == f"docker.io/library/nginx:1.27: forgotten; its build {build} is stopped\n"
    assert (codebuild.stopped, read(records, COPYING)) == ([build], None)


def test_without_force_no_build_is_looked_at(records: Records, codebuild: CodeBuild) -> None:
    assert run("forget", "nginx:1.27", "gcr.io/fine:1").exit_code == 1
    assert (codebuild.asked, codebuild.stopped, read(records, COPYING)) == ([], [], COPYING)


@pytest.mark.parametrize(
    ("build", "code", "text"),
    [
        pytest.param((COPYING.destination, "SUCCEEDED"), 0, "has already ended", id="ended"),
        pytest.param(
            (COPIED.destination, "IN_PROGRESS"),
            1,
            "is not stopped, because its variables do not name this copy",
            id="other",
        ),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["written", "dry-run"])
def test_what_is_not_the_running_build_of_this_copy_is_not_stopped_and_the_record_is_removed(
    build: tuple[str, str] | None, code: int, text: str, dry_run: list[str], records: Records, codebuild: CodeBuild
) -> None:
    codebuild.builds = {BUILD: build} if build else {}
    result = run("forget", "--force", *dry_run, "nginx:1.27")
    words = "would be forgotten" if dry_run else "forgotten"
    assert result.exit_code == code
    assert f"docker.io/library/nginx:1.27: {words}; its build {BUILD} {text}" in result.stdout
    assert (codebuild.stopped, read(records, COPYING)) == ([], COPYING if dry_run else None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        pytest.param(
            [],
            "global account: cn-northwest-1 is not outside China; give --global-profile or --global-region",
            id="none-is-set",
        ),
        pytest.param(["--global-profile", ""], "no profile is given", id="left-out-by-hand"),
    ],
)
def test_without_a_profile_of_the_global_account_the_record_is_removed_and_the_build_that_goes_on_is_named(
    given: list[str], text: str, records: Records, codebuild: CodeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not given:
        monkeypatch.delenv("IMAGE_MIRROR_GLOBAL_PROFILE")
    result = run("forget", "--force", *given, "nginx:1.27", "quay.io/due:1")
    goes_on = f"its build {BUILD} continues, because nobody was asked to stop it: {text}"
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [f"docker.io/library/nginx:1.27: forgotten; {goes_on}", "quay.io/due:1: forgotten"],
    )
    assert (codebuild.asked, read(records, COPYING)) == ([], None)


OR_LEAVE_IT_OUT = "; name the profile of its account, or give --global-profile '' to remove the record only\n"


@pytest.mark.parametrize("way", ["option", "variable", "file"])
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["written", "dry-run"])
def test_a_profile_that_is_named_and_does_not_work_keeps_the_record_of_a_running_build(
    way: str,
    dry_run: list[str],
    records: Records,
    codebuild: CodeBuild,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("IMAGE_MIRROR_GLOBAL_PROFILE")
    given = ["--global-profile", "no-such"] if way == "option" else []
    if way == "variable":
        monkeypatch.setenv("IMAGE_MIRROR_GLOBAL_PROFILE", "no-such")
    if way == "file":
        (tmp_path / "named.toml").write_text('global-profile = "no-such"\n')
        monkeypatch.setenv("IMAGE_MIRROR_CONFIG", str(tmp_path / "named.toml"))
    result = run("forget", "--force", *dry_run, *given, "nginx:1.27")
    words = "would be unchanged" if dry_run else "unchanged"
    missing = "global account (profile no-such): The config profile (no-such) could not be found; "
    assert result.stdout == (
        f"docker.io/library/nginx:1.27: {words}; its build {BUILD} may continue: {missing}"
        + "`aws configure list-profiles` prints the existing ones"
        + OR_LEAVE_IT_OUT
    )
    assert (result.exit_code, codebuild.asked, read(records, COPYING)) == (1, [], COPYING)


@pytest.mark.parametrize("operation", ["BatchGetBuilds", "StopBuild"])
def test_a_build_that_may_not_be_stopped_keeps_the_record_and_is_named_with_the_permission(
    operation: str, records: Records, codebuild: CodeBuild, refuse: Callable[..., None]
) -> None:
    refuse("codebuild", operation)
    result = run("forget", "--force", "nginx:1.27")
    assert result.exit_code == 1
    assert f"unchanged; its build {BUILD} may continue: global account (profile global): {operation}: " in result.stdout
    assert "ask for this permission" in result.stdout
    assert result.stdout.endswith(OR_LEAVE_IT_OUT)
    assert (codebuild.stopped, read(records, COPYING)) == ([], COPYING)


def test_a_build_that_the_account_does_not_know_keeps_the_record(records: Records, codebuild: CodeBuild) -> None:
    codebuild.builds = {}
    result = run("forget", "--force", "nginx:1.27")
    assert result.exit_code == 1
    unknown = "is not stopped: global account (profile global): CodeBuild in us-west-2 has no such build"
    assert f"unchanged; its build {BUILD} {unknown}" in result.stdout
    assert result.stdout.endswith(OR_LEAVE_IT_OUT)
    assert read(records, COPYING) == COPYING


@pytest.mark.usefixtures("codebuild")
def test_a_page_of_a_proxy_in_place_of_codebuild_keeps_the_record(
    records: Records, answer: Callable[[str, str, Reply], None]
) -> None:
    def page(_: dict[str, Any]) -> dict[str, Any]:
        raise ResponseParserError("<html>")

    answer("codebuild", "StopBuild", page)
    result = run("forget", "--force", "nginx:1.27")
    assert result.exit_code == 1
    assert "may continue: the answer is not from AWS, perhaps from a proxy" in result.stdout
    assert read(records, COPYING) == COPYING


def test_if_the_reconciler_starts_the_copy_again_meanwhile_the_new_build_is_stopped_too(
    records: Records, operated: Operated, codebuild: CodeBuild
) -> None:
    codebuild.builds[OTHER_BUILD] = (COPYING.destination, "IN_PROGRESS")
    codebuild.at_stop = lambda: write(operated.cloud.dynamodb, [replace(COPYING, build_id=OTHER_BUILD, attempts=1)])
    result = run("forget", "--force", "nginx:1.27")
    assert (result.exit_code, result.stdout) == (
        0,
        f"docker.io/library/nginx:1.27: forgotten; its build {BUILD} is stopped; its build {OTHER_BUILD} is stopped\n",
    )
    assert codebuild.stopped == [BUILD, OTHER_BUILD]
    assert read(records, COPYING) is None


class Lambda:
    """The context of the reconciler's invocations."""

    def get_remaining_time_in_millis(self) -> int:
        return 120_000


def reconcile(at: int, event: dict[str, Any] | None = None) -> None:
    """Run the reconciler at a time: for an event, or else as the schedule does."""
    with time_machine.travel(at / 1000, tick=False):
        reconciler.handler(event or {}, Lambda())


@pytest.fixture
def started(records: Records, operated: Operated, codebuild: CodeBuild) -> Iterator[Record]:
    """The record of a copy whose build the reconciler has started on the emulated CodeBuild."""
    reconciler.load.cache_clear()
    asked = replace(DUE, build_id=None, due_at=NOON)
    write(operated.cloud.dynamodb, [asked])
    reconcile(NOON)
    made = read(records, asked)
    assert made is not None
    assert made.status is Status.COPYING
    codebuild.builds = {made.build_id or "": (made.destination, "IN_PROGRESS")}
    codebuild.at_stop = lambda: operated.cloud.codebuild.stop_build(id=made.build_id or "")
    yield made
    reconciler.load.cache_clear()


def test_a_crash_after_the_stop_loses_nothing_because_the_reconciler_starts_the_copy_again(
    records: Records,
    codebuild: CodeBuild,
    started: Record,
    refuse: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_up(_: Builds, ids: Sequence[str]) -> dict[str, Build]:  # moto says of every build that it succeeded
        phase = {"phaseType": "BUILD", "phaseStatus": "STOPPED"}
        ended = {"buildStatus": "STOPPED", "currentPhase": "COMPLETED", "phases": [phase]}
        return {
            each: read_build(ended if each in codebuild.stopped else {"buildStatus": "IN_PROGRESS"}) for each in ids
        }

    monkeypatch.setattr(Builds, "look_up", look_up)
    refuse("dynamodb", "DeleteItem", "InternalServerError", "the command ends here")
    result = run("forget", "--force", started.source)
    assert (result.exit_code, codebuild.stopped) == (3, [started.build_id])
    assert read(records, started) == started
    reconcile(NOON + MINUTE)
    waits = read(records, started)
    assert waits is not None
    assert (waits.status, waits.error) == (Status.REQUESTED, "the build was stopped by hand")
    reconcile(NOON + 3 * MINUTE)
    again = read(records, started)
    assert again is not None
    assert again.status is Status.COPYING
    assert again.build_id not in (None, started.build_id)


def test_after_the_removal_no_late_event_writes_the_record_or_starts_a_build_again(
    records: Records, operated: Operated, codebuild: CodeBuild, started: Record
) -> None:
    assert run("forget", "--force", started.source).exit_code == 0
    assert (codebuild.stopped, read(records, started)) == ([started.build_id], None)
    repository, cloud = started.repo.partition("/")[2], operated.cloud
    cloud.push(repository, started.tag)
    builds = cloud.codebuild.list_builds()["ids"]
    keys = {"repo": {"S": started.repo}, "tag": {"S": started.tag}}
    change = {"Keys": keys, "NewImage": to_item(started), "SequenceNumber": "1"}
    pushed = {"result": "SUCCESS", "repository-name": repository, "image-tag": started.tag}
    reconcile(NOON + 1, {"source": "aws.ecr", "detail": pushed})
    reconcile(NOON + 2, {"Records": [{"dynamodb": change}]})
    reconcile(NOON + MINUTE)
    assert read(records, started) is None
    assert cloud.codebuild.list_builds()["ids"] == builds


class Working:
    """Does in each pause of --wait what the reconciler does: `steps` has the records to write, by turns."""

    def __init__(self, operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operated = operated
        self.steps: list[Sequence[Record]] = []
        self.seconds = 0.0
        monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=self._sleep, monotonic=lambda: self.seconds))

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.steps:
            write(self.operated.cloud.dynamodb, self.steps.pop(0))


@pytest.fixture
def working(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> Working:
    return Working(operated, monkeypatch)


def made_of(record: Record, status: Status, **changes: Any) -> Record:
    cleared: dict[str, Any] = {"error": None, "attempts": 0, "waits": 0, "digest": None, "updated_at": NOON + 1}
    return replace(record, **{**cleared, "status": status, "due_at": NOON + HOUR, **changes})


@pytest.mark.usefixtures("records")
def test_a_retry_that_waits_shows_each_change_and_ends_well_with_the_copies(working: Working) -> None:
    working.steps = [
        [made_of(FAILED, Status.COPYING)],
        [made_of(FAILED, Status.COPIED, digest=DIGEST), made_of(COPYING, Status.COPIED, digest=DIGEST)],
    ]
    result = run("retry", "--wait", "gcr.io/*", "nginx:1.27")
    assert result.exit_code == 0, result.output
    assert sorted(result.stderr.splitlines()[:2]) == [
        "COPYING   docker.io/library/nginx:1.27",
        "REQUESTED gcr.io/broken:1",
    ]
    assert sorted(result.stderr.splitlines()[2:-1]) == [
        "COPIED    docker.io/library/nginx:1.27",
        "COPIED    gcr.io/broken:1",
        "COPYING   gcr.io/broken:1",
    ]
    assert result.stderr.splitlines()[-1] == "2 images: 2 there."
    assert sorted(result.stdout.splitlines()[:3]) == [
        f"docker.io/library/nginx:1.27: unchanged: its build {BUILD} is running",
        "gcr.io/broken:1: requested again",
        "gcr.io/fine:1: unchanged: ECR holds it; after `image-mirror forget` the next pod requests it again",
    ]
    assert result.stdout.splitlines()[3] == "STATE   IMAGE                         REASON"
    assert working.seconds == 10


@pytest.mark.usefixtures("records")
def test_a_retry_that_waits_ends_with_1_if_one_copy_fails(working: Working) -> None:
    working.steps = [[made_of(FAILED, Status.FAILED, error="NOT_FOUND: manifest unknown", attempts=1)]]
    result = run("retry", "--wait", "--failed")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "1 image: 1 failed.")
    assert result.stdout.splitlines()[1:] == [
        "STATE   IMAGE            REASON",
        "FAILED  gcr.io/broken:1  NOT_FOUND: manifest unknown",
    ]


def test_a_copy_that_is_made_again_is_waited_for_although_pods_use_the_older_one(
    records: Records, operated: Operated, working: Working
) -> None:
    write(operated.cloud.dynamodb, [MARKED])
    working.steps = [[made_of(MARKED, Status.COPYING, digest=DIGEST)], [made_of(MARKED, Status.COPIED, digest=DIGEST)]]
    assert run("retry", "--wait", "--unexpected").exit_code == 0
    assert working.seconds == 10
    write(operated.cloud.dynamodb, [MARKED])
    working.steps = [[made_of(MARKED, Status.COPIED, digest=DIGEST, error="NOT_FOUND: manifest unknown")]]
    result = run("retry", "--wait", "--unexpected")
    assert result.exit_code == 1
    assert "FAILED  gcr.io/fine:1  NOT_FOUND: manifest unknown; pods use the older copy" in result.stdout.splitlines()
    assert read(records, MARKED) is not None


@pytest.mark.usefixtures("records")
def test_the_waiting_ends_after_the_time_of_the_option_and_with_1(working: Working) -> None:
    result = run("retry", "--wait", "--timeout", "2", "--failed")
    assert (result.exit_code, working.seconds) == (1, 125)
    assert result.stderr.splitlines()[-1] == "1 image: 1 requested."


@pytest.mark.usefixtures("records")
def test_nothing_is_waited_for_if_nothing_is_being_made(working: Working) -> None:
    assert run("retry", "--wait", "gcr.io/fine:1").exit_code == 0
    result = run("retry", "--wait", "gcr.io/none:1")
    assert (result.exit_code, working.seconds) == (1, 0)


@pytest.mark.usefixtures("records")
def test_a_name_without_a_record_ends_with_1_after_the_others_have_been_waited_for(working: Working) -> None:
    working.steps = [[made_of(FAILED, Status.COPIED, digest=DIGEST)]]
    result = run("retry", "--wait", "gcr.io/broken:1", "gcr.io/none:1")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "1 image: 1 there.")


@pytest.mark.usefixtures("records")
def test_ctrl_c_says_that_the_copies_continue(working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=interrupt, monotonic=lambda: working.seconds))
    result = run("retry", "--wait", "--failed")
    assert result.exit_code == 130
    assert "The requested copies continue" in result.stderr


LOST = record("gcr.io/lost:1", Status.COPIED, at=NOON, pushed=DIGEST, signatures="1", open_build=BUILD, error="x")
IN_NO_REPOSITORY = record("quay.io/none:1", Status.COPIED, at=NOON)
ARCHIVED = record("gcr.io/archived:1", Status.COPIED, at=NOON)
OTHER = record("gcr.io/other:1", Status.COPIED, at=NOON)
BY_DIGEST = record(f"gcr.io/pinned@{DIGEST}", Status.COPIED, at=NOON)
MOVED = record(f"gcr.io/moved@{DIGEST}", Status.COPIED, at=NOON)
ELSEWHERE = replace(COPIED, repo=f"{REGISTRY}/before/gcr.io/elsewhere", source="gcr.io/elsewhere:1")
COMPARED = (LOST, IN_NO_REPOSITORY, ARCHIVED, OTHER, BY_DIGEST, MOVED, ELSEWHERE)
OTHER_DIGEST = "sha256:" + "b" * 64


@pytest.fixture
def compared(records: Records, operated: Operated, registry: Registry) -> Records:
    """Records that are all COPIED, and an ECR that has something else for most of them."""
    write(operated.cloud.dynamodb, COMPARED)
    registry.push("mirror/gcr.io/lost", "2", digest=DIGEST)
    registry.push("mirror/gcr.io/lost", digest=OTHER_DIGEST)
    registry.push("mirror/gcr.io/archived", "1", digest=DIGEST).status = "ARCHIVED"
    registry.push("mirror/gcr.io/other", "1", digest=OTHER_DIGEST)
    registry.push("mirror/gcr.io/pinned", BY_DIGEST.tag, digest=DIGEST)
    registry.push("mirror/gcr.io/moved", MOVED.tag, digest=OTHER_DIGEST)
    return records


GONE_LINES = {
    LOST: "ECR no longer holds it",
    IN_NO_REPOSITORY: "ECR no longer holds it",
    ARCHIVED: "ECR has archived it, so it cannot be pulled",
    MOVED: f"ECR holds another digest than its record says, {OTHER_DIGEST}",
}


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["written", "dry-run"])
def test_every_copy_that_ecr_lost_is_requested_again_and_no_other(dry_run: list[str], compared: Records) -> None:
    result = run("retry", "--gone", *dry_run)
    words = "would be requested again" if dry_run else "requested again"
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(result.stdout.splitlines()) == sorted(
        f"{before.source}: {words}: {cause}" for before, cause in GONE_LINES.items()
    )
    for before in GONE_LINES:
        again = replace(before, status=Status.REQUESTED, digest=None, pushed=None, signatures=None, open_build=None)
        again = replace(again, requested_at=NOON, updated_at=NOON, due_at=NOON, error=None)
        assert read(compared, before) == (before if dry_run else again)
    for before in {*ALL, *COMPARED} - GONE_LINES.keys():
        assert read(compared, before) == before
    if not dry_run:
        result = run("retry", "--gone")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No copy is gone from ECR.\n")


def test_what_is_gone_is_chosen_by_name_and_pattern_too(compared: Records) -> None:
    result = run("retry", "--gone", "gcr.io/lost:*", "gcr.io/other:1", "gcr.io/broken:1", "gcr.io/none:1")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["gcr.io/lost:1: requested again: ECR no longer holds it"]
    assert result.stderr.startswith("Error: gcr.io/none:1: no record has this name")
    assert read(compared, FAILED) == FAILED


def test_a_named_copy_is_requested_again_only_if_ecr_lost_it(compared: Records) -> None:
    result = run("retry", *(record.source for record in (LOST, OTHER, BY_DIGEST, COPIED)))
    after = "after `image-mirror forget` the next pod requests it again"
    assert result.stdout.splitlines() == [
        "gcr.io/lost:1: requested again: ECR no longer holds it",
        f"gcr.io/other:1: unchanged: ECR holds another digest than its record says, {OTHER_DIGEST}; {after}",
        f"gcr.io/pinned@{DIGEST}: unchanged: ECR holds it; {after}",
        f"gcr.io/fine:1: unchanged: ECR holds it; {after}",
    ]
    assert read(compared, OTHER) == OTHER


def test_a_record_that_the_reconciler_removes_meanwhile_is_not_written_again(
    compared: Records, operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"repo": {"S": LOST.repo}, "tag": {"S": LOST.tag}}
    meanwhile(monkeypatch, "replace", lambda: operated.cloud.dynamodb.delete_item(TableName=TABLE, Key=key), times=1)
    result = run("retry", "gcr.io/lost:1")
    assert (result.exit_code, result.stdout) == (
        1,
        "gcr.io/lost:1: its record was removed in the meantime; the next pod requests it\n",
    )
    assert read(compared, LOST) is None


def test_ecr_is_asked_once_for_a_repository_and_only_for_copied_records(
    operated: Operated, registry: Registry, answer: Callable[[str, str, Reply], None], refuse: Callable[..., None]
) -> None:
    asked: list[str] = []

    def describe(wanted: dict[str, Any]) -> dict[str, Any]:
        asked.append(wanted["repositoryName"])
        return registry.describe_images(wanted)

    answer("ecr", "DescribeImages", describe)
    registry.page = 1_000
    tags = [record(f"gcr.io/many:{number}") for number in range(1_500)]
    write(operated.cloud.dynamodb, [*tags, FAILED, WAITING, COPYING])
    for each in tags[1:]:
        registry.push("mirror/gcr.io/many", each.tag)
    result = run("retry", "--gone")
    assert result.stdout == "gcr.io/many:0: requested again: ECR no longer holds it\n"
    assert asked == ["mirror/gcr.io/many"] * 2, "1,499 images, a thousand in one call"
    refuse("ecr", "DescribeImages")
    assert run("retry", "--failed").exit_code == 0


def test_without_ecr_s_answer_nothing_is_said_of_a_copy(records: Records, refuse: Callable[..., None]) -> None:
    refuse("ecr", "DescribeImages")
    result = run("retry", "gcr.io/fine:1", "gcr.io/broken:1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "DescribeImages: AccessDeniedException" in result.stderr
    assert "ask for this permission" in result.stderr
    assert (read(records, COPIED), read(records, FAILED)) == (COPIED, FAILED)


def test_a_copy_that_is_forgotten_stays_in_ecr(records: Records, registry: Registry) -> None:
    assert run("forget", "gcr.io/fine:1").exit_code == 0
    assert read(records, COPIED) is None
    assert registry.tags() == {"mirror/gcr.io/fine:1"}


def test_the_help_says_how_many_attempts_there_are() -> None:
    assert MOST_ATTEMPTS == 5
    assert "all five attempts" in " ".join(run("retry", "--help").stdout.split())


@pytest.mark.usefixtures("records")
def test_a_record_that_the_table_refuses_is_named_with_what_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Records, old: Record, _new: Record) -> Record:
        raise UnusableRecordError(old.destination)

    monkeypatch.setattr(Records, "replace", refuse)
    result = run("retry", "gcr.io/broken:1")
    assert result.exit_code == 1
    assert "unchanged: the table refuses its record; image-mirror forget --force gcr.io/broken:1 removes it" in (
        " ".join(result.stdout.split())
    )
