"""Registries of the Internet on this machine: a proxy (CONNECT) that answers for them, with certificates of its own.

crane is deployed without a proxy. In tests a script of the same name sets one and runs crane.
"""

import datetime
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PASSED = ("Accept", "Authorization", "Range", "User-Agent")
_RETURNED = (
    "Content-Type",
    "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
)


@dataclass(frozen=True)
class Internet:
    """The proxy's URL, and the file with the certificate that its clients must trust."""

    url: str
    certificate: Path


@contextmanager
def internet(folder: Path, locations: Mapping[str, str]) -> Iterator[Internet]:
    """Answer for each name in `locations` with what is at its place: a host and a path, by HTTP."""
    certificate, key = _certificate(folder, sorted(locations))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        place = ""

        def do_CONNECT(self) -> None:
            name = self.path.rpartition(":")[0]
            if name not in locations:
                self.send_error(502)
                return
            self.send_response(200)
            self.end_headers()
            self.place = locations[name]
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
            self.close_connection = False

        def do_any(self) -> None:
            host, slash, prefix = self.place.partition("/")
            path = self.path.replace("/v2/", f"/v2/{prefix}/", 1) if slash and self.path != "/v2/" else self.path
            headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
            url = f"http://{host}{path}"
            found = urllib3.request(self.command, url, headers=headers, decode_content=False, redirect=False)
            with suppress(OSError):
                self.send_response(found.status)
                for name in _RETURNED:
                    if name in found.headers:
                        self.send_header(name, found.headers[name])
                length = found.headers.get("Content-Length", "0") if self.command == "HEAD" else len(found.data)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else found.data)
                self.wfile.flush()

        def finish(self) -> None:
            # A client that is killed leaves an answer that cannot be flushed; all must be closed nevertheless.
            try:
                with suppress(OSError):
                    super().finish()
            finally:
                self.rfile.close()
                self.connection.close()  # the one with TLS

        do_GET = do_HEAD = do_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Internet(f"http://127.0.0.1:{server.server_port}", certificate)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def _certificate(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """Write a certificate for these names, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "internet.pem", folder / "internet.key"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, private
