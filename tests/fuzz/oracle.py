"""The rules for every answer to any input; nothing here knows where the input came from.

The webhook is the real handler with the table of table.py. It answers 200, 400 or 503 and raises no unexpected error.
It calls the table only for images of the request that a rule copies. Its patch applies, changes only images and one
annotation, and sends pods only to copies that are recorded (answers.py). The same review again gets the same answer
and writes nothing, and rewritten images are not changed again.
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
    """The result of an input: the status, the JSONPatch, and the number of calls of the table."""

    status: int
    patch: list[Json]
    calls: int


class Bug(BaseException):
    """The webhook raised an unexpected error, the cause of this one. The handler cannot catch it."""


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
    assert status == 200 or status == 503 or not calls, "a text that is no review caused calls"
    return Checked(status, patch, calls)


def _answered(subject: Webhook, event: Mapping[str, Any], scenario: Scenario) -> Json:
    """Return the handler's response after a check of its form. Raises Bug for an error that it would log as a bug."""
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
    """The webhook with bugs that the handler's last `except` does not catch."""

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
    """Return whether the caller's timeout is so short that there may be no time to record anything."""
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
    """Call the webhook again with the patched pod (reinvocationPolicy)."""
    if patch:
        pod = patched_by(patch, review["request"]["object"])
        body = json.dumps(review | {"request": review["request"] | {"object": pod}})
        again = _answered(subject, {**event, "body": body, "isBase64Encoded": False}, scenario)
        if again["statusCode"] == 200:  # 503 only if the caller's timeout is too short, which _answered checks
            check_reinvocation(patch_in(json.loads(again["body"])), review["request"] | {"object": pod})
