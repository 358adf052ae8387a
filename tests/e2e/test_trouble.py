"""Failures of the webhook: the effect of failurePolicy, and the webhook's own answers."""

import http.client
import json
import re
import time
from collections.abc import Callable
from ssl import create_default_context
from urllib.parse import urlsplit

import pytest

from e2e.fakes.adapter import Gateway
from e2e.harness.control_plane import Cluster
from e2e.harness.pods import COPIES, Json, images, pod
from e2e.harness.processes import free_port
from e2e.harness.stage import answer, configuration, configured, emptied, output_path, policy_of
from image_mirror import webhook
from image_mirror.cli.emulation import Emulation
from support.reviews_data import captured


def _status(code: int, headers: dict[str, str] | None = None) -> Callable[[Json], Json]:
    return lambda _event: {"statusCode": code, "headers": headers or {}, "body": '{"message":"x"}'}


def _hang(_event: Json) -> Json:
    time.sleep(3)
    return {"statusCode": 200, "body": "{}"}


TROUBLES = {
    "hanging": _hang,
    "garbage": lambda _event: {"statusCode": 200, "body": "garbage"},
    "429": _status(429),
    "500": _status(500),
    "503": _status(503),
    "400": _status(400),
    "404": _status(404),
}


@pytest.fixture(scope="module", params=["Ignore", "Fail"])
def policy(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def test_whatever_fails_ignore_admits_the_pod_and_fail_admits_no_pod_without_a_patch(
    cluster: Cluster, gate: Gateway, aws: Emulation, policy: str
) -> None:
    with emptied(cluster), configured(cluster, gate, configuration(gate, policy_of(policy, seconds=2))):
        for name, handler in TROUBLES.items():
            gate.handler = handler
            manifest = pod(f"trouble-{name}", "gcr.io/team/app:1")
            done = cluster.try_kubectl("create", "-f", "-", stdin=json.dumps(manifest))
            if policy == "Ignore":
                assert done.returncode == 0, f"{name}: {done.stderr}"
                assert images(cluster.get("pod", f"trouble-{name}")) == {"c0": "gcr.io/team/app:1"}
            else:
                assert done.returncode != 0, name
                assert "failed calling webhook" in done.stderr
    assert aws.records() == []


def _admitted_without(cluster: Cluster, name: str) -> float:
    """How often the API server's call of this webhook failed and the object was admitted."""
    metrics = cluster.kubectl("get", "--raw", "/metrics").stdout
    counter = rf'^apiserver_admission_webhook_fail_open_count{{[^}}]*name="{re.escape(name)}"[^}}]*}} (\S+)$'
    return sum(float(count) for count in re.findall(counter, metrics, re.MULTILINE))


def test_a_webhook_that_is_down_is_ignored_or_fails(
    cluster: Cluster, gate: Gateway, aws: Emulation, policy: str
) -> None:
    shipped, down = configuration(gate), f"https://localhost:{free_port()}{output_path()}"
    [dead] = configuration(gate, policy_of(policy))["webhooks"]
    dead["name"] = "down.example.com"
    dead["clientConfig"]["url"] = down
    dead["objectSelector"]["matchLabels"] = {"try": "down"}  # so that the probe passes it by
    shipped["webhooks"].append(dead)
    with emptied(cluster), configured(cluster, gate, shipped):
        before = _admitted_without(cluster, "down.example.com")
        manifest = pod("down", "gcr.io/team/app:1", labels={"try": "down"})
        done = cluster.try_kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        failed_calls = _admitted_without(cluster, "down.example.com") - before
        if policy == "Ignore":
            assert done.returncode == 0, done.stderr
            assert failed_calls == 1
            assert images(cluster.get("pod", "down")) == {"c0": f"{COPIES}/gcr.io/team/app:1"}
        else:
            assert done.returncode != 0
            assert 'failed calling webhook "down.example.com"' in done.stderr
            assert failed_calls == 0
    assert len(aws.records()) == 1, "the other webhook was called"


def _late(event: Json) -> Json:
    """Return the event as if it had arrived four seconds ago, so that there is no time left to record anything."""
    return {**event, "requestContext": {**event["requestContext"], "timeEpoch": int((time.time() - 4) * 1000)}}


def test_after_two_503_answers_and_one_patch_the_pod_is_admitted_rewritten(
    cluster: Cluster, gate: Gateway, aws: Emulation, policy: str
) -> None:
    attempts: list[Json] = []

    def recover(event: Json) -> Json:
        attempts.append(event)
        return answer(_late(event) if len(attempts) <= 2 else event)

    with emptied(cluster), configured(cluster, gate, configuration(gate, policy_of(policy))):
        gate.handler = recover
        cluster.apply(pod("recovered", "gcr.io/team/app:1"))
        assert images(cluster.get("pod", "recovered")) == {"c0": f"{COPIES}/gcr.io/team/app:1"}
    assert len(attempts) == 3
    assert len(aws.records()) == 1


def _call(gate: Gateway, method: str, path: str, body: str | None) -> tuple[int, str | None]:
    """Return the answer's status and its Retry-After; a redirect is not followed."""
    host = urlsplit(gate.url).netloc
    context = create_default_context(cadata=gate.certificate.decode())
    connection = http.client.HTTPSConnection(host, context=context, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.getheader("Retry-After")
    finally:
        connection.close()


def test_no_answer_is_a_redirect(gate: Gateway, aws: Emulation) -> None:
    found = {
        (method, path, body): _call(gate, method, path, body)[0]
        for path in (output_path(), "/", "/other", output_path() + "/", output_path() + "/x")
        for method, body in (("POST", "{}"), ("POST", ""), ("GET", None), ("PUT", "{}"))
    }
    assert set(found.values()) == {400, 404}
    assert {key for key, status in found.items() if status == 400} == {
        ("POST", output_path(), "{}"),
        ("POST", output_path(), ""),
    }
    assert aws.records() == []


def test_the_answers_to_a_review_are_200_or_503_and_name_a_time_only_where_asking_again_helps(
    gate: Gateway, aws: Emulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = json.dumps(captured("create-pod.json"))
    gate.handler = lambda event: answer(_late(event))
    assert _call(gate, "POST", output_path(), review) == (503, "1")
    assert aws.records() == []
    gate.handler = answer
    assert _call(gate, "POST", output_path(), review) == (200, None)
    assert aws.records() != []
    monkeypatch.setenv("MIRROR_RULES", "=")  # the handler now raises before it can answer
    webhook.load.cache_clear()
    assert _call(gate, "POST", output_path(), review) == (503, None)
