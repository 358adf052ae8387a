"""When a pod gets the names of its copies: the value of SwapWhen that holds for one request. Pure.

    always   at once; a copy that is not in ECR is requested, and the pod waits for it
    copied   when the copy is in ECR; until then a pod keeps its source, and the copy is requested
    paused   when the copy is in ECR; nothing is requested, refreshed, tried again or written

The pod's own label decides, or else the last segment of the route that was called (POST /TOKEN/VALUE: a namespace's
label chooses it, by the webhook configuration), or else the stack's parameter.
"""

from collections.abc import Mapping
from typing import Any, Literal

from image_mirror.messages import unknown_swap_when
from image_mirror.review import Json

SwapWhen = Literal["always", "copied", "paused"]
VALUES: tuple[SwapWhen, ...] = ("always", "copied", "paused")
LABEL = "image-mirror/swap-when"
"""The label of a pod, and of a namespace."""


def parse_swap_when(text: object) -> SwapWhen:
    """Return `text` if it is one of the values, or raise ValueError."""
    if text not in VALUES:
        raise ValueError(f"must be {', '.join(VALUES[:-1])} or {VALUES[-1]}")
    return text


def swap_when_of(event: Mapping[str, Any], pod: Json, default: SwapWhen) -> tuple[SwapWhen, list[str]]:
    """Return what holds for a pod in an HTTP API event (payload 2.0), and a warning if its label has no known value.

    `default` is the stack's parameter. The body is hostile: labels of another type count as none.
    """
    labels = pod.get("metadata", {}).get("labels")
    label = labels.get(LABEL) if isinstance(labels, dict) else None
    if label is None:
        return _of_route(event) or default, []
    try:
        return parse_swap_when(label), []
    except ValueError:
        return _of_route(event) or default, [unknown_swap_when(label if isinstance(label, str) else "")]


def _of_route(event: Mapping[str, Any]) -> SwapWhen | None:
    """Return the value that the route of the call ends with, None for the plain route.

    The route key is the template's own text. The path is the caller's.
    """
    last = str(event.get("routeKey")).rpartition("/")[2]
    return last if last in VALUES else None
