"""Real programs for a test: finds them or says which is missing, starts them on free ports, and ends them."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip the test because a program is missing; in CI, where .ci/run installs all of them, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, remedy: str) -> Path:
    """Return the path of a program. `remedy` says how to install it."""
    found = shutil.which(name)
    if found is None:
        absent(f"{name} is not installed: {remedy}")
    return Path(found)


def free_port() -> int:
    """Return a TCP port on the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120.0, pause: float = 0.1) -> None:
    """Wait until `condition` is true; fail the test with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


def listening(port: int) -> bool:
    """Return whether something accepts connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the context is active, with its output in the file `log`; then end it and all its children.

    It has ten seconds to end by itself before it is killed.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a group of its own, and no Ctrl-C from the terminal before its context ends
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a test's server has nothing to lose
                process.wait(10)


@contextmanager
def server(
    command: Sequence[str | Path],
    log: Path,
    port: int,
    what: str,
    seconds: float = 120.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as `running` does, and wait until it listens on `port`.

    The test fails with the end of the log if the program ends before that, or does not listen within `seconds`.
    """
    with running(command, log, environment) as process:
        deadline = time.monotonic() + seconds
        while not listening(port):
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                trouble = f"ended with {process.returncode}" if ended else f"does not listen within {seconds:.0f} s"
                pytest.fail(f"{what} {trouble}; its log ends: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
