"""Fills the URL and an operator's choices into the shipped mutating-webhook.yaml: as an object, and as text.

The text keeps the file's comments, which no YAML library does: known lines are replaced. Each time, the text is parsed
and compared with the object, so a line that was changed in the file is noticed.
"""

import json
from dataclasses import dataclass
from typing import Literal

import yaml

from image_mirror.cli.resources import resource
from image_mirror.review import Json

FILE = "mutating-webhook.yaml"
NAMESPACE = "kubernetes.io/metadata.name"
"""The label that the API server gives each namespace: its name."""
CONTROL_PLANE = "kube-system"

_FIRST_LINE = (
    "# Put the stack's output APIGatewayURL in place of <WEB-HOOK-URL>, then: kubectl apply -f mutating-webhook.yaml\n"
)
_URL = "      url: <WEB-HOOK-URL>\n"
_POLICY = "    failurePolicy: Ignore\n"
_TIMEOUT = "    timeoutSeconds: 5\n"
_LEFT_OUT = f'        # - {{key: {NAMESPACE}, operator: NotIn, values: ["{CONTROL_PLANE}"]}}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What an operator may choose. The defaults are the shipped values.

    Only pods in `namespaces` are sent to the webhook; if it is empty, all pods are. Pods in `excluded` are not sent.
    """

    failure_policy: Literal["Ignore", "Fail"] = "Ignore"
    timeout: int = 5
    namespaces: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def stops_the_control_plane(self) -> bool:
        """Whether the control plane's own pods do not start while the webhook is down."""
        selected = not self.namespaces or CONTROL_PLANE in self.namespaces
        return self.failure_policy == "Fail" and selected and CONTROL_PLANE not in self.excluded


SHIPPED = Choices()


def shipped_configuration(url: str, choices: Choices = SHIPPED) -> Json:
    """Return the MutatingWebhookConfiguration as an object, as `kubectl apply` takes it."""
    configuration: Json = yaml.safe_load(_shipped())
    [webhook] = configuration["webhooks"]
    webhook["clientConfig"]["url"] = url
    webhook["failurePolicy"] = choices.failure_policy
    webhook["timeoutSeconds"] = choices.timeout
    webhook["namespaceSelector"]["matchExpressions"] += _expressions(choices)
    return configuration


def shipped_text(url: str, choices: Choices = SHIPPED) -> str:
    """Return the same as YAML, with the file's comments."""
    expressions = "".join(
        # JSON is YAML, and quoted: a namespace may be called "on" or "1", which YAML would not read as a text.
        f"        - {{key: {each['key']}, operator: {each['operator']}, values: {json.dumps(each['values'])}}}\n"
        for each in _expressions(choices)
    )
    text = _shipped()
    for line, becomes in (
        (_FIRST_LINE, ""),
        (_URL, f"      url: {json.dumps(url)}\n"),
        (_POLICY, f"    failurePolicy: {choices.failure_policy}\n"),
        (_TIMEOUT, f"    timeoutSeconds: {choices.timeout}\n"),
        (_LEFT_OUT, expressions or _LEFT_OUT),
    ):
        text = text.replace(line, becomes)
    if yaml.safe_load(text) != shipped_configuration(url, choices):
        raise RuntimeError(f"{FILE} does not have the lines that are replaced here")
    return text


def _expressions(choices: Choices) -> list[Json]:
    chosen = (("In", choices.namespaces), ("NotIn", choices.excluded))
    return [{"key": NAMESPACE, "operator": operator, "values": list(names)} for operator, names in chosen if names]


def _shipped() -> str:
    return resource(FILE).read_text(encoding="utf-8")
