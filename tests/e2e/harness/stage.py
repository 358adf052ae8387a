"""Shared parts of the end-to-end tests: a control plane, and the webhook behind a gateway with the routes."""

import base64
import copy
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from e2e.fakes.adapter import Gateway, gateway
from e2e.harness.control_plane import Cluster, control_plane
from e2e.harness.pods import Json as Json
from e2e.harness.pods import pod as pod
from e2e.harness.pods import pods_of as pods_of
from e2e.harness.processes import wait_for
from e2e.harness.refusals import WEBHOOK, recorded, refused
from image_mirror import webhook
from image_mirror.cli.emulation import REGISTRY, Emulation, emulated_aws
from support.templates import sam_template, webhook_configuration

TOKEN = "0123456789abcdef0123456789abcdef"


def pytest_configure() -> None:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that contexts end and their programs too."""

    def end(number: int, _frame: object) -> None:
        for each in signals:
            signal.signal(each, lambda *_: None)  # `timeout` sends it twice, and the second would break the unwinding
        pytest.exit(f"ended by {signal.Signals(number).name}", 128 + number)

    signals = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    for each in signals:
        signal.signal(each, end)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The control plane that all tests of a run share; each leaves the default namespace empty."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


def routes() -> list[str]:
    """The routes of the template, with a token."""
    resources = sam_template()["Resources"].values()
    found = [each["Properties"] for each in resources if each["Type"] == "AWS::ApiGatewayV2::Route"]
    return [each["RouteKey"]["Fn::Sub"].replace("${WebhookToken}", TOKEN) for each in found]


def output_path() -> str:
    """Return the path of the URL that users copy from the stack's output."""
    url: str = sam_template()["Outputs"]["APIGatewayURL"]["Value"]["Fn::Sub"]
    return "/" + url.replace("${WebhookToken}", TOKEN).partition("://")[2].partition("/")[2]


def answer(event: Json) -> Json:
    """Answer like the Lambda function: an HTTP API event (payload 2.0) in, its response out."""
    return webhook.handler(event, None)


@pytest.fixture
def aws() -> Iterator[Emulation]:
    """AWS emulated in this process for the handler, without a record.

    At the end it checks that the webhook's policy allows all calls of the webhook during the test.
    """
    with emulated_aws() as emulation, recorded() as recorder:
        recorder.acting_as(WEBHOOK)  # if a test loads a function again, it is the webhook
        yield emulation
        assert refused(recorder.calls, REGISTRY) == []


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway that all tests of a run share; tests use it as `gate`."""
    with gateway(tmp_path_factory.mktemp("gateway"), routes(), answer) as running:
        yield running


@pytest.fixture
def gate(front: Gateway) -> Iterator[Gateway]:
    """The gateway at the start of a test: with the real handler, and without any review yet."""
    front.handler = answer
    front.bodies.clear()
    yield front
    front.handler = answer


def configuration(gate: Gateway, change: Callable[[Json], None] | None = None) -> Json:
    """Return the shipped configuration with the URL and the certificate, after `change` of its webhook."""
    filled: Json = copy.deepcopy(webhook_configuration())
    [entry] = filled["webhooks"]
    assert entry["clientConfig"] == {"url": "<WEB-HOOK-URL>"}
    bundle = base64.b64encode(gate.certificate).decode()
    entry["clientConfig"] = {"url": gate.url + output_path(), "caBundle": bundle}
    if change is not None:
        change(entry)
    return filled


def policy_of(policy: str, seconds: int = 5) -> Callable[[Json], None]:
    """Return a change for `configuration`: this failurePolicy and this timeoutSeconds."""

    def change(entry: Json) -> None:
        entry |= {"failurePolicy": policy, "timeoutSeconds": seconds}

    return change


@contextmanager
def configured(cluster: Cluster, gate: Gateway, applied: Json, host: str = REGISTRY) -> Iterator[None]:
    """Apply a webhook configuration, wait until the API server uses it, and delete it at the end.

    The API server needs up to a second to notice a change. A probe pod shows it: its image begins with `host` if the
    configuration is in use. The API server reads a configuration as a whole: one probe is enough for all its webhooks.
    """
    handler, gate.handler = gate.handler, answer
    try:
        cluster.apply(applied)
        wait_for(lambda: _probe(cluster).startswith(host), "the webhook is asked")
        gate.handler = handler
        gate.bodies.clear()
        yield
    finally:
        gate.handler = answer
        name = applied["metadata"]["name"]
        cluster.kubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")
        wait_for(lambda: _probe(cluster).startswith("gcr.io/"), "the webhook is no longer asked")


@contextmanager
def silent(gate: Gateway) -> Iterator[None]:
    """Let the webhook answer nothing that an API server understands."""
    handler = gate.handler
    gate.handler = lambda _: {"statusCode": 500, "body": ""}
    try:
        yield
    finally:
        gate.handler = handler


@contextmanager
def emptied(cluster: Cluster) -> Iterator[None]:
    """Delete everything in the default namespace, however the context ends."""
    try:
        yield
    finally:
        kinds = "deployment,replicaset,statefulset,cronjob,job,pod"  # no garbage collector runs
        cluster.kubectl("delete", kinds, "--all", "--force", "--grace-period=0", "--wait=false")
        wait_for(lambda: not cluster.get("pods")["items"], "the pods are gone")


def _probe(cluster: Cluster) -> str:
    done = cluster.try_kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod("probe")))
    image: str = json.loads(done.stdout)["spec"]["containers"][0]["image"] if done.returncode == 0 else done.stderr
    return image


@pytest.fixture
def mirrored(cluster: Cluster, gate: Gateway, aws: Emulation) -> Iterator[Cluster]:
    """A cluster with the shipped configuration; its default namespace is emptied at the end."""
    assert aws.records() == []
    with emptied(cluster), configured(cluster, gate, configuration(gate)):
        yield cluster
