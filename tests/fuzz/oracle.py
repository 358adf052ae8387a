"""What must hold of every answer, whatever was asked; nothing here knows what the input was meant to be.

The webhook is the real handler over the table of table.py. It answers 200, 400 or 503 and has no bug; it asks the table
for nothing but images that the request brings and a rule names, promises nothing that is not recorded, and its patch
applies, and touches images and one annotation alone (answers.py). The same review again has the same answer and writes
nothing, and what was rewritten stays as it is.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from fuzz.answers import Json, check_calls, check_patch, check_reinvocation, check_response, patch_in, patched_by
from fuzz.scenarios import Scenario, webhook_of
from fuzz.table import Table
from image_mirror import webhook
from image_mirror.recorder import NotRecordedError
from image_mirror.review import BadReviewError
from image_mirror.webhook import Webhook

_ATTEMPTS = 3  # a slow machine may need the API server's repetition, which finds less to do


@dataclass(frozen=True)
class Checked:
    """What an input came to: the status, the JSONPatch, and how many calls the table got."""

    status: int
    patch: list[Json]
    calls: int


class Bug(BaseException):
    """The webhook raised what it does not foresee: the cause of this, which the handler cannot catch."""


def check(event: Mapping[str, Any], scenario: Scenario) -> Checked:
    """Send an event to the webhook, and again as the API server may. Raises AssertionError or Bug."""
    table = Table(scenario.before)
    subject = webhook_of(scenario, table)
    answered = _answered(subject, event, scenario)
    status, calls, patch = answered["statusCode"], len(table.asked), []
    if status == 200 or calls:
        review = _review(event)
        check_calls(review["request"], table, scenario)
    if status == 200:
        answer = json.loads(answered["body"])
        check_response(answer, review)
        patch = patch_in(answer)
        if patch:
            check_patch(patch, review["request"], table, scenario)
        _check_repetition(subject, event, table, scenario, answered)
        _check_reinvocation(subject, event, review, patch, scenario)
    assert status == 200 or status == 503 or not calls, "what is no review made calls"
    return Checked(status, patch, calls)


def _answered(subject: Webhook, event: Mapping[str, Any], scenario: Scenario) -> Json:
    """Return the handler's response, whose form is checked. Raises Bug for what it would log as one."""
    excused = scenario.refuses or _hurried(event)
    with mock.patch.object(webhook, "load", return_value=_Loud(subject)), mock.patch.object(webhook, "_logger"):
        for _ in range(_ATTEMPTS):
            response = webhook.handler(event, None)
            if response["statusCode"] != 503 or excused:
                break
    status = response["statusCode"]
    assert status in (200, 400, 503), f"status {status}"
    assert response["headers"]["Content-Type"] == "application/json"
    assert status == 200 or list(json.loads(response["body"])) == ["message"]
    if status == 503:
        assert excused, "503, though the table answers and time is left"
        assert response["headers"]["Retry-After"] == "1"
    return response


class _Loud:
    """The webhook, whose bugs pass the handler's last `except`."""

    def __init__(self, subject: Webhook) -> None:
        self._subject = subject

    def answer(self, event: Mapping[str, Any]) -> Json:
        try:
            return self._subject.answer(event)
        except (BadReviewError, NotRecordedError):
            raise
        except Exception as error:
            raise Bug(repr(error)) from error


def _hurried(event: Mapping[str, Any]) -> bool:
    """Say whether the caller waits so briefly that no time may be left to record anything."""
    asked = event.get("queryStringParameters", {}).get("timeout", "")
    return re.fullmatch(r"0{0,2}[0-3]s", asked) is not None


def _review(event: Mapping[str, Any]) -> Json:
    body = event["body"]
    review: Json = json.loads(base64.b64decode(body) if event["isBase64Encoded"] else body)
    return review


def _check_repetition(
    subject: Webhook, event: Mapping[str, Any], table: Table, scenario: Scenario, answered: Json
) -> None:
    written = len(table.written)
    assert _answered(subject, event, scenario) == answered, "the same review again has another answer"
    assert len(table.written) == written, "the same review again wrote records"


def _check_reinvocation(
    subject: Webhook, event: Mapping[str, Any], review: Json, patch: list[Json], scenario: Scenario
) -> None:
    """Ask once more about what the patch made (reinvocationPolicy)."""
    if patch:
        pod = patched_by(patch, review["request"]["object"])
        body = json.dumps(review | {"request": review["request"] | {"object": pod}})
        again = _answered(subject, {**event, "body": body, "isBase64Encoded": False}, scenario)
        check_reinvocation(patch_in(json.loads(again["body"])), review["request"] | {"object": pod})
