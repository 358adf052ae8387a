"""What tests on real parts share: a control plane, and the webhook behind a gateway that routes as the template."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from adapter import Gateway, gateway
from control_plane import Cluster, control_plane
from processes import wait_for

from image_mirror import webhook
from image_mirror.cli.emulation import REGISTRY, Emulation, emulated_aws
from templates import sam_template, webhook_configuration

TOKEN = "0123456789abcdef0123456789abcdef"
Json = dict[str, Any]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


def route() -> str:
    """The one route of the template, with a token."""
    key: str = sam_template()["Resources"]["WebhookRoute"]["Properties"]["RouteKey"]["Fn::Sub"]
    return key.replace("${WebhookToken}", TOKEN)


def output_path() -> str:
    """The path of the URL that users copy from the stack's output."""
    url: str = sam_template()["Outputs"]["APIGatewayURL"]["Value"]["Fn::Sub"]
    return "/" + url.replace("${WebhookToken}", TOKEN).partition("://")[2].partition("/")[2]


def answer(event: Json) -> Json:
    return webhook.handler(event, None)


@pytest.fixture
def aws() -> Iterator[Emulation]:
    with emulated_aws() as emulation:
        yield emulation


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("gateway"), route(), answer) as running:
        yield running


@pytest.fixture
def gate(front: Gateway) -> Iterator[Gateway]:
    """The gateway as a test finds it: the real handler behind it, and no review gone through it yet."""
    front.handler = answer
    front.bodies.clear()
    yield front
    front.handler = answer


def configuration(gate: Gateway, change: Callable[[Json], None] | None = None) -> Json:
    """The shipped configuration with the URL and the certificate filled in, and with `change` made to its webhook."""
    filled: Json = copy.deepcopy(webhook_configuration())
    [entry] = filled["webhooks"]
    assert entry["clientConfig"]["url"] == "<WEB-HOOK-URL>"
    bundle = base64.b64encode(gate.certificate).decode()
    entry["clientConfig"] = {"url": gate.url + output_path(), "caBundle": bundle}
    if change is not None:
        change(entry)
    return filled


@contextmanager
def configured(cluster: Cluster, gate: Gateway, *configurations: Json, host: str = REGISTRY) -> Iterator[None]:
    """Apply webhook configurations, wait until they are in force, and delete them at the end.

    The API server takes up to a second to notice a change; a probe's image, which then begins with `host` or no longer
    does, says that it has.
    """
    handler, gate.handler = gate.handler, answer
    for each in configurations:
        cluster.apply(each)
    wait_for(lambda: _probe(cluster).startswith(host), "the webhook is asked")
    gate.handler = handler
    gate.bodies.clear()
    try:
        yield
    finally:
        for each in configurations:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", each["metadata"]["name"])
        gate.handler = answer
        wait_for(lambda: _probe(cluster).startswith("gcr.io/"), "the webhook is no longer asked")


def _probe(cluster: Cluster) -> str:
    done = cluster.try_kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod("probe")))
    image: str = json.loads(done.stdout)["spec"]["containers"][0]["image"] if done.returncode == 0 else done.stderr
    return image


@pytest.fixture
def mirrored(cluster: Cluster, gate: Gateway, aws: Emulation) -> Iterator[Cluster]:
    """A cluster with the shipped configuration, and nothing in its default namespace afterwards."""
    assert aws.records() == []
    with configured(cluster, gate, configuration(gate)):
        yield cluster
        kinds = "deployment,replicaset,statefulset,cronjob,job,pod"  # no garbage collector runs
        cluster.kubectl("delete", kinds, "--all", "--force", "--grace-period=0", "--wait=false")
        wait_for(lambda: not cluster.get("pods")["items"], "the pods are gone")


def pod(name: str, *images: str, **metadata: Json) -> Json:
    """A bare pod with a container c0, c1, ... for each image."""
    named = enumerate(images or ("gcr.io/probe/probe",))
    containers = [{"name": f"c{number}", "image": image} for number, image in named]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": containers},
    }


def pods_of(cluster: Cluster, selector: str) -> list[Json]:
    """Return the pods with these labels."""
    found: list[Json] = cluster.get("pods", "-l", selector)["items"]
    return found
