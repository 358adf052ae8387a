"""With the built wheel alone the command works in any folder."""

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
    + [
        f"resources/{each}"
        for each in ("sam-template.yaml", "image-pulling.yaml", "mutating-webhook.yaml", "samconfig.toml")
    ]
    + [f"resources/src/{each}" for each in ("Makefile", "bundle.py", "requirements.txt")]
    + [f"resources/samples/{each.name}" for each in sorted((ROOT / "samples").iterdir())]
    + [f"resources/tests/reviews/create-pod{each}.json" for each in ("", "-from-deployment")],
)
def test_the_wheel_contains_the_files_that_commands_read(unpacked: Path, name: str) -> None:
    assert (unpacked / "image_mirror" / name).is_file()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "webhook-config"),
        (["preview", str(ROOT / "samples" / "nginx-gcr.yaml")], "mirror/gcr.io/google-samples/hello-app:1.0"),
        (["templates", "."], "files are in /"),
        (["webhook-config", "--url", "https://x/y"], 'url: "https://x/y"'),
    ],
)
def test_it_works_from_an_empty_folder(unpacked: Path, tmp_path: Path, arguments: list[str], shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "image_mirror", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_the_files_for_a_deployment_are_those_of_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    subprocess.run(
        [sys.executable, "-c", "from image_mirror.cli import app; app()", "templates", "."],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    found = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert len(found) > 20
    for each in found:
        assert each.read_bytes() == (ROOT / each.relative_to(tmp_path)).read_bytes(), each


@pytest.mark.parametrize(
    ("name", "value"),
    [("image-mirror", "image_mirror.cli:app"), ("kubectl-image_mirror", "image_mirror.cli:plugin")],
)
def test_a_console_script_is_the_command(name: str, value: str, unpacked: Path, tmp_path: Path) -> None:
    [metadata] = unpacked.glob("*.dist-info")
    installed = PathDistribution(metadata)
    scripts = installed.entry_points.select(group="console_scripts")
    assert {each.name for each in scripts} == {"image-mirror", "kubectl-image_mirror", "kubectl_complete-image_mirror"}
    script = scripts[name]
    assert script.value == value
    # The script that pip writes into bin/ calls it like this.
    program = f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"image-mirror {installed.version}\n", "")
