"""`image-mirror` itself: the behaviour of all commands."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from image_mirror.cli import app
from support.templates import ROOT

_POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: "p\u20ac"}\nspec: {containers: [{name: c, image: "a\u20ac"}]}\n'


def test_without_arguments_the_help_is_printed_and_that_is_no_error() -> None:
    bare, asked, short = (CliRunner().invoke(app, arguments) for arguments in ([], ["--help"], ["-h"]))
    assert (bare.exit_code, bare.stdout, bare.stderr) == (0, asked.stdout, "")
    assert (short.exit_code, short.stdout) == (0, asked.stdout)
    assert bare.stdout.startswith("Usage: ")


def test_each_command_has_the_short_option_of_its_help() -> None:
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        long, short = (CliRunner().invoke(app, [name, option]) for option in ("--help", "-h"))
        assert (short.exit_code, short.stdout) == (0, long.stdout)


def test_the_version_is_a_command_and_an_option() -> None:
    for arguments in (["version"], ["--version"]):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stdout) == (0, f"image-mirror {version('image-mirror')}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["preview", "--output", "xml", "-"],
            "'-o' / '--output': 'xml' is not one of 'table', 'wide', 'json', 'yaml', 'name'.",
        ),
        (["status", "-o", "xml"], "'-o' / '--output': 'xml' is not one of 'table', 'wide', 'json', 'yaml', 'name'."),
        (["webhook-config", "--failure-policy", "x"], "'--failure-policy': 'x' is not one of 'Ignore', 'Fail'."),
    ],
)
def test_an_unknown_choice_is_an_error_that_lists_the_choices(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for {said}"


def _printed(encoding: str, *arguments: str) -> bytes:
    environ = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "image_mirror.cli", *arguments]
    done = subprocess.run(command, capture_output=True, env=environ, cwd=ROOT, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("command", ["preview", "demo"])
def test_what_the_consoles_encoding_cannot_hold_is_printed_as_an_escape(command: str, tmp_path: Path) -> None:
    pod = tmp_path / "pod.yaml"
    pod.write_text(_POD, encoding="utf-8")
    assert b"a\\u20ac" in _printed("gbk", command, str(pod))
    assert "a\u20ac".encode() in _printed("utf-8", command, str(pod))
    assert b"a?" in _printed("gbk:replace", command, str(pod))


@pytest.mark.parametrize(("typed", "offered"), [("--h", {"--help"}), ("--v", {"--version"})])
def test_the_shell_completes_the_options_of_the_program(typed: str, offered: set[str]) -> None:
    words = {"_IMAGE_MIRROR_COMPLETE": "complete_bash", "COMP_WORDS": f"image-mirror {typed}", "COMP_CWORD": "1"}
    code = "from image_mirror.cli import app; app(prog_name='image-mirror')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered, done.stderr
