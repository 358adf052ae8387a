"""The built wheel alone gives a working command, wherever it is run."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from support.templates import ROOT

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("unpacked")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(made)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    ["py.typed", "__main__.py"]
    + [f"resources/{each}" for each in ("sam-template.yaml", "image-pulling.yaml", "mutating-webhook.yaml")]
    + [f"resources/{each}" for each in ("samconfig.toml", "src/Makefile", "src/bundle.py", "src/requirements.txt")]
    + [f"resources/samples/{each.name}" for each in sorted((ROOT / "samples").iterdir())]
    + [f"resources/tests/reviews/create-pod{each}.json" for each in ("", "-from-deployment")],
)
def test_it_holds_what_commands_read(unpacked: Path, name: str) -> None:
    assert (unpacked / "image_mirror" / name).is_file()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "webhook-config"),
        (["preview", str(ROOT / "samples" / "nginx-gcr.yaml")], "mirror/gcr.io/google-samples/hello-app:1.0"),
        (["webhook-config", "--url", "https://x/y"], 'url: "https://x/y"'),
    ],
)
def test_it_works_from_an_empty_folder(unpacked: Path, tmp_path: Path, arguments: list[str], shown: str) -> None:
    assert shown in printed(unpacked, tmp_path, "-m", "image_mirror", *arguments)


def printed(unpacked: Path, folder: Path, *arguments: str) -> str:
    """Run Python on the unpacked wheel, in a folder, and return what it prints on standard output, which is all."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_console_script_is_the_command(unpacked: Path, tmp_path: Path) -> None:
    [metadata] = unpacked.glob("*.dist-info")
    [script] = PathDistribution(metadata).entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("image-mirror", "image_mirror.cli:app")
    # What pip writes into bin/, as far as it runs the command.
    called = f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())"
    assert "webhook-config" in printed(unpacked, tmp_path, "-c", called, "--help")
    version = printed(unpacked, tmp_path, "-c", called, "--version")
    assert version == f"image-mirror {PathDistribution(metadata).version}\n"


def test_the_templates_that_it_writes_are_the_checkouts(unpacked: Path, tmp_path: Path) -> None:
    printed(unpacked, tmp_path, "-m", "image_mirror", "templates", "wheel")
    printed(ROOT / "src", tmp_path, "-m", "image_mirror", "templates", "checkout")
    of_wheel, of_checkout = (
        {
            path.relative_to(tmp_path / each): path.read_bytes()
            for path in (tmp_path / each).rglob("*")
            if path.is_file()
        }
        for each in ("wheel", "checkout")
    )
    assert of_wheel == of_checkout
    assert {str(path): (ROOT / path).read_bytes() for path in of_wheel} == {str(k): v for k, v in of_wheel.items()}
    assert {Path("samconfig.toml"), Path("src/Makefile"), Path("src/image_mirror/webhook.py")} <= of_wheel.keys()
