"""The rows about the handler behind HTTP: one and two server processes, with connections that stay open."""

import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.admissions import review_text
from benchmarks.rounds import Row, take_turns

REQUESTS = 800  # of each connection in each round
_SIZE = "2.4 kB"
_FLOOR = "a handler of json.loads and json.dumps alone"


@dataclass(frozen=True)
class Load:
    """The cost of the same number of requests: seconds, and CPU seconds of the servers and of the client."""

    seconds: float
    servers_cpu: float
    client_cpu: float


Cost = Callable[[Load], float]


@dataclass(frozen=True)
class Endpoint:
    """A running server process, its port and the certificate it shows."""

    process: subprocess.Popen[str]
    port: int
    certificate: Path

    def cpu(self) -> float:
        """Return the CPU seconds that the process has used."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(_line(self.process))


def throughput(rounds: int) -> Iterator[Row]:
    """Requests per second, including the client's work, and requests per CPU second of the servers alone."""
    for count in (1, 2):
        with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
            contestants = {}
            for handler in ("floor", "webhook", "constant"):
                endpoints = [stack.enter_context(_endpoint(handler, Path(name))) for _ in range(count)]
                contestants[handler] = partial(_ask, endpoints)
                contestants[handler]()  # the images are known from here on
            loads = take_turns(contestants, rounds)
        processes = "1 process" if count == 1 else f"{count} processes"
        for what, cost in (("throughput over HTTPS", _seconds), ("throughput by CPU of the servers", _servers_cpu)):
            gains = _gains("floor", cost, loads)
            yield Row(f"{what}, {processes}", _FLOOR, gains, 0.5, at_most=False)
        _note(processes, loads)


def _seconds(load: Load) -> float:
    return load.seconds


def _servers_cpu(load: Load) -> float:
    return load.servers_cpu


def _gains(handler: str, cost: Cost, loads: Sequence[Mapping[str, Load]]) -> tuple[float, ...]:
    """Return, for each round, the number of requests that the webhook answers at the cost of one by `handler`."""
    return tuple(cost(load[handler]) / cost(load["webhook"]) for load in loads)


def _note(processes: str, loads: Sequence[Mapping[str, Load]]) -> None:
    """Print the client's share of the machine, and the webhook's cost compared with a constant answer."""
    asking = statistics.median(load["floor"].client_cpu / load["floor"].servers_cpu for load in loads)
    by_time, by_cpu = (statistics.median(_gains("constant", cost, loads)) for cost in (_seconds, _servers_cpu))
    print(
        f"{processes}: to ask the floor costs {asking:.2f}x of what it costs to answer; against a handler that reads "
        f"nothing and answers a constant, throughput is {by_time:.2f}x, by CPU of the servers {by_cpu:.2f}x",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def _endpoint(handler: str, parent: Path) -> Iterator[Endpoint]:
    folder = Path(tempfile.mkdtemp(dir=parent))
    command = [sys.executable, "-m", "benchmarks.endpoint", handler, str(folder), _SIZE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Endpoint(process, int(_line(process)), folder / "gateway.pem")
        finally:
            process.kill()  # it holds nothing


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the server process ended"
    return line


def _ask(endpoints: Sequence[Endpoint]) -> Load:
    """Send the same review over all connections at once, each time as soon as the last is answered.

    Each process has one connection, because Lambda gives an instance one request at a time.
    """
    body = review_text(_SIZE).encode()
    head = f"POST /token?timeout=10s HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        connections = [stack.enter_context(_connect(each)) for each in endpoints]
        threads = stack.enter_context(ThreadPoolExecutor(len(connections)))
        servers, client, began = sum(each.cpu() for each in endpoints), time.process_time(), time.perf_counter()
        list(threads.map(partial(_post, head.encode() + body), connections))
        seconds = time.perf_counter() - began
        client, servers = time.process_time() - client, sum(each.cpu() for each in endpoints) - servers
    return Load(seconds, servers, client)


def _connect(endpoint: Endpoint) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(endpoint.certificate))
    connection = socket.create_connection(("localhost", endpoint.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(connection, server_hostname="localhost")


def _post(request: bytes, connection: ssl.SSLSocket) -> None:
    """Send a request and read its answer, again and again; each answer must be 200 with a patch."""
    for _ in range(REQUESTS):
        connection.sendall(request)
        answer = b""
        head, length = -1, 0
        while head < 0 or len(answer) < head + length:
            received = connection.recv(65_536)
            assert received, "the server hung up"
            answer += received
            if head < 0 and (end := answer.find(b"\r\n\r\n")) >= 0:
                head = end + 4
                length = int(answer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert b'"patch"' in answer
