"""The webhook: posts a dry-run review to its public URL, as an API server does, and judges the answer.

The webhook records nothing for a dry run.
"""

import base64
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from image_mirror.cli import requests_log
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, fail, fetch, fine, warn
from image_mirror.cli.doctor.stacks import china_stack
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.remedies import AGAIN, deploy_china, log_of
from image_mirror.cli.stacks import Stack, mirror_of
from image_mirror.cli.webhook_manifest import route_url
from image_mirror.decisions import Mirror, copy_of
from image_mirror.review import Json

CALL = "webhook call"

SLOW = 5.0
"""In seconds: the shipped timeoutSeconds. After that an API server continues without the webhook."""
# API Gateway's answers in China to an account without an ICP licence: first an HTTP API's, then a REST API's.
_NO_LICENCE: tuple[Json, ...] = ({"message": "Forbidden"}, {"Message": None})
_TIMEOUT = 10.0  # seconds
_LONGEST = 65_536  # bytes of an answer that are read
_MOST_CALLS = 3
_SCHEME = "https://"
_COPIED_BY_NO_RULE = "image-mirror-doctor.invalid/image:1"
_POD = "image-mirror-doctor"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its body, and after how many seconds it came."""

    status: int
    body: bytes
    seconds: float
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer: what was found, and what to do."""

    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Call:
    """A review, the answer or why there is none, and whether the pod's image must be replaced by its copy."""

    review: Json
    reply: Reply | Silence
    is_rewritten: bool


@fetch(CALL)
def call(context: Context) -> Call:
    """Call the webhook of China's stack with a dry run."""
    stack = context.answer(china_stack)
    try:
        image = copied_image(mirror_of(stack))
    except (NoAnswerError, ValueError):  # other results report it
        image = None
    review = dry_run_review(image or _COPIED_BY_NO_RULE)
    # With copied and paused the pod keeps its image until the copy is in ECR.
    is_rewritten = image is not None and stack.parameter("SwapWhen") == "always"
    return Call(review, send(stack.output("APIGatewayURL"), review), is_rewritten)


@fetch(CALL)
def paused_call(context: Context) -> Reply | Silence | None:
    """Call the route of paused with a dry run; None if the stack has no such route, which another result reports.

    The routes of the other values are of the same kind.
    """
    stack = context.answer(china_stack)
    if "SwapWhenRoutes" not in stack.outputs:
        return None
    return send(route_url(stack.output("APIGatewayURL"), "paused"), dry_run_review(_COPIED_BY_NO_RULE))


def judge_call(call: Call, paused: Reply | Silence | None, china: Stack) -> Sequence[CheckResult]:
    """Judge what the webhook of China's stack answered, and what its route of paused did."""
    copies, log = china.output("CopiesPrefix"), log_of(china, "WebhookLogGroup")
    reply = call.reply
    if isinstance(reply, Silence):
        return [fail(CALL, reply.found, reply.remedy)]
    if reply.status != 200:
        return [refusal_of(reply, log)]
    took = f"after {reply.seconds:.1f} seconds"
    answer = _json(reply.body)
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict) or response.get("uid") != call.review["request"]["uid"]:
        found = f"200 {took}, but not the answer to this review: something else answers"
        return [fail(CALL, found, f"check whether a proxy answers instead (HTTPS_PROXY); else {AGAIN}")]
    images = _patched(response)
    if call.is_rewritten and not any(image.startswith(copies) for image in images):
        found = f"it answers {took}, but sends the pod to {images[0] if images else 'its source'}, not to {copies}"
        return [fail(CALL, found, f"{AGAIN}, and see the webhook's log: {log}")]
    match paused:
        case Silence(found=found, remedy=remedy):
            return [fail(CALL, f"it answers {took}, but not on the route of paused: {found}", remedy)]
        case Reply(status=404):
            found = "404 on the route of paused: webhook-config --pause and --modes would send pods to routes like it"
            return [fail(CALL, f"it answers {took}, but {found}", AGAIN)]
        case Reply(status=status) as refused if status != 200:
            refusal = refusal_of(refused, log)
            return [replace(refusal, found=f"it answers {took}, but not on the route of paused: {refusal.found}")]
    if reply.seconds > SLOW:
        remedy = (
            f"run this again, because a first call is slower; if it stays slow, check the network and the log: {log}"
        )
        return [
            warn(
                CALL,
                f"the answer is right but took {reply.seconds:.1f} seconds; an API server waits {SLOW:.0f}, as shipped",
                remedy,
            )
        ]
    if china.parameters.get("SwapWhen") == "paused":
        return [
            warn(
                CALL,
                f"it answers a dry run {took}; SwapWhen is paused: new pods get the copies that ECR has, and none is "
                "requested",
                f"when the trouble is over, end the pause: {deploy_china(china, 'SwapWhen=always')}",
            )
        ]
    what = f"sends the pod to {copies}" if call.is_rewritten else "correctly leaves the pod unchanged"
    return [fine(CALL, f"it answers a dry run {took}, and {what}")]


def refusal_of(reply: Reply, log: str) -> CheckResult:
    """Return what an answer without status 200 means, and what to do; `log` is the command that shows the log."""
    body = _json(reply.body)
    see_log = f"see the webhook's log: {log}"
    match reply.status:
        case 403 if body in _NO_LICENCE:
            found = "403: API Gateway accepts no calls without AWS credentials, because the account has no ICP licence"
            remedy = (
                "have AWS China's support enter the account's ICP licence (Ningxia: a separate allow-listing); until "
                "then no pod is rewritten"
            )
        case 403:
            found = "403, and not from API Gateway: something between this machine and API Gateway forbids the call"
            remedy = "check the proxy or firewall; run this from a machine in the cluster's network"
        case 404:
            found = "404: the API has no such path; the stack's output APIGatewayURL has another token than its route"
            remedy = f"{AGAIN} with a new WebhookToken, and apply the new webhook configuration"
        case 429:
            found = "429: API Gateway throttles the URL"
            remedy = "raise ThrottlingRate and ThrottlingBurst of China's stack, or find out who calls it so often"
        case status if 300 <= status < 400:
            found = f"{status}: something redirects the call, and API Gateway does not"
            remedy = "check the proxy or portal between this machine and API Gateway"
        case 503 if reply.retry_after:
            found = "503, again and again: the webhook cannot read the table in time"
            remedy = f"see the results about the table; {see_log}"
        case status if status >= 500:
            found = f"{status}: the webhook or Lambda failed"
            remedy = f"see the result about its function; {see_log}"
        case status:
            found = f"{status}: the webhook does not understand the review, so it is of another release"
            remedy = f"{AGAIN} from this release; {see_log}"
    return fail(CALL, found, remedy)


def _patched(response: Json) -> list[str]:
    try:
        patch = json.loads(base64.b64decode(response.get("patch", "")))
        return [each["value"] for each in patch if each["path"].endswith("/image") and isinstance(each["value"], str)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def copied_image(mirror: Mirror) -> str | None:
    """Return an image that the rules copy, or None if they copy none."""
    for rule in mirror.rules.entries:
        host = f"{_POD}.{rule.prefix.host}" if rule.prefix.wildcard else rule.prefix.host
        image = "/".join((host, *rule.prefix.path, _POD)) + ":1"
        if copy_of(mirror.decide(image)[0]) is not None:
            return image
    return None


def dry_run_review(image: str) -> Json:
    """Return the AdmissionReview of a dry run that creates a pod with `image`: the webhook records nothing for it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _POD, "namespace": "default"},
        "spec": {"containers": [{"name": _POD, "image": image}]},
    }
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource,
            "name": _POD,
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": _POD},
            "object": pod,
            "oldObject": None,
            "dryRun": True,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions", "dryRun": ["All"]},
        },
    }


def send(url: str, review: Json) -> Reply | Silence:
    """Post a review, through a proxy if the environment names one.

    Like the API server, post it again after a 503 with Retry-After.
    """
    body = json.dumps(review).encode()
    for _ in range(_MOST_CALLS - 1):
        reply = _post(url, body)
        if isinstance(reply, Silence) or reply.status != 503 or not reply.retry_after:
            return reply
        time.sleep(1)
    return _post(url, body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: the webhook sends none, and no other host may get the token."""


def _post(url: str, body: bytes) -> Reply | Silence:
    host = urlsplit(url).netloc
    if not url.startswith(_SCHEME):
        return Silence("the stack's output APIGatewayURL is not an https:// URL", AGAIN)
    headers = {"Content-Type": "application/json", "User-Agent": "image-mirror-doctor"}
    request = urllib.request.Request(f"{url}?timeout=10s", body, headers)  # noqa: S310 - https, as checked above
    opener = urllib.request.build_opener(_NoRedirect)
    began = time.monotonic()
    try:
        with requests_log.logged(f"POST {masked(url)}"), opener.open(request, timeout=_TIMEOUT) as answer:
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
                "if a proxy here decrypts TLS, set SSL_CERT_FILE to its CA; API servers trust their own system's CAs",
            )
        case ssl.SSLError():
            found = f"TLS with {host} fails: {reason.strerror}"
            return Silence(found, "check the proxy or firewall between this machine and API Gateway")
        case socket.gaierror():
            return Silence(
                f"the name {host} is not found",
                "check DNS, or HTTPS_PROXY if only a proxy resolves names; if the API was deleted, deploy again",
            )
        case TimeoutError():
            return Silence(
                f"{host} gives no answer within {_TIMEOUT:.0f} seconds",
                "check the network and firewall, and HTTPS_PROXY if there is a proxy",
            )
    text = str(reason)
    # Not every text: http.client's may quote the URL, and with it the token.
    kind = text if text.startswith("Tunnel ") else getattr(reason, "strerror", None) or type(reason).__name__
    return Silence(f"{host} cannot be reached: {kind}", "check the network, and HTTPS_PROXY if there is a proxy")


def masked(url: str) -> str:
    """Return a URL without its path, which is the token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***" if parts.netloc else "***"


CHECKS = (Check(CALL, judge_call, (call, paused_call, china_stack)),)
