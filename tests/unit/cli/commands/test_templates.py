"""`image-mirror templates` writes the files for a deployment, and overwrites nothing."""

import errno
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from image_mirror.cli import app, resources
from support.templates import ROOT, sam_template

BUNDLE: dict[str, Any] = runpy.run_path(str(ROOT / "src" / "bundle.py"))
TOP = ("sam-template.yaml", "image-pulling.yaml", "mutating-webhook.yaml", "samconfig.toml")
SOURCES = ("src/Makefile", "src/bundle.py", "src/requirements.txt")


def run(directory: Path | str) -> Result:
    return CliRunner().invoke(app, ["templates", str(directory)])


def written(directory: Path) -> dict[str, bytes]:
    return {str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()}


def test_it_writes_what_sam_build_needs_and_nothing_of_the_command(tmp_path: Path) -> None:
    result = run(tmp_path / "new" / "deployment")
    assert result.exit_code == 0, result.output
    found = written(tmp_path / "new" / "deployment")
    modules = {f"src/image_mirror/{each.name}" for each in (ROOT / "src" / "image_mirror").glob("*.py")}
    unused = {f"src/image_mirror/{each}.py" for each in ("__main__", "registry_login")}
    assert found.keys() == {*TOP, *SOURCES, *modules} - unused
    assert all(content == (ROOT / name).read_bytes() for name, content in found.items())


def test_sam_finds_there_what_its_configuration_and_the_template_name(tmp_path: Path) -> None:
    run(tmp_path)
    settings = tomllib.loads((tmp_path / "samconfig.toml").read_text(encoding="utf-8"))
    assert (tmp_path / settings["default"]["build"]["parameters"]["template_file"]).is_file()
    code = tmp_path / sam_template()["Globals"]["Function"]["CodeUri"]
    makefile = (code / "Makefile").read_text(encoding="utf-8")
    for name in ("bundle.py", "requirements.txt"):
        assert name in makefile
        assert (code / name).is_file()


def bundled(package: Path, folder: Path) -> dict[str, bytes]:
    """The files of a package that src/bundle.py takes."""
    shutil.copytree(package, folder, ignore=shutil.ignore_patterns(*BUNDLE["_NOT_FOR_LAMBDA"]))
    return written(folder)


def test_lambda_is_given_the_same_as_from_a_checkout(tmp_path: Path) -> None:
    run(tmp_path / "deployment")
    here = bundled(ROOT / "src" / "image_mirror", tmp_path / "here")
    there = bundled(tmp_path / "deployment" / "src" / "image_mirror", tmp_path / "there")
    assert there == here
    assert written(tmp_path / "deployment" / "src" / "image_mirror") == here, "no other file is written either"


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
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run(tmp_path).exit_code == 0
    assert written(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_a_missing_file_is_written_again_and_others_stay(tmp_path: Path) -> None:
    run(tmp_path)
    before = written(tmp_path)
    (tmp_path / "src" / "Makefile").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path).exit_code == 0
    assert written(tmp_path) == before | {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["samconfig.toml", "src/image_mirror/rules.py"])
def test_a_file_with_other_content_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert f"{name} already exists with other content" in result.stderr
    assert written(tmp_path) == {name: b"mine"}


def test_a_folder_in_the_place_of_a_file_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").mkdir()
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "samconfig.toml already exists with other content" in result.stderr
    assert written(tmp_path) == {}


def test_each_file_with_other_content_is_named(tmp_path: Path) -> None:
    for name in ("samconfig.toml", "sam-template.yaml"):
        (tmp_path / name).write_text("mine")
    result = run(tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"Error: {tmp_path / 'sam-template.yaml'} already exists with other content",
        f"Error: {tmp_path / 'samconfig.toml'} already exists with other content",
        "Nothing was written; name another directory, or move these files away.",
    ]


def test_a_symbolic_link_to_a_missing_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path).exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("mine")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for DIR: {tmp_path / 'src'}: File exists"
    assert written(tmp_path) == {"src": b"mine"}


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = run(tmp_path / "file")
    assert result.exit_code == 2
    said = f"Error: Invalid value for DIR: {tmp_path / 'file'} is a file; name a directory"
    assert result.stderr.splitlines()[-1] == said


def test_a_name_that_cannot_be_looked_up_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in (("loop", "Too many levels of symbolic links"), ("x" * 300, "File name too long")):
        result = run(tmp_path / name)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1] == f"Error: Invalid value for DIR: {tmp_path / name}: {reason}"


def test_an_empty_name_as_of_a_variable_that_is_not_set_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("")
    assert (result.exit_code, written(tmp_path)) == (2, {})
    assert result.stderr.splitlines()[-1].endswith("it is empty; name a directory, such as deployment")


def test_if_a_file_cannot_be_written_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "xb" and self.name == "bundle.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return there(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    result = run(tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    said = f"Error: Invalid value for DIR: {tmp_path / 'src' / 'bundle.py'}: {os.strerror(errno.ENOSPC)}"
    assert result.stderr.splitlines()[-1] == said
    assert written(tmp_path) == {}


def test_a_damaged_installation_is_reported_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path / "none")
    result = run(tmp_path / "deployment")
    assert (result.exit_code, result.stdout) == (3, "")
    assert (
        result.stderr == "Error: this installation does not have the file sam-template.yaml; install the wheel again\n"
    )
    assert not (tmp_path / "deployment").exists()
