"""docs/terminal.svg, the README's picture of a terminal, is real output. With WRITE=1 it is written: `make docs`."""

import io
import os
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from html import unescape

import pytest
from rich.console import Console
from rich.text import Text

from image_mirror.cli import app
from image_mirror.record import Record, Status
from support.operators import Operated
from support.recorded import record, write
from support.templates import ROOT

pytestmark = pytest.mark.usefixtures("noon")
PICTURE = ROOT / "docs" / "terminal.svg"
COMMANDS = ("image-mirror status", "image-mirror retry gcr.io/google-samples/hello-app:1.O 'quay.io/*'")
_RUNNING = "ImagePullProject:5f0c1d52-9a3e-4e0b-8a57-3d1f6b0c7e21"


def records() -> list[Record]:
    """Return the records of the table; they are made when the commands run, because these print ages."""
    return [
        record("registry.k8s.io/pause:3.10", Status.COPIED, hours=170),
        record("registry.k8s.io/ingress-nginx/controller:v1.12.1", Status.COPIED, hours=26),
        record("docker.io/library/nginx:1.29", Status.COPYING, hours=0.3, build_id=_RUNNING),
        record(
            "quay.io/prometheus/prometheus:v3.5.0",
            Status.REQUESTED,
            hours=0.5,
            waits=2,
            error="RATE_LIMITED: toomanyrequests: too many requests from this address",
        ),
        record("gcr.io/google-samples/hello-app:1.O", Status.FAILED, hours=4, error="NOT_FOUND: manifest unknown"),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(command: str) -> str:
    """Run a command and return its output as a terminal shows it, standard output and standard error together."""
    screen, notes = Terminal(), io.StringIO()
    with redirect_stdout(screen), redirect_stderr(notes):
        app(shlex.split(command)[1:], prog_name="image-mirror", standalone_mode=False)
    return screen.getvalue() + notes.getvalue()


def screen_of(svg: str) -> list[str]:
    """Read the lines of text from a picture by any version of Rich."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text [^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        lines.setdefault(float(y), []).append((float(x), unescape(text).replace("\xa0", " ")))
    joined = ("".join(text for _, text in sorted(parts)).rstrip() for _, parts in sorted(lines.items()))
    return [line for line in joined if line]


def test_the_picture_in_the_readme_is_real_output(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    write(operated.cloud.dynamodb, records())
    console = Console(record=True, width=112, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for command in COMMANDS:
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(printed(command)))
    drawn = console.export_svg(title="image-mirror", unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # it would be fetched from another's server
    if os.environ.get("WRITE"):
        PICTURE.write_text(svg, encoding="utf-8")
    assert screen_of(PICTURE.read_text(encoding="utf-8")) == screen_of(svg), "run: make docs"
    assert f"$ {COMMANDS[0]}" in screen_of(svg)
    assert "](docs/terminal.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
