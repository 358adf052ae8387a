"""SECURITY.md, the forms for issues and the recipe of a release name what exists, and ask for no secrets."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from image_mirror.cli import app
from support.templates import ROOT
from tools import release

FOLDER = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in FOLDER.glob("*.yml") if path.name != "config.yml")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def form(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def test_there_is_a_form_for_bugs_for_questions_and_for_wishes() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_and_gitee_need_in_both_languages(path: Path) -> None:
    assert form(path).keys() == {"name", "description", "title", "labels", "body"}
    fields = [each for each in form(path)["body"] if each["type"] != "markdown"]
    assert {each["type"] for each in fields} <= {"input", "textarea"}
    assert len({each["id"] for each in fields}) == len(fields)
    assert any(each.get("validations", {}).get("required") for each in fields)
    for text in (form(path)["name"], form(path)["description"], *(each["attributes"]["label"] for each in fields)):
        english, _, chinese = text.rpartition(" / ")
        assert english or " (" in text, text
        assert re.search(r"[\u4e00-\u9fff]", chinese), text


@pytest.mark.parametrize("path", [*FORMS, ROOT / "SECURITY.md"], ids=lambda path: path.stem)
def test_the_commands_that_a_page_asks_for_exist(path: Path) -> None:
    for name, rest in re.findall(r"`image-mirror ([a-z-]+)([^`]*)`", path.read_text(encoding="utf-8")):
        assert name == "--version" or name in COMMANDS, name
        known = {option for each in COMMANDS[name].params for option in each.opts} if name in COMMANDS else set()
        assert set(re.findall(r"(?<=\s)--?[a-z-]+", rest)) <= known, rest


def test_a_bug_s_form_asks_for_the_version_and_for_doctor_and_for_no_secret() -> None:
    text = (FOLDER / "bug.yml").read_text(encoding="utf-8")
    required = [each["id"] for each in form(FOLDER / "bug.yml")["body"] if each.get("validations", {}).get("required")]
    assert required == ["what", "version", "doctor"]
    for words in ("image-mirror --version", "image-mirror doctor --output json", "**No secrets.**", "SECURITY.md"):
        assert words in text


def test_vulnerabilities_are_reported_in_private_and_not_to_an_address() -> None:
    assert "private vulnerability reporting" in SECURITY
    assert not re.search(r"\S@\S", SECURITY)


def test_the_recipe_of_a_release_has_a_title_that_the_check_takes() -> None:
    [title] = re.findall(r"`## (\S+ - \S+)`", CONTRIBUTING)
    version = title.partition(" ")[0]
    assert list(release.problems(version, f"## {title}\n\n- A change.\n", (), ())) == []
