"""Time grows no faster than the request: an input of eight times the size costs about eight times, never sixty-four."""

import contextlib
import gc
import json
import math
import threading
import time
from bisect import bisect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from fuzz.oracle import check
from fuzz.scenarios import SCENARIOS, Scenario, webhook_of
from image_mirror.pod_images import ORIGINALS
from image_mirror.recorder import NotRecordedError
from image_mirror.reference import parse_reference
from image_mirror.review import BadReviewError, Json, seconds_left
from image_mirror.rules import parse_rules
from image_mirror.settings import Settings
from support.cloud import ENVIRONMENT, REGISTRY
from support.reviews_data import MIRROR, NOW, event_of, made_pod, review_of

FACTOR = 8
MOST = 3 * FACTOR  # quadratic time would grow by FACTOR squared
CONTAINERS = 10_000
ENTRIES = 100_000
BODY = 10_000_000  # bytes: the gateway's limit
MOST_READINGS = 60  # Python's own look at each character costs a hundred times as much as to read them
Act = Callable[[], object]

UNITS = (
    *("a", "A", "0", "a-", "-", "a_", "__", "a__", "a.", "..", "a/", "/", "a:", ":", "a@", "@", "[", "[a:", "*."),
    *("a-a.", "a--a/", "0.", "a:0/", " ", "a,", "a=", "!a", "é", "\ud800", "\x7f", "sha256:"),
)
each_unit = pytest.mark.parametrize("unit", UNITS, ids=map(ascii, UNITS))
ENDS = ("", "!", ".io/x", "-", "\n")


def cost(act: Act, runs: int = 3) -> float:
    """Return the CPU seconds of one call: the least of several runs, each of half a millisecond or more."""
    repeat = 1
    while (least := _spent(act, repeat)) < 0.0005:
        repeat *= 2
    return min((least, *(_spent(act, repeat) for _ in range(runs - 1)))) / repeat


def _spent(act: Act, repeat: int) -> float:
    began = time.process_time()
    for _ in range(repeat):
        act()
    return time.process_time() - began


def growth(acts: Callable[[int], Act], size: int) -> float:
    """Return the cost of this size divided by the cost of an eighth of it."""
    return times(acts(size), acts(size // FACTOR), MOST)


def times(act: Act, other: Act, most: float) -> float:
    """Return the least cost of one act divided by the least of another.

    Other programs on the machine make single measurements slower, so both are measured up to twelve times.
    """
    least = reference = math.inf
    # A collection looks at all objects of the process, also at those of other tests.
    gc.disable()
    try:
        for _ in range(12):
            reference, least = min(reference, cost(other)), min(least, cost(act, 1))
            if least / reference < most:
                break
    finally:
        gc.enable()
    return least / reference


# Texts: each unit of a grammar, repeated.


def texts(unit: str, length: int) -> list[str]:
    return [(unit * length)[: length - len(end)] + end for end in ENDS]


@pytest.mark.parametrize("end", ENDS, ids=ascii)
@each_unit
def test_no_image_makes_a_decision_take_long(unit: str, end: str) -> None:
    def decisions(start: str, length: int) -> Act:
        image = start + (unit * length)[: length - len(start + end)] + end

        def decide() -> None:
            parse_reference.cache_clear()
            MIRROR.decide(image)
            MIRROR.may_be_copy_of(f"{REGISTRY}/mirror/{image}"[:length], image)

        return decide

    for start in ("", "gcr.io/", "gcr.io/a@sha256:"):
        assert growth(partial(decisions, start), 1024) < MOST, start


@each_unit
def test_no_setting_makes_reading_it_take_long(unit: str) -> None:
    def readings(length: int) -> Act:
        environments = [ENVIRONMENT | dict.fromkeys(_names(), text) for text in texts(unit, length)]

        def read() -> None:
            for environment in environments:
                with contextlib.suppress(ValueError):
                    Settings.from_env(environment)

        return read

    assert growth(readings, 4096) < MOST  # Lambda's limit for all variables


def _names() -> list[str]:
    names = ["ECR_REGISTRY", "REPOSITORY_PREFIX", "MIRROR_RULES", "PULL_ACCOUNTS", "RETRY_FAILED_MINUTES", "SWAP_WHEN"]
    return [*names, "REPOSITORY_KMS_KEY_ID"]


@pytest.mark.parametrize("form", ["{}", "!{}", "a.io={}", "{}=a.io", "*.{}", "a.io/{}"])
def test_no_rule_makes_reading_it_take_long(form: str) -> None:
    def readings(length: int) -> Act:
        rules = [form.format(text) for unit in UNITS for text in texts(unit, length)]

        def read() -> None:
            for rule in rules:
                with contextlib.suppress(ValueError):
                    parse_rules(rule)

        return read

    assert growth(readings, 4096) < MOST


def test_no_query_makes_reading_it_take_long() -> None:
    def readings(length: int) -> Act:
        event = event_of({}, timeout="0" * length + "s")
        return lambda: seconds_left(event, NOW)

    assert growth(readings, 1_000_000) < MOST


# Reviews.


class Table:
    """Accepts every record at once."""

    def put_item(self, **_: object) -> Json:
        return {}

    def get_item(self, **_: object) -> Json:
        return {}


def answers(event: Json, scenario: Scenario = SCENARIOS[0]) -> Act:
    """Return a function that answers an event with empty caches, and again after a 503."""

    def answer() -> None:
        parse_reference.cache_clear()
        subject = webhook_of(scenario, cast("Any", Table()))
        for _ in range(10):
            with contextlib.suppress(NotRecordedError):
                assert subject.answer(event)["statusCode"] == 200
                return
        pytest.fail("never answered")

    return answer


def distinct(count: int, image: str = "gcr.io/a/b:{}") -> dict[str, str]:
    return {f"c{number}": image.format(number) for number in range(count)}


def copied(count: int) -> Json:
    """Make a pod whose images were all rewritten, with the annotation of the originals."""
    originals = {f"containers/c{number}": f"gcr.io/a/b:{number}" for number in range(count)}
    destination = f"{REGISTRY}/mirror/gcr.io/a/b:{{}}"
    return made_pod(distinct(count, destination), annotations={ORIGINALS: json.dumps(originals)})


def one_name(count: int) -> Json:
    pod = made_pod(distinct(count))
    for container in pod["spec"]["containers"]:
        container["name"] = "c"
    return pod


PODS: dict[str, Callable[[int], Json]] = {
    "distinct new images": lambda count: review_of(made_pod(distinct(count))),
    "the same image": lambda count: review_of(made_pod(distinct(count, "gcr.io/a:1"))),
    "images that no rule names": lambda count: review_of(made_pod(distinct(count, "private.example.com/a:{}"))),
    "what is no image": lambda count: review_of(made_pod(distinct(count, "\x7f{}"))),
    "containers of one name": lambda count: review_of(one_name(count)),
    "image volumes": lambda count: review_of(made_pod(volumes=distinct(count))),
    "an update of every image": lambda count: review_of(made_pod(distinct(count, "gcr.io/a:{}")), copied(count)),
    "an update that changes nothing": lambda count: review_of(copied(count), copied(count)),
    "images that are put back": lambda count: review_of(made_pod(distinct(count)), copied(count)),
    "ephemeral containers": lambda count: review_of(
        made_pod(ephemeral=distinct(count)), made_pod(), subresource="ephemeralcontainers"
    ),
}


@pytest.mark.parametrize("review", PODS.values(), ids=PODS)
def test_ten_thousand_containers_cost_what_so_many_cost(review: Callable[[int], Json]) -> None:
    assert growth(lambda count: answers(event_of(review(count))), CONTAINERS) < MOST


def test_ten_thousand_images_that_a_rule_rewrites_cost_what_so_many_cost() -> None:
    pods = PODS["distinct new images"]
    assert growth(lambda count: answers(event_of(pods(count)), SCENARIOS[4]), CONTAINERS) < MOST


@pytest.mark.parametrize(
    "review",
    [
        pytest.param(lambda originals, _: review_of(made_pod({"c1": "gcr.io/a:1"}, annotations=originals)), id="new"),
        pytest.param(
            lambda originals, count: review_of(*[made_pod(distinct(count // 20), annotations=originals)] * 2),
            id="update",
        ),
    ],
)
def test_a_hundred_thousand_originals_cost_what_so_many_cost(review: Callable[[Json, int], Json]) -> None:
    def answering(count: int) -> Act:
        originals = {f"containers/c{number}": f"gcr.io/a/b:{number}" for number in range(count)}
        return answers(event_of(review({ORIGINALS: json.dumps(originals)}, count)))

    assert growth(answering, ENTRIES) < MOST


def pod_with(where: str, text: str) -> Json:
    """Make a pod with `text` at one place."""
    pod = made_pod({"a": "gcr.io/a:1"}, annotations={"b": "c"})
    container = pod["spec"]["containers"][0]
    if where in ("image", "name", "env"):
        container[where] = text
    elif where == "annotation's name":
        pod["metadata"]["annotations"][text] = ""
    elif where == "originals":
        pod["metadata"]["annotations"][ORIGINALS] = json.dumps({"containers/a": text}, ensure_ascii=False)
    else:
        pod["metadata"]["annotations"]["b"] = text
    return pod


@pytest.mark.parametrize("where", ["image", "name", "env", "annotation", "annotation's name", "originals"])
@pytest.mark.parametrize("character", ["a", "\x7f", "é"], ids=ascii)
def test_ten_megabytes_are_read_and_written_but_not_looked_at_one_by_one(where: str, character: str) -> None:
    event = event_of(
        json.dumps(review_of(pod_with(where, character * (BODY // len(character.encode())))), ensure_ascii=False)
    )
    assert times(answers(event), lambda: json.loads(event["body"]), MOST_READINGS) < MOST_READINGS


PLACES = ("body", "env", "annotation", "originals", "metadata", "unread")
each_place = pytest.mark.parametrize("where", PLACES)


def nested(where: str, brackets: str, depth: int) -> Json:
    """Return the event of a review with deeply nested brackets at one place."""
    nest = "[" * depth + "]" * depth if brackets == "[]" else '{"a":' * depth + "1" + "}" * depth
    review = json.dumps(review_of(pod_with("env", "NEST")))
    bodies = {
        "body": nest,
        "env": review.replace('"NEST"', nest),
        "annotation": review.replace('"annotations": {"b": "c"}', f'"annotations": {{"b": {nest}}}'),
        "originals": json.dumps(review_of(made_pod({"a": "gcr.io/a:1"}, annotations={ORIGINALS: nest}))),
        "metadata": review.replace('"metadata": {', f'"metadata": {{"labels": {nest}, '),
        "unread": review.replace('"dryRun"', f'"unread": {nest}, "dryRun"'),
    }
    return event_of(bodies[where]) | {"requestContext": {}}


@pytest.mark.parametrize("depth", [10, 200, ENTRIES])
@pytest.mark.parametrize("brackets", ["[]", "{}"], ids=["arrays", "objects"])
@each_place
def test_deep_nesting_is_read_or_refused(where: str, brackets: str, depth: int) -> None:
    read = where == "originals" or (where != "body" and depth < ENTRIES)
    assert check(nested(where, brackets, depth), SCENARIOS[0]).status == (200 if read else 400)


@each_place
def test_no_depth_of_nesting_is_a_bug(where: str) -> None:
    def status(depth: int) -> int:
        try:
            answered = webhook_of(SCENARIOS[0], cast("Any", Table())).answer(nested(where, "[]", depth))
        except BadReviewError:
            return 400
        return int(answered["statusCode"])

    # Python's limit depends on its version and on the depth of the caller.
    limit = bisect(range(ENTRIES), 200, key=lambda depth: status(depth + 1))
    statuses = {status(depth) for depth in range(max(1, limit - 30), limit + 30)}
    assert statuses == ({200} if where == "originals" else {400} if where == "body" else {200, 400})


# The table.


class StuckTable:
    """Answers only after it is released, and counts the calls."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def put_item(self, **_: object) -> Json:
        with self._lock:
            self.asked += 1
        self.let_go.wait(120)
        return {}

    get_item = put_item


def test_a_request_ends_in_its_time_however_many_images_wait_for_the_table() -> None:
    table = StuckTable()
    subject = webhook_of(SCENARIOS[0], cast("Any", table))
    event = event_of(review_of(made_pod(distinct(CONTAINERS))), timeout="4s")
    refusals: list[NotRecordedError] = []

    def ask() -> None:
        try:
            subject.answer(event)
        except NotRecordedError as error:
            refusals.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(60)
    in_time = not asking.is_alive()
    table.let_go.set()
    asking.join()
    subject._recorder._threads.shutdown()  # once all that was begun has ended
    assert in_time, "the answer waited for the table"
    assert "250 of 250 records" in str(refusals[0])
    assert table.asked == 32, "calls were made although nobody waits for them"
