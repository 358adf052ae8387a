"""Clients are made in one place, each with the timeouts and attempts of its caller."""

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import SSLError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from image_mirror import reconciler, webhook
from image_mirror.aws import AccessKey, CallLimits, connect
from image_mirror.reconciler import RESERVE

CONNECTIONS = 4


def test_a_client_has_the_requested_timeouts_and_attempts(cloud: object) -> None:  # noqa: ARG001 - the environment it sets
    client = connect("dynamodb", CallLimits(connect=0.25, read=0.75, attempts=3, connections=7))
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (0.25, 0.75, 7)
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", 3)
    assert client.meta.region_name == "cn-northwest-1"


def test_a_client_of_another_account_has_its_key_and_region(cloud: object) -> None:  # noqa: ARG001
    client = connect("codebuild", CallLimits(connect=1, read=1, attempts=1), AccessKey("us-west-2", "AKIA", "secret"))
    assert client.meta.region_name == "us-west-2"
    assert client._request_signer._credentials.access_key == "AKIA"


def test_the_webhook_s_calls_fit_into_the_answer_of_the_shipped_configuration() -> None:
    limits = webhook._LIMITS
    assert limits.connect + limits.read <= 5 / 4
    assert limits.attempts == 2


def test_the_reconciler_s_calls_fit_into_its_reserve() -> None:
    for limits in (reconciler._LIMITS, reconciler._TABLE_LIMITS):
        pauses = sum(2**number for number in range(limits.attempts - 1))  # the longest that botocore makes
        assert 2 * (limits.attempts * (limits.connect + limits.read) + pauses) <= RESERVE


def test_an_exchange_before_such_calls_fits_into_the_reserve_too() -> None:
    limits, exchange = reconciler._LIMITS, reconciler._EXCHANGE_LIMITS
    calls = 2 * (limits.attempts * (limits.connect + limits.read) + 1)
    assert exchange.attempts == 1
    assert calls + 2 * (exchange.connect + exchange.read) <= RESERVE


def self_signed(folder: Path) -> Path:
    """Make a file with a certificate of localhost and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{certificate.serial_number}.pem"
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


@contextlib.contextmanager
def table_over_tls(certificate: Path) -> Iterator[str]:
    """Serve puts over TLS, answer only when CONNECTIONS of them have arrived, and yield the URL."""
    together = threading.Barrier(CONNECTIONS)

    class Table(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            together.wait(timeout=60)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("localhost", 0), Table) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a client of a table at an endpoint; it trusts one certificate."""

    def make(endpoint: str, trusted: Path) -> Any:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-northwest-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
        return connect("dynamodb", CallLimits(connect=10, read=30, attempts=1, connections=CONNECTIONS))

    return make


def put(client: Any) -> None:
    client.put_item(TableName="t", Item={"repo": {"S": "r"}, "tag": {"S": "t"}})


def test_a_client_reads_its_root_certificates_once_for_all_its_connections(
    certificate: Path, trusting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = ssl.SSLContext.load_verify_locations

    def load(self: ssl.SSLContext, *arguments: Any) -> None:
        read.append(arguments[0])
        original(self, *arguments)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with table_over_tls(certificate) as endpoint, ThreadPoolExecutor(CONNECTIONS) as threads:
        client = trusting(endpoint, certificate)
        list(threads.map(lambda _: put(client), range(CONNECTIONS)))
    assert read == [str(certificate)]


def test_a_server_whose_certificate_no_root_signed_is_refused_each_time(
    certificate: Path, trusting: Any, tmp_path: Path
) -> None:
    with table_over_tls(certificate) as endpoint:
        client = trusting(endpoint, self_signed(tmp_path))
        for _ in range(2):
            with pytest.raises(SSLError, match="certificate verify failed"):
                put(client)


def test_a_program_that_only_imports_a_name_keeps_botocore_as_it_is() -> None:
    program = "from botocore import httpsession; before = httpsession.SSLContext; import image_mirror.aws; "
    program += "assert httpsession.SSLContext is before; image_mirror.aws.connect('ecr', image_mirror.aws.CallLimits("
    program += "connect=1, read=1, attempts=1)); assert httpsession.SSLContext is not before"
    environment = os.environ | {"AWS_DEFAULT_REGION": "cn-north-1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
