"""A cluster: its version, and its webhook configurations, compared with the shipped one.

A choice that `image-mirror webhook-config` offers is printed and is not a fault. A default that the API server fills in
is not a difference.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, fail, fetch, fine, unless, warn
from image_mirror.cli.doctor.stacks import china_stack
from image_mirror.cli.doctor.webhook import masked
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.live_webhook import label_values, our_webhooks, route_of
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import (
    CONTROL_PLANE,
    NAMESPACE,
    SHIPPED,
    Choices,
    route_url,
    shipped_configuration,
)
from image_mirror.pod_images import SKIP_LABEL
from image_mirror.review import Json
from image_mirror.swap_when import LABEL, VALUES

VERSION, CONFIGURATION, LABELS = "cluster version", "webhook configuration", "namespace labels"

_OLDEST = (1, 30)  # matchConditions
_LONG = 10  # seconds
_MOST_NAMED = 3
_UNANSWERED = {
    "Ignore": "no pod is rewritten",
    "Fail": "with failurePolicy Fail no pod starts, unless a webhook answers there",
}
# admissionregistration.k8s.io/v1: what the API server fills in.
_DEFAULTS: Json = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "matchConditions": [],
    "namespaceSelector": {},
    "objectSelector": {},
    "reinvocationPolicy": "Never",
    "timeoutSeconds": 10,
}
_COMPARED = ("admissionReviewVersions", "rules", "sideEffects", "reinvocationPolicy", "matchPolicy", "matchConditions")


def _cluster(context: Context) -> Cluster:
    if context.cluster is None:
        raise NoAnswerError("no cluster is named", "give --kubeconfig or --context")
    return context.cluster


asked_cluster = Fetch(None, _cluster)


@fetch(VERSION)
def version(context: Context) -> Json:
    """Return what the API server says at /version."""
    return context.answer(asked_cluster).version()


def judge_version(version: Json) -> Sequence[CheckResult]:
    """Judge what the API server says at /version."""
    number = tuple(int("".join(filter(str.isdigit, version.get(part, ""))) or 0) for part in ("major", "minor"))
    text = version.get("gitVersion", "unknown")
    if number < _OLDEST:
        return [fail(VERSION, f"{text}: it has no matchConditions", "upgrade the cluster to 1.30 or later")]
    return [fine(VERSION, text)]


@fetch(CONFIGURATION)
def configurations(context: Context) -> Sequence[Json]:
    """Return all MutatingWebhookConfigurations."""
    found: Sequence[Json] = context.answer(asked_cluster).get("mutatingwebhookconfigurations")["items"]
    return found


@fetch(LABELS)
def labelled(context: Context) -> Sequence[Json]:
    """Return the namespaces with the label for SwapWhen."""
    found: Sequence[Json] = context.answer(asked_cluster).get("namespaces", f"--selector={LABEL}")["items"]
    return found


Apply = Callable[[Choices], str]
"""Takes choices, and returns the command that applies them, in backquotes."""


def judge_configurations(configurations: Sequence[Json], china: Stack, cluster: Cluster) -> Sequence[CheckResult]:
    """Compare all MutatingWebhookConfigurations of a cluster with the shipped one, with the URL of China's stack."""
    shipped, apply = shipped_configuration(china.output("APIGatewayURL")), _apply_of(china, cluster)
    [wanted] = shipped["webhooks"]
    url = wanted["clientConfig"]["url"]
    ours = [(holder["metadata"]["name"], _DEFAULTS | webhook) for holder, webhook in our_webhooks(configurations, url)]
    if not ours:
        return [fail(CONFIGURATION, "the cluster has none for this webhook: no pod is rewritten", apply(SHIPPED))]
    results: list[CheckResult] = []
    for holder in dict.fromkeys(holder for holder, _ in ours):
        webhooks = [webhook for its, webhook in ours if its == holder]
        modes = tuple(value for value in VALUES if any(label_values(each) == {value} for each in webhooks))
        paused = any(None in label_values(each) and route_of(each) == "paused" for each in webhooks)
        for webhook in webhooks:
            results += _judge(holder, webhook, wanted, replace(_choices_of(webhook), modes=modes, paused=paused), apply)
        results += _judge_pause(holder, webhooks, replace(_choices_of(webhooks[0]), modes=modes), apply)
        chosen = replace(_choices_of(webhooks[0]), modes=modes, paused=paused)
    return [*results, *_judge_labels(ours, chosen, apply)]


def _judge_pause(holder: str, webhooks: Sequence[Json], choices: Choices, apply: Apply) -> Iterator[CheckResult]:
    """Say that copies are paused for other namespaces than those that ask for it; `choices` are without the pause."""
    paused = [label_values(each) for each in webhooks if route_of(each) == "paused"]
    if any(values != {"paused"} for values in paused):
        going_on = [value for value in choices.modes if value != "paused" and {value} not in paused]
        but = f", except for namespaces with the label {LABEL}={' or '.join(going_on)}" if going_on else ""
        yield warn(
            CONFIGURATION,
            f"{holder} is paused: new pods get the copies that ECR has, and none is requested{but}",
            f"when the trouble is over, end the pause: {apply(choices)}",
        )


def judge_namespaces(
    namespaces: Sequence[Json], configurations: Sequence[Json], china: Stack, cluster: Cluster
) -> Sequence[CheckResult]:
    """Name the namespaces whose label for SwapWhen has no effect, because no webhook is for its value alone."""
    ours = our_webhooks(configurations, china.output("APIGatewayURL"))
    of_one = frozenset().union(*(values for _, each in ours if len(values := label_values(each)) == 1))
    by_value: dict[str, list[str]] = {}
    for each in namespaces:
        by_value.setdefault(each["metadata"]["labels"][LABEL], []).append(each["metadata"]["name"])

    def faults() -> Iterator[CheckResult]:
        for value, names in sorted(by_value.items()):
            shown = ", ".join(names[:_MOST_NAMED]) + (
                f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
            )
            found = f"the label {LABEL}={value} of {shown} has no effect"
            if value not in VALUES:
                yield warn(LABELS, f"{found}: it is not {', '.join(VALUES[:-1])} or {VALUES[-1]}", "correct the label")
            elif ours and value not in of_one:
                choices = _choices_of(_DEFAULTS | ours[0][1])
                modes = tuple(each for each in VALUES if each in of_one or each == value)
                again = _apply_of(china, cluster)(replace(choices, modes=modes))
                yield warn(LABELS, f"{found}: the webhook configuration has no webhook for this value", again)

    count = f"{len(namespaces)} namespace{'' if len(namespaces) == 1 else 's'}" if namespaces else "no namespace"
    has = "have" if len(namespaces) > 1 else "has"
    return unless(faults(), fine(LABELS, f"{count} {has} the label {LABEL}"))


def _judge_labels(ours: Sequence[tuple[str, Json]], chosen: Choices, apply: Apply) -> Iterator[CheckResult]:
    """Judge whether the pods of each namespace are sent to exactly one webhook, as far as its label decides that."""
    values = [label_values(webhook) for _, webhook in ours]
    double = [
        number
        for number, each in enumerate(values)
        if any(each & other for other in (*values[:number], *values[number + 1 :]))
    ]
    if double:
        names = ", ".join(dict.fromkeys(ours[number][0] for number in double))
        yield warn(
            CONFIGURATION,
            f"{len(double)} webhooks in {names} are for this project: each pod is sent to all of them",
            "keep one, and delete the older: `kubectl delete mutatingwebhookconfiguration <its name>`",
        )
    left_out = [value for value in (None, *VALUES) if not any(value in each for each in values)]
    if left_out:
        labels = [f"with the label {LABEL}={value}" if value else f"without the label {LABEL}" for value in left_out]
        modes = tuple(value for value in VALUES if value in {*chosen.modes, *left_out})
        yield warn(
            CONFIGURATION,
            f"no webhook is for namespaces {' or '.join(labels)}: their pods are not rewritten",
            apply(replace(chosen, modes=modes)),
        )


def _judge(holder: str, webhook: Json, wanted: Json, choices: Choices, apply: Apply) -> Sequence[CheckResult]:
    is_now, wanted = webhook, _DEFAULTS | wanted
    url = wanted["clientConfig"]["url"]
    client = is_now.get("clientConfig", {})
    again = apply(choices)
    values, called = label_values(is_now), route_of(is_now)
    own = next(iter(values)) if len(values) == 1 else None
    if own:
        holder = f"{holder} ({own})"

    def faults() -> Iterator[CheckResult]:
        if client.get("url") not in [route_url(url, value) for value in (None, *VALUES)]:
            yield fail(
                CONFIGURATION, f"{holder} {_other_place(client, url)}: {_UNANSWERED[choices.failure_policy]}", again
            )
        elif own and called not in (own, "paused"):
            yield fail(CONFIGURATION, f"{holder} calls the route of {called or 'the parameter SwapWhen'}", again)
        if client.get("caBundle"):
            yield warn(
                CONFIGURATION,
                f"{holder} has a caBundle and trusts only that: API Gateway's certificates are from public CAs",
                f"remove it, unless there is a proxy in between: {again}",
            )
        differ = [each for each in _COMPARED if _normal(each, is_now.get(each)) != _normal(each, wanted.get(each))]
        if differ:
            shown = "; ".join(f"{each} {_difference(each, is_now, wanted)}" for each in differ)
            yield fail(CONFIGURATION, f"{holder} differs from the shipped one: {shown}", again)
        for selector in ("namespaceSelector", "objectSelector"):
            if not set(map(_expression, wanted[selector]["matchExpressions"])) <= set(_expressions(is_now[selector])):
                yield warn(CONFIGURATION, f"{holder}: {selector} does not exclude the label {SKIP_LABEL}=true", again)
        if is_now["timeoutSeconds"] >= _LONG:
            yield warn(
                CONFIGURATION,
                f"{holder} lets each pod wait {is_now['timeoutSeconds']} seconds while the endpoint hangs",
                apply(replace(choices, timeout=SHIPPED.timeout)),
            )
        if is_now["failurePolicy"] == "Fail" and _asks_for(CONTROL_PLANE, is_now["namespaceSelector"]):
            yield warn(
                CONFIGURATION,
                f"{holder} has failurePolicy Fail for {CONTROL_PLANE} too: while the webhook is down, a cluster may "
                "not recover",
                apply(_without_the_control_plane(choices)),
            )

    chosen = f"failurePolicy {is_now['failurePolicy']}, {is_now['timeoutSeconds']} seconds"
    more = set(_expressions(is_now["namespaceSelector"])) - set(_expressions(wanted["namespaceSelector"]))
    if more:
        chosen += "; namespaces: " + "; ".join(sorted(f"{key} {operator} {values}" for key, operator, values in more))
    return unless(faults(), fine(CONFIGURATION, f"{holder} is the shipped one, with {chosen}"))


def _other_place(client: Json, url: str) -> str:
    if "service" in client:
        service = client["service"]
        return f"asks the Service {service.get('namespace')}/{service.get('name')}, not {masked(url)}"
    current = client.get("url", "")
    if urlsplit(current).netloc == urlsplit(url).netloc:
        return f"asks {masked(url)} with another path, so another token, than the stack's"
    return f"asks {masked(current)}, not {masked(url)}"


def _normal(name: str, value: Any) -> Any:
    """Return a field's value in a form in which values with the same meaning are equal."""
    if name == "rules":
        lists = ("apiGroups", "apiVersions", "operations", "resources")
        rules = ([*(sorted(each.get(part) or ()) for part in lists), [each.get("scope", "*")]] for each in value or ())
        return sorted(rules)
    if name == "matchConditions":
        return {(each["name"], " ".join(each["expression"].split())) for each in value or ()}
    return value


def _difference(name: str, is_now: Json, wanted: Json) -> str:
    if name == "matchConditions":
        current, right = (dict(_normal(name, each.get(name))) for each in (is_now, wanted))
        parts = [
            ("lack", right.keys() - current.keys()),
            ("also have", current.keys() - right.keys()),
            ("have another", {each for each in right.keys() & current.keys() if right[each] != current[each]}),
        ]
        return ", ".join(f"{verb} {' and '.join(sorted(names))}" for verb, names in parts if names)
    if name == "rules":
        return "are different"
    return f"is {_shown(is_now.get(name))}, not {_shown(wanted.get(name))}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _asks_for(namespace: str, selector: Json) -> bool:
    """Say whether the pods of a namespace are sent, as far as its name decides that."""
    for key, operator, values in _expressions(selector):
        names = values.split(", ")
        if key == NAMESPACE and ((operator == "NotIn") == (namespace in names)) and operator in ("In", "NotIn"):
            return False
    return True


def _apply_of(stack: Stack, cluster: Cluster) -> Apply:
    """Return a function that makes the command to apply choices to `cluster`, with the URL of `stack`."""

    def apply(choices: Choices) -> str:
        made = ["image-mirror", "webhook-config"]
        made += [f"--failure-policy={choices.failure_policy}"] * (choices.failure_policy != SHIPPED.failure_policy)
        made += [f"--timeout={choices.timeout}"] * (choices.timeout != SHIPPED.timeout)
        made += [f"--namespaces={','.join(choices.namespaces)}"] * bool(choices.namespaces)
        made += [f"--exclude-namespaces={','.join(choices.excluded)}"] * bool(choices.excluded)
        made += [f"--modes={','.join(choices.modes)}"] * bool(choices.modes)
        made += ["--pause"] * choices.paused
        made += [f"--china-profile={stack.account.profile}"] * bool(stack.account.profile)
        made += [f"--china-region={stack.account.region}", f"--stack-name={stack.name}"]
        applied = ["kubectl", "apply"]
        applied += [f"--kubeconfig={cluster.kubeconfig}"] * bool(cluster.kubeconfig)
        applied += [f"--context={cluster.context}"] * bool(cluster.context)
        return f"`{shlex.join(made)} | {shlex.join([*applied, '-f', '-'])}`"

    return apply


def _choices_of(webhook: Json) -> Choices:
    """Return the choices for which `image-mirror webhook-config` has an option."""
    asked = _expressions(webhook["namespaceSelector"])

    def names(wanted: str) -> tuple[str, ...]:
        found = [values.split(", ") for key, operator, values in asked if (key, operator) == (NAMESPACE, wanted)]
        return tuple(dict.fromkeys(name for each in found for name in each if name))

    return Choices(
        failure_policy="Fail" if webhook["failurePolicy"] == "Fail" else "Ignore",
        timeout=webhook["timeoutSeconds"],
        namespaces=names("In"),
        excluded=names("NotIn"),
    )


def _without_the_control_plane(choices: Choices) -> Choices:
    """Return the choices that also exclude the control plane's own pods."""
    names = tuple(name for name in choices.namespaces if name != CONTROL_PLANE)
    return replace(
        choices, namespaces=names, excluded=choices.excluded if names else (*choices.excluded, CONTROL_PLANE)
    )


def _expressions(selector: Json) -> list[tuple[str, str, str]]:
    """Return all conditions of a label selector, each in the form of `_expression`."""
    labels = [(key, "In", value) for key, value in (selector.get("matchLabels") or {}).items()]
    return labels + [_expression(each) for each in selector.get("matchExpressions") or ()]


def _expression(asked: Json) -> tuple[str, str, str]:
    """Return key, operator and sorted values of an entry of matchExpressions: equal if two entries mean the same."""
    return asked["key"], asked["operator"], ", ".join(sorted(asked.get("values") or ()))


CHECKS = (
    Check(VERSION, judge_version, (version,), required=True),
    Check(CONFIGURATION, judge_configurations, (configurations, china_stack, asked_cluster)),
    Check(LABELS, judge_namespaces, (labelled, configurations, china_stack, asked_cluster)),
)
