"""The rows about a new process.

Its CPU until the webhook's first answer, compared with boto3 and three clients. And the part of this CPU that comes
after the initialisation, compared with a webhook that leaves all for its first admission.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.admissions import ENVIRONMENT, METRICS, review_text
from benchmarks.rounds import Row, compare
from e2e.fakes.adapter import gateway
from e2e.harness.processes import absent, program
from e2e.harness.sam import python_program
from image_mirror.cli.emulation import http_event
from support.templates import ROOT

# Lambda sets it, and then the webhook is made while it is imported.
IN_LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "webhook"}
_IMPORT = """
import json
from image_mirror.webhook import handler
"""
_ANSWER = """
answer = handler(json.load(sys.stdin), None)
assert answer["statusCode"] == 200 and '"patch"' in answer["body"], answer
"""
_FIRST_ANSWER = _IMPORT + _ANSWER
_FIRST_ADMISSION = f"{_IMPORT}began = time.process_time(){_ANSWER}"
_BOTO3 = """
import boto3
for name in ("dynamodb", "secretsmanager", "codebuild"): boto3.client(name)
"""
_CLIENT = "from botocore.session import get_session; get_session().create_client('dynamodb')"
_CLIENTS = "boto3 with clients of DynamoDB, Secrets Manager, CodeBuild"


def cold(rounds: int) -> Iterator[Row]:
    """CPU of a new process until its first answer, to a pod with one new image: with this Python, and as in Lambda."""
    with answering_table() as endpoint, tempfile.TemporaryDirectory() as made:
        here = partial(_cpu, {"AWS_ENDPOINT_URL": endpoint, **IN_LAMBDA}, [sys.executable])
        ratios = compare(partial(here, _FIRST_ANSWER), partial(here, _BOTO3), rounds)
        yield Row("first answer of a fresh process", _CLIENTS, ratios, 1.0)
        python, folder = python_program(), Path(made)
        build(python, folder)
        # As in Lambda: without the machine's own packages, and without writing compiled files.
        isolated = [os.fspath(python), "-I", "-S", "-B"]
        there = partial(_cpu, {"AWS_ENDPOINT_URL": endpoint, **IN_LAMBDA}, isolated)
        for reference, how, reach in (
            ("plain", "as pip installs it for Lambda", 1.0),
            ("compiled", "compiled for Lambda", 0.7),
        ):
            ratios = compare(
                partial(there, _FIRST_ANSWER, folder / "artefact"), partial(there, _BOTO3, folder / reference), rounds
            )
            yield Row("first answer, from what sam build makes", f"{_CLIENTS}, {how}", ratios, reach)
        ratios = compare(
            partial(there, _CLIENT, folder / "artefact"), partial(there, _BOTO3, folder / "compiled"), rounds
        )
        yield Row(
            "botocore's DynamoDB client, from what sam build makes", f"{_CLIENTS}, compiled for Lambda", ratios, 0.7
        )
        with table_over_tls(folder) as address:
            ratios = compare(
                partial(_cpu, {**address, **IN_LAMBDA}, isolated, _FIRST_ADMISSION, folder / "artefact"),
                partial(_cpu, address, isolated, _FIRST_ADMISSION, folder / "artefact"),
                rounds,
            )
        yield Row("CPU of an instance's first admission", "the same, with nothing made before it", ratios, 0.25)


def build(python: Path, folder: Path) -> None:
    """Build the functions' artefact in `folder`, and boto3 without (`plain`) and with (`compiled`) compiled files."""
    pip = (python, "-m", "pip", "install", "--quiet", "--no-compile")
    run(
        program("make", "apt-get install make"),
        "build-ApiFunction",
        f"ARTIFACTS_DIR={folder / 'artefact'}",
        python=python,
    )
    run(*pip, "--target", folder / "plain", "boto3", python=python)
    shutil.copytree(folder / "plain", folder / "compiled")
    run(python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", folder / "compiled", python=python)


def run(*command: str | Path, python: Path) -> None:
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=ROOT / "src", env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        absent(f"{Path(command[0]).name} made no artefact: {' '.join(done.stderr.split())[-300:]}")


def _cpu(environment: Mapping[str, str], python: Sequence[str], code: str, folder: Path | None = None) -> float:
    """Return the CPU seconds that a new interpreter needs to run `code`, with `folder` first on its path.

    If `code` sets `began`, they count from there. The end of the interpreter is not counted: in Lambda it does not end
    before the answer.
    """
    # The event has no time, so it counts as new even if the machine was busy while the process started.
    event = {**http_event({}), "body": review_text("2.4 kB"), "requestContext": {}}
    path = f"sys.path.insert(0, {os.fspath(folder)!r})" if folder else ""
    script = f"import sys, time\nbegan = 0.0\n{path}\n{code}\nprint(time.process_time() - began)"
    done = subprocess.run(
        [*python, "-c", script],
        env={**os.environ, **ENVIRONMENT, **METRICS, **environment},
        input=json.dumps(event),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])  # the lines before are the function's log


@contextmanager
def answering_table() -> Iterator[str]:
    """Serve a table that accepts every item, and yield its endpoint."""

    class Table(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Table) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def table_over_tls(folder: Path) -> Iterator[Mapping[str, str]]:
    """Serve the same table over TLS, and yield the environment of its clients.

    They trust its certificate besides the roots of the artefact in `folder`, which OpenSSL has to read as in Lambda.
    """
    roots = folder / "roots.pem"
    with gateway(folder, ["POST /"], lambda _: {"statusCode": 200, "body": "{}"}) as table:
        roots.write_bytes((folder / "artefact" / "botocore" / "cacert.pem").read_bytes() + table.certificate)
        yield {"AWS_ENDPOINT_URL": table.url, "AWS_CA_BUNDLE": os.fspath(roots)}
