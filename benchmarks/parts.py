"""The CPU of each part of a cold start, with packages as pip installs them and as `sam build` builds them."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.admissions import ENVIRONMENT, METRICS, review_text
from benchmarks.cold import build, run, table_over_tls
from e2e.harness.sam import python_program
from image_mirror.cli.emulation import http_event
from support.templates import ROOT

_PARTS = {
    "Python itself": "",
    "botocore's import": "import botocore.session, botocore.httpsession",
    "Powertools": "import aws_lambda_powertools, aws_lambda_powertools.metrics",
    "this package": "from image_mirror import webhook",
    "the DynamoDB client": "webhook.load()",
    "its first call, over TLS": "webhook.prepare()",
    "the first answer": "import json; webhook.handler(json.load(sys.stdin), None)",
}
_ROUNDS = 7


def parts_table() -> str:
    """Return a table of the milliseconds of CPU of each part of a cold start; medians, with a plain Python 3.13."""
    with tempfile.TemporaryDirectory() as made:
        python, folder = python_program(), Path(made)
        build(python, folder)
        pip = (python, "-m", "pip", "install", "--quiet", "--no-compile", "--target", folder / "installed")
        run(*pip, "--requirement", "requirements.txt", python=python)
        unwanted = shutil.ignore_patterns("__pycache__", "cli")
        shutil.copytree(ROOT / "src" / "image_mirror", folder / "installed" / "image_mirror", ignore=unwanted)
        with table_over_tls(folder) as address:
            columns = [_measure(address, python, folder / name) for name in ("installed", "artefact")]
        sizes = [_zipped(folder / name) for name in ("installed", "artefact")]
    lines = ["| part | as pip installs it | as it is built here |", "| --- | --- | --- |"]
    for part, installed, built in zip(_PARTS, *columns, strict=True):
        lines.append(f"| {part} | {installed * 1000:.0f} | {built * 1000:.0f} |")
    lines.append(f"| (MB of the zip) | {sizes[0] / 1e6:.1f} | {sizes[1] / 1e6:.1f} |")
    return "\n".join(lines)


def _measure(address: Mapping[str, str], python: Path, folder: Path) -> list[float]:
    """Return the CPU seconds of each part, the median of several new processes."""
    stages = "".join(f"{code}\ntimes.append(time.process_time())\n" for code in _PARTS.values())
    show = "print(json.dumps(times), file=sys.stderr)"
    script = f"import sys, time\nsys.path.insert(0, {os.fspath(folder)!r})\ntimes = []\n{stages}{show}\n"
    event = {**http_event({}), "body": review_text("2.4 kB"), "requestContext": {}}
    runs = []
    for _ in range(_ROUNDS):
        done = subprocess.run(
            [python, "-I", "-S", "-B", "-c", script],
            env={**os.environ, **ENVIRONMENT, **METRICS, **address},
            input=json.dumps(event),
            capture_output=True,
            text=True,
            check=True,
        )
        times = json.loads(done.stderr.splitlines()[-1])
        runs.append([after - before for before, after in zip([0.0, *times], times, strict=False)])
    return [statistics.median(part) for part in zip(*runs, strict=True)]


def _zipped(folder: Path) -> int:
    return Path(shutil.make_archive(os.fspath(folder), "zip", folder)).stat().st_size
