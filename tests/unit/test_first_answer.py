"""What the webhook does while Lambda initialises, in a new process as there: import first, then one event at a time."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from image_mirror import webhook
from support.cloud import ENVIRONMENT
from support.templates import ROOT

Json = dict[str, Any]
_REVIEWS = Path(__file__).parents[1] / "reviews"
# Its log goes to standard output, as in Lambda. A table that answers may take a minute on a busy machine.
_FUNCTION = """
import json, sys
from image_mirror import aws
limits = aws.CallLimits(connect=60, read=60, attempts=1, connections=32)
if "patient" in sys.argv:
    aws.CallLimits = lambda **_: limits
from image_mirror import webhook
if "patient" in sys.argv:
    webhook.seconds_left = lambda *_: 60.0
print("ready", flush=True)
for line in sys.stdin:
    print(webhook.handler(json.loads(line), None)["statusCode"], flush=True)
"""


class Table:
    """A table that accepts every item, unless it `refuses` each call, or does not answer while `answers` is clear.

    `calls` has the name of each call, and `connections` is how many were opened.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.calls: list[str] = []
        self.connections = 0
        self.refuses = False
        self.answers = threading.Event()
        self.answers.set()


@pytest.fixture
def table() -> Iterator[Table]:
    """A table over HTTP."""
    served = Table()

    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            served.connections += 1
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            served.calls.append(self.headers["X-Amz-Target"].partition(".")[2])
            served.answers.wait()
            body = b'{"__type": "com.amazonaws#AccessDeniedException"}' if served.refuses else b"{}"
            self.send_response(400 if served.refuses else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Requests) as server:
        served.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        served.answers.set()
        server.shutdown()


class Function:
    """A function's process. `log` has what it has written, besides the lines of this file's program."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.log: list[Json] = []

    def admit(self, name: str) -> int:
        """Return the status of the answer to a captured review."""
        assert self._process.stdin is not None
        body = (_REVIEWS / f"{name}.json").read_text()
        self._process.stdin.write(json.dumps({"queryStringParameters": {"timeout": "30s"}, "body": body}) + "\n")
        self._process.stdin.flush()
        return int(self.said())

    def said(self) -> str:
        """Return the next line of this file's program."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith("{"):
                return line.strip()
            self.log.append(json.loads(line))
        pytest.fail(f"the function ended: {self.log}")

    @property
    def errors(self) -> list[tuple[str, str]]:
        """The messages of the log with an exception, each with the exception's last line."""
        return [(line["message"], line["exception"].splitlines()[-1]) for line in self.log if "exception" in line]


@contextmanager
def initialised(table: Table, *arguments: str, lambda_: bool = True, **environment: str | None) -> Iterator[Function]:
    """Start a function that uses `table`, and wait until its module is imported."""
    variables: dict[str, str | None] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **ENVIRONMENT,
        "AWS_ENDPOINT_URL": table.endpoint,
        "AWS_DEFAULT_REGION": "cn-northwest-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_LAMBDA_FUNCTION_NAME": "webhook" if lambda_ else None,
        "PYTHONPATH": str(ROOT / "src"),
        **environment,
    }
    with subprocess.Popen(
        [sys.executable, "-c", _FUNCTION, *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watch = threading.Timer(300, process.kill)
        watch.start()
        try:
            function = Function(process)
            assert function.said() == "ready"
            yield function
        finally:
            watch.cancel()
            process.kill()


def test_the_webhook_and_its_connection_are_made_before_the_first_admission(table: Table) -> None:
    with initialised(table, "patient") as function:
        assert table.calls == ["GetItem"]
        assert function.admit("create-pod-from-deployment") == 200
        assert table.calls == ["GetItem", "PutItem"]
        assert table.connections == 1
    assert function.errors == []


def test_elsewhere_than_in_lambda_nothing_is_called_before_the_first_admission(table: Table) -> None:
    with initialised(table, "patient", lambda_=False) as function:
        assert table.calls == []
        assert function.admit("create-pod-from-deployment") == 200
        assert table.calls == ["PutItem"]


def test_settings_that_are_wrong_are_logged_at_once_and_at_each_admission_which_is_answered_503(table: Table) -> None:
    with initialised(table, DDB_TABLE_NAME=None) as function:
        wrong = "image_mirror.settings.SettingsError: environment: DDB_TABLE_NAME is missing"
        assert function.errors == [("not prepared", wrong)]
        assert [function.admit("create-pod") for _ in range(2)] == [503, 503]
        assert function.errors == [("not prepared", wrong), ("bug", wrong), ("bug", wrong)]
    assert table.calls == []


def test_a_table_that_does_not_answer_stops_neither_the_initialisation_nor_an_answer(table: Table) -> None:
    table.answers.clear()
    with initialised(table) as function:
        assert function.errors == [("not prepared", "TimeoutError")]
        assert function.admit("label-update") == 200
        assert function.admit("create-pod") == 503


def test_a_table_that_refuses_stops_neither_the_initialisation_nor_an_answer(table: Table) -> None:
    table.refuses = True
    with initialised(table, "patient") as function:
        [(message, reason)] = function.errors
        assert message == "not prepared"
        assert "AccessDeniedException" in reason
        table.refuses = False
        assert function.admit("create-pod-from-deployment") == 200
    assert table.calls == ["GetItem", "PutItem"]


def test_the_initialisation_waits_no_longer_for_the_table_than_one_try_may_take() -> None:
    limits = webhook._LIMITS
    assert webhook._PREPARE_SECONDS == limits.connect + limits.read <= 1
