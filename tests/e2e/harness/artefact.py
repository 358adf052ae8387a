"""A function run from what Lambda would be given, and from nothing else."""

import json
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from e2e.harness.sam import KEY, Json, Region

_PATIENCE = 60.0  # seconds

# What Lambda's runtime does with a handler, for the events that come in, a line each. What the function prints is
# its log; the answers go out apart from it. In Lambda nothing that is compiled there is kept: so nothing may be.
_RUNTIME = """
import importlib, json, os, sys
folder, name, milliseconds = sys.argv[1:]
def compiles_nothing(event, arguments):
    if event == "compile" and str(arguments[1]).startswith(folder):
        raise RuntimeError(f"{arguments[1]} is compiled at each cold start")
sys.addaudithook(compiles_nothing)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path.insert(0, folder)
module, _, function = name.rpartition(".")
handler = getattr(importlib.import_module(module), function)
class Context:
    def get_remaining_time_in_millis(self):
        return int(milliseconds)
print("ready", file=answers, flush=True)
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), Context())), file=answers, flush=True)
"""


class Function:
    """A function's process."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """What the function has written so far."""
        return self._log.read_text()

    def __call__(self, event: Mapping[str, Any]) -> Json:
        """Hand an event in, and return what the handler returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        answered: Json = json.loads(self.read())
        return answered

    def read(self) -> str:
        """Return the next line that the runtime says."""
        said: IO[str] | None = self._process.stdout
        assert said is not None
        if not select.select([said], [], [], _PATIENCE)[0]:
            pytest.fail(f"no answer within {_PATIENCE:.0f} s:\n{self.log}")
        line = said.readline()
        assert line, f"the function ended:\n{self.log}"
        return line


@contextmanager
def function(python: Path, code: Path, configuration: Json, region: Region, log: Path) -> Iterator[Function]:
    """Run a function from its code alone while the context lasts, as its configuration says.

    Python is isolated (-I) and without site-packages (-S), and of this process's environment nothing is handed on. So
    the calls made there are not recorded and held against the policies: recording.py sees those of its own process,
    and what it would load into this one is no part of the artefact. The same handlers' calls are recorded in the
    repertoire, where test_policies.py holds each against the role's policies.
    """
    variables = configuration["Environment"]["Variables"] | {
        **KEY,
        "AWS_ENDPOINT_URL": region.endpoint,
        "AWS_DEFAULT_REGION": region.name,
        "AWS_REGION": region.name,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    arguments = [str(code), configuration["Handler"], str(configuration["Timeout"] * 1000)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [python, "-I", "-S", "-c", _RUNTIME, *arguments],
            cwd=code,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        with process:
            running = Function(process, log)
            try:
                assert running.read() == "ready\n"
                yield running
            finally:
                process.kill()  # it waits for events, and has nothing to lose
