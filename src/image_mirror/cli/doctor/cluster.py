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
from image_mirror.cli.live_webhook import expressions, label_values, leaves_out, our_webhooks, route_of, shown
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
from image_mirror.swap_when import LABEL, VALUES, SwapWhen

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
        again = _keeping_routes(webhooks, apply)
        for webhook in webhooks:
            results += _judge(holder, webhook, wanted, _choices_of(webhook, webhooks), again)
        results += _judge_pause(holder, webhooks, apply)
        chosen = _choices_of(webhooks[0], webhooks)
    return [*results, *_judge_labels(ours, chosen, again)]


def _judge_pause(holder: str, webhooks: Sequence[Json], apply: Apply) -> Iterator[CheckResult]:
    """Say that copies are paused for other namespaces than those that ask for it, and for which."""
    paused = {value for each in webhooks if route_of(each) == "paused" for value in label_values(each)}
    served = {value for each in webhooks for value in label_values(each)}
    asked = [value for value in VALUES if value in paused and value != "paused"]
    going_on = [value for value in VALUES if value in served - paused]
    if None in paused:
        which = ""
        but = f", except for namespaces with the label {LABEL}={' or '.join(going_on)}" if going_on else ""
    elif asked:
        which, but = f" for namespaces with the label {LABEL}={' or '.join(asked)}", ""
    else:
        return
    others = [webhook for webhook in webhooks if route_of(webhook) != "paused"]
    end = _keeping_routes(others, apply)(replace(_choices_of(webhooks[0], webhooks), paused=False))
    yield warn(
        CONFIGURATION,
        f"{holder} is paused{which}: new pods get the copies that ECR has, and none is requested{but}",
        f"when the trouble is over, end the pause: {end}",
    )


def judge_namespaces(
    namespaces: Sequence[Json], configurations: Sequence[Json], china: Stack, cluster: Cluster
) -> Sequence[CheckResult]:
    """Name the namespaces whose label for SwapWhen has no effect, because no webhook is for its value.

    During a pause no label has an effect, so this is no fault then.
    """
    ours = [
        (holder["metadata"]["name"], _DEFAULTS | webhook)
        for holder, webhook in our_webhooks(configurations, china.output("APIGatewayURL"))
    ]
    unknown: dict[str, list[str]] = {}
    without: dict[tuple[str, str], list[str]] = {}  # by value, and by the configuration that selects the namespace
    for each in namespaces:
        name, labels = each["metadata"]["name"], each["metadata"]["labels"]
        selecting = [(holder, webhook) for holder, webhook in ours if leaves_out(webhook, name, labels) is None]
        if labels[LABEL] not in VALUES:
            unknown.setdefault(labels[LABEL], []).append(name)
        elif selecting and all(None in label_values(each) and route_of(each) != "paused" for _, each in selecting):
            without.setdefault((labels[LABEL], selecting[0][0]), []).append(name)

    def faults() -> Iterator[CheckResult]:
        for value, names in sorted(unknown.items()):
            no_value = f"it is not {', '.join(VALUES[:-1])} or {VALUES[-1]}"
            yield warn(LABELS, f"{_no_effect(value, names)}: {no_value}", "correct the label")
        for (value, holder), names in sorted(without.items()):
            webhooks = [webhook for its, webhook in ours if its == holder]
            choices = _choices_of(next(each for each in webhooks if None in label_values(each)), webhooks)
            modes = tuple(each for each in VALUES if each in {*choices.modes, value})
            again = _keeping_routes(webhooks, _apply_of(china, cluster))(replace(choices, modes=modes))
            yield warn(LABELS, f"{_no_effect(value, names)}: the configuration {holder} has no webhook for it", again)

    count = f"{len(namespaces)} namespace{'' if len(namespaces) == 1 else 's'}" if namespaces else "no namespace"
    has = "have" if len(namespaces) > 1 else "has"
    return unless(faults(), fine(LABELS, f"{count} {has} the label {LABEL}"))


def _no_effect(value: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
    return f"the label {LABEL}={value} of {', '.join(names[:_MOST_NAMED])}{more} has no effect"


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
    called = route_of(is_now)
    own = _own_values(is_now)
    if own:
        holder = f"{holder} ({', '.join(own)})"

    def faults() -> Iterator[CheckResult]:
        if client.get("url") not in [route_url(url, value) for value in (None, *VALUES)]:
            yield fail(
                CONFIGURATION, f"{holder} {_other_place(client, url)}: {_UNANSWERED[choices.failure_policy]}", again
            )
        elif called != "paused" and any(value != called for value in own):
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
            if not set(expressions(wanted[selector])) <= set(expressions(is_now[selector])):
                yield warn(CONFIGURATION, f"{holder}: {selector} does not exclude the label {SKIP_LABEL}=true", again)
        if is_now["timeoutSeconds"] >= _LONG:
            yield warn(
                CONFIGURATION,
                f"{holder} lets each pod wait {is_now['timeoutSeconds']} seconds while the endpoint hangs",
                apply(replace(choices, timeout=SHIPPED.timeout)),
            )
        if is_now["failurePolicy"] == "Fail" and leaves_out(is_now, CONTROL_PLANE, None) is None:
            yield warn(
                CONFIGURATION,
                f"{holder} has failurePolicy Fail for {CONTROL_PLANE} too: while the webhook is down, a cluster may "
                "not recover",
                apply(_without_the_control_plane(choices)),
            )

    chosen = f"failurePolicy {is_now['failurePolicy']}, {is_now['timeoutSeconds']} seconds"
    if called and own != [called]:
        chosen += f"; calls the route of {called}"
    more = set(expressions(is_now["namespaceSelector"])) - set(expressions(wanted["namespaceSelector"]))
    if more:
        chosen += "; namespaces: " + "; ".join(sorted(shown(*each) for each in more))
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


def _keeping_routes(webhooks: Sequence[Json], apply: Apply) -> Apply:
    """Return `apply` that also names the routes that `webhooks` call and that no option chooses."""

    def apply_and_name(choices: Choices) -> str:
        lost = []
        for webhook in webhooks:
            called = route_of(webhook)
            for value in _own_values(webhook) or (None,):
                # Another value's route is a fault, which the command corrects.
                chosen = value is None or called in (value, "paused")
                if called and chosen and called != ("paused" if choices.paused else value):
                    which = f"namespaces with the label {LABEL}={value}" if value else "all other namespaces"
                    lost.append(f"the webhook for {which} call the route of {called}")
        return apply(choices) + (f"; then let {' and '.join(lost)} again" if lost else "")

    return apply_and_name


def _own_values(webhook: Json) -> list[SwapWhen]:
    """Return the values of the label for which alone a webhook is; [] if it is for namespaces without the label too."""
    values = label_values(webhook)
    return [] if None in values else [value for value in VALUES if value in values]


def _choices_of(webhook: Json, webhooks: Sequence[Json]) -> Choices:
    """Return the choices for which `image-mirror webhook-config` has an option.

    `webhooks` are all of its configuration: they tell the values with a webhook of their own, and a pause.
    """
    asked = expressions(webhook["namespaceSelector"])

    def names(wanted: str) -> tuple[str, ...]:
        found = (values for key, operator, values in asked if (key, operator) == (NAMESPACE, wanted))
        return tuple(dict.fromkeys(name for values in found for name in values if name))

    own = {value for each in webhooks for value in _own_values(each)}
    return Choices(
        failure_policy="Fail" if webhook["failurePolicy"] == "Fail" else "Ignore",
        timeout=webhook["timeoutSeconds"],
        namespaces=names("In"),
        excluded=names("NotIn"),
        modes=tuple(value for value in VALUES if value in own),
        paused=any(None in label_values(each) and route_of(each) == "paused" for each in webhooks),
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
