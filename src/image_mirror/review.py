"""The wire format: an HTTP API event in, an AdmissionReview (admission.k8s.io v1 and v1beta1) out."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_API_VERSIONS = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
_DEFAULT_TIMEOUT = 10.0  # admissionregistration.k8s.io/v1: timeoutSeconds
_LONGEST_ANSWER = 2.5

Json = dict[str, Any]
Response = dict[str, Any]


class BadReviewError(ValueError):
    """A body that is not an AdmissionReview. The message names the field and says what it must be."""


@dataclass(frozen=True, slots=True)
class Review:
    """The request of an AdmissionReview; `object` is the pod, {} for anything else; `old_object` is {} on CREATE.

    `namespace` is "" if the request names none.
    """

    api_version: str
    uid: str
    operation: str
    namespace: str
    subresource: str
    dry_run: bool
    object: Json
    old_object: Json


def parse_review(event: Mapping[str, Any]) -> Review:
    """Read the review in an HTTP API event (payload 2.0), with a plain or base64 body. Raises BadReviewError."""
    review = _object(_body(event), "the body")
    api_version = review.get("apiVersion")
    if review.get("kind") != "AdmissionReview" or api_version not in _API_VERSIONS:
        raise BadReviewError("kind and apiVersion: must be AdmissionReview of admission.k8s.io/v1 or v1beta1")
    request = _object(review.get("request"), "request")
    uid, operation = request.get("uid"), request.get("operation")
    if not isinstance(uid, str) or not uid:
        raise BadReviewError("request.uid: must be a text that is not empty")
    if not isinstance(operation, str):
        raise BadReviewError("request.operation: must be CREATE, UPDATE, DELETE or CONNECT")
    subresource = request.get("subResource") or ""
    if not isinstance(subresource, str):
        raise BadReviewError("request.subResource: must be a text")
    namespace = request.get("namespace")
    is_pod = _object(request.get("resource"), "request.resource").get("resource") == "pods"
    reads_pod = is_pod and operation in ("CREATE", "UPDATE") and subresource in ("", "ephemeralcontainers")
    return Review(
        api_version=api_version,
        uid=uid,
        operation=operation,
        namespace=namespace if isinstance(namespace, str) else "",
        subresource=subresource,
        dry_run=request.get("dryRun") is True,
        object=_pod(request.get("object"), "request.object") if reads_pod else {},
        old_object=_pod(request.get("oldObject"), "request.oldObject") if reads_pod and operation == "UPDATE" else {},
    )


def answer(
    review: Review, patch: Sequence[Json], warnings: Sequence[str], audit_annotations: Mapping[str, str] | None = None
) -> Response:
    """Allow the request, with a JSONPatch, warnings and annotations for the audit log, each if there are any."""
    response: Json = {"uid": review.uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    if warnings:
        response["warnings"] = list(warnings)
    if audit_annotations:
        response["auditAnnotations"] = dict(audit_annotations)
    return _respond(200, {"apiVersion": review.api_version, "kind": "AdmissionReview", "response": response})


def refuse(error: BadReviewError) -> Response:
    """Answer 400: the request is bad, and a retry would not help."""
    return _respond(400, {"message": f"not an AdmissionReview: {error}"})


def unavailable(message: str, *, retry: bool) -> Response:
    """Answer 503: failurePolicy then decides. With `retry`, the API server first calls again, within its timeout.

    It does that only if Retry-After is a whole number of seconds; with 0 it does not pause.
    """
    response = _respond(503, {"message": message})
    if retry:
        response["headers"]["Retry-After"] = "1"
    return response


def seconds_left(event: Mapping[str, Any], now: float) -> float:
    """Return how many seconds from `now` (seconds since the epoch) the answer to this attempt may take.

    A quarter of the API server's `?timeout=`, 2.5 at most, counted from the gateway's `timeEpoch`: a cold start has
    passed by then, and the server repeats the call within the same timeout. A `timeEpoch` that cannot be (in the
    future, or longer ago than the server waits) is a clock gone wrong, and counts as now.
    """
    asked = re.fullmatch(r"([0-9]{1,3})s", str((event.get("queryStringParameters") or {}).get("timeout")))
    timeout = float(asked[1]) if asked else _DEFAULT_TIMEOUT
    began = (event.get("requestContext") or {}).get("timeEpoch")
    elapsed = now - began / 1000 if isinstance(began, int | float) else 0.0
    if not 0 <= elapsed < timeout:
        elapsed = 0.0
    return min(timeout / 4, _LONGEST_ANSWER) - elapsed


def _respond(status: int, body: Json) -> Response:
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}


def _body(event: Mapping[str, Any]) -> object:
    body = event.get("body")
    if not isinstance(body, str) or not body:
        raise BadReviewError("the body is empty; an AdmissionReview was expected")
    text: str | bytes = body
    if event.get("isBase64Encoded"):
        try:
            text = base64.b64decode(body, validate=True)
        except ValueError as error:
            raise BadReviewError("the body is marked as base64 but does not decode") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise BadReviewError("the body is nested too deeply") from error
    except ValueError as error:  # JSON and UTF-8 errors, and numbers too long to read
        raise BadReviewError("the body is not JSON") from error


def _object(value: object, field: str) -> Json:
    if not isinstance(value, dict):
        raise BadReviewError(f"{field}: must be a JSON object")
    return value


def _pod(value: object, field: str) -> Json:
    pod = _object(value, field)
    _object(pod.get("metadata"), f"{field}.metadata")
    _object(pod.get("spec"), f"{field}.spec")
    return pod
