"""Doctor's results about the webhook's answers at its URL, and about errors on the way there."""

import base64
import json
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor import webhook
from image_mirror.cli.doctor.runner import CheckResult, State
from image_mirror.cli.doctor.webhook import Call, Reply, Silence, copied_image, dry_run_review, judge_call, masked
from image_mirror.cli.stacks import Stack
from image_mirror.decisions import Mirror
from image_mirror.review import parse_review
from image_mirror.rules import DEFAULT_RULES, parse_rules
from support.cloud import REGISTRY
from support.operators import TOKEN, URL

COPIES = f"{REGISTRY}/mirror/"
REVIEW = dry_run_review("gcr.io/x:1")
LOG = "`aws logs tail --region cn-northwest-1 --since 1h webhook-log`"
UID = REVIEW["request"]["uid"]


def answered(image: str | None, uid: str = UID) -> bytes:
    """Return the body of a 200, with a patch if there is an image."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if image is not None:
        patch = json.dumps([{"op": "replace", "path": "/spec/containers/0/image", "value": image}])
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()


def judged(
    reply: Reply | Silence,
    *,
    is_rewritten: bool = True,
    parameters: dict[str, str] | None = None,
    paused: Reply | Silence | None = None,
) -> CheckResult:
    outputs = {"CopiesPrefix": COPIES, "WebhookLogGroup": "webhook-log"}
    stack = Stack(Account("china", None, "cn-northwest-1"), "mirror", "UPDATE_COMPLETE", outputs, parameters or {})
    [result] = judge_call(Call(REVIEW, reply, is_rewritten), paused, stack)
    return result


@pytest.mark.parametrize(
    ("reply", "state", "words", "remedy"),
    [
        pytest.param(
            Reply(200, answered(f"{COPIES}gcr.io/x:1"), 0.4),
            "ok",
            f"after 0.4 seconds, and sends the pod to {COPIES}",
            "",
            id="well",
        ),
        pytest.param(
            Reply(200, answered(f"{COPIES}gcr.io/x:1"), 6.0),
            "warning",
            "the answer is right but took 6.0 seconds",
            "logs tail",
            id="slow",
        ),
        pytest.param(
            Reply(200, answered("asia.gcr.io/x:1"), 0.4),
            "failed",
            "to asia.gcr.io/x:1, not",
            "logs tail",
            id="elsewhere",
        ),
        pytest.param(Reply(200, answered(None), 0.4), "failed", "to its source, not to", "logs tail", id="no-patch"),
        pytest.param(
            Reply(200, answered(f"{COPIES}gcr.io/x:1", "another"), 0.4),
            "failed",
            "not the answer to this review",
            "proxy",
            id="another-uid",
        ),
        pytest.param(
            Reply(200, b"<html>Log in</html>", 0.4), "failed", "something else answers", "proxy", id="a-login-page"
        ),
        pytest.param(
            Reply(403, b'{"message":"Forbidden"}', 0.1),
            "failed",
            "no ICP licence",
            "AWS China's support",
            id="icp-http",
        ),
        pytest.param(
            Reply(403, b'{"Message":null}', 0.1), "failed", "no ICP licence", "Ningxia: a separate", id="icp-rest"
        ),
        pytest.param(
            Reply(403, b"<html>Blocked</html>", 0.1),
            "failed",
            "not from API Gateway",
            "proxy or firewall",
            id="blocked",
        ),
        pytest.param(
            Reply(404, b'{"message":"Not Found"}', 0.1), "failed", "another token", "new WebhookToken", id="wrong-token"
        ),
        pytest.param(Reply(429, b"", 0.1), "failed", "throttles", "ThrottlingRate", id="throttled"),
        pytest.param(Reply(302, b"", 0.1), "failed", "redirects", "proxy or portal", id="redirected"),
        pytest.param(
            Reply(503, b"{}", 2.0, "1"),
            "failed",
            "cannot read the table",
            LOG,
            id="table-gone",
        ),
        pytest.param(
            Reply(500, b"", 0.1),
            "failed",
            "500: the webhook",
            LOG,
            id="crashed",
        ),
        pytest.param(
            Reply(400, b'{"message":"no AdmissionReview"}', 0.1),
            "failed",
            "so it is of another release",
            "deploy",
            id="other-release",
        ),
        pytest.param(Silence("the name x is not found", "check DNS"), "failed", "not found", "DNS", id="silence"),
    ],
)
def test_each_answer_has_its_result_and_its_remedy(reply: Reply | Silence, state: str, words: str, remedy: str) -> None:
    result = judged(reply)
    assert result.state == state
    assert words in result.found
    assert remedy in (result.remedy or "")


def test_where_no_copy_is_there_yet_and_pods_wait_for_none_there_is_no_patch() -> None:
    assert judged(Reply(200, answered(None), 0.1), is_rewritten=False).state is State.OK


@pytest.mark.parametrize(
    ("paused", "found", "remedy"),
    [
        pytest.param(
            Reply(404, b'{"message":"Not Found"}', 0.1),
            "it answers after 0.1 seconds, but 404 on the route of paused: webhook-config --pause and --modes would "
            "send pods to routes like it",
            "deploy",
            id="no-route",
        ),
        pytest.param(
            Reply(500, b"", 0.1), "but not on the route of paused: 500: the webhook or Lambda failed", LOG, id="crashed"
        ),
        pytest.param(
            Silence("no answer within 10 seconds", "check the network"),
            "but not on the route of paused: no answer within 10 seconds",
            "check the network",
            id="silence",
        ),
    ],
)
def test_the_route_of_a_pause_must_answer_before_somebody_needs_it(
    paused: Reply | Silence, found: str, remedy: str
) -> None:
    result = judged(Reply(200, answered(f"{COPIES}gcr.io/x:1"), 0.1), paused=paused)
    assert result.state is State.FAILED
    assert found in result.found
    assert remedy in str(result.remedy)
    assert judged(Reply(200, answered(f"{COPIES}gcr.io/x:1"), 0.1), paused=Reply(200, b"", 0.1)).state is State.OK


def test_a_stack_that_is_paused_is_named_with_the_command_that_ends_it() -> None:
    result = judged(Reply(200, answered(None), 0.1), is_rewritten=False, parameters={"SwapWhen": "paused"})
    assert (result.state, "SwapWhen is paused" in result.found) == (State.WARNING, True)
    assert "sam deploy" in str(result.remedy)
    assert "SwapWhen=always" in str(result.remedy)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(socket.gaierror(-2, "Name or service not known"), "is not found", id="dns"),
        pytest.param(TimeoutError(), "no answer within 10 seconds", id="time-out"),
        pytest.param(ConnectionRefusedError(111, "Connection refused"), "Connection refused", id="refused"),
        pytest.param(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "TLS with", id="tls"),
        pytest.param(OSError("Tunnel connection failed: 407 Authentication Required"), "407", id="proxy"),
        pytest.param(ValueError(f"URL can't contain control characters. '/{TOKEN}'"), "ValueError", id="quoting"),
    ],
)
def test_errors_on_the_way_to_the_webhook_are_named_without_the_token(error: Exception, words: str) -> None:
    silence = webhook._silence("h.cn", error)
    assert words in silence.found
    assert TOKEN not in silence.found + silence.remedy
    assert silence.remedy


@contextmanager
def served(*statuses: int) -> Iterator[tuple[str, list[bytes]]]:
    """Serve answers with these statuses, the last one repeatedly; yield the URL and the received bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            status = statuses[min(len(bodies), len(statuses)) - 1]
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{TOKEN}", bodies
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("statuses", "status", "calls"),
    [
        pytest.param((503, 200), 200, 2, id="a-cold-start"),
        pytest.param((503, 503, 503), 503, 3, id="for-good"),
        pytest.param((302,), 302, 1, id="a-redirect-is-not-followed"),
        pytest.param((500,), 500, 1, id="an-error-is-not-repeated"),
    ],
)
def test_it_asks_again_as_the_api_server_does(
    statuses: tuple[int, ...], status: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_SCHEME", "http://")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with served(*statuses) as (url, bodies):
        reply = webhook.send(url, REVIEW)
    assert isinstance(reply, Reply)
    assert (reply.status, len(bodies)) == (status, calls)


def test_a_url_without_tls_is_not_called() -> None:
    silence = webhook.send(f"http://localhost:1/{TOKEN}", REVIEW)
    assert isinstance(silence, Silence)
    assert "not an https:// URL" in silence.found


def test_an_error_of_urllib_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr("urllib.request.OpenerDirector.open", fail)
    silence = webhook.send(URL, REVIEW)
    assert isinstance(silence, Silence)
    assert "a1b2c3d4e5.execute-api.cn-northwest-1.amazonaws.com.cn is not found" in silence.found


@pytest.mark.parametrize(
    ("rules", "image"),
    [
        pytest.param(DEFAULT_RULES, "docker.io/image-mirror-doctor:1", id="the-default"),
        pytest.param("*.gcr.io", "image-mirror-doctor.gcr.io/image-mirror-doctor:1", id="a-wildcard"),
        pytest.param("!gcr.io quay.io/a/b", "quay.io/a/b/image-mirror-doctor:1", id="a-path"),
        pytest.param("gcr.io=asia.gcr.io", None, id="only-a-rewrite"),
        pytest.param("!gcr.io", None, id="only-an-exception"),
    ],
)
def test_the_pod_is_of_an_image_that_a_rule_has_copied(rules: str, image: str | None) -> None:
    assert copied_image(Mirror(REGISTRY, "mirror", parse_rules(rules))) == image


def test_the_review_is_one_and_a_dry_run() -> None:
    review = parse_review({"body": json.dumps(REVIEW)})
    assert (review.dry_run, review.operation, review.uid) == (True, "CREATE", UID)
    assert review.object["spec"]["containers"][0]["image"] == "gcr.io/x:1"


def test_of_a_url_only_the_host_is_shown() -> None:
    assert masked(URL) == "https://a1b2c3d4e5.execute-api.cn-northwest-1.amazonaws.com.cn/***"
