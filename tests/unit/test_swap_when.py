"""SwapWhen of one pod: its label, the route that was called, or the stack's parameter; and what a pause does not do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.messages import copied_later, copying, not_requested, unknown_swap_when
from image_mirror.review import Json
from image_mirror.swap_when import LABEL, VALUES, SwapWhen, parse_swap_when, swap_when_of
from support.reviews_data import (
    CAPTURED,
    COPIED,
    FAILED,
    REGISTRY,
    REQUESTED,
    Lookup,
    admit,
    captured,
    event_of,
    made_pod,
    review_of,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def labelled(value: object) -> Json:
    return made_pod({"a": "gcr.io/x:1"}, labels={LABEL: value})


@pytest.mark.parametrize(
    ("label", "path", "default", "holds"),
    [
        pytest.param(None, "/token", "always", "always", id="the-parameter"),
        pytest.param(None, "/token", "copied", "copied", id="the-parameter-copied"),
        pytest.param(None, "/token", "paused", "paused", id="the-parameter-paused"),
        pytest.param(None, "/token/always", "copied", "always", id="the-route-before-the-parameter"),
        pytest.param(None, "/token/copied", "always", "copied", id="the-route-copied"),
        pytest.param(None, "/token/paused", "always", "paused", id="the-route-paused"),
        pytest.param("always", "/token/paused", "copied", "always", id="the-label-before-the-route"),
        pytest.param("copied", "/token/always", "always", "copied", id="the-label-copied"),
        pytest.param("paused", "/token", "always", "paused", id="the-label-before-the-parameter"),
    ],
)
def test_the_pods_label_decides_before_the_route_and_the_route_before_the_parameter(
    label: str | None, path: str, default: SwapWhen, holds: SwapWhen
) -> None:
    pod = made_pod({}) if label is None else labelled(label)
    assert swap_when_of(event_of("", path=path), pod, default) == (holds, [])


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        pytest.param("pause", "pause", id="a-typing-error"),
        pytest.param("Always", "Always", id="upper-case"),
        pytest.param("", "''", id="empty"),
        pytest.param("al\x1bways", r"al\x1bways", id="a-control-character"),
        pytest.param("a" * 10_000, "aaa...aaa", id="far-too-long"),
        pytest.param(True, "''", id="true"),
        pytest.param(["always"], "''", id="a-list"),
        pytest.param({"always": "always"}, "''", id="an-object"),
        pytest.param(1, "''", id="a-number"),
    ],
)
@pytest.mark.parametrize("route", VALUES)
def test_an_unknown_label_counts_as_none_and_gives_a_warning(label: object, shown: str, route: SwapWhen) -> None:
    holds, [warning] = swap_when_of(event_of("", path=f"/token/{route}"), labelled(label), "always")
    assert holds == route
    begin, _, end = shown.partition("...")
    assert warning.startswith(begin)
    assert f"{end} is no value of the label image-mirror/swap-when (always, copied, paused)" in warning
    admitted = admit(review_of(labelled(label)), REQUESTED, path=f"/token/{route}")
    assert admitted.warnings[0] == warning


@pytest.mark.parametrize(
    "labels", [None, "always", ["always"], {"swap-when": "paused"}, {LABEL + "x": "paused"}, {LABEL: None}, 7]
)
def test_labels_of_another_form_count_as_none_without_a_warning(labels: object) -> None:
    assert swap_when_of(event_of(""), made_pod({}, labels=labels), "always") == ("always", [])


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({}, id="no-route"),
        pytest.param({"routeKey": None, "rawPath": "/token/paused"}, id="the-caller's-path-is-not-believed"),
        pytest.param({"routeKey": "$default", "rawPath": "/token/paused"}, id="a-default-route"),
        pytest.param({"routeKey": "POST /paused/token"}, id="not-the-last-segment"),
        pytest.param({"routeKey": "POST /token/pausedx"}, id="another-word"),
        pytest.param({"routeKey": "POST /token/"}, id="an-empty-segment"),
        pytest.param({"routeKey": ["POST /token/paused"]}, id="not-a-text"),
    ],
)
def test_any_other_route_is_the_plain_one(event: Json) -> None:
    assert swap_when_of(event, made_pod({}), "copied") == ("copied", [])


@given(labels=ANY_JSON, label=ANY_JSON, has_label=st.booleans(), route=ANY_JSON, default=st.sampled_from(VALUES))
def test_whatever_the_labels_are_there_is_one_value_and_at_most_one_printable_warning(
    labels: Any, label: Any, has_label: bool, route: Any, default: SwapWhen
) -> None:
    if has_label:
        labels = {**(labels if isinstance(labels, dict) else {}), LABEL: label}
    pod = {"metadata": {"labels": labels}, "spec": {}}
    holds, warnings = swap_when_of({"routeKey": route}, pod, default)
    assert holds in VALUES
    named = labels.get(LABEL) if isinstance(labels, dict) else None
    assert warnings == [] if named is None or named in VALUES else len(warnings) == 1
    assert all(0 < len(each) <= 120 and each.isprintable() for each in warnings)
    if isinstance(named, str) and named in VALUES:
        assert holds == named


@pytest.mark.parametrize("value", VALUES)
def test_each_value_is_read_as_itself(value: SwapWhen) -> None:
    assert parse_swap_when(value) == value


@pytest.mark.parametrize("text", ["", "never", "Always", " always", None, ["always"]])
def test_any_other_value_is_named_an_error(text: object) -> None:
    with pytest.raises(ValueError, match="must be always, copied or paused"):
        parse_swap_when(text)


# ---- whole reviews ----


@pytest.mark.parametrize(
    ("path", "label", "records", "swapped", "warning"),
    [
        pytest.param("/token", None, REQUESTED, True, copying, id="plain"),
        pytest.param("/token/always", None, REQUESTED, True, copying, id="always"),
        pytest.param("/token/copied", None, REQUESTED, False, copied_later, id="copied-not-there"),
        pytest.param("/token/copied", None, COPIED, True, None, id="copied-there"),
        pytest.param("/token/paused", None, REQUESTED, False, not_requested, id="paused-not-there"),
        pytest.param("/token/paused", None, lambda _: {}, False, not_requested, id="paused-without-a-record"),
        pytest.param("/token/paused", None, FAILED, False, not_requested, id="paused-failed"),
        pytest.param("/token/paused", None, COPIED, True, None, id="paused-there"),
        pytest.param("/token/paused", "always", REQUESTED, True, copying, id="the-pod-says-always"),
        pytest.param("/token/always", "paused", REQUESTED, False, not_requested, id="the-pod-says-paused"),
        pytest.param("/token/always", "copied", REQUESTED, False, copied_later, id="the-pod-says-copied"),
    ],
)
def test_each_route_and_label_gets_the_exact_patch(
    path: str, label: str | None, records: Lookup, swapped: bool, warning: Any
) -> None:
    review = captured("create-pod-from-deployment.json")
    metadata = review["request"]["object"]["metadata"]
    if label:
        metadata["labels"][LABEL] = label
    [container] = review["request"]["object"]["spec"]["containers"]
    image, copy = container["image"], f"{REGISTRY}/mirror/k8s.gcr.io/nginx:latest"
    originals = json.dumps({f"containers/{container['name']}": image}, separators=(",", ":"))
    admitted = admit(review, records, path=path)
    expected = [
        {"op": "replace", "path": "/spec/containers/0/image", "value": copy},
        {"op": "add", "path": "/metadata/annotations", "value": {"image-mirror/original-images": originals}},
    ]
    assert admitted.patch == (expected if swapped else [])
    assert admitted.warnings == ([warning(image)] if warning else [])


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("value", VALUES)
def test_the_routes_and_the_parameter_answer_the_same(name: str, value: SwapWhen) -> None:
    by_route, by_parameter = (
        admit(captured(name), COPIED, path=f"/token/{value}"),
        admit(captured(name), COPIED, swap_when=value),
    )
    assert by_route == by_parameter


def test_a_paused_update_puts_back_the_copy_that_the_pod_has() -> None:
    pod = made_pod({"a": "gcr.io/x:1"}, labels={LABEL: "paused"})
    live = admit(review_of(pod), COPIED).pod
    assert admit(review_of(pod, live), lambda _: {}).images == {"containers/a": f"{REGISTRY}/mirror/gcr.io/x:1"}


def test_the_audit_log_names_no_copy_that_a_pause_has_not_requested() -> None:
    pod = made_pod({"a": "gcr.io/x:1", "b": "gcr.io/y:1"})

    def one_of_two(wanted: Any) -> Any:
        return COPIED([each for each in wanted if each.copy.destination.repo.endswith("/x")])

    audit = admit(review_of(pod), one_of_two, path="/token/paused").audit
    assert [each["image"] for each in json.loads(audit["copies"])] == ["gcr.io/x:1"]
    assert admit(review_of(pod), lambda _: {}, path="/token/paused").audit == {}


def test_the_warning_of_an_unknown_label_is_the_first_of_ten() -> None:
    pod = made_pod({f"c{number}": f"gcr.io/x:{number}" for number in range(20)}, labels={LABEL: "pause"})
    warnings = admit(review_of(pod)).warnings
    assert warnings[0] == unknown_swap_when("pause")
    assert (len(warnings), warnings[-1]) == (11, "and 11 more")
