"""The pure parts of `selftest`: the times of the phases, the judgement of reviews and copies, and the price."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.selftest.command import highest_price
from image_mirror.cli.commands.selftest.copies import Followed, is_over, judge, judge_builds
from image_mirror.cli.commands.selftest.phases import seconds_of
from image_mirror.cli.commands.selftest.results import SECONDS, Result, listing, table
from image_mirror.cli.commands.selftest.reviews import expected, fault_of, patched, review_of
from image_mirror.cli.commands.selftest.reviews import judge as judge_reviews
from image_mirror.cli.commands.selftest.samples import IMAGES, MISSING, Sample, choose
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.doctor.webhook import Reply, Silence
from image_mirror.cli.emulation import http_event
from image_mirror.cli.stacks import Stack
from image_mirror.decisions import Mirror
from image_mirror.record import Lane, Record, Status
from image_mirror.rules import DEFAULT_RULES, parse_rules
from support.cloud import REGISTRY
from support.operators import CHINA_OUTPUTS, GLOBAL_OUTPUTS, TOKEN

MIRROR = Mirror(REGISTRY, "mirror", parse_rules(DEFAULT_RULES))
CHINA = Stack(Account("china", "china", "cn-northwest-1"), "image-mirror", "CREATE_COMPLETE", CHINA_OUTPUTS, {})
WORLD = Stack(Account("global", "global", "us-west-2"), "image-pulling", "CREATE_COMPLETE", GLOBAL_OUTPUTS, {})
FAST, MAIN, FAST_MISSING, MAIN_MISSING = choose(MIRROR, [Lane.FAST, Lane.MAIN])
AT = 1_790_000_000_000
BEGAN = datetime.fromtimestamp(AT / 1000, UTC)
DIGEST = f"sha256:{'a' * 64}"
BUILD = "ImagePullProject:1"


def phase(kind: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    times = {"startTime": BEGAN + timedelta(seconds=start), "endTime": BEGAN + timedelta(seconds=end)}
    return {"phaseType": kind, **times, **more}


PHASES = [
    phase("SUBMITTED", 2, 2.25),
    phase("QUEUED", 2.25, 4),
    phase("PROVISIONING", 4, 20),
    phase("DOWNLOAD_SOURCE", 20, 21),
    phase("INSTALL", 21, 24),
    phase("BUILD", 24, 30),
    phase("FINALIZING", 30, 30.5),
    {"phaseType": "COMPLETED", "startTime": BEGAN + timedelta(seconds=30.5)},
]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        pytest.param(
            {
                "admission": 0.25,
                "build": {"startTime": BEGAN + timedelta(seconds=2), "phases": PHASES},
                "pushed_at": BEGAN + timedelta(seconds=28),
                "copied_at": AT + 29_500,
            },
            {
                "admission": 0.25,
                "start": 2.0,
                "queue": 2.0,
                "provisioning": 17.0,
                "copying": 9.5,
                "arrival": 1.5,
                "total": 29.5,
            },
            id="a-whole-copy",
        ),
        pytest.param({"build": None}, {}, id="nothing-is-known"),
        pytest.param({"build": {"phases": []}}, {}, id="no-phases-and-no-start"),
        pytest.param(
            {"build": {"phases": [{"phaseType": "BUILD", "durationInSeconds": 7}]}},
            {"copying": 7.0},
            id="only-whole-seconds",
        ),
        pytest.param(
            {"build": {"phases": [phase("QUEUED", 0, 3), {"phaseType": "BUILD", "startTime": BEGAN}]}},
            {"queue": 3.0},
            id="a-phase-that-has-not-ended",
        ),
        pytest.param(
            {"build": {"startTime": BEGAN - timedelta(seconds=1)}, "pushed_at": BEGAN, "copied_at": AT - 1},
            {"start": 0.0, "arrival": 0.0, "total": 0.0},
            id="clocks-that-differ",
        ),
        pytest.param({"build": None, "copied_at": AT + 1000}, {"total": 1.0}, id="ecr-does-not-know-the-push"),
    ],
)
def test_the_times_of_the_phases(given: dict[str, Any], seconds: dict[str, float]) -> None:
    assert seconds_of(requested_at=AT, **given) == seconds


def record(sample: Sample, **values: Any) -> Record:
    repo, tag = sample.key
    given = {"status": Status.REQUESTED, "requested_at": AT, "updated_at": AT, "source": sample.image, **values}
    return Record(repo=repo, tag=tag, **given)


def build(sample: Sample, **values: Any) -> dict[str, Any]:
    variables = [{"name": "NEW_DOCKER_IMAGE", "value": str(sample.copy.destination)}]
    return {"id": BUILD, "initiator": "role/x", "environment": {"environmentVariables": variables}, **values}


COPIED = {"status": Status.COPIED, "digest": DIGEST, "build_id": BUILD}
NOT_FOUND = {"error": "NOT_FOUND: manifest unknown", "attempts": 1, "build_id": BUILD}
EXPORTED = [{"name": "COPY_RESULT", "value": "NOT_FOUND"}]


@pytest.mark.parametrize(
    ("sample", "values", "its_build", "state", "words"),
    [
        pytest.param(FAST, {**COPIED, "lane": Lane.FAST}, {}, State.OK, f"COPIED as {DIGEST} by {BUILD}", id="copied"),
        pytest.param(
            MAIN, {**COPIED, "lane": Lane.MAIN, "not_fast": "TOO_LARGE"}, {}, State.OK, "COPIED", id="copied-in-main"
        ),
        pytest.param(replace(MAIN, forced=False), COPIED, {}, State.OK, "COPIED", id="one-lane-only"),
        pytest.param(
            FAST,
            {**COPIED, "lane": Lane.MAIN},
            {},
            State.FAILED,
            "its build is in the main lane: no slot was free",
            id="no-slot",
        ),
        pytest.param(
            FAST,
            {"lane": None, "error": "fast lane: TARGET_LOGIN: no", "build_id": BUILD},
            {},
            State.FAILED,
            "its build is in the main lane: fast lane: TARGET_LOGIN: no",
            id="sent-to-main",
        ),
        pytest.param(
            MAIN,
            {"lane": Lane.MAIN, "error": "UNREACHABLE: no route", "build_id": BUILD, "waits": 1},
            {},
            State.FAILED,
            "UNREACHABLE: no route",
            id="a-build-without-a-copy",
        ),
        pytest.param(
            MAIN,
            {"error": "AccessDeniedException: StartBuild"},
            {},
            State.FAILED,
            "still REQUESTED after 15 minutes: AccessDeniedException: StartBuild",
            id="no-build-in-time",
        ),
        pytest.param(
            FAST_MISSING,
            {**NOT_FOUND, "lane": Lane.FAST},
            {"exportedEnvironmentVariables": EXPORTED},
            State.OK,
            "NOT_FOUND after one build, by the variables that it exported",
            id="missing",
        ),
        pytest.param(
            MAIN_MISSING,
            {**NOT_FOUND, "lane": Lane.MAIN},
            {"exportedEnvironmentVariables": []},
            State.WARNING,
            "NOT_FOUND after one build, by its exit code alone",
            id="no-exports-of-a-failed-build",
        ),
        pytest.param(
            MAIN_MISSING,
            {**NOT_FOUND, "lane": Lane.MAIN, "error": "DENIED: log in"},
            {"exportedEnvironmentVariables": EXPORTED},
            State.FAILED,
            "its first build should say NOT_FOUND, and says: DENIED: log in",
            id="another-reason",
        ),
        pytest.param(
            MAIN_MISSING, {**COPIED, "lane": Lane.MAIN}, {}, State.FAILED, "there is such an image", id="it-exists"
        ),
        pytest.param(
            MAIN_MISSING,
            {"status": Status.COPYING, "lane": Lane.MAIN, "build_id": BUILD},
            {},
            State.FAILED,
            "still COPYING after 15 minutes: no reason is known yet",
            id="missing-and-no-end",
        ),
    ],
)
def test_the_judgement_of_a_copy(
    sample: Sample, values: dict[str, Any], its_build: dict[str, Any], state: State, words: str
) -> None:
    followed = Followed(sample)
    followed.see(record(sample, **values), 0)
    followed.build = build(sample, **its_build)
    [result] = judge(followed, 15)
    assert (result.state, result.lane, result.image) == (state, str(sample.lane), sample.image)
    assert result.found.removeprefix(f"{sample.image}: ").startswith(words)


def test_a_record_that_somebody_removes_or_that_was_never_written_fails() -> None:
    removed, silent = Followed(FAST), Followed(FAST, fault=("no name", "check DNS"))
    removed.see(None, 0)
    [gone], [unasked] = judge(removed, 15), judge(silent, 15)
    assert (gone.state, unasked.state) == (State.FAILED, State.FAILED)
    assert gone.found.endswith("its record was removed by something else")
    assert (unasked.found, unasked.remedy) == (f"{FAST.image}: no name", "check DNS")


@pytest.mark.parametrize(
    ("sample", "values", "over"),
    [
        pytest.param(FAST, {}, False, id="requested"),
        pytest.param(FAST, {"status": Status.COPYING, "lane": Lane.FAST, "build_id": BUILD}, False, id="in-its-lane"),
        pytest.param(FAST, {"status": Status.COPYING, "lane": Lane.MAIN, "build_id": BUILD}, True, id="in-the-other"),
        pytest.param(FAST, {"error": "CodeBuild is busy"}, False, id="delayed-before-a-build"),
        pytest.param(FAST, {"error": "UNREACHABLE: x", "build_id": BUILD}, True, id="one-build-without-a-copy"),
        pytest.param(FAST, {"status": Status.FAILED, "build_id": BUILD}, True, id="failed"),
        pytest.param(FAST, COPIED, True, id="copied"),
    ],
)
def test_one_build_without_a_copy_is_enough(sample: Sample, values: dict[str, Any], over: bool) -> None:
    assert is_over(sample, record(sample, **values)) is over


@pytest.mark.parametrize(
    ("change", "role", "words"),
    [
        pytest.param({}, "", None, id="all-is-named"),
        pytest.param({"environment": {}}, "", "its variables do not name its copy", id="no-variables"),
        pytest.param({"initiator": None}, "", "it has no initiator", id="no-initiator"),
        pytest.param({}, "arn:role", "do not have CHINA_PUSH_ROLE_ARN", id="no-variable-of-the-project"),
    ],
)
def test_what_codebuild_says_of_a_build_is_compared(change: dict[str, Any], role: str, words: str | None) -> None:
    followed = Followed(FAST, build=build(FAST, **change))
    [result] = judge_builds([followed, Followed(MAIN)], replace(WORLD, parameters={"ChinaPushRoleArn": role}))
    assert result.state is (State.WARNING if words else State.OK)
    assert (words or "(role/x)") in result.found


def test_without_a_build_there_is_nothing_to_compare() -> None:
    assert judge_builds([Followed(FAST)], WORLD) == []


# ---- reviews ----

BECOMES = str(FAST.copy.destination)


def reply_of(review: dict[str, Any], change: Callable[[Any], None] = lambda _: None) -> Reply:
    """Return the shipped webhook's answer to a review, after a change of its response."""
    from image_mirror.admission import make_patch
    from image_mirror.pod_images import new_images
    from image_mirror.review import answer, parse_review

    read = parse_review(http_event(review))
    decisions = new_images(read, MIRROR)
    patch = make_patch(read, decisions, dict.fromkeys(decisions, BECOMES), MIRROR)
    body = json.loads(answer(read, patch, [])["body"])
    change(body["response"])
    return Reply(200, json.dumps(body).encode(), 0.125)


def with_patch(*operations: dict[str, Any]) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response["patch"] = base64.b64encode(json.dumps(operations).encode()).decode()

    return change


IMAGE_PATH = "/spec/containers/0/image"


def test_the_pod_in_a_review_is_whole_and_is_nobody_elses() -> None:
    review = review_of(FAST.image, "selftest-1", dry_run=True)
    request, pod = review["request"], review["request"]["object"]
    assert (request["dryRun"], request["namespace"]) == (True, "image-mirror-selftest")
    assert pod["metadata"].keys().isdisjoint({"generateName", "ownerReferences"})
    assert [each["image"] for each in pod["spec"]["containers"]] == [FAST.image]
    assert review_of(FAST.image, "selftest-1", dry_run=True)["request"]["uid"] != request["uid"]


def test_the_shipped_webhooks_patch_makes_the_expected_pod() -> None:
    review = review_of(FAST.image, "selftest-1", dry_run=True)
    reply = reply_of(review)
    pod = review["request"]["object"]
    assert patched(pod, reply, review["request"]["uid"]) == expected(pod, BECOMES) != pod
    assert fault_of(review, reply, BECOMES, "LOG") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda response: response.update(uid="x"), "it is not the answer to this review", id="uid"),
        pytest.param(lambda response: response.update(allowed=False), "it is not the answer", id="refused"),
        pytest.param(lambda response: response.pop("patch"), f"the patch makes {FAST.image}, not", id="no-patch"),
        pytest.param(
            with_patch({"op": "replace", "path": IMAGE_PATH, "value": "other:1"}), "makes other:1, not", id="image"
        ),
        pytest.param(
            with_patch({"op": "replace", "path": IMAGE_PATH, "value": BECOMES}),
            "makes other fields of the pod than its image",
            id="no-annotation",
        ),
        pytest.param(with_patch({"op": "remove", "path": "/spec"}), "makes other fields of the pod", id="no-spec"),
        pytest.param(
            with_patch({"op": "replace", "path": "/spec/containers/0", "value": "x"}),
            "makes other fields of the pod",
            id="no-container",
        ),
        pytest.param(
            lambda response: response.update(patch=base64.b64encode(b"[" * 200_000).decode()),
            "an API server would refuse the answer: maximum recursion depth",
            id="deep",
        ),
        pytest.param(
            with_patch({"op": "replace", "path": "/spec/none/0", "value": 1}), "would refuse the answer", id="path"
        ),
        pytest.param(with_patch({"op": "move", "path": "/a", "from": "/b"}), "would refuse the answer", id="operation"),
        pytest.param(with_patch({"op": "remove", "path": ""}), "would refuse the answer", id="all"),
        pytest.param(with_patch({"op": "replace", "path": "", "value": 1}), "makes other fields", id="no-object"),
    ],
)
def test_a_wrong_answer_is_named(change: Callable[[Any], None], words: str) -> None:
    review = review_of(FAST.image, "selftest-1", dry_run=True)
    found = fault_of(review, reply_of(review, change), BECOMES, "LOG")
    assert found is not None
    assert words in found[0]


@pytest.mark.parametrize(
    ("replies", "is_recorded", "state", "words"),
    [
        pytest.param(
            [2.0, 0.1, 0.3, 0.2], False, State.OK, "the first after 2.00 s, the median of the others is 0.20 s"
        ),
        pytest.param([0.1, 6.0, 7.0, 8.0], False, State.FAILED, "an API server waits 5 s, as shipped", id="slow"),
        pytest.param([0.1, 0.1, 0.1, 0.1], True, State.FAILED, "a dry run has written a record", id="recorded"),
        pytest.param([0.1, None], False, State.FAILED, "the name is not found", id="silent"),
        pytest.param([403], False, State.FAILED, "403, and not from API Gateway", id="forbidden"),
    ],
)
def test_the_judgement_of_the_dry_runs(
    replies: list[float | None], is_recorded: bool, state: State, words: str
) -> None:
    reviews, given = [], list[Reply | Silence]()
    for seconds in replies:
        reviews.append(review_of(FAST.image, "selftest-1", dry_run=True))
        if seconds is None:
            given.append(Silence("the name is not found", "check DNS"))
        elif seconds == 403:
            given.append(Reply(403, b"no", 0.1))
        else:
            given.append(replace(reply_of(reviews[-1]), seconds=seconds))
    result = judge_reviews(reviews, given, BECOMES, CHINA, is_recorded=is_recorded)
    assert result.state is state
    assert words in result.found
    assert TOKEN not in f"{result}"


# ---- the samples, and the price ----


def test_the_default_images_are_copied_by_the_default_rules_one_of_each_kind_for_each_lane() -> None:
    two = choose(MIRROR, [Lane.FAST, Lane.MAIN])
    assert [(each.image, each.lane, each.forced, each.missing) for each in two] == [
        (IMAGES[0], Lane.FAST, False, False),
        (IMAGES[1], Lane.MAIN, True, False),
        (MISSING[0], Lane.FAST, False, True),
        (MISSING[1], Lane.MAIN, True, True),
    ]
    one = choose(MIRROR, [Lane.MAIN])
    assert [(each.image, each.forced) for each in one] == [(IMAGES[0], False), (MISSING[0], False)]


@pytest.mark.parametrize(
    ("lanes", "images", "missing", "words"),
    [
        pytest.param([Lane.FAST, Lane.MAIN], ["gcr.io/a:1"], MISSING, "give two images, one for each lane", id="few"),
        pytest.param([Lane.MAIN], ["gcr.io/a:1", "gcr.io/b:1"], MISSING, "give one image", id="many"),
        pytest.param([Lane.MAIN], ["gcr.io/A"], MISSING, "gcr.io/A", id="no-reference"),
        pytest.param([Lane.MAIN], ["example.com/a:1"], MISSING, "name an image that the rules copy", id="no-rule"),
        pytest.param([Lane.MAIN], ["gcr.io/a:1"], ["gcr.io/a:1"], "name different images", id="twice"),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    lanes: list[Lane], images: list[str], missing: list[str], words: str
) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        choose(MIRROR, lanes, images, missing)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("lanes", "minutes", "price"),
    [
        # 15 minutes and two builds' rounding for each of 2 images in the main lane, 0.01 for traffic
        pytest.param([Lane.MAIN], 15, 0.11, id="one-lane"),
        pytest.param([Lane.FAST, Lane.MAIN], 15, 0.24, id="two-lanes"),
        pytest.param([Lane.MAIN], 1, 0.04, id="short"),
    ],
)
def test_the_highest_price_is_that_of_builds_which_run_for_the_whole_time(
    lanes: list[Lane], minutes: int, price: float
) -> None:
    assert highest_price(choose(MIRROR, lanes), minutes) == price


def test_the_results_are_a_table_with_the_times_below() -> None:
    rows = [
        Result("webhook", State.OK, "all is well", seconds={"first": 1.0}),
        Result("copy", State.FAILED, "no", "do this", "fast", "a:1", {"admission": 0.25, "total": 90.0}),
    ]
    assert list(table(rows)) == [
        "STATE   CHECK    LANE  FOUND",
        "ok      webhook  -     all is well",
        "failed  copy     fast  no; do this",
        "",
        "SECONDS  LANE  ADMISSION  START  QUEUE  PROVISION  COPY  ARRIVAL  TOTAL",
        "a:1      fast  0.2        -      -      -          -     -        90.0",
    ]
    assert list(listing(rows))[:2] == ["ok       webhook: all is well", "failed   copy, fast lane: no; do this"]
    assert list(listing(rows))[2:] == [
        "",
        "SECONDS    copy, fast",
        "ADMISSION  0.2",
        "START      -",
        "QUEUE      -",
        "PROVISION  -",
        "COPY       -",
        "ARRIVAL    -",
        "TOTAL      90.0",
    ]
    assert list(table(rows[:1]))[-1] == "ok     webhook  -     all is well"


def test_on_a_terminal_of_80_columns_the_times_of_both_lanes_fit() -> None:
    rows = [
        Result(check, State.OK, "it is", None, str(lane), image, dict.fromkeys(SECONDS, 1234.5))
        for check, images in (("copy", IMAGES), ("missing image", MISSING))
        for lane, image in zip((Lane.FAST, Lane.MAIN), images, strict=True)
    ]
    times = list(listing(rows))[4:]
    assert len(times) == 2 + len(SECONDS)
    assert max(map(len, times)) <= 80
