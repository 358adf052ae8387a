"""The admission webhook: the Lambda function behind the API Gateway."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from image_mirror.admission import CopyRequest, apply_records, copies_placed, copy_requests, make_patch
from image_mirror.audit import audit_annotations, named_copies, requester
from image_mirror.aws import CallLimits, connect
from image_mirror.counts import Counts
from image_mirror.decisions import copy_of
from image_mirror.messages import at_most_ten
from image_mirror.metrics import Metric
from image_mirror.pod_images import new_images, skip_reason
from image_mirror.record import Missing, Record
from image_mirror.recorder import KnownRecords, NotRecordedError, Recorder
from image_mirror.reference import Destination
from image_mirror.review import (
    BadReviewError,
    Response,
    answer,
    parse_review,
    refuse,
    seconds_left,
    unavailable,
)
from image_mirror.settings import Settings
from image_mirror.swap_when import swap_when_of
from image_mirror.table import Records

_logger = Logger(service="webhook")
_counts = Counts()
# One more line for each admission would take half as long as the admission itself. The counts since the latest line are
# written at the next admission, and are lost if Lambda ends the instance before that.
_PUBLISH_EVERY = 1.0
# With timeoutSeconds 5 there are 1.25 s for an answer: a call that hangs ends early enough for a second try, and its
# thread is free again for the API server's next attempt.
_LIMITS = CallLimits(connect=0.3, read=0.5, attempts=2, connections=32)
# The first pod waits for the initialisation too. A table that needs longer than one try delays it no further.
_PREPARE_SECONDS = _LIMITS.connect + _LIMITS.read


class Webhook:
    """Answers admission reviews: 200; 400 if the body is not a review; 503 if the images could not be recorded."""

    def __init__(self, settings: Settings, recorder: Recorder, clock: Callable[[], float]) -> None:
        """`clock` returns seconds since the epoch."""
        self._settings = settings
        self._recorder = recorder
        self._clock = clock

    def answer(self, event: Mapping[str, Any]) -> Response:
        """Return the HTTP API response (payload 2.0) to one event. Raises BadReviewError and NotRecordedError."""
        review = parse_review(event)
        if not review.object or skip_reason(review.object):
            return answer(review, [], [])
        mirror, policy = self._settings.mirror, self._settings.policy
        swap_when, warned = swap_when_of(event, review.object, self._settings.swap_when)
        decisions = new_images(review, mirror)
        seconds = self._clock()
        now, left = int(seconds * 1000), seconds_left(event, seconds)
        requests, requested_by = copy_requests(decisions), requester(review)
        if swap_when == "paused":
            records = self._existing(requests, now, left)
        else:
            records = self._recorder.record(
                requests,
                now=now,
                seconds=left,
                dry_run=review.dry_run,
                requested_by=requested_by,
                placed=copies_placed(decisions, mirror),
            )
        changes, warnings = apply_records(decisions, records, swap_when, policy, now)
        if rewrites := sum(copy_of(decisions[field]) is not None for field in changes):
            _counts.add(Metric.REWRITES, rewrites)
        named, omitted = named_copies(requests, records)
        too_many = len(requests) - len(records)
        if named or too_many:
            fields = {"requested_by": requested_by, "copies": named, "omitted": omitted, "dry_run": review.dry_run}
            fields |= {"too_many": too_many} if too_many else {}
            _logger.info("copies named", extra=fields)
        patch = make_patch(review, decisions, changes, mirror)
        return answer(review, patch, at_most_ten([*warned, *warnings]), audit_annotations(named, omitted))

    def open_connection(self) -> None:
        """Call the table once, for 0.8 seconds at most. Raises what a client raises, and TimeoutError."""
        self._recorder.open_connection(_PREPARE_SECONDS)

    def _existing(
        self, requests: Sequence[CopyRequest], now: int, left: float
    ) -> Mapping[Destination, Record | Missing]:
        """Return the records that there are during a pause.

        New images stay as written if they cannot be read: the pause may have been made because of the table, and with
        failurePolicy Fail no pod would start. A pod that is updated keeps its other images, which need no record. With
        a 503 and Ignore, all its images would change to those of the request, and their containers restart.
        """
        try:
            return self._recorder.existing(requests, now=now, seconds=left)
        except NotRecordedError as error:
            _not_recorded(error)
            _counts.add(Metric.NOT_RECORDED)
            return {request.copy.destination: Missing.UNREAD for request in requests}


@cache
def load() -> Webhook:
    """Make the webhook from the function's environment, once. Raises SettingsError."""
    settings = Settings.from_env(os.environ)
    records = Records(connect("dynamodb", _LIMITS), settings.table)
    recorder = Recorder(records, settings.policy, KnownRecords(), settings.max_new_images, _report)
    return Webhook(settings, recorder, time.time)


def prepare() -> None:
    """Make the webhook, and open its connection to the table. Raises nothing.

    If it fails, the log says why, and each admission tries again: after a SettingsError each is answered 503.
    """
    try:
        load().open_connection()
    except Exception:  # if an initialisation fails, Lambda answers no request
        _logger.exception("not prepared")


def _report(metric: Metric, copy: str, reason: str) -> None:
    _counts.add(metric)
    if metric is Metric.RECORDS_REPAIRED:
        _logger.warning("record repaired", extra={"copy": copy, "reason": reason})
    else:
        _logger.error("record unusable", extra={"copy": copy, "reason": reason})


def _not_recorded(error: NotRecordedError) -> None:
    _logger.warning("not recorded", extra={"reason": str(error)})


def handler(event: Mapping[str, Any], context: object) -> Response:  # noqa: ARG001 - Lambda's signature
    """Answer one request. The event is never logged: its path contains the token, its body may contain secrets."""
    try:
        response, counted = load().answer(event), Metric.ADMISSIONS
    except BadReviewError as error:
        response, counted = refuse(error), Metric.REFUSED
    except NotRecordedError as error:
        _not_recorded(error)
        response = unavailable("the pod's images could not be recorded in time", retry=True)
        counted = Metric.NOT_RECORDED
    except Exception:  # without this, a bug would be a 500 with no stack in the log
        _logger.exception("bug")
        response, counted = unavailable("the webhook failed; its log says why", retry=False), Metric.BUGS
    _counts.add(counted)
    # A failure is published at once: it has a line in the log anyway, and there may be no next admission.
    went_wrong = counted in (Metric.NOT_RECORDED, Metric.BUGS)
    _counts.publish(every=0.0 if went_wrong else _PUBLISH_EVERY)
    return response


# Lambda sets this variable. While it imports a function it gives it a whole CPU, and afterwards only the share that
# belongs to its memory. So what the first admission would wait for is done here.
if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    prepare()
