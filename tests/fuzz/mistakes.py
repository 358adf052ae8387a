"""Mistakes made on purpose in the webhook. The oracle must find them, or a fuzz without errors would prove nothing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from image_mirror import admission, audit, pod_images, recorder, review, webhook
from image_mirror.decisions import Copy, Decision, Leave, Mirror
from image_mirror.record import Record
from image_mirror.recorder import Recorder
from image_mirror.reference import NoDestinationError, destination_of, parse_reference
from image_mirror.review import Json, Response, Review
from image_mirror.rules import Rule, Rules, parse_rules
from image_mirror.table import Records

_decide, _record, _new_images, _make_patch = Mirror.decide, Recorder.record, pod_images.new_images, admission.make_patch
_apply = admission.apply_records
_answer, _originals, _known = review.answer, admission._originals, recorder.KnownRecords.get
_image_fields = pod_images.image_fields
_ANY = parse_rules("*.io").entries[0]


def _copy_all(self: Mirror, image: str) -> tuple[Decision, Rule | None]:
    """Copy images that may be copies themselves."""
    decision, rule = _decide(self, image)
    try:
        reference = parse_reference(image)
        if decision == Leave() and reference.registry == self.registry:
            return Copy(reference.pinned, destination_of(reference, self.registry, self.prefix)), rule
    except (ValueError, NoDestinationError):
        pass
    return decision, rule


def _patch_of_another(*arguments: Any) -> list[Json]:
    patch = _make_patch(*arguments)
    return [{**each, "path": each["path"].replace("/0/", "/1/")} for each in patch]


def _patch_of_labels(*arguments: Any) -> list[Json]:
    patch = _make_patch(*arguments)
    return [*patch, {"op": "add", "path": "/metadata/labels", "value": {}}] if patch else []


def _bug(pod: Json) -> str | None:
    return "opted out" if pod["metadata"]["labels"].get("image-mirror/skip") == "true" else None


def _recording(self: Recorder, wanted: Any, **more: Any) -> Any:
    return _record(self, wanted, dry_run=False, **more)


def _as_always(decisions: Any, records: Any, _: str, *more: Any) -> Any:
    return _apply(
        decisions, {copy: record for copy, record in records.items() if isinstance(record, Record)}, "always", *more
    )


def _copied(self: recorder.KnownRecords, *arguments: Any) -> Record | None:
    record = _known(self, *arguments)
    return replace(record, digest="sha256:" + "0" * 64) if record else None


def _of_nothing(*arguments: Any) -> dict[str, str]:
    return {**_originals(*arguments), "containers/gone": "nginx"}


def _echo_of_another(answered: Review, *more: Any) -> Response:
    return _answer(replace(answered, uid=answered.uid.strip("\0")[:36]), *more)


def _pulled(field: pod_images.ImageField) -> pod_images.ImageField:
    return replace(field, pull_never=False)


def _pulling_all(asked: Review, mirror: Mirror) -> Mapping[pod_images.ImageField, Decision]:
    fields = _image_fields
    with patch.object(pod_images, "image_fields", lambda *arguments: [_pulled(each) for each in fields(*arguments)]):
        return _new_images(asked, mirror)


def _always_new(asked: Review, mirror: Mirror) -> Mapping[pod_images.ImageField, Decision]:
    return _new_images(replace(asked, old_object={}), mirror)


MISTAKES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "promising what is not recorded": lambda: patch.object(Records, "create", lambda _, record: record),
    "copying what no rule names": lambda: patch.object(Rules, "match", lambda *_: _ANY),
    "copying a copy": lambda: patch.object(Mirror, "decide", _copy_all),
    "writing in a dry run": lambda: patch.object(
        Recorder, "record", lambda self, wanted, **more: _record(self, wanted, **more | {"dry_run": False})
    ),
    "writing in a pause": lambda: patch.object(Recorder, "existing", _recording),
    "using in a pause what is not in ECR": lambda: patch.object(webhook, "apply_records", _as_always),
    "changing what is never pulled": lambda: patch.object(webhook, "new_images", _pulling_all),
    "changing what an update does not change": lambda: patch.object(webhook, "new_images", _always_new),
    "changing what has opted out": lambda: patch.object(webhook, "skip_reason", lambda _: None),
    "failing at a pod without labels": lambda: patch.object(webhook, "skip_reason", _bug),
    "patching the next container": lambda: patch.object(webhook, "make_patch", _patch_of_another),
    "patching labels": lambda: patch.object(webhook, "make_patch", _patch_of_labels),
    "losing other annotations": lambda: patch.object(admission, "annotations", lambda _: {}),
    "noting nothing": lambda: patch.object(admission, "_originals", lambda *_: {}),
    "noting what is gone": lambda: patch.object(admission, "_originals", _of_nothing),
    "annotations past the limit": lambda: patch.object(admission, "_MOST_ANNOTATIONS", 10**9),
    "echoing another uid": lambda: patch.object(webhook, "answer", _echo_of_another),
    "control characters in a warning": lambda: patch("image_mirror.messages.printable", str),
    "warnings without end": lambda: patch("image_mirror.messages._LONGEST", 1000),
    "answering twice in two ways": lambda: patch.object(recorder.KnownRecords, "get", _copied),
    "believing any name of who asks": lambda: patch.object(audit, "_is", lambda _, text: isinstance(text, str)),
    "status 500": lambda: patch.object(webhook, "refuse", lambda _: {**_answer_of_500()}),
}


def _answer_of_500() -> Response:
    return {"statusCode": 500, "headers": {"Content-Type": "application/json"}, "body": '{"message":""}'}
