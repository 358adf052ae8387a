"""The wire format: texts that are no AdmissionReview, the answers, and the time for an answer."""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.review import BadReviewError, Json, answer, parse_review, refuse, seconds_left, unavailable
from support.reviews_data import CAPTURED, captured, event_of, made_pod, review_of

steady = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
POD = made_pod({"a": "nginx"})


def without(body: Json, *path: str) -> Json:
    """Return the review without the member at `path`."""
    return put(body, *path, value=None, drop=True)


def put(body: Json, *path: str, value: object, drop: bool = False) -> Json:
    """Return the review with another value at `path`."""
    changed: Json = json.loads(json.dumps(body))
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    if drop:
        del inner[path[-1]]
    return changed


CREATE = review_of(POD)
UPDATE = review_of(POD, POD)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param("", "body", id="empty"),
        pytest.param("{", "JSON", id="cut-off"),
        pytest.param("nonsense", "JSON", id="no-json"),
        pytest.param("[" * 100_000, "nested", id="nested-too-deeply"),
        pytest.param("1" * 5000, "JSON", id="number-too-long"),
        pytest.param("[]", "body", id="array"),
        pytest.param("null", "body", id="null"),
        pytest.param('"text"', "body", id="text"),
        pytest.param("{}", "kind", id="no-members"),
        pytest.param(without(CREATE, "kind"), "kind", id="no-kind"),
        pytest.param(put(CREATE, "kind", value="Pod"), "kind", id="another-kind"),
        pytest.param(put(CREATE, "kind", value=["AdmissionReview"]), "kind", id="kind-in-an-array"),
        pytest.param(without(CREATE, "apiVersion"), "apiVersion", id="no-version"),
        pytest.param(put(CREATE, "apiVersion", value="admission.k8s.io/v2"), "apiVersion", id="unknown-version"),
        pytest.param(put(CREATE, "apiVersion", value="v1"), "apiVersion", id="version-of-another-group"),
        pytest.param(put(CREATE, "apiVersion", value={}), "apiVersion", id="version-as-an-object"),
        pytest.param(without(CREATE, "request"), "request:", id="no-request"),
        pytest.param(put(CREATE, "request", value=[]), "request:", id="request-as-an-array"),
        pytest.param(without(CREATE, "request", "uid"), "request.uid", id="no-uid"),
        pytest.param(put(CREATE, "request", "uid", value=""), "request.uid", id="empty-uid"),
        pytest.param(put(CREATE, "request", "uid", value=7), "request.uid", id="uid-as-a-number"),
        pytest.param(without(CREATE, "request", "operation"), "request.operation", id="no-operation"),
        pytest.param(put(CREATE, "request", "operation", value=[]), "request.operation", id="operation-as-an-array"),
        pytest.param(without(CREATE, "request", "resource"), "request.resource", id="no-resource"),
        pytest.param(put(CREATE, "request", "resource", value="pods"), "request.resource", id="resource-as-a-text"),
        pytest.param(put(CREATE, "request", "subResource", value=5), "request.subResource", id="subresource-no-text"),
        pytest.param(
            put(CREATE, "request", "subResource", value=["ephemeralcontainers"]),
            "request.subResource",
            id="subresource-in-an-array",
        ),
        pytest.param(without(CREATE, "request", "object"), "request.object:", id="no-object"),
        pytest.param(put(CREATE, "request", "object", value=None), "request.object:", id="object-null"),
        pytest.param(put(CREATE, "request", "object", value=[POD]), "request.object:", id="object-as-an-array"),
        pytest.param(without(CREATE, "request", "object", "metadata"), "request.object.metadata", id="no-metadata"),
        pytest.param(put(CREATE, "request", "object", "metadata", value=1), "request.object.metadata", id="metadata-1"),
        pytest.param(without(CREATE, "request", "object", "spec"), "request.object.spec", id="no-spec"),
        pytest.param(put(CREATE, "request", "object", "spec", value=[]), "request.object.spec", id="spec-as-an-array"),
        pytest.param(without(UPDATE, "request", "oldObject"), "request.oldObject:", id="update-of-nothing"),
        pytest.param(put(UPDATE, "request", "oldObject", value=None), "request.oldObject:", id="old-object-null"),
        pytest.param(without(UPDATE, "request", "oldObject", "spec"), "request.oldObject.spec", id="no-old-spec"),
        pytest.param(
            without(UPDATE, "request", "oldObject", "metadata"), "request.oldObject.metadata", id="no-old-metadata"
        ),
    ],
)
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
def test_a_body_that_is_no_review_is_an_error_that_names_what_is_wrong(
    body: Json | str, field: str, encoded: bool
) -> None:
    with pytest.raises(BadReviewError) as caught:
        parse_review(event_of(body, encoded=encoded))
    assert field in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        pytest.param({}, "empty", id="no-body"),
        pytest.param({"body": None}, "empty", id="null"),
        pytest.param({"body": {}}, "empty", id="object"),
        pytest.param({"body": "e30", "isBase64Encoded": True}, "base64", id="padding-missing"),
        pytest.param({"body": "e3 0=", "isBase64Encoded": True}, "base64", id="space"),
        pytest.param({"body": "{}", "isBase64Encoded": True}, "base64", id="plain-text-marked-as-base64"),
        pytest.param({"body": "é", "isBase64Encoded": True}, "base64", id="letters-beyond-ascii"),
        pytest.param(
            {"body": base64.b64encode(b'{"a":"\xff"}').decode(), "isBase64Encoded": True}, "JSON", id="no-utf8"
        ),
        pytest.param({"body": base64.b64encode(b"\x1f\x8b\x08").decode(), "isBase64Encoded": True}, "JSON", id="gzip"),
    ],
)
def test_a_body_that_cannot_be_read_is_an_error_that_says_why(event: Json, cause: str) -> None:
    with pytest.raises(BadReviewError) as caught:
        parse_review(event)
    assert cause in str(caught.value)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
versions = st.sampled_from(["admission.k8s.io/v1", "admission.k8s.io/v1beta1"])
half_a_pod = st.fixed_dictionaries({}, optional={"metadata": any_json, "spec": any_json})
half_a_request = st.fixed_dictionaries(
    {},
    optional={
        "uid": st.text(max_size=4) | any_json,
        "operation": st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT"]) | any_json,
        "resource": st.just({"resource": "pods"}) | any_json,
        "subResource": st.just("ephemeralcontainers") | any_json,
        "object": half_a_pod | any_json,
        "oldObject": half_a_pod | any_json,
        "dryRun": any_json,
    },
)
half_a_review = st.fixed_dictionaries(
    {"kind": st.just("AdmissionReview") | any_json, "apiVersion": versions | any_json},
    optional={"request": half_a_request},
)


@steady
@given(half_a_review | any_json, st.booleans())
def test_any_json_is_a_review_or_the_one_error(body: Any, encoded: bool) -> None:
    try:
        review = parse_review(event_of(json.dumps(body), encoded=encoded))
    except BadReviewError:
        return
    assert review.uid
    assert isinstance(review.subresource, str)
    for pod in (review.object, review.old_object):
        assert not pod or (isinstance(pod["metadata"], dict) and isinstance(pod["spec"], dict))


@steady
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")), st.booleans())
def test_any_text_is_a_review_or_the_one_error(text: str, encoded: bool) -> None:
    with pytest.raises(BadReviewError):
        parse_review({"body": text, "isBase64Encoded": encoded})


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
def test_what_an_api_server_sends_is_read(name: str, encoded: bool) -> None:
    sent = captured(name)
    review = parse_review(event_of(sent, encoded=encoded))
    assert (review.api_version, review.uid) == (sent["apiVersion"], sent["request"]["uid"])
    assert review.operation == sent["request"]["operation"]
    assert review.subresource == sent["request"].get("subResource", "")
    assert review.dry_run is sent["request"]["dryRun"]
    assert review.object == sent["request"]["object"]
    assert review.old_object == (sent["request"]["oldObject"] or {})


def test_there_are_eight_captured_reviews() -> None:
    assert len(CAPTURED) == 8


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"operation": "DELETE", "object": None, "oldObject": POD}, id="delete"),
        pytest.param({"operation": "CONNECT", "subResource": "exec", "object": {"kind": "PodExecOptions"}}, id="exec"),
        pytest.param({"subResource": "binding", "object": {"kind": "Binding"}}, id="binding"),
        pytest.param({"subResource": "eviction", "object": {"kind": "Eviction"}}, id="eviction"),
        pytest.param({"resource": {"resource": "nodes"}, "object": {"kind": "Node"}}, id="another-resource"),
    ],
)
def test_what_is_no_pod_has_nothing_to_look_at(changes: Json) -> None:
    review = parse_review(event_of(review_of(POD, **changes)))
    assert (review.object, review.old_object) == ({}, {})


@pytest.mark.parametrize(
    ("value", "dry_run"),
    [
        pytest.param(True, True, id="true"),
        pytest.param(False, False, id="false"),
        pytest.param(None, False, id="null"),
    ],
)
def test_a_dry_run_is_seen(value: object, dry_run: bool) -> None:
    assert parse_review(event_of(review_of(POD, dryRun=value))).dry_run is dry_run


@pytest.mark.parametrize("version", ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"])
@pytest.mark.parametrize("uid", ["0df28fbd-5f5f-11e8-bc74-36e6bb280816", "é\ud800\n"])
def test_an_answer_repeats_the_version_and_the_uid(version: str, uid: str) -> None:
    review = parse_review(event_of(review_of(POD, uid=uid) | {"apiVersion": version}))
    body = json.loads(answer(review, [], [])["body"])
    assert body == {"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": uid, "allowed": True}}


@pytest.mark.parametrize(
    ("patch", "warnings", "members"),
    [
        pytest.param([], [], set(), id="nothing"),
        pytest.param([{"op": "remove", "path": "/x"}], [], {"patch", "patchType"}, id="patch"),
        pytest.param([], ["w"], {"warnings"}, id="warning"),
        pytest.param([{"op": "remove", "path": "/x"}], ["w"], {"patch", "patchType", "warnings"}, id="both"),
    ],
)
def test_a_patch_and_its_type_come_together_or_not_at_all(
    patch: list[Json], warnings: list[str], members: set[str]
) -> None:
    answered = answer(parse_review(event_of(CREATE)), patch, warnings)
    assert answered["statusCode"] == 200
    assert answered["headers"] == {"Content-Type": "application/json"}
    response = json.loads(answered["body"])["response"]
    assert set(response) == {"uid", "allowed"} | members
    if patch:
        assert response["patchType"] == "JSONPatch"
        assert json.loads(base64.b64decode(response["patch"], validate=True)) == patch
    if warnings:
        assert response["warnings"] == warnings


def test_a_bad_review_is_answered_400_with_what_is_wrong_and_no_retry() -> None:
    with pytest.raises(BadReviewError) as caught:
        parse_review(event_of("{"))
    answered = refuse(caught.value)
    assert answered["statusCode"] == 400
    assert str(caught.value) in json.loads(answered["body"])["message"]
    assert "Retry-After" not in answered["headers"]


def test_503_asks_for_a_retry_after_one_whole_second_or_for_none() -> None:
    again = unavailable("not now", retry=True)
    assert (again["statusCode"], again["headers"]["Retry-After"]) == (503, "1")
    assert json.loads(again["body"]) == {"message": "not now"}
    assert "Retry-After" not in unavailable("a bug", retry=False)["headers"]


NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        pytest.param("1s", 0.25, id="shortest"),
        pytest.param("5s", 1.25, id="five"),
        pytest.param("10s", 2.5, id="ten"),
        pytest.param("30s", 2.5, id="longest"),
        pytest.param(None, 2.5, id="missing"),
        pytest.param("", 2.5, id="empty"),
        pytest.param("soon", 2.5, id="no-number"),
        pytest.param("5", 2.5, id="no-unit"),
        pytest.param("5ms", 2.5, id="another-unit"),
        pytest.param("-5s", 2.5, id="negative"),
        pytest.param("5s\n", 2.5, id="newline"),
        pytest.param("1e9s", 2.5, id="exponent"),
        pytest.param("9" * 400 + "s", 2.5, id="enormous"),
        pytest.param("５s", 2.5, id="wide-digit"),
        pytest.param(["5s"], 2.5, id="array"),
    ],
)
def test_an_attempt_may_take_a_quarter_of_the_timeout(timeout: object, seconds: float) -> None:
    event = {"queryStringParameters": {"timeout": timeout}, "requestContext": {"timeEpoch": int(NOW * 1000)}}
    assert seconds_left(event, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("parameters", [None, {}, {"other": "1"}])
def test_without_a_timeout_the_default_counts(parameters: Json | None) -> None:
    assert seconds_left({"queryStringParameters": parameters}, NOW) == pytest.approx(2.5)
    assert seconds_left({}, NOW) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("began", "seconds"),
    [
        pytest.param(NOW * 1000, 1.25, id="now"),
        pytest.param(NOW * 1000 - 250, 1.0, id="a-quarter-second-ago"),
        pytest.param(NOW * 1000 - 1250, 0.0, id="all-used-up"),
        pytest.param(NOW * 1000 - 4000, -2.75, id="a-cold-start-took-it-all"),
        pytest.param(NOW * 1000 - 5000, 1.25, id="longer-ago-than-anyone-waits"),
        pytest.param(NOW * 1000 + 1, 1.25, id="future"),
        pytest.param(0, 1.25, id="zero"),
        pytest.param(-1, 1.25, id="negative"),
        pytest.param(NOW, 1.25, id="seconds-instead-of-milliseconds"),
        pytest.param(NOW * 1_000_000, 1.25, id="microseconds-instead-of-milliseconds"),
        pytest.param(None, 1.25, id="null"),
        pytest.param(str(NOW * 1000), 1.25, id="text"),
        pytest.param([], 1.25, id="array"),
        pytest.param(float("nan"), 1.25, id="not-a-number"),
        pytest.param(float("inf"), 1.25, id="infinite"),
    ],
)
def test_time_is_counted_from_the_gateway_unless_its_clock_cannot_be_right(began: object, seconds: float) -> None:
    event = {"queryStringParameters": {"timeout": "5s"}, "requestContext": {"timeEpoch": began}}
    assert seconds_left(event, NOW) == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("context", [None, {}, {"http": {}}])
def test_without_the_gateways_clock_the_attempt_begins_now(context: Json | None) -> None:
    assert seconds_left({"queryStringParameters": {"timeout": "5s"}, "requestContext": context}, NOW) == 1.25
