"""Runs a function from its artefact for Lambda, and from nothing else."""

import json
import os
import select
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from e2e.harness.sam import KEY, Json, Region

_TIMEOUT = 60.0  # seconds

# A small version of Lambda's runtime: each line of the input is an event for the handler. The function's output is its
# log; answers go to a separate pipe. It is an error if Python has to compile a file: Lambda stores no compiled files,
# so this would happen again at each cold start.
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
    """A function's process. Like an instance of Lambda it is given one event at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self._busy = threading.Lock()

    @property
    def log(self) -> str:
        """What the function has written so far."""
        return self._log.read_text()

    def __call__(self, event: Mapping[str, Any]) -> Json:
        """Pass an event to the handler, and return its result."""
        assert self._process.stdin is not None
        with self._busy:
            self._process.stdin.write(json.dumps(event) + "\n")
            self._process.stdin.flush()
            answered: Json = json.loads(self.read())
        return answered

    def read(self) -> str:
        """Return the next line of the runtime."""
        said: IO[str] | None = self._process.stdout
        assert said is not None
        if not select.select([said], [], [], _TIMEOUT)[0]:
            pytest.fail(f"no answer within {_TIMEOUT:.0f} s:\n{self.log}")
        line = said.readline()
        assert line, f"the function ended:\n{self.log}"
        return line


@contextmanager
def function(python: Path, code: Path, configuration: Json, region: Region, log: Path) -> Iterator[Function]:
    """Run a function from its code alone while the context is active, as its configuration says.

    Python runs isolated (-I), without site-packages (-S), and without this process's environment. The calls made there
    are not recorded and not compared with the policies, because recording.py only sees calls of its own process.
    all_calls.py records the calls of the same handlers, and test_policies.py compares each with the role's policies.
    """
    variables = configuration["Environment"]["Variables"] | {
        **KEY,
        "AWS_LAMBDA_FUNCTION_NAME": configuration["FunctionName"],
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
