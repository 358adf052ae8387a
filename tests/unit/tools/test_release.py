"""A release is built only if version, changelog and tree say the same; the same files give the same bundle."""

import hashlib
import subprocess
import tomllib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from support.templates import ROOT, load_template, sam_template
from tools import bundle, release
from tools.markdown_pages import sections

CHANGELOG = "# Changelog\n\n## 1.2.0 - 2026-12-01\n\n- Something new.\n\n## 1.1.0 - 2026-11-25\n\n- First.\n"
LATER = "CHANGELOG.md still has entries under Unreleased: move them into the section of the version"


def found(version: str = "1.2.0", changelog: str = CHANGELOG, changed: str = "", tags: str = "v1.1.0") -> list[str]:
    return list(release.problems(version, changelog, changed.splitlines(), tags.split()))


@pytest.mark.parametrize(
    "changelog",
    [
        pytest.param(CHANGELOG, id="a section of the version"),
        pytest.param(CHANGELOG.replace("## 1.2", "## Unreleased\n\n## 1.2"), id="and an empty one for later changes"),
    ],
)
def test_a_dated_section_and_a_clean_tree_are_enough(changelog: str) -> None:
    assert found(changelog=changelog) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param(
            {"version": "1.2", "changelog": CHANGELOG.replace("1.2.0", "1.2")},
            "the version in pyproject.toml is 1.2; write it as three numbers, like 1.2.0",
            id="two numbers",
        ),
        pytest.param(
            {"tags": "v1.1.0 v1.2.0"},
            "the tag v1.2.0 exists already: raise the version in pyproject.toml",
            id="a version that is released",
        ),
        pytest.param(
            {"version": "1.3.0"}, 'CHANGELOG.md has no section "## 1.3.0 - YYYY-MM-DD"', id="no section of the version"
        ),
        pytest.param(
            {"version": "1.2.10"},
            'CHANGELOG.md has no section "## 1.2.10 - YYYY-MM-DD"',
            id="a section of another version that begins alike",
        ),
        pytest.param(
            {"changelog": CHANGELOG.replace(" - 2026-12-01", "")},
            'CHANGELOG.md has no section "## 1.2.0 - YYYY-MM-DD"',
            id="a section without a date",
        ),
        pytest.param(
            {"changelog": CHANGELOG.replace("- Something new.\n", "")},
            "CHANGELOG.md says nothing in its section 1.2.0 - 2026-12-01",
            id="an empty section",
        ),
        pytest.param(
            {"changelog": CHANGELOG.replace("## 1.2", "## Unreleased\n\n- More.\n\n## 1.2")},
            LATER,
            id="entries that would be in no release",
        ),
        pytest.param(
            {"changed": " M README.md\n?? notes.txt\n"},
            "the tree is not clean; commit or remove: README.md, notes.txt",
            id="changes that are in no commit",
        ),
    ],
)
def test_a_release_is_refused_with_the_reason(given: dict[str, str], problem: str) -> None:
    assert found(**given) == [problem]


def test_files_that_only_this_machine_s_git_ignores_or_hides_are_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / ".gitignore").write_text("*.pyc\nbuild/\n")
    (tmp_path / "kept.py").write_text("1\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "All")
    (tmp_path / "build").mkdir()
    for name in ("kept.pyc", "build/x"):
        (tmp_path / name).touch()
    assert release.changes(tmp_path) == []
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text(".env\n")
    git("config", "status.showUntrackedFiles", "no")
    for name in (".env", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "kept.py").write_text("2\n")
    assert release.changes(tmp_path) == [" M kept.py", "?? .env", "?? notes.txt"]


@pytest.mark.parametrize("cause", ["no git", "no clone"])
def test_without_a_clone_a_release_says_what_is_missing(
    cause: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*_: object, **__: object) -> None:
        if cause == "no git":
            raise FileNotFoundError(2, "No such file or directory", "git")
        raise subprocess.CalledProcessError(128, ["git"], stderr="fatal: not a git repository")

    monkeypatch.setattr("subprocess.run", git)
    assert release.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: git does not answer: ")
    assert said.endswith("; a release is built in a clone\nNothing was built.\n")


def test_the_wheel_leaves_hidden_files_out() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["exclude"] == [".*"]


def test_the_next_commands_tag_the_version_and_are_not_run() -> None:
    assert release.next_commands("1.2.0")[:2] == ["git tag -a v1.2.0 -m 'Release 1.2.0'", "git push origin v1.2.0"]


def test_the_code_does_not_repeat_the_version_of_pyproject_toml() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert bundle.version() == version
    for path in (ROOT / "src" / "image_mirror").rglob("*.py"):
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), path


def test_the_bundle_s_template_is_the_shipped_one_with_the_packaged_code(tmp_path: Path) -> None:
    expected = sam_template()
    del expected["Globals"]["Function"]["CodeUri"]
    functions = [each for each in expected["Resources"].values() if each["Type"] == "AWS::Serverless::Function"]
    assert len(functions) == 2
    for each in functions:
        del each["Metadata"]
        each["Properties"]["CodeUri"] = "functions.zip"
    text = bundle.template((ROOT / "sam-template.yaml").read_text(encoding="utf-8"))
    (tmp_path / "image-mirror.yaml").write_text(text, encoding="utf-8")
    assert load_template(str(tmp_path / "image-mirror.yaml")) == expected


@pytest.mark.parametrize(
    ("line", "other"),
    [
        pytest.param("    CodeUri: src/\n", "", id="no sources"),
        pytest.param("    CodeUri: src/\n", "    CodeUri: other/\n", id="other sources"),
        pytest.param("    Metadata: {BuildMethod: makefile}\n", "", id="a function without its build"),
    ],
)
def test_a_template_with_another_build_is_refused(line: str, other: str) -> None:
    text = (ROOT / "sam-template.yaml").read_text(encoding="utf-8")
    assert line in text
    with pytest.raises(ValueError, match="the template has CodeUri"):
        bundle.template(text.replace(line, other))


def test_a_zip_depends_on_its_files_alone() -> None:
    files = {"b/c.py": b"c", "a.py": b"a" * 1000}
    assert bundle.packed(files) == bundle.packed(dict(reversed(files.items())))
    with zipfile.ZipFile(BytesIO(bundle.packed(files))) as archive:
        assert {each.filename: archive.read(each) for each in archive.infolist()} == files
        assert {(each.date_time, each.external_attr >> 16) for each in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644)
        }


def test_checksums_are_in_the_form_that_sha256sum_reads() -> None:
    [first, second] = bundle.checksums({"b": b"2", "a": b"1"}).decode().splitlines()
    assert first == f"{hashlib.sha256(b'1').hexdigest()}  a"
    assert second == f"{hashlib.sha256(b'2').hexdigest()}  b"


def test_each_link_of_the_readme_leads_to_a_file_of_the_bundle() -> None:
    files = bundle._sources()
    links = [link.partition("#")[0] for each in sections(files["README.md"].decode()) for link in each.links]
    assert set(filter(None, links)) <= files.keys()


def test_the_page_lists_what_is_in_the_bundle() -> None:
    page = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    for name in (bundle.CODE, bundle.CHINA_TEMPLATE, bundle.SUMS, "image-pulling.yaml", "mutating-webhook.yaml"):
        assert f"| `{name}` |" in page
