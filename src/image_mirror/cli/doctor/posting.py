"""Posts a review to the webhook's public URL as an API server does, and says in words what stands in the way."""

import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from image_mirror.cli.doctor.dry_run import copied_image, dry_run_review
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.remedies import AGAIN
from image_mirror.cli.stacks import Stack, mirror_of
from image_mirror.review import Json

_TIMEOUT = 10.0  # seconds
_LONGEST = 65_536  # bytes of an answer that are read
_MOST_CALLS = 3
_SCHEME = "https://"
_COPIED_BY_NO_RULE = "image-mirror-doctor.invalid/image:1"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status, a body, and after how many seconds."""

    status: int
    body: bytes
    seconds: float
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing came back: what was found, and what to do."""

    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Call:
    """A review, what came back to it, and whether its pod has to be sent to a copy."""

    review: Json
    reply: Reply | Silence
    is_rewritten: bool


def call_webhook(stack: Stack) -> Call:
    """Try the webhook of China's stack. Raises NoAnswerError for an output that the stack lacks."""
    try:
        image = copied_image(mirror_of(stack))
    except (NoAnswerError, ValueError):  # the findings about the stack and its rules say so
        image = None
    review = dry_run_review(image or _COPIED_BY_NO_RULE)
    # SwapWhen=copied: the pod keeps the image that it names until the copy is there.
    is_rewritten = image is not None and stack.parameter("SwapWhen") == "always"
    return Call(review, _send(stack.output("APIGatewayURL"), review), is_rewritten)


def _send(url: str, review: Json) -> Reply | Silence:
    """Post a review, through a proxy where the environment names one; again after a 503 that says when, as the API
    server does."""
    body = json.dumps(review).encode()
    for _ in range(_MOST_CALLS - 1):
        reply = _post(url, body)
        if isinstance(reply, Silence) or reply.status != 503 or not reply.retry_after:
            return reply
        time.sleep(1)
    return _post(url, body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: the webhook sends none, and the token is for its host alone."""


def _post(url: str, body: bytes) -> Reply | Silence:
    host = urlsplit(url).netloc
    if not url.startswith(_SCHEME):
        return Silence("the stack's output APIGatewayURL is no https:// URL", AGAIN)
    headers = {"Content-Type": "application/json", "User-Agent": "image-mirror-doctor"}
    request = urllib.request.Request(f"{url}?timeout=10s", body, headers)  # noqa: S310 - https, as said above
    opener = urllib.request.build_opener(_NoRedirect)
    began = time.monotonic()
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return Reply(answer.status, answer.read(_LONGEST), time.monotonic() - began)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read(_LONGEST), time.monotonic() - began, error.headers.get("Retry-After"))
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return _silence(host, reason)


def _silence(host: str, reason: object) -> Silence:
    match reason:
        case ssl.SSLCertVerificationError():
            return Silence(
                f"the certificate of {host} is not trusted: {reason.verify_message}",
                "if a proxy here opens TLS, give its CA by SSL_CERT_FILE; API servers trust their own system's CAs",
            )
        case ssl.SSLError():
            found = f"TLS with {host} fails: {reason.strerror}"
            return Silence(found, "see to the proxy or firewall between here and there")
        case socket.gaierror():
            return Silence(
                f"the name {host} is not found",
                "see to DNS, or to HTTPS_PROXY where only a proxy resolves names; if the API was deleted, deploy again",
            )
        case TimeoutError():
            return Silence(
                f"{host} gives no answer within {_TIMEOUT:.0f} seconds",
                "see to the network and firewall, and to HTTPS_PROXY where there is a proxy",
            )
    text = str(reason)
    # Not any text: that of http.client may quote the URL, and so the token.
    kind = text if text.startswith("Tunnel ") else getattr(reason, "strerror", None) or type(reason).__name__
    return Silence(f"{host} cannot be reached: {kind}", "see to the network, and to HTTPS_PROXY where there is a proxy")
