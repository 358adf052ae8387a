"""Judges the webhook by what it answers to a dry-run review through its public URL. Pure."""

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from image_mirror.cli.doctor.findings import Finding, fail, fine, warn
from image_mirror.cli.doctor.posting import Call, Reply, Silence
from image_mirror.cli.remedies import AGAIN
from image_mirror.review import Json

CALL = "webhook call"

SLOW = 5.0
"""In seconds: the shipped timeoutSeconds, after which an API server goes on without the webhook."""
# What API Gateway says in China while the account has no ICP licence: an HTTP API the first, a REST API the second.
_NO_LICENCE: tuple[Json, ...] = ({"message": "Forbidden"}, {"Message": None})


def masked(url: str) -> str:
    """Return a URL with its path, the token, left out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***" if parts.netloc else "***"


def judge_call(call: Call, copies: str, log: str) -> Sequence[Finding]:
    """Judge a call. Names of copies begin with `copies`; `log` is the command that shows the webhook's log."""
    reply = call.reply
    if isinstance(reply, Silence):
        return [fail(CALL, reply.found, reply.remedy)]
    if reply.status != 200:
        return [_refused(reply, log)]
    took = f"after {reply.seconds:.1f} seconds"
    answer = _json(reply.body)
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict) or response.get("uid") != call.review["request"]["uid"]:
        found = f"200 {took}, but not the answer to this review: something else answers in its place"
        return [fail(CALL, found, f"see whether a proxy stands between (HTTPS_PROXY); else {AGAIN}")]
    images = _patched(response)
    if call.is_rewritten and not any(image.startswith(copies) for image in images):
        found = f"it answers {took}, but sends the pod to {images[0] if images else 'its source'}, not to {copies}"
        return [fail(CALL, found, f"{AGAIN}, and see the webhook's log: {log}")]
    if reply.seconds > SLOW:
        remedy = f"run this again, for a first call is slower; if it stays so, see the network and the log: {log}"
        return [warn(CALL, f"it answers well, but only {took}; an API server waits {SLOW:.0f}, as shipped", remedy)]
    what = f"sends the pod to {copies}" if call.is_rewritten else "leaves the pod as it is, as it has to"
    return [fine(CALL, f"it answers a dry run {took}, and {what}")]


def _refused(reply: Reply, log: str) -> Finding:
    body = _json(reply.body)
    see_log = f"see the webhook's log: {log}"
    match reply.status:
        case 403 if body in _NO_LICENCE:
            found = "403: API Gateway takes no calls without AWS credentials, for the account has no ICP licence"
            remedy = (
                "have AWS China's support enter the account's ICP licence (Ningxia: a separate allow-listing); until "
                "then no pod is rewritten"
            )
        case 403:
            found = "403, and not from API Gateway: something between here and there forbids the call"
            remedy = "see to the proxy or firewall; run this from a machine in the cluster's network"
        case 404:
            found = "404: the API has no such path; the stack's output APIGatewayURL has another token than its route"
            remedy = f"{AGAIN} with a new WebhookToken, and apply the new webhook configuration"
        case 429:
            found = "429: API Gateway throttles the URL"
            remedy = "raise ThrottlingRate and ThrottlingBurst of China's stack, or find out who calls it so often"
        case status if 300 <= status < 400:
            found = f"{status}: something redirects the call, and API Gateway does not"
            remedy = "see to the proxy or portal between here and there"
        case 503 if reply.retry_after:
            found = "503, again and again: the webhook cannot read the table in time"
            remedy = f"see the findings about the table; {see_log}"
        case status if status >= 500:
            found = f"{status}: the webhook, or Lambda in its place, failed"
            remedy = f"see the finding about its function; {see_log}"
        case status:
            found = f"{status}: the webhook does not understand the review, so it is another release's"
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
