"""The pictures of a terminal are real output, in light and dark. With WRITE=1 they are written: `make docs`."""

import io
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
from rich.text import Text

from image_mirror.cli import app, drawing, waiting
from image_mirror.cli.copy_progress import CopyProgress
from image_mirror.record import MINUTE, Record, Status
from image_mirror.table import to_item
from support.clock import NOON
from support.ecr_registry import Registry
from support.operators import Operated
from support.recorded import DIGEST, record, write
from support.templates import ROOT
from support.waiting_pods import World, copied, pod
from tools.commands_page import PICTURES

pytestmark = pytest.mark.usefixtures("noon")
FOLDER = ROOT / "docs" / "pictures"
COLOURS = {"light": DEFAULT_TERMINAL_THEME, "dark": SVG_EXPORT_THEME}
WIDTH = 112
_RUNNING = "ImagePullProject:5f0c1d52-9a3e-4e0b-8a57-3d1f6b0c7e21"
_NGINX, _PROMETHEUS = "docker.io/library/nginx:1.29", "quay.io/prometheus/prometheus:v3.5.0"
_PAUSE, _INGRESS = "registry.k8s.io/pause:3.10", "registry.k8s.io/ingress-nginx/controller:v1.12.1"
_LIMITED = "RATE_LIMITED: toomanyrequests: too many requests from this address"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(command: str) -> str:
    """Run a command and return its output as a terminal shows it, standard output and standard error together."""
    screen, notes = Terminal(), io.StringIO()
    with redirect_stdout(screen), redirect_stderr(notes):
        app(shlex.split(command)[1:], prog_name="image-mirror", standalone_mode=False)
    return screen.getvalue() + notes.getvalue()


# ---- what each picture shows: commands, each with what a terminal shows of it ----


Shown = list[tuple[str, Text]]


def shown(*commands: str) -> Shown:
    return [(command, Text.from_ansi(printed(command))) for command in commands]


def status(operated: Operated) -> Shown:
    """Records in all states, and two of them tried again."""
    write(
        operated.cloud.dynamodb,
        [
            record(_PAUSE, Status.COPIED, hours=170),
            record(_INGRESS, Status.COPIED, hours=26),
            record(_NGINX, Status.COPYING, hours=0.3, build_id=_RUNNING),
            record(_PROMETHEUS, Status.REQUESTED, hours=0.5, waits=2, error=_LIMITED),
            record("gcr.io/google-samples/hello-app:1.O", Status.FAILED, hours=4, error="NOT_FOUND: manifest unknown"),
        ],
    )
    return shown("image-mirror status", "image-mirror retry gcr.io/google-samples/hello-app:1.O 'quay.io/*'")


def pods(operated: Operated, world: World, registry: Registry) -> Shown:
    """Pods that all read ImagePullBackOff, for four causes."""
    registry.push("mirror/registry.k8s.io/ingress-nginx/controller", "v1.12.1", digest=DIGEST)
    misspelt = "docker.io/library/nginx:1.92"
    write(
        operated.cloud.dynamodb,
        [
            record(misspelt, Status.REQUESTED, attempts=2, error="NOT_FOUND: manifest unknown", due_at=NOON + MINUTE),
            record(_INGRESS, Status.COPIED, at=NOON),
            record(_PROMETHEUS, Status.REQUESTED, waits=3, error=_LIMITED, due_at=NOON + 20 * MINUTE),
        ],
    )
    world.pods = [
        *(copied(f"nginx-{number}", misspelt) for number in range(4)),
        *(copied(f"controller-{number}", _INGRESS) for number in range(3)),
        *(copied(f"prometheus-{number}", _PROMETHEUS) for number in range(2)),
        pod("worker", "gcr.io/acme/worker:7"),
    ]
    return shown("image-mirror pods -A")


def warm(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The progress of five copies after 40 seconds."""
    frames: list[Text] = []
    seconds = 0.0

    @contextmanager
    def captured() -> Iterator[Callable[[list[CopyProgress]], None]]:
        def draw(copies: list[CopyProgress]) -> None:
            console = Console(width=WIDTH, height=30, file=io.StringIO(), color_system="truecolor", force_terminal=True)
            with console.capture() as capture:
                console.print(drawing.screen(copies, WIDTH, 30))
            frames.append(Text.from_ansi(capture.get()))

        yield draw

    def sleep(by: float) -> None:
        nonlocal seconds
        seconds += by
        if seconds > 40:
            raise KeyboardInterrupt
        keep(
            operated,
            record(_PAUSE, Status.COPIED),
            record(_INGRESS, Status.COPIED),
            record(_NGINX, Status.COPYING, build_id=_RUNNING),
            record(_PROMETHEUS, Status.REQUESTED, waits=1, error=_LIMITED),
        )

    monkeypatch.setattr(drawing, "live_copies", captured)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: seconds, time=time.time))
    images = (_PAUSE, _INGRESS, _NGINX, _PROMETHEUS, "gcr.io/google-samples/hello-app:1.0")
    command = "image-mirror warm " + " \\\n    ".join(f"--image {image}" for image in images)
    with redirect_stdout(Terminal()), redirect_stderr(Terminal()):  # it ends with 130
        app(shlex.split(command)[1:], prog_name="image-mirror", standalone_mode=False)
    return [(command, frames[-1])]


def keep(operated: Operated, *records: Record) -> None:
    for each in records:
        operated.cloud.dynamodb.put_item(TableName="ImageListTable", Item=to_item(each))


@pytest.fixture
def drawn(
    operated: Operated, world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Callable[[], Shown]]]:
    """What makes each picture, by its name; in the time zone of China, because `pods` prints local times."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield {
        "status": lambda: status(operated),
        "pods": lambda: pods(operated, world, registry),
        "warm": lambda: warm(operated, monkeypatch),
    }
    monkeypatch.delenv("TZ")
    time.tzset()


# ---- the files ----


def screen_of(svg: str) -> list[str]:
    """Read the lines of text from a picture by any version of Rich."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text [^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        lines.setdefault(float(y), []).append((float(x), unescape(text).replace("\xa0", " ")))
    joined = ("".join(text for _, text in sorted(parts)).rstrip() for _, parts in sorted(lines.items()))
    return [line for line in joined if line]


def files(name: str) -> dict[Path, str]:
    """Return the files of a picture, each with its colours."""
    return {FOLDER / f"{name}-{colours}.svg": colours for colours in COLOURS}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_real_output(name: str, drawn: dict[str, Callable[[], Shown]]) -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    commands = drawn[name]()
    for command, output in commands:
        console.print(Text(f"$ {command}", style="bold"))
        console.print(output)
    for path, colours in files(name).items():
        image = console.export_svg(title="image-mirror", unique_id="terminal", theme=COLOURS[colours], clear=False)
        svg = re.sub(r"@font-face \{.*?\}", "", image, flags=re.DOTALL)  # it would be fetched from another's server
        svg = svg.replace("rgba(255,255,255,0.35)", "rgba(127,127,127,0.5)")  # the frame, visible on white too
        if os.environ.get("WRITE"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(svg, encoding="utf-8")
        assert screen_of(path.read_text(encoding="utf-8")) == screen_of(svg), "run: make docs"
        assert f"$ {commands[0][0].splitlines()[0]}" in screen_of(svg)
        assert not re.search(r"url\((?!#)|href=|@import", path.read_text(encoding="utf-8"))


def test_each_picture_is_shown_by_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    for path in FOLDER.iterdir():
        assert f"pictures/{path.name}" in pages
