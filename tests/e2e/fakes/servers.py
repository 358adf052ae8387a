"""Small HTTP servers that replace a service: a function from request to answer, on a free port."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext


@dataclass(frozen=True)
class Request:
    """One request; header names are in lower case, `path` is with its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """The answer of a server."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def serving(
    respond: Callable[[Request], Answer], certificate: Path | None = None, key: Path | None = None
) -> Iterator[int]:
    """Answer requests while the context is active, over TLS if there is a certificate; yield the port."""

    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_any(self) -> None:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                body = b"".join(self.chunks())
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # skopeo sends a header for each media type that it accepts (RFC 9110, 5.2).
            headers = {name.lower(): ", ".join(self.headers.get_all(name, ())) for name in self.headers}
            answer = respond(Request(self.command, self.path, headers, body))
            with suppress(OSError):  # the caller may have hung up meanwhile
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:  # a HEAD can have that of the GET
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

        def chunks(self) -> Iterator[bytes]:
            """Yield the parts of a body without a known length (RFC 9112, 7.1)."""
            while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass

        do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = do_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    if certificate is not None:
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)
