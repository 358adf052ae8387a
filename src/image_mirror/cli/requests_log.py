"""What --debug prints on standard error: a line for each request to AWS, the cluster and the webhook.

A line has no header, no body and no path of the webhook's URL, because secrets are in these.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import typer

from image_mirror.messages import printable

_is_on = False


def switch(is_on: bool) -> None:
    """Print the requests from now on, or no longer: a process may run several commands."""
    global _is_on
    _is_on = is_on


def log(text: str, seconds: float) -> None:
    """Print one request, if --debug is given; `text` must not have a secret."""
    if _is_on:
        typer.echo(printable(f"debug: {text}, {seconds * 1000:.0f} ms"), err=True)


@contextmanager
def logged(text: str) -> Iterator[None]:
    """Print a request that is made in the context; whether it failed is told by the command."""
    begun = time.monotonic()
    try:
        yield
    finally:
        log(text, time.monotonic() - begun)


def watch(client: Any, account: object) -> None:
    """Print each request of a client of botocore, also those that it sends again."""
    if not _is_on:
        return
    begun = threading.local()  # botocore sends a request and reads its answer in the same thread

    def before(request: Any, **_: object) -> None:
        parts = urlsplit(request.url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        begun.at, begun.sent = time.monotonic(), f"{request.method} {where}"

    def after(event_name: str, parsed_response: Any, exception: Exception | None, **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        log(f"{account}: {operation}: {begun.sent}: {_answer(parsed_response, exception)}", time.monotonic() - begun.at)

    client.meta.events.register("before-send", before)
    client.meta.events.register("response-received", after)


def _answer(parsed: Any, exception: Exception | None) -> str:
    """Return the status, the error's code and the request's ID; or the kind of an error of the network."""
    if not parsed:
        return type(exception).__name__
    metadata = parsed.get("ResponseMetadata", {})
    words = (metadata.get("HTTPStatusCode"), parsed.get("Error", {}).get("Code"), metadata.get("RequestId"))
    return " ".join(str(word) for word in words if word)
