"""`image-mirror templates`: what sam build needs is written into a folder, and nothing that is there is overwritten."""

import errno
import os
import runpy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from image_mirror.cli import app, resources
from support.templates import ROOT, load_template, sam_template

BUNDLE: dict[str, Any] = runpy.run_path(str(ROOT / "src" / "bundle.py"))


def templates(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["templates", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    """Each file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which all is written."""
    assert templates(tmp_path / "a" / "b").exit_code == 0
    return tmp_path / "a" / "b"


def test_each_file_is_the_checkouts(folder: Path) -> None:
    written = contents(folder)
    assert written
    assert {name: (ROOT / name).read_bytes() for name in written} == written


def test_it_says_how_many_files_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    done = templates(tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{tmp_path}: files written: {len(contents(tmp_path))}, there already: 0",
        "Next, in this folder: sam build, then sam deploy.",
    ]


def test_sam_finds_there_what_its_configuration_and_the_template_name(folder: Path) -> None:
    settings = tomllib.loads((folder / "samconfig.toml").read_text(encoding="utf-8"))
    assert (folder / settings["default"]["build"]["parameters"]["template_file"]).is_file()
    function = sam_template()["Globals"]["Function"]
    assert (folder / function["CodeUri"] / "Makefile").is_file()
    makefile = (ROOT / "src" / "Makefile").read_text(encoding="utf-8")
    for name in ("bundle.py", "requirements.txt"):
        assert name in makefile
        assert (folder / function["CodeUri"] / name).is_file()


def test_the_pages_find_there_the_templates_they_name(folder: Path) -> None:
    for name in ("sam-template.yaml", "image-pulling.yaml", "mutating-webhook.yaml"):
        assert load_template(name)
        assert (folder / name).is_file()


def bundled(source: Path, folder: Path) -> dict[str, bytes]:
    """What src/bundle.py takes of the package of `source`."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*BUNDLE["_NOT_FOR_LAMBDA"]))
    return contents(folder)


def test_the_artefact_that_is_built_there_is_the_checkouts(folder: Path, tmp_path: Path) -> None:
    here = bundled(ROOT / "src" / "image_mirror", tmp_path / "here")
    there = bundled(folder / "src" / "image_mirror", tmp_path / "there")
    assert there == here
    assert {"webhook.py", "reconciler.py"} <= there.keys()


def test_the_operators_command_is_not_written(folder: Path) -> None:
    code = folder / "src" / "image_mirror"
    assert not [name for name in ("cli", "resources", "__main__.py", "__pycache__") if (code / name).exists()]


def test_to_run_it_again_is_no_error_and_changes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = templates(folder)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{folder}: files written: 0, there already: {len(contents(folder))}"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_missing_is_written_beside_what_is_there(folder: Path) -> None:
    before = contents(folder)
    (folder / "src" / "Makefile").unlink()
    (folder / "notes.txt").write_text("mine")
    done = templates(folder)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == f"{folder}: files written: 1, there already: {len(before) - 1}"
    assert contents(folder) == before | {"notes.txt": b"mine"}


def test_a_file_with_other_content_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    mine = {"samconfig.toml": b"mine", "src/image_mirror/webhook.py": b"mine too"}
    for name, content in mine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    done = templates(tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        *(f"Error: {tmp_path / name}: is there with other content" for name in mine),
        "Error: nothing was written; name another folder",
    ]
    assert contents(tmp_path) == mine


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def a_link_that_leads_nowhere(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [a_folder, a_link_that_leads_nowhere])
def test_what_is_no_file_is_in_the_way_too(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "src" / "Makefile")
    before = sorted(tmp_path.rglob("*"))
    done = templates(tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Error: {tmp_path / 'src' / 'Makefile'}: is there with other content" in done.stderr.splitlines()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_a_folders_place_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("mine")
    done = templates(tmp_path)
    assert done.exit_code == 2
    assert f"Error: {tmp_path / 'src' / 'Makefile'}: is there with other content" in done.stderr.splitlines()
    assert contents(tmp_path) == {"src": b"mine"}


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = templates(tmp_path / "file")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("Error: Invalid value for 'DIR': ")


def test_where_the_disk_is_full_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "xb" and self.name == "bundle.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return there(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    done = templates(tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        f"Error: Invalid value for DIR: {tmp_path / 'src' / 'bundle.py'}: {os.strerror(errno.ENOSPC)}"
    )
    assert contents(tmp_path) == {}


def test_a_broken_installation_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path / "no-checkout")
    done = templates(tmp_path / "folder")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr == "Error: this installation lacks its file sam-template.yaml; install image-mirror again\n"
    assert not (tmp_path / "folder").exists()
