"""The parts of the oracle: what an answer, a patch and the table may contain after a request."""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import jsonpatch

from fuzz.reading import (
    ORIGINALS,
    REGISTRY,
    destination,
    entry_for,
    full_name,
    images,
    is_reserved,
    never_pulled,
    rewritten,
)
from fuzz.scenarios import Scenario
from fuzz.table import NOW, Key, Table

Json = dict[str, Any]
_POINTER = "/metadata/annotations/" + ORIGINALS.replace("/", "~1")
_MOST_ANNOTATIONS = 262_144  # bytes of all keys and values; past them the API server refuses the pod


def patch_in(answer: Json) -> list[Json]:
    """Return the JSONPatch of an answer, [] if it has none."""
    patch: list[Json] = json.loads(base64.b64decode(answer["response"].get("patch", "W10="), validate=True))
    return patch


def patched_by(patch: list[Json], pod: Json) -> Json:
    """Return `pod` with the patch applied, as the API server does it."""
    try:
        patched: Json = jsonpatch.apply_patch(pod, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise AssertionError(f"the patch does not apply: {error}: {patch}") from error
    return patched


def check_response(answer: Json, review: Json) -> None:
    """Check that the answer is an AdmissionReview with the request's uid that allows it, with printable warnings."""
    response, request = answer["response"], review["request"]
    assert (answer["apiVersion"], answer["kind"]) == (review["apiVersion"], "AdmissionReview")
    assert (response["uid"], response["allowed"]) == (request["uid"], True)
    assert response.get("patchType", "JSONPatch") == "JSONPatch"
    assert ("patch" in response) == ("patchType" in response) == bool(patch_in(answer))
    assert "patch" not in response or _concerns_us(request), "a patch of something that must not change"
    warnings = response.get("warnings", ["none"])
    assert 0 < len(warnings) == len(set(warnings)) <= 11
    assert all(0 < len(warning) <= 120 and warning.isprintable() for warning in warnings), warnings
    annotations = response.get("auditAnnotations", {"copies": "[]"})
    assert annotations.keys() <= {"copies", "copies-omitted"}, "the API server takes only names without a slash"
    assert all(0 < len(text) <= 4_200 and text.isprintable() for text in annotations.values()), annotations
    assert annotations.get("copies-omitted", "1").isdecimal()


def check_calls(request: Json, table: Table, scenario: Scenario) -> None:
    """Check that the table is called only for images of the request that a rule copies; a dry run writes nothing."""
    allowed: dict[Key, str] = {}
    if _concerns_us(request):
        old_images = _old_images(request)
        never = never_pulled(request["object"], request.get("subResource"))
        for key, pointer, text in images(request["object"], request.get("subResource")):
            entry = None if is_reserved(full_name(text)) else entry_for(scenario.rules, full_name(text))
            is_new = old_images.get(key) != text and pointer not in never
            if is_new and entry and entry[0] != "!" and "=" not in entry:
                allowed[destination(full_name(text))] = full_name(text)
    for asked in tuple(table.asked):
        assert asked in allowed, f"a call for {asked}, which no rule copies or no container names"
        assert not asked[0].startswith(f"{REGISTRY}/mirror/{REGISTRY}/"), "a copy of a copy"
    for record in tuple(table.written):
        assert record.source == allowed[record.repo, record.tag]
        assert (record.status, record.attempts, record.due_at) == ("REQUESTED", 0, NOW)
        assert re.fullmatch(r"[a-z0-9-]{1,63}(/[A-Za-z0-9]{1,63}/[A-Za-z0-9.:_-]{1,253})?|", record.requested_by or "")
    assert not table.written or request.get("dryRun") is not True, "a dry run wrote a record"
    assert not table.written or not _is_paused(request, scenario), "a pause wrote a record"


def check_patch(patch: list[Json], request: Json, table: Table, scenario: Scenario) -> None:
    """Check that the patch applies, and that each operation changes an image as allowed or is about the annotation."""
    pod, subresource, old_images = request["object"], request.get("subResource"), _old_images(request)
    fields = {pointer: (key, text) for key, pointer, text in images(pod, subresource)}
    patched, never = patched_by(patch, pod), never_pulled(pod, subresource)
    noted: dict[str, str] = {}
    for operation in patch:
        path, value = operation["path"], operation.get("value")
        if path not in fields:
            assert not subresource, "metadata is no part of a subresource"
            _check_annotation(operation, pod)
            continue
        key, text = fields[path]
        assert operation == {"op": "replace", "path": path, "value": value}
        if value != old_images.get(key):
            assert isinstance(value, str)
            assert path not in never, f"{text!r}, which is never pulled, was changed"
            _check_image(text, value, scenario)
            noted["/".join(key)] = text
            is_copy = value.startswith(f"{REGISTRY}/")
            recorded = (
                not is_copy or request.get("dryRun") is True or table.has_active_record(destination(full_name(text)))
            )
            assert recorded, f"{value} is in the patch and not recorded"
            if is_copy and _is_paused(request, scenario):
                assert table.has_copy(destination(full_name(text))), f"{value} is in the patch of a pause, not in ECR"
    if not subresource:
        _check_originals(patched, request, noted)


def check_reinvocation(patch: list[Json], request: Json) -> None:
    """Check that the webhook does not change the images of its patch again when it is called again.

    One exception: an annotation written by hand may say that the pod's old image was made from the same image that the
    webhook has written now. The webhook believes it, because it only restores an image that this pod had before.
    """
    fields = {pointer: (key, text) for key, pointer, text in images(request["object"], request.get("subResource"))}
    old_images = _old_images(request)
    for operation in patch:
        if operation["path"] in fields:
            key, text = fields[operation["path"]]
            original = _originals(request["oldObject"] if old_images else {"metadata": {}}).get("/".join(key))
            by_hand = operation["value"] == old_images.get(key) and full_name(str(original)) == full_name(text)
            assert by_hand, f"what was rewritten changes again: {operation}"


def _concerns_us(request: Json) -> bool:
    """Return whether the webhook may change images of this request: a new or updated pod that has not opted out."""
    if request["resource"].get("resource") != "pods" or request["operation"] not in ("CREATE", "UPDATE"):
        return False
    if request.get("subResource") and request["subResource"] != "ephemeralcontainers":
        return False
    labels = request["object"]["metadata"].get("labels")
    opted_out = isinstance(labels, dict) and labels.get("image-mirror/skip") == "true"
    return not opted_out and "kubernetes.io/config.mirror" not in _annotations(request["object"])


def _is_paused(request: Json, scenario: Scenario) -> bool:
    """Return whether nothing may be written for this pod: by its label, or else the route, or else SwapWhen."""
    labels = request["object"]["metadata"].get("labels")
    label = labels.get("image-mirror/swap-when") if isinstance(labels, dict) else None
    asked = (label, scenario.route.removeprefix("/"), scenario.swap_when)
    return next(value for value in asked if value in ("always", "copied", "paused")) == "paused"


def _old_images(request: Json) -> dict[Key, str]:
    old = request.get("oldObject") if request["operation"] == "UPDATE" else None
    return {key: text for key, _, text in images(old, request.get("subResource"))} if old else {}


def _check_image(text: str, value: str, scenario: Scenario) -> None:
    source = full_name(text)
    entry = entry_for(scenario.rules, source)
    assert entry, f"{text!r} was changed, and no rule names it"
    assert entry[0] != "!", f"{text!r} was changed in spite of {entry}"
    if "=" in entry:
        assert full_name(value) == rewritten(entry, source), f"{text!r} became {value!r} by {entry}"
    else:
        repo, tag = destination(source)
        assert value == (f"{repo}@{source.partition('@')[2]}" if "@" in source else f"{repo}:{tag}")


def _check_annotation(operation: Json, pod: Json) -> None:
    value = operation.get("value")
    if operation["op"] == "remove":
        assert operation == {"op": "remove", "path": _POINTER}
    elif operation["path"] == _POINTER:
        assert operation == {"op": "add", "path": _POINTER, "value": value}
    else:
        assert operation == {"op": "add", "path": "/metadata/annotations", "value": value}
        assert not _annotations(pod), "other annotations are lost"
        assert isinstance(value, dict)
        assert list(value) == [ORIGINALS]


def _check_originals(patched: Json, request: Json, noted: Mapping[str, str]) -> None:
    """Check that the annotation has the original of each rewritten image and no other, or is absent if too long."""
    before, after = _annotations(request["object"]), _annotations(patched)
    assert _size(after) <= max(_MOST_ANNOTATIONS, _size(before)), "the API server would refuse these annotations"
    if ORIGINALS in after:
        originals = json.loads(after[ORIGINALS])
        assert originals
        assert noted.items() <= originals.items()
        assert originals.keys() <= {"/".join(key) for key, _, _ in images(patched)}, "an original of nothing"
    elif noted:
        # The older entries that stay count too, and each of their characters may need six bytes.
        old = _annotations(request["oldObject"]) if request["operation"] == "UPDATE" else {}
        most = _size(before) + 6 * (_size(old) + _size(before)) + len(ORIGINALS) + len(json.dumps(noted))
        assert most > _MOST_ANNOTATIONS, "the originals are lost, though they fit"


def _originals(pod: Json) -> Json:
    try:
        originals = json.loads(_annotations(pod)[ORIGINALS])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return originals if isinstance(originals, dict) else {}


def _annotations(pod: Json) -> Json:
    found = pod["metadata"].get("annotations")
    return found if isinstance(found, dict) else {}


def _size(annotations: Json) -> int:
    texts = [text for pair in annotations.items() for text in pair if isinstance(text, str)]
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)
