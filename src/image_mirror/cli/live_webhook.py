"""The webhook configurations of a cluster: which of them are for this project, and which pods they send. Pure."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from image_mirror.cli.webhook_manifest import NAMESPACE, WEBHOOK
from image_mirror.pod_images import SKIP_LABEL
from image_mirror.review import Json
from image_mirror.swap_when import LABEL, VALUES, SwapWhen

CONFIGURATION = "image-mirror"

Labels = Mapping[str, str]
Expression = tuple[str, str, tuple[str, ...]]
"""A condition of a label selector: key, operator and sorted values."""


def our_webhooks(configurations: Iterable[Json], url: str | None) -> list[tuple[Json, Json]]:
    """Return each webhook that is for this project, after its configuration: by a name, or by the host of its URL.

    `url` is the stack's; None if it is not known.
    """
    return [
        (configuration, webhook)
        for configuration in configurations
        for webhook in configuration.get("webhooks") or ()
        if configuration["metadata"]["name"] == CONFIGURATION
        or webhook["name"] == WEBHOOK
        or webhook["name"].endswith(f".{WEBHOOK}")
        or (url is not None and _host(str(webhook.get("clientConfig", {}).get("url", ""))) == _host(url))
    ]


def route_of(webhook: Json) -> SwapWhen | None:
    """Return the value of SwapWhen whose route a webhook calls; None for the plain route, or another URL."""
    last = urlsplit(str(webhook.get("clientConfig", {}).get("url", ""))).path.rpartition("/")[2]
    return last if last in VALUES else None


def label_values(webhook: Json) -> frozenset[SwapWhen | None]:
    """Return the values of a namespace's label for SwapWhen that a webhook is for; None if it is for all others."""
    asked = [each for each in expressions(webhook.get("namespaceSelector") or {}) if each[0] == LABEL]
    return frozenset(
        value for value in (None, *VALUES) if all(_matches(value, operator, values) for _, operator, values in asked)
    )


def not_sent(webhook: Json, namespace: str, namespace_labels: Labels | None, pod_labels: Labels) -> str | None:
    """Return why the API server does not send such a pod to the webhook, or None if it does.

    `namespace_labels` is None if they are not known. Then only the namespace's name is compared.
    """
    if (unmet := leaves_out(webhook, namespace, namespace_labels)) is not None:
        if unmet[0] == SKIP_LABEL:
            return "opted out by the namespace's label"
        return f"the webhook's configuration leaves its namespace out: {shown(*unmet)}"
    for key, operator, values in expressions(webhook.get("objectSelector") or {}):
        if not _matches(pod_labels.get(key), operator, values):
            if key == SKIP_LABEL:
                return "opted out by the pod's label"
            return f"the webhook's configuration leaves the pod out: {shown(key, operator, values)}"
    return None


def leaves_out(webhook: Json, namespace: str, labels: Labels | None) -> Expression | None:
    """Return the first condition of the namespaceSelector that a namespace does not meet, or None if it meets all.

    `labels` are the namespace's; None if they are not known. Then only its name is compared.
    """
    known = {NAMESPACE: namespace, **(labels or {})}
    for key, operator, values in expressions(webhook.get("namespaceSelector") or {}):
        if (labels is not None or key == NAMESPACE) and not _matches(known.get(key), operator, values):
            return key, operator, values
    return None


def expressions(selector: Json) -> list[Expression]:
    """Return all conditions of a label selector. Two that mean the same are equal."""
    found: list[Expression] = [(key, "In", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    asked = selector.get("matchExpressions") or ()
    return found + [(each["key"], each["operator"], tuple(sorted(each.get("values") or ()))) for each in asked]


def shown(key: str, operator: str, values: tuple[str, ...]) -> str:
    """Return a condition for people."""
    return " ".join(filter(None, (key, operator, ", ".join(values))))


def _matches(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    """Return whether a label's value, None if there is none, meets a condition."""
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True


def _host(url: str) -> str:
    return urlsplit(url).netloc
