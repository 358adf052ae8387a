"""The rows about the program that copies: crane compared with skopeo, on this machine and over a slow link."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import urllib3

from benchmarks.copies import random_image
from benchmarks.rounds import Row, take_turns
from e2e.fakes.registries import Registry, registry
from e2e.harness.processes import free_port, server

_LAYERS, _LAYER = 6, 5_000_000  # of each of two platforms; bytes
_DELAY, _RATE = 80, 2_500  # milliseconds each way; kilobytes a second for each connection
_MOST_ROUNDS = 5


def copiers(rounds: int) -> Iterator[Row]:
    """Time of one copy by each program. Skips if a program is missing; without toxiproxy there is no slow link."""
    programs = {name: shutil.which(name) for name in ("crane", "skopeo", "podman")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    tls = "--src-tls-verify=false --dest-tls-verify=false"
    commands = {
        "crane": "crane copy --jobs 12 {source} {target}",
        "skopeo": f"skopeo copy --all --preserve-digests {tls} docker://{{source}} docker://{{target}}",
        # One platform: podman has no command for all.
        "podman": "{podman} pull --tls-verify=false {source} && {podman} tag {source} {target}"
        " && {podman} push --tls-verify=false {target}",
    }
    for where, slow in (("on this machine", False), ("over a slow link", True)):
        if slow and shutil.which("toxiproxy-server") is None:
            continue
        contestants = {name: partial(_time, command, slow=slow) for name, command in commands.items()}
        take_turns(contestants, 1)  # not counted: it reads the programs from the disk
        costs = take_turns(contestants, min(rounds, _MOST_ROUNDS))
        for reference, title, reach in (("skopeo", "skopeo", 0.8), ("podman", "podman, one platform", 1.0)):
            ratios = tuple(cost["crane"] / cost[reference] for cost in costs)
            yield Row(f"crane, two platforms of 6 layers of 5 MB, {where}", title, ratios, reach)


def _time(script: str, *, slow: bool) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "source").mkdir()
        (folder / "target").mkdir()
        source = stack.enter_context(registry(folder / "source"))
        target = stack.enter_context(registry(folder / "target"))
        image = random_image(_LAYERS, _LAYER)
        source.push("bench/app", "1", image)
        hosts = stack.enter_context(_slow(folder, source, target)) if slow else (source.host, target.host)
        names = {"source": f"{hosts[0]}/bench/app:1", "target": f"{hosts[1]}/bench/app:1"}
        began = time.perf_counter()
        names["podman"] = f"podman --storage-driver vfs --root {folder}/root --runroot {folder}/runroot"
        done = subprocess.run(["sh", "-c", script.format(**names)], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        assert "podman" in script or target.manifest("bench/app", "1") == image.manifest
        return seconds


@contextmanager
def _slow(folder: Path, *registries: Registry) -> Iterator[tuple[str, ...]]:
    """Yield the hosts of slow links to the registries."""
    port, ports = free_port(), [free_port() for _ in registries]
    command = ["toxiproxy-server", "-host", "127.0.0.1", "-port", str(port)]
    with server(command, folder / "toxiproxy.log", port, "toxiproxy"):
        for number, (at, behind) in enumerate(zip(ports, registries, strict=True)):
            upstream = behind.host.replace("localhost", "127.0.0.1")
            _post(port, "/proxies", {"name": str(number), "listen": f"127.0.0.1:{at}", "upstream": upstream})
            for stream in ("upstream", "downstream"):
                for kind, attributes in (("latency", {"latency": _DELAY}), ("bandwidth", {"rate": _RATE})):
                    toxic = {"name": f"{stream} {kind}", "type": kind, "stream": stream, "attributes": attributes}
                    _post(port, f"/proxies/{number}/toxics", toxic)
        yield tuple(f"localhost:{at}" for at in ports)


def _post(port: int, path: str, value: object) -> None:
    answer = urllib3.request("POST", f"http://127.0.0.1:{port}{path}", json=value)
    assert answer.status < 300, answer.data
