"""`image-mirror templates` writes what a deployment needs, and overwrites nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from image_mirror.cli import app
from support.templates import ROOT

TOP = ("sam-template.yaml", "image-pulling.yaml", "mutating-webhook.yaml", "samconfig.toml")
SOURCES = ("src/Makefile", "src/bundle.py", "src/requirements.txt")


def run(directory: Path) -> Result:
    return CliRunner().invoke(app, ["templates", str(directory)])


def written(directory: Path) -> dict[str, bytes]:
    return {str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()}


def test_it_writes_what_sam_build_needs_and_nothing_of_the_command(tmp_path: Path) -> None:
    result = run(tmp_path / "new" / "deployment")
    assert result.exit_code == 0, result.output
    found = written(tmp_path / "new" / "deployment")
    modules = {f"src/image_mirror/{each.name}" for each in (ROOT / "src" / "image_mirror").glob("*.py")}
    assert found.keys() == {*TOP, *SOURCES, *modules} - {"src/image_mirror/__main__.py"}
    assert all(content == (ROOT / name).read_bytes() for name, content in found.items())


def test_the_functions_can_be_imported_from_what_it_writes(tmp_path: Path) -> None:
    run(tmp_path)
    program = "import image_mirror.webhook, image_mirror.reconciler; print(image_mirror.__file__)"
    environment = {"PYTHONPATH": str(tmp_path / "src"), "AWS_DEFAULT_REGION": "cn-north-1"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert Path(done.stdout.strip()) == tmp_path / "src" / "image_mirror" / "__init__.py"


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = written(tmp_path)
    assert run(tmp_path).exit_code == 0
    assert written(tmp_path) == before


@pytest.mark.parametrize("name", ["samconfig.toml", "src/image_mirror/rules.py"])
def test_a_file_with_other_content_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert f"{name} is there with other content" in result.stderr
    assert written(tmp_path) == {name: b"mine"}


def test_a_folder_in_the_place_of_a_file_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").mkdir()
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "samconfig.toml is there with other content" in result.stderr
    assert written(tmp_path) == {}
