"""The API Gateway: turns HTTPS requests into HTTP API events (payload 2.0) for a handler; any other route gets 404."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.processes import program

Handler = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Gateway:
    """The running adapter: its base `url`, the PEM text of its certificate, and the bodies of its requests.

    `handler` may be replaced while it runs.
    """

    url: str
    certificate: bytes
    handler: Handler
    bodies: list[str] = field(default_factory=list)

    @property
    def reviews(self) -> list[dict[str, Any]]:
        """The AdmissionReviews received since the bodies were cleared."""
        return [json.loads(body) for body in self.bodies]


@contextmanager
def gateway(folder: Path, routes: Sequence[str], handler: Handler, host: str = "localhost") -> Iterator[Gateway]:
    """Serve `routes` ("POST /token", as the template's RouteKey) on https://localhost while the context is active.

    Its certificate is for `host`.
    """
    key, certificate = folder / "gateway.key", folder / "gateway.pem"
    subprocess.run(
        [
            *(
                program("openssl", "apt-get install openssl"),
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={host[:64]}",
            ),
            *("-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    running = Gateway("", certificate.read_bytes(), handler)

    def respond(request: Request) -> Answer:
        parts = urlsplit(request.path)
        route = f"{request.method} {parts.path}"
        if route not in routes:
            return Answer(404, b'{"message":"Not Found"}')
        running.bodies.append(request.body.decode())
        response = running.handler(
            {
                "version": "2.0",
                "routeKey": route,
                "rawPath": parts.path,
                "rawQueryString": parts.query,
                "queryStringParameters": dict(parse_qsl(parts.query)),
                "headers": request.headers,
                "requestContext": {
                    "http": {"method": request.method, "path": parts.path, "protocol": "HTTP/1.1"},
                    "timeEpoch": int(time.time() * 1000),
                },
                "body": request.body.decode(),
                "isBase64Encoded": False,
            }
        )
        return Answer(response["statusCode"], response["body"].encode(), response.get("headers", {}))

    with serving(respond, certificate, key) as port:
        running.url = f"https://localhost:{port}"
        yield running
