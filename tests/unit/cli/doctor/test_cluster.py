"""Doctor's results about a cluster's webhook configurations, compared with the shipped one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.cluster import judge_configurations, judge_namespaces, judge_version
from image_mirror.cli.doctor.runner import CheckResult, State
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import NAMESPACE, Choices, shipped_configuration
from image_mirror.review import Json
from image_mirror.swap_when import LABEL
from support.operators import PROFILES, TOKEN, URL

SHIPPED = shipped_configuration(URL)
WHERE = "--china-profile=china --china-region=cn-north-1 --stack-name=mirror | kubectl apply --context=shop -f -`"


@pytest.fixture(autouse=True)
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "aws-config").write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))


def applied(change: Callable[[Json], object] = lambda _: None, choices: Choices | None = None) -> Json:
    """Return a configuration as the API server returns it, with its defaults, and with `change` made to its webhook."""
    configuration = shipped_configuration(URL, choices) if choices else copy.deepcopy(SHIPPED)
    for webhook in configuration["webhooks"]:
        webhook["matchPolicy"] = "Equivalent"
    configuration["metadata"] |= {"uid": "9e1c8a44-0000-4000-8000-000000000000", "generation": 1}
    change(configuration["webhooks"][-1])
    return configuration


def stack_of(profile: str) -> Stack:
    return Stack(Account("china", profile, "cn-north-1"), "mirror", "CREATE_COMPLETE", {"APIGatewayURL": URL}, {})


def judged(*configurations: Json) -> list[CheckResult]:
    return list(judge_configurations(configurations, stack_of("china"), Cluster(context="shop")))


def setting(**values: Any) -> Callable[[Json], None]:
    return lambda webhook: webhook.update(values)


def removing(name: str) -> Callable[[Json], None]:
    return lambda webhook: webhook.pop(name) and None


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        pytest.param(Choices(), "with failurePolicy Ignore, 5 seconds", id="as-shipped"),
        pytest.param(Choices(timeout=8), "8 seconds", id="another-timeout"),
        pytest.param(Choices(failure_policy="Fail", excluded=("kube-system",)), "failurePolicy Fail", id="fail"),
        pytest.param(Choices(namespaces=("shop", "web")), "namespaces: ", id="some-namespaces"),
        pytest.param(Choices(failure_policy="Fail", namespaces=("shop",)), "In shop", id="fail-in-one-namespace"),
    ],
)
def test_what_an_operator_may_choose_is_reported_and_is_no_error(choices: Choices, words: str) -> None:
    [result] = judged(applied(choices=choices))
    assert result.state is State.OK, result
    assert words in result.found


def test_what_the_api_server_fills_in_or_reorders_is_no_difference() -> None:
    def reorder(webhook: Json) -> None:
        webhook["rules"].reverse()
        webhook["rules"][0]["operations"].reverse()
        webhook["matchConditions"].reverse()
        webhook["matchConditions"][0]["expression"] = webhook["matchConditions"][0]["expression"].replace(" ", "\n")

    [result] = judged(applied(reorder))
    assert result.state is State.OK, result


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        pytest.param(
            lambda webhook: webhook["clientConfig"].update(url=URL.replace(TOKEN, "z" * 32)),
            "failed",
            "with another path, so another token, than the stack's",
            id="another-token",
        ),
        pytest.param(
            lambda webhook: (
                webhook["clientConfig"].update(url=URL.replace(TOKEN, "z" * 32)) or webhook.update(failurePolicy="Fail")
            ),
            "failed",
            "than the stack's: with failurePolicy Fail no pod starts, unless a webhook answers there",
            id="another-token-and-fail",
        ),
        pytest.param(
            lambda webhook: webhook["clientConfig"].update(url=f"https://old.execute-api.cn/{'z' * 32}"),
            "failed",
            "asks https://old.execute-api.cn/***, not https://a1b2c3d4e5.execute-api.cn-northwest-1",
            id="another-host",
        ),
        pytest.param(
            setting(clientConfig={"service": {"namespace": "mirror", "name": "webhook"}}),
            "failed",
            "asks the Service mirror/webhook",
            id="a-service",
        ),
        pytest.param(
            lambda webhook: webhook["clientConfig"].update(caBundle="LS0t"),
            "warning",
            "has a caBundle",
            id="a-ca-bundle",
        ),
        pytest.param(
            lambda webhook: webhook["rules"].pop(), "failed", "rules are different", id="without-ephemeral-containers"
        ),
        pytest.param(
            lambda webhook: webhook["rules"][0].update(operations=["CREATE"]),
            "failed",
            "rules are",
            id="creations-alone",
        ),
        pytest.param(
            removing("matchConditions"), "failed", "lack an-image-is-new and not-a-mirror-pod", id="unconditional"
        ),
        pytest.param(
            lambda webhook: webhook["matchConditions"][0].update(expression="true"),
            "failed",
            "matchConditions have another not-a-mirror-pod",
            id="another-condition",
        ),
        pytest.param(setting(sideEffects="None"), "failed", "sideEffects is None, not NoneOnDryRun", id="side-effects"),
        pytest.param(
            removing("reinvocationPolicy"), "failed", "reinvocationPolicy is Never, not IfNeeded", id="reinvocation"
        ),
        pytest.param(setting(matchPolicy="Exact"), "failed", "matchPolicy is Exact, not Equivalent", id="match-policy"),
        pytest.param(
            setting(admissionReviewVersions=["v1beta1"]), "failed", "is v1beta1, not v1, v1beta1", id="review-versions"
        ),
        pytest.param(
            setting(namespaceSelector={}), "warning", "namespaceSelector does not exclude the label", id="no-opting-out"
        ),
        pytest.param(
            setting(objectSelector={}),
            "warning",
            "objectSelector does not exclude the label",
            id="no-opting-out-of-pods",
        ),
        pytest.param(removing("timeoutSeconds"), "warning", "wait 10 seconds", id="ten-seconds"),
        pytest.param(setting(failurePolicy="Fail"), "warning", "for kube-system too", id="fail-with-the-control-plane"),
    ],
)
def test_a_difference_is_named(change: Callable[[Json], object], state: str, words: str) -> None:
    results = judged(applied(change))
    assert any(each.state == state and words in each.found and each.remedy for each in results), results
    assert not any(each.state is State.OK for each in results)
    assert not any("z" * 32 in each.found + (each.remedy or "") or TOKEN in each.found for each in results)


@pytest.mark.parametrize(
    "configurations",
    [
        pytest.param([], id="none"),
        pytest.param(
            [{"metadata": {"name": "istio"}, "webhooks": [{"name": "i", "clientConfig": {"service": {"name": "x"}}}]}],
            id="others-alone",
        ),
        pytest.param([{"metadata": {"name": "empty"}}], id="one-without-webhooks"),
    ],
)
def test_without_a_configuration_the_command_that_makes_it_is_named(configurations: list[Json]) -> None:
    [result] = judged(*configurations)
    assert result.state is State.FAILED
    assert result.remedy == f"`image-mirror webhook-config {WHERE}"


@pytest.mark.parametrize(
    ("choices", "change", "options"),
    [
        pytest.param(
            Choices(failure_policy="Fail", timeout=8, excluded=("kube-system", "shop")),
            removing("matchConditions"),
            "--failure-policy=Fail --timeout=8 --exclude-namespaces=kube-system,shop ",
            id="all-of-them",
        ),
        pytest.param(Choices(namespaces=("shop",)), setting(sideEffects="None"), "--namespaces=shop ", id="namespaces"),
        pytest.param(
            Choices(timeout=20, excluded=("shop",)), lambda _: None, "--exclude-namespaces=shop ", id="but-the-timeout"
        ),
        pytest.param(
            Choices(failure_policy="Fail", namespaces=("kube-system", "shop")),
            lambda _: None,
            "--failure-policy=Fail --namespaces=shop ",
            id="but-the-control-plane",
        ),
        pytest.param(
            Choices(failure_policy="Fail", namespaces=("kube-system",)),
            lambda _: None,
            "--failure-policy=Fail --exclude-namespaces=kube-system ",
            id="but-the-control-plane-alone",
        ),
    ],
)
def test_the_remedy_has_the_options_that_were_chosen(
    choices: Choices, change: Callable[[Json], object], options: str
) -> None:
    [result] = judged(applied(change, choices))
    assert result.remedy == f"`image-mirror webhook-config {options}{WHERE}"


def test_the_remedy_is_quoted_for_a_shell_and_names_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "aws-config").write_text('[profile "my china"]\nregion = cn-north-1\n')
    asked = Cluster(Path("my config"), "my shop")
    [result] = judge_configurations([], stack_of("my china"), asked)
    assert result.remedy == (
        "`image-mirror webhook-config '--china-profile=my china' --china-region=cn-north-1 --stack-name=mirror | "
        "kubectl apply '--kubeconfig=my config' '--context=my shop' -f -`"
    )


# ---- several webhooks, for the label of a namespace ----


@pytest.mark.parametrize("modes", [("copied",), ("always", "copied", "paused")], ids=str)
def test_the_webhooks_of_labels_are_no_difference_and_are_not_called_twice(modes: Any) -> None:
    results = judged(applied(choices=Choices(modes=modes)))
    assert [each.state for each in results] == [State.OK] * (1 + len(modes))
    for value, result in zip(modes, results[1:], strict=True):
        assert result.found.startswith(f"image-mirror ({value}) is the shipped one")
        assert f"image-mirror/swap-when In {value}" in result.found


def end_of(results: list[CheckResult]) -> str:
    [remedy] = {str(each.remedy) for each in results if each.state is not State.OK}
    return remedy


@pytest.mark.parametrize(
    ("choices", "found", "options"),
    [
        pytest.param(
            Choices(paused=True),
            "image-mirror is paused: new pods get the copies that ECR has, and none is requested",
            "",
            id="all",
        ),
        pytest.param(
            Choices(paused=True, modes=("always", "copied"), excluded=("kube-system",)),
            "image-mirror is paused: new pods get the copies that ECR has, and none is requested",
            "--exclude-namespaces=kube-system --modes=always,copied ",
            id="all-with-labels",
        ),
    ],
)
def test_a_pause_is_named_with_the_command_that_ends_it(choices: Choices, found: str, options: str) -> None:
    results = judged(applied(choices=choices))
    assert [each.found for each in results if each.state is State.WARNING] == [found]
    assert end_of(results) == f"when the trouble is over, end the pause: `image-mirror webhook-config {options}{WHERE}"


def test_a_pause_with_an_exception_names_it() -> None:
    configuration = applied(choices=Choices(modes=("always", "paused")))
    configuration["webhooks"][0]["clientConfig"]["url"] += "/paused"
    [warning] = [each for each in judged(configuration) if each.state is State.WARNING]
    assert warning.found.endswith("except for namespaces with the label image-mirror/swap-when=always")


def for_two_labels(route: str) -> Json:
    """Return a configuration whose second webhook is for two labels, made by hand."""
    configuration = applied(choices=Choices(modes=("copied", "paused")))
    plain, both, _ = configuration["webhooks"]
    both["namespaceSelector"]["matchExpressions"][-1]["values"] = ["paused", "copied"]
    both["clientConfig"]["url"] = f"{URL}/{route}"
    return configuration | {"webhooks": [plain, both]}


def test_a_pause_for_some_labels_names_them() -> None:
    [warning] = [each for each in judged(for_two_labels("paused")) if each.state is not State.OK]
    assert warning.found == (
        "image-mirror is paused for namespaces with the label image-mirror/swap-when=copied: new pods get the copies "
        "that ECR has, and none is requested"
    )
    assert warning.remedy == (
        f"when the trouble is over, end the pause: `image-mirror webhook-config --modes=copied,paused {WHERE}"
    )


def test_one_webhook_for_two_labels_may_not_call_the_route_of_one() -> None:
    [failed] = [each for each in judged(for_two_labels("copied")) if each.state is not State.OK]
    assert failed.found == "image-mirror (copied, paused) calls the route of copied"


def test_a_label_in_a_webhook_for_two_has_an_effect() -> None:
    found, asked = namespaces(a="copied", b="paused"), (stack_of("china"), Cluster(context="shop"))
    [result] = judge_namespaces(found, [for_two_labels("paused")], *asked)
    assert result.state is State.OK


@pytest.mark.parametrize("modes", [(), ("always",)], ids=str)
def test_during_a_pause_a_label_without_a_webhook_is_no_fault(modes: Any) -> None:
    [(state, _, remedy)] = judged_labels(namespaces(shop="copied"), Choices(paused=True, modes=modes))
    assert (state, remedy) == (State.OK, None)


def test_the_remedy_for_a_namespace_is_of_the_configuration_that_selects_it() -> None:
    first = applied(choices=Choices(namespaces=("web",), timeout=8))
    second = applied(choices=Choices(excluded=("web",), modes=("always",), failure_policy="Fail"))
    second["metadata"]["name"] = "mirror-rest"
    asked = stack_of("china"), Cluster(context="shop")
    results = judge_namespaces(namespaces(shop="copied", web="copied", api="always"), [first, second], *asked)
    assert [(each.found.partition(" has no effect: ")[2], each.remedy) for each in results] == [
        (
            "the configuration image-mirror has no webhook for it",
            f"`image-mirror webhook-config --timeout=8 --namespaces=web --modes=copied {WHERE}",
        ),
        (
            "the configuration mirror-rest has no webhook for it",
            "`image-mirror webhook-config --failure-policy=Fail --exclude-namespaces=web --modes=always,copied "
            f"{WHERE}",
        ),
    ]


def test_the_label_of_a_namespace_that_no_webhook_selects_is_not_judged() -> None:
    [(state, _, _)] = judged_labels(namespaces(shop="copied"), Choices(namespaces=("web",)))
    assert state is State.OK


def test_a_remedy_during_a_pause_does_not_end_it() -> None:
    results = judged(applied(setting(sideEffects="None"), Choices(paused=True)))
    [failed] = [each for each in results if each.state is State.FAILED]
    assert failed.remedy == f"`image-mirror webhook-config --pause {WHERE}"


def test_a_value_of_swap_when_may_be_chosen_for_the_whole_cluster_by_the_url() -> None:
    [result] = judged(applied(lambda webhook: webhook["clientConfig"].update(url=f"{URL}/copied")))
    assert result.state is State.OK
    assert result.found.endswith("; calls the route of copied")


@pytest.mark.parametrize(
    ("value", "choices", "route", "kept"),
    [
        pytest.param(None, Choices(), "copied", "all other namespaces call the route of copied", id="plain"),
        pytest.param(
            None,
            Choices(modes=("always",)),
            "copied",
            "all other namespaces call the route of copied",
            id="plain-beside-a-label",
        ),
        pytest.param(
            "always",
            Choices(modes=("always",), paused=True),
            "always",
            "namespaces with the label image-mirror/swap-when=always call the route of always",
            id="exception-of-a-pause",
        ),
        pytest.param(
            "always",
            Choices(modes=("always",)),
            "paused",
            "namespaces with the label image-mirror/swap-when=always call the route of paused",
            id="pause-of-a-label",
        ),
    ],
)
def test_a_remedy_names_the_route_that_no_option_chooses(
    value: str | None, choices: Choices, route: str, kept: str
) -> None:
    configuration = applied(choices=choices)
    webhook = configuration["webhooks"][1 if value else 0]
    webhook["clientConfig"]["url"] = f"{URL}/{route}"
    webhook["sideEffects"] = "None"
    [failed] = [each for each in judged(configuration) if each.state is State.FAILED]
    assert str(failed.remedy).endswith(f"{WHERE}; then let the webhook for {kept} again")


def test_a_webhook_that_calls_the_route_of_another_label_is_wrong() -> None:
    configuration = applied(lambda webhook: webhook["clientConfig"].update(url=URL), Choices(modes=("copied",)))
    [failed] = [each for each in judged(configuration) if each.state is State.FAILED]
    assert failed.found == "image-mirror (copied) calls the route of the parameter SwapWhen"
    assert failed.remedy == f"`image-mirror webhook-config --modes=copied {WHERE}"


def test_labels_without_a_webhook_are_named() -> None:
    configuration = applied(choices=Choices(modes=("always", "copied", "paused")))
    del configuration["webhooks"][2:]
    [warning] = [each for each in judged(configuration) if each.state is not State.OK]
    assert warning.found == (
        "no webhook is for namespaces with the label image-mirror/swap-when=copied or with the label "
        "image-mirror/swap-when=paused: their pods are not rewritten"
    )
    assert warning.remedy == f"`image-mirror webhook-config --modes=always,copied,paused {WHERE}"
    del configuration["webhooks"][0]
    [*_, warning] = judged(configuration)
    assert "for namespaces without the label image-mirror/swap-when or " in warning.found


def test_a_webhook_for_all_labels_beside_one_for_a_label_calls_twice() -> None:
    older = applied()
    older["metadata"]["name"] = "mirror-v1"
    [*_, warning] = judged(applied(choices=Choices(modes=("copied",))), older)
    assert (
        warning.found == "3 webhooks in image-mirror, mirror-v1 are for this project: each pod is sent to all of them"
    )


def namespaces(**labels: str) -> list[Json]:
    return [{"metadata": {"name": name, "labels": {LABEL: value, NAMESPACE: name}}} for name, value in labels.items()]


def judged_labels(found: list[Json], choices: Choices) -> list[tuple[State, str, str | None]]:
    asked = stack_of("china"), Cluster(context="shop")
    results = judge_namespaces(found, [applied(choices=choices)], *asked)
    return [(each.state, each.found, each.remedy) for each in results]


@pytest.mark.parametrize(
    ("labels", "modes", "found"),
    [
        pytest.param({}, (), "no namespace has the label image-mirror/swap-when", id="none"),
        pytest.param({"a": "copied"}, ("copied",), "1 namespace has the label image-mirror/swap-when", id="one"),
        pytest.param(
            {"a": "copied", "b": "paused"},
            ("always", "copied", "paused"),
            "2 namespaces have the label image-mirror/swap-when",
            id="two",
        ),
    ],
)
def test_labels_with_a_webhook_of_their_own_have_an_effect(labels: dict[str, str], modes: Any, found: str) -> None:
    assert judged_labels(namespaces(**labels), Choices(modes=modes)) == [(State.OK, found, None)]


def test_namespaces_whose_label_has_no_effect_are_named_with_the_remedy() -> None:
    labels = {"a": "paused", "b": "copied", "c": "pause", "d": "paused", "e": "paused", "f": "paused"}
    assert judged_labels(namespaces(**labels), Choices(modes=("copied",), timeout=8)) == [
        (
            State.WARNING,
            "the label image-mirror/swap-when=pause of c has no effect: it is not always, copied or paused",
            "correct the label",
        ),
        (
            State.WARNING,
            "the label image-mirror/swap-when=paused of a, d, e and 1 more has no effect: the configuration "
            "image-mirror has no webhook for it",
            f"`image-mirror webhook-config --timeout=8 --modes=copied,paused {WHERE}",
        ),
    ]


def test_an_older_configuration_under_another_name_is_found_by_its_url() -> None:
    older = applied()
    older["metadata"]["name"] = "mirror-v1"
    older["webhooks"][0]["name"] = "image.mutating.webhook"
    states = [(each.state, each.found) for each in judged(applied(), older)]
    assert [state for state, _ in states] == [State.OK, State.OK, State.WARNING]
    assert "2 webhooks in image-mirror, mirror-v1" in states[-1][1]


@pytest.mark.parametrize(
    ("version", "state"),
    [
        pytest.param({"major": "1", "minor": "30", "gitVersion": "v1.30.0"}, "ok", id="the-first-that-fits"),
        pytest.param({"major": "1", "minor": "29+", "gitVersion": "v1.29.4-eks-036c24b"}, "failed", id="eks-too-old"),
        pytest.param({"major": "1", "minor": "36", "gitVersion": "v1.36.3"}, "ok", id="new"),
    ],
)
def test_a_cluster_without_match_conditions_is_too_old(version: Json, state: str) -> None:
    [result] = judge_version(version)
    assert (result.state, version["gitVersion"] in result.found) == (state, True)
