"""Makes the answer from decisions and records: the JSONPatch, the annotation with the original images, the warnings."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from image_mirror import messages
from image_mirror.decisions import Copy, Decision, Leave, Mirror, Restore, Rewrite, copy_of, replaces_image
from image_mirror.pod_images import (
    ORIGINALS,
    ImageField,
    annotations,
    image_fields,
    original_images,
    originals_text,
)
from image_mirror.record import MINUTE, MOST_ATTEMPTS, Missing, Policy, Record, retry_pause
from image_mirror.reference import Destination, only_adds
from image_mirror.review import Json, Review
from image_mirror.swap_when import SwapWhen

_CODE = re.compile(r"[A-Z][A-Z_]{1,39}")  # of a build's result, such as NOT_FOUND
_MOST_ANNOTATIONS = 262_144  # bytes of all keys and values: apimachinery, TotalAnnotationSizeLimitB


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """One copy that a pod needs. `pull_always`: the pod asks for the tag's latest image."""

    copy: Copy
    pull_always: bool


def copy_requests(decisions: Mapping[ImageField, Decision]) -> list[CopyRequest]:
    """Return each copy once; `pull_always` is set if it is for any of its images."""
    merged: dict[Destination, CopyRequest] = {}
    for field, decision in decisions.items():
        copy = copy_of(decision)
        if copy is not None:
            known = merged.get(copy.destination)
            pull_always = field.pull_always or (known is not None and known.pull_always)
            merged[copy.destination] = CopyRequest(copy, pull_always)
    return list(merged.values())


def copies_placed(decisions: Mapping[ImageField, Decision], mirror: Mirror) -> int:
    """Return how many copies the new images already name, each once.

    The API server calls again with the patched pod (reinvocationPolicy): the first call has put them there.
    """
    return len({field.image for field in decisions if mirror.serves(field.image)})


def apply_records(
    decisions: Mapping[ImageField, Decision],
    records: Mapping[Destination, Record | Missing],
    swap_when: SwapWhen,
    policy: Policy,
    now: int,
) -> tuple[dict[ImageField, str], list[str]]:
    """Return the images that change, each with its new image, and the warnings.

    An image whose copy is not in `records` stays as written: its pod names too many. One whose record is missing stays
    as written too. `now` is in milliseconds since the epoch.
    """
    changes: dict[ImageField, str] = {}
    warnings: list[str] = []
    too_many: set[Destination] = set()
    for field, decision in decisions.items():
        match decision:
            case Leave(warning=warning):
                if warning:
                    warnings.append(warning)
            case Restore(image=image):
                changes[field] = image
                warnings.append(messages.restored(field.image))
            case Rewrite(image=image):
                changes[field] = image
            case Copy(destination=destination) if destination not in records:
                too_many.add(destination)
            case Copy(destination=destination):
                record = records[destination]
                if isinstance(record, Missing):
                    warnings.append(_without_record(field.image, record))
                    continue
                if swap_when == "paused":
                    if record.is_active and record.digest is not None:
                        changes[field] = str(destination)
                    else:
                        warnings.append(messages.not_requested(field.image))
                    continue
                swap = record.is_active and (swap_when == "always" or record.digest is not None)
                if swap:
                    changes[field] = str(destination)
                if not record.is_active:
                    # Rounded up. If this clock is behind the one that wrote the record, at most the full time.
                    pause = retry_pause(record, policy)
                    wait = min(record.updated_at + pause - now, pause)
                    reason = record.error or "the reason is unknown"
                    warnings.append(messages.failed(field.image, reason, max(1, -(-wait // MINUTE))))
                elif record.digest is None and record.attempts:
                    reason, attempts = latest_result(record), min(record.attempts, MOST_ATTEMPTS)
                    warnings.append(messages.refused(field.image, reason, attempts, MOST_ATTEMPTS, waits=swap))
                elif record.digest is None:
                    warnings.append(messages.copying(field.image) if swap else messages.copied_later(field.image))
            case _:
                assert_never(decision)
    # The first, because only ten are shown.
    first = [messages.too_many(len(too_many))] if too_many else []
    return changes, [*first, *warnings]


def _without_record(image: str, missing: Missing) -> str:
    """Return the warning about an image whose record is missing."""
    match missing:
        case Missing.ABSENT:
            return messages.not_requested(image)
        case Missing.UNREAD:
            return messages.not_read(image)
        case Missing.UNUSABLE:
            return messages.left_unchanged(image, "its record in the table cannot be used")
        case _:
            assert_never(missing)


def latest_result(record: Record) -> str:
    """Return the code of the latest build that has ended, or else the latest reason; "" if both are unknown."""
    for text in ((record.same_result or "").partition(" ")[0], (record.error or "").partition(":")[0]):
        if _CODE.fullmatch(text):
            return text
    return record.error or ""


def make_patch(
    review: Review, decisions: Mapping[ImageField, Decision], changes: Mapping[ImageField, str], mirror: Mirror
) -> list[Json]:
    """Return the JSONPatch (RFC 6902) that makes `changes` and updates the annotation; [] if nothing changes."""
    patch: list[Json] = [{"op": "replace", "path": field.pointer, "value": image} for field, image in changes.items()]
    if not review.subresource:
        rewritten = (field for field in changes if replaces_image(decisions[field]))
        patch += _annotate(review, _originals(review, changes, rewritten, mirror))
    return patch


def _originals(
    review: Review, changes: Mapping[ImageField, str], rewritten: Iterable[ImageField], mirror: Mirror
) -> dict[str, str]:
    """Merge the originals of oldObject, of object and of this call; drop those whose copy is gone."""
    new = {field.key: field.image for field in rewritten}
    before = original_images(review.old_object)
    merged = before | original_images(review.object)
    if not merged:  # as in nearly every new pod
        return new
    old = {field.key: field.image for field in image_fields(review.old_object)}
    kept: dict[str, str] = {}
    for field in image_fields(review.object):
        key, image = field.key, changes.get(field, field.image)
        if key in merged and key not in new:
            kept_name = key in before and key in old and only_adds(image, old[key])
            is_copy = mirror.may_be_copy_of if kept_name else mirror.is_copy_of
            if is_copy(image, merged[key]):
                kept[key] = merged[key]
    return kept | new


def _annotate(review: Review, originals: Mapping[str, str]) -> list[Json]:
    """Return the operations that set the annotation to `originals`, on a pod with or without annotations."""
    present = annotations(review.object)
    pointer = "/metadata/annotations/" + ORIGINALS.replace("/", "~1")
    if originals and originals == original_images(review.object):
        return []
    value = originals_text(originals)
    if originals and _size({**present, ORIGINALS: value}) <= _MOST_ANNOTATIONS:
        if present:
            return [{"op": "add", "path": pointer, "value": value}]
        return [{"op": "add", "path": "/metadata/annotations", "value": {ORIGINALS: value}}]
    return [{"op": "remove", "path": pointer}] if ORIGINALS in present else []


def _size(present: Mapping[str, object]) -> int:
    texts = (text for key, value in present.items() for text in (key, value) if isinstance(text, str))
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
