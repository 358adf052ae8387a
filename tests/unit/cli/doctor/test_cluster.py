"""Doctor's results about a cluster's webhook configurations, compared with the shipped one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.cluster import judge_configurations, judge_version
from image_mirror.cli.doctor.runner import CheckResult, State
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import Choices, shipped_configuration
from image_mirror.review import Json
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
    [webhook] = configuration["webhooks"]
    webhook["matchPolicy"] = "Equivalent"
    configuration["metadata"] |= {"uid": "9e1c8a44-0000-4000-8000-000000000000", "generation": 1}
    change(webhook)
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
