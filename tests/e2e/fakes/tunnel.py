"""A proxy like that of a company: it opens tunnels (CONNECT) for any host, all to one port of this machine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Tunnels:
    """The running proxy: its `url`, the port to which it connects, and the requested hosts."""

    url: str
    port: int
    asked: list[str] = field(default_factory=list)


@contextmanager
def tunnels(port: int) -> Iterator[Tunnels]:
    """Connect each tunnel to `port` while the context is active."""
    running = Tunnels("", port)

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            running.asked.append(self.path)
            with socket.create_connection(("127.0.0.1", running.port), 10) as inner:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_relay, args=(inner, self.connection), daemon=True)
                back.start()
                _relay(self.connection, inner)
                back.join(60)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
