"""Which pods the API server sends, by the selectors of the configuration that is in the cluster."""

from typing import Any

import pytest

from image_mirror.cli.live_webhook import Labels, expressions, label_values, not_sent, our_webhooks, route_of
from image_mirror.cli.webhook_manifest import Choices, shipped_configuration
from image_mirror.swap_when import LABEL, VALUES, SwapWhen

URL = "https://a.execute-api.cn-north-1.amazonaws.com.cn/token"
Json = dict[str, Any]


def webhook(choices: Choices | None = None, **changes: Any) -> Json:
    [shipped] = shipped_configuration(URL, choices or Choices())["webhooks"]
    return {**shipped, **changes}


@pytest.mark.parametrize(
    ("asked", "namespace_labels", "pod_labels", "why"),
    [
        pytest.param(webhook(), {}, {}, None, id="shipped"),
        pytest.param(webhook(), {"image-mirror/skip": "false"}, {"image-mirror/skip": "no"}, None, id="other-values"),
        pytest.param(
            webhook(), {"image-mirror/skip": "true"}, {}, "opted out by the namespace's label", id="namespace"
        ),
        pytest.param(webhook(), {}, {"image-mirror/skip": "true"}, "opted out by the pod's label", id="pod"),
        pytest.param(webhook(), None, {}, None, id="unknown-labels-of-the-namespace-say-nothing"),
        pytest.param(
            webhook(Choices(excluded=("shop",))),
            None,
            {},
            "the webhook's configuration leaves its namespace out: kubernetes.io/metadata.name NotIn shop",
            id="excluded-by-its-name-although-its-labels-are-unknown",
        ),
        pytest.param(webhook(Choices(namespaces=("shop", "web"))), {}, {}, None, id="chosen"),
        pytest.param(
            webhook(Choices(namespaces=("web",))),
            {},
            {},
            "the webhook's configuration leaves its namespace out: kubernetes.io/metadata.name In web",
            id="not-chosen",
        ),
        pytest.param(
            webhook(namespaceSelector={"matchLabels": {"mirror": "on"}}),
            {"mirror": "off"},
            {},
            "the webhook's configuration leaves its namespace out: mirror In on",
            id="match-labels",
        ),
        pytest.param(
            webhook(objectSelector={"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
            {},
            {},
            "the webhook's configuration leaves the pod out: a Exists",
            id="exists",
        ),
        pytest.param(
            webhook(objectSelector={"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}),
            {},
            {"a": ""},
            "the webhook's configuration leaves the pod out: a DoesNotExist",
            id="does-not-exist",
        ),
        pytest.param(
            webhook(namespaceSelector={}, objectSelector={}), {"image-mirror/skip": "true"}, {}, None, id="none"
        ),
    ],
)
def test_selectors_decide_as_in_the_api_server(
    asked: Json, namespace_labels: Labels | None, pod_labels: Labels, why: str | None
) -> None:
    assert not_sent(asked, "shop", namespace_labels, pod_labels) == why


def test_ours_are_those_with_a_name_of_ours_or_the_stacks_host() -> None:
    def configuration(name: str, webhook_name: str, url: str | None) -> Json:
        client = {"url": url} if url else {"service": {"name": "x"}}
        return {"metadata": {"name": name}, "webhooks": [{"name": webhook_name, "clientConfig": client}]}

    ours = [
        configuration("image-mirror", "x.y.z", None),
        configuration("other", "pods.image-mirror.webhook", None),
        configuration("third", "x.y.z", URL + "2"),
        configuration("fourth", "copied.pods.image-mirror.webhook", None),
    ]
    others = [configuration("istio", "i.s.t", "https://istio.example"), {"metadata": {"name": "empty"}}]
    assert [holder for holder, _ in our_webhooks([*ours, *others], URL)] == ours
    assert [holder for holder, _ in our_webhooks([*ours, *others], None)] == [*ours[:2], ours[3]]


@pytest.mark.parametrize("modes", [(), ("copied",), ("always", "paused"), VALUES], ids=str)
@pytest.mark.parametrize("label", [None, "", "pause", *VALUES])
def test_exactly_one_webhook_is_for_each_label_and_calls_its_route(
    modes: tuple[SwapWhen, ...], label: str | None
) -> None:
    printed = shipped_configuration(URL, Choices(modes=modes))["webhooks"]
    labels = {} if label is None else {LABEL: label}
    [selecting] = [each for each in printed if not_sent(each, "shop", labels, {}) is None]
    assert route_of(selecting) == (label if label in modes else None)
    assert (label if label in VALUES else None) in label_values(selecting)


def test_a_pause_calls_its_route_for_each_label() -> None:
    for modes in ((), VALUES):
        printed = shipped_configuration(URL, Choices(modes=modes, paused=True))["webhooks"]
        assert {route_of(each) for each in printed} == {"paused"}


@pytest.mark.parametrize(
    ("selector", "values"),
    [
        pytest.param({}, {None, *VALUES}, id="none"),
        pytest.param({"matchLabels": {LABEL: "copied"}}, {"copied"}, id="match-labels"),
        pytest.param({"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}, set(VALUES), id="exists"),
        pytest.param({"matchExpressions": [{"key": LABEL, "operator": "DoesNotExist"}]}, {None}, id="does-not-exist"),
        pytest.param({"matchLabels": {"a": "b"}}, {None, *VALUES}, id="another-key"),
    ],
)
def test_the_values_of_a_selector_are_those_of_its_label(selector: Json, values: set[SwapWhen | None]) -> None:
    assert label_values({"namespaceSelector": selector}) == values


def test_a_selector_without_conditions_has_none() -> None:
    assert expressions({}) == expressions({"matchLabels": None, "matchExpressions": None}) == []
