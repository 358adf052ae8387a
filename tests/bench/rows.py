"""What is measured, each row against a reference in the same run."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.session import get_session
from rounds import Row, compare

from image_mirror import webhook
from image_mirror.cli.emulation import REGISTRY, emulated_aws, http_event
from image_mirror.promises import KnownRecords, Promises
from image_mirror.records import Records
from image_mirror.settings import Settings

REVIEWS = Path(__file__).parents[1] / "reviews"
TABLE_DELAY, SECRET_DELAY, START_DELAY = 0.005, 0.010, 0.250  # seconds: DynamoDB nearby, its neighbour, the Pacific
_ENVIRONMENT = {
    "DDB_TABLE_NAME": "ImageListTable",
    "GLOBAL_AKSK": "GlobalAKSK",
    "G_PROJECT_NAME": "ImagePullProject",
    "ECR_REGISTRY": REGISTRY,
    "AWS_DEFAULT_REGION": "cn-northwest-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
}
_BOTO3 = "import boto3\nfor name in ('dynamodb', 'secretsmanager', 'codebuild'): boto3.client(name)"
_WEBHOOK = "from image_mirror import webhook\nwebhook.load()"


def warm(rounds: int) -> Iterator[Row]:
    """CPU of one admission whose images are all known; a call of the table would fail it."""
    for name, size in (("create-pod-from-deployment", "2.4 kB"), ("create-pod", "9 kB")):
        body = (REVIEWS / f"{name}.json").read_text()
        event = {**http_event({}), "body": body}
        answer = {"response": {"uid": "x", "allowed": True, "patchType": "JSONPatch", "patch": "W10=" * 60}}

        def reference(body: str = body, answer: dict[str, Any] = answer) -> float:
            return _cpu(lambda: (json.loads(body), json.dumps(answer)), 2000)

        with emulated_aws():
            assert webhook.handler(event, None)["statusCode"] == 200
            promises = webhook.load()._promises
            with mock.patch.object(promises, "_records", None):
                ratios = compare(partial(_cpu, partial(_answer, event), 500), reference, rounds)
        yield Row(f"CPU of a warm admission, {size}", "json.loads of the body, json.dumps of an answer", ratios, 5.0)


def new_images(rounds: int) -> Iterator[Row]:
    """Time of one admission of images that nobody has seen, with the table 5 ms away."""
    for count in (1, 3, 10):
        with _modelled() as (admit, naive):
            ratios = compare(partial(_time, partial(admit, count)), partial(_time, naive.put), rounds)
        yield Row(f"an admission of {count} new images", "one put_item", ratios, 2.0)


def against_naive(rounds: int) -> Iterator[Row]:
    """The same against a webhook that reads the secret, puts, makes a client and starts a build for each image."""
    for count, reach in ((1, 20.0), (3, 60.0)):
        with _modelled() as (admit, naive):
            ratios = compare(
                partial(_time, partial(naive.admit, count), 3), partial(_time, partial(admit, count)), rounds
            )
        what = f"an admission of {count} new images"
        yield Row(f"the naive way, {count} new images", what, ratios, reach, at_most=False)


def cold(rounds: int) -> Iterator[Row]:
    """CPU of a fresh process until it could answer."""
    ratios = compare(lambda: _process(_WEBHOOK), lambda: _process(_BOTO3), rounds)
    yield Row("cold start of the webhook", "boto3 with clients of DynamoDB, Secrets Manager, CodeBuild", ratios, 1.0)


class Naive:
    """What each image costs without a record: four calls one after the other, one of them a client's making."""

    def put(self) -> None:
        """Take as long as one call of the table does."""
        time.sleep(TABLE_DELAY)

    def admit(self, images: int) -> None:
        """Do for each image what the naive way does."""
        for _ in range(images):
            time.sleep(SECRET_DELAY)
            self.put()
            get_session().create_client("codebuild", region_name="us-west-2")
            time.sleep(START_DELAY)


@contextmanager
def _modelled() -> Iterator[tuple[Callable[[int], None], Naive]]:
    """Yield what admits a pod of so many new images, with a table whose every call takes 5 ms, and the naive way."""

    class Table:
        def put_item(self, **_: object) -> None:
            time.sleep(TABLE_DELAY)

    settings = Settings.from_env(_ENVIRONMENT)
    promises = Promises(Records(Table(), "t"), settings.policy, KnownRecords())  # type: ignore[arg-type]
    subject = webhook.Webhook(settings, promises, time.time)
    serial = iter(range(10**9))

    def admit(images: int) -> None:
        containers = [{"name": str(number), "image": f"gcr.io/a/b:{next(serial)}"} for number in range(images)]
        review = json.loads((REVIEWS / "create-pod-from-deployment.json").read_text())
        review["request"]["object"]["spec"]["containers"] = containers
        assert subject.answer(http_event(review))["statusCode"] == 200

    admit(10)  # its threads are there
    yield admit, Naive()


def _answer(event: dict[str, Any]) -> None:
    assert webhook.handler(event, None)["statusCode"] == 200


def _cpu(function: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - began) / times


def _time(function: Callable[[], object], times: int = 20) -> float:
    began = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - began) / times


def _process(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **_ENVIRONMENT}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
