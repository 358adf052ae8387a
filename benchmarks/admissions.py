"""Admissions to measure: the deployed handler with its settings, either warm or with a table that answers late."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.distant_table import distant_table
from image_mirror import webhook
from image_mirror.aws import connect
from image_mirror.cli.emulation import REGISTRY, emulated_aws, http_event
from image_mirror.recorder import KnownRecords, Recorder
from image_mirror.settings import Settings
from image_mirror.table import Records

ENVIRONMENT = {
    "DDB_TABLE_NAME": "ImageListTable",
    "GLOBAL_AKSK": "GlobalAKSK",
    "G_PROJECT_NAME": "ImagePullProject",
    "ECR_REGISTRY": REGISTRY,
    "AWS_DEFAULT_REGION": "cn-northwest-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
}
METRICS = {"POWERTOOLS_METRICS_NAMESPACE": "ImageMirror", "POWERTOOLS_SERVICE_NAME": "image-mirror"}
SIZES = {"2.4 kB": "create-pod-from-deployment", "3.8 kB": "create-pod", "9.4 kB": "image-update"}
"""The captured reviews that are measured, by their size as an API server sends them."""
_REVIEWS = Path(__file__).parents[1] / "tests" / "reviews"

Answer = Callable[[], object]
Admit = Callable[[int], None]


def review_text(size: str) -> str:
    """Return the review of this size, a key of SIZES, as an API server sends it: without white space."""
    return json.dumps(json.loads((_REVIEWS / f"{SIZES[size]}.json").read_text()), separators=(",", ":"))


@contextmanager
def deployed() -> Iterator[None]:
    """Count metrics as in the template's setting, but discard them: standard output is for the results."""
    with (
        mock.patch.dict(os.environ, METRICS),
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):
        yield


@contextmanager
def warm_admission(size: str) -> Iterator[Answer]:
    """Yield a function that answers the review of this size. All images are known; a call of the table would fail."""
    event = {**http_event({}), "body": review_text(size)}
    with emulated_aws(), deployed():
        _answer(event)
        with mock.patch.object(webhook.load()._recorder, "_records", None):
            yield partial(_answer, event)


class InstantTable:
    """Replaces the table's client: accepts every item at once."""

    def put_item(self, **_: object) -> None:
        """Accept an item."""


@contextmanager
def table_client(seconds: float) -> Iterator[Any]:
    """Yield the webhook's own client of a table that answers `seconds` after each request."""
    with distant_table(seconds) as endpoint, mock.patch.dict(os.environ, {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}):
        yield connect("dynamodb", webhook._LIMITS)


@contextmanager
def new_admissions(table: Any, known: KnownRecords) -> Iterator[Admit]:
    """Yield a function that admits a pod with a given number of new images; `table` is the table's client."""
    settings = Settings.from_env(ENVIRONMENT)
    recorder = Recorder(Records(table, "t"), settings.policy, known, settings.max_new_images)
    subject = webhook.Webhook(settings, recorder, time.time)
    review = json.loads(review_text("2.4 kB"))
    serial = iter(range(10**9))

    def admit(images: int) -> None:
        names = (f"gcr.io/team/application-{next(serial)}:1.0" for _ in range(images))
        containers = [{"name": str(number), "image": name} for number, name in enumerate(names)]
        review["request"]["object"]["spec"]["containers"] = containers
        _answer(http_event(review))

    # A Mock would remember each call.
    with mock.patch.object(webhook, "load", lambda: subject), deployed():  # noqa: PT008
        admit(10)  # so that its threads exist already
        yield admit


def _answer(event: dict[str, Any]) -> None:
    assert webhook.handler(event, None)["statusCode"] == 200
