"""Fills the URL and an operator's choices into the shipped mutating-webhook.yaml: as an object, and as text.

The file has one webhook, the plain one, for all namespaces. Each value of SwapWhen that is chosen adds one for the
namespaces with this label, and the plain one then leaves these namespaces out. So a label with any other value is like
none, and no namespace loses its webhook by its label.

The text keeps the file's comments, which no YAML library does: known lines are replaced. Each time, the text is parsed
and compared with the object, so a line that was changed in the file is noticed.
"""

import copy
import json
import re
from dataclasses import dataclass
from typing import Literal

import yaml

from image_mirror.cli.resources import resource
from image_mirror.review import Json
from image_mirror.swap_when import LABEL, SwapWhen

FILE = "mutating-webhook.yaml"
NAMESPACE = "kubernetes.io/metadata.name"
"""The label that the API server gives each namespace: its name."""
CONTROL_PLANE = "kube-system"
WEBHOOK = "pods.image-mirror.webhook"
"""The name of the plain webhook, and after a value and a dot that of the value's webhook."""

_FIRST_LINE = (
    "# Put the stack's output APIGatewayURL in place of <WEB-HOOK-URL>, then: kubectl apply -f mutating-webhook.yaml\n"
)
_NAME = f"  - name: {WEBHOOK}\n"
_URL = "      url: <WEB-HOOK-URL>\n"
_POLICY = "    failurePolicy: Ignore\n"
_TIMEOUT = "    timeoutSeconds: 5\n"
_LEFT_OUT = f'        # - {{key: {NAMESPACE}, operator: NotIn, values: ["{CONTROL_PLANE}"]}}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What an operator may choose. The defaults are the shipped values.

    Only pods in `namespaces` are sent to the webhook; if it is empty, all pods are. Pods in `excluded` are not sent.
    Each of `modes` gets a webhook of its own. If `paused`, all webhooks call the route of paused.
    """

    failure_policy: Literal["Ignore", "Fail"] = "Ignore"
    timeout: int = 5
    namespaces: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    modes: tuple[SwapWhen, ...] = ()
    paused: bool = False

    @property
    def stops_the_control_plane(self) -> bool:
        """Whether the control plane's own pods do not start while the webhook is down."""
        selected = not self.namespaces or CONTROL_PLANE in self.namespaces
        return self.failure_policy == "Fail" and selected and CONTROL_PLANE not in self.excluded


SHIPPED = Choices()


def route_url(url: str, value: SwapWhen | None) -> str:
    """Return the URL of a value's route from the plain one; for None that one itself."""
    return url if value is None else f"{url.rstrip('/')}/{value}"


def shipped_configuration(url: str, choices: Choices = SHIPPED) -> Json:
    """Return the MutatingWebhookConfiguration as an object, as `kubectl apply` takes it. `url` is the plain route's."""
    configuration: Json = yaml.safe_load(_shipped())
    [plain] = configuration["webhooks"]
    configuration["webhooks"] = [_filled(copy.deepcopy(plain), url, choices, value) for value in (None, *choices.modes)]
    return configuration


def shipped_text(url: str, choices: Choices = SHIPPED) -> str:
    """Return the same as YAML, with the file's comments. Only the plain webhook has them."""
    text = _shipped().replace(_FIRST_LINE, "")
    start = text.find(_NAME)
    begin, plain = text[:start], text[start:]
    # The line of the expressions is a comment too.
    uncommented = re.sub(rf"^(?!{re.escape(_LEFT_OUT)}) *#.*\n", "", plain, flags=re.MULTILINE)
    text = begin + _replaced(plain, url, choices, None)
    for value in choices.modes:
        text += f"  # The same for the pods of namespaces with the label {LABEL}={value}.\n"
        text += _replaced(uncommented, url, choices, value)
    if yaml.safe_load(text) != shipped_configuration(url, choices):
        raise RuntimeError(f"{FILE} does not have the lines that are replaced here")
    return text


def _filled(webhook: Json, url: str, choices: Choices, value: SwapWhen | None) -> Json:
    """Fill the choices into the webhook of a value, or for None into the plain one."""
    webhook["name"] = _name(value)
    webhook["clientConfig"]["url"] = route_url(url, "paused" if choices.paused else value)
    webhook["failurePolicy"] = choices.failure_policy
    webhook["timeoutSeconds"] = choices.timeout
    webhook["namespaceSelector"]["matchExpressions"] += _expressions(choices, value)
    return webhook


def _replaced(text: str, url: str, choices: Choices, value: SwapWhen | None) -> str:
    """Do the same with the text of a webhook."""
    expressions = "".join(
        # JSON is YAML, and quoted: a namespace may be called "on" or "1", which YAML would not read as a text.
        f"        - {{key: {each['key']}, operator: {each['operator']}, values: {json.dumps(each['values'])}}}\n"
        for each in _expressions(choices, value)
    )
    called = route_url(url, "paused" if choices.paused else value)
    for line, becomes in (
        (_NAME, f"  - name: {_name(value)}\n"),
        (_URL, f"      url: {json.dumps(called)}\n"),
        (_POLICY, f"    failurePolicy: {choices.failure_policy}\n"),
        (_TIMEOUT, f"    timeoutSeconds: {choices.timeout}\n"),
        (_LEFT_OUT, expressions or _LEFT_OUT),
    ):
        text = text.replace(line, becomes)
    return text


def _name(value: SwapWhen | None) -> str:
    return WEBHOOK if value is None else f"{value}.{WEBHOOK}"


def _expressions(choices: Choices, value: SwapWhen | None) -> list[Json]:
    chosen = [(NAMESPACE, "In", choices.namespaces), (NAMESPACE, "NotIn", choices.excluded)]
    chosen.append((LABEL, "In", (value,)) if value else (LABEL, "NotIn", choices.modes))
    return [{"key": key, "operator": operator, "values": list(names)} for key, operator, names in chosen if names]


def _shipped() -> str:
    return resource(FILE).read_text(encoding="utf-8")
