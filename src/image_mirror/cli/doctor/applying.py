"""The command that applies the shipped configuration to a cluster, with what an operator had chosen there. Pure."""

import shlex
from collections.abc import Callable
from dataclasses import replace

from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import CONTROL_PLANE, NAMESPACE, SHIPPED, Choices
from image_mirror.review import Json

Apply = Callable[[Choices], str]
"""Returns the command for some choices, in backquotes."""


def apply_of(stack: Stack, cluster: Cluster) -> Apply:
    """Return what makes the command that applies the configuration for `stack` with some choices to `cluster`."""

    def apply(choices: Choices) -> str:
        made = ["image-mirror", "webhook-config"]
        made += [f"--failure-policy={choices.failure_policy}"] * (choices.failure_policy != SHIPPED.failure_policy)
        made += [f"--timeout={choices.timeout}"] * (choices.timeout != SHIPPED.timeout)
        made += [f"--namespaces={','.join(choices.namespaces)}"] * bool(choices.namespaces)
        made += [f"--exclude-namespaces={','.join(choices.excluded)}"] * bool(choices.excluded)
        made += [f"--china-profile={stack.account.profile}"] * bool(stack.account.profile)
        made += [f"--china-region={stack.account.region}", f"--stack-name={stack.name}"]
        applied = ["kubectl", "apply"]
        applied += [f"--kubeconfig={cluster.kubeconfig}"] * bool(cluster.kubeconfig)
        applied += [f"--context={cluster.context}"] * bool(cluster.context)
        return f"`{shlex.join(made)} | {shlex.join([*applied, '-f', '-'])}`"

    return apply


def choices_of(webhook: Json) -> Choices:
    """Return what was chosen, as far as `image-mirror webhook-config` has an option for it."""
    asked = expressions(webhook["namespaceSelector"])

    def names(wanted: str) -> tuple[str, ...]:
        found = [values.split(", ") for key, operator, values in asked if (key, operator) == (NAMESPACE, wanted)]
        return tuple(dict.fromkeys(name for each in found for name in each if name))

    return Choices(
        failure_policy="Fail" if webhook["failurePolicy"] == "Fail" else "Ignore",
        timeout=webhook["timeoutSeconds"],
        namespaces=names("In"),
        excluded=names("NotIn"),
    )


def without_the_control_plane(choices: Choices) -> Choices:
    """Return the choices with the control plane's own pods left out."""
    names = tuple(name for name in choices.namespaces if name != CONTROL_PLANE)
    return replace(
        choices, namespaces=names, excluded=choices.excluded if names else (*choices.excluded, CONTROL_PLANE)
    )


def expressions(selector: Json) -> list[tuple[str, str, str]]:
    """Return all that a label selector asks for, each as `expression` does."""
    labels = [(key, "In", value) for key, value in (selector.get("matchLabels") or {}).items()]
    return labels + [expression(each) for each in selector.get("matchExpressions") or ()]


def expression(asked: Json) -> tuple[str, str, str]:
    """Return an entry of matchExpressions so that what means the same is equal: key, operator, sorted values."""
    return asked["key"], asked["operator"], ", ".join(sorted(asked.get("values") or ()))
