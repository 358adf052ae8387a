"""README and docs show what the product does."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from image_mirror.cli import app
from support.pages import section
from support.templates import ROOT, load_template
from tools import commands_page

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The pages that the README names: those in the folder itself, without the contents.
LINKED = [page for page in PAGES[2:] if page.parent == ROOT / "docs" and page.stem != "index"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALARMS, BY_HAND, FAST_LANE, MONITORING, PARAMETERS, QUICK_START, TROUBLESHOOTING = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("alarms", "by-hand", "fast-lane", "monitoring", "parameters", "quick-start", "troubleshooting")
)
COMMANDS: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# The parts that differ from run to run: the builds' IDs.
_VARYING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def transcripts() -> list[tuple[str, str, str]]:
    """Yield each console block that shows an `image-mirror` command: page, command, output."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            command, _, output = block.partition("\n")
            if command.startswith("$ image-mirror "):
                found.append((page.name, command.removeprefix("$ image-mirror "), output))
    return found


@pytest.mark.parametrize(("page", "command", "output"), transcripts(), ids=lambda text: text.split("\n")[0][:60])
def test_a_transcript_is_real_output(page: str, command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, page
    assert _VARYING.sub("ID", result.output) == _VARYING.sub("ID", output)


def test_the_reference_of_the_commands_is_what_the_code_says() -> None:
    written = {path: path.read_text(encoding="utf-8") for path in commands_page.FOLDER.glob("*.md")}
    written[commands_page.INDEX] = commands_page.INDEX.read_text(encoding="utf-8")
    assert written == commands_page.pages(), "run: make docs"


def test_each_command_has_a_page() -> None:
    assert {path.stem for path in commands_page.FOLDER.glob("*.md")} == set(COMMANDS)


def test_the_first_screen_shows_the_main_job() -> None:
    assert next(command for page, command, _ in transcripts() if page == "README.md").startswith("demo ")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_table_is_in_one_piece_with_its_head(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert re.fullmatch(r"(\| --- )+\|", rows.splitlines()[1]), rows


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.name)
def test_the_readme_links_to_each_page(page: Path) -> None:
    assert f"](docs/{page.name})" in README


def test_the_quick_start_of_the_readme_is_ten_commands_that_the_page_explains() -> None:
    block = section(README, "Quick start").partition("```console\n")[2].partition("```")[0]
    commands = block.replace("\\\n", " ").splitlines()
    assert len(commands) == 10
    for command in commands:
        program, verb = command.split()[:2]
        assert f"\n{program} {verb} " in QUICK_START or f"\n{program} {verb}\n" in QUICK_START, command


@pytest.mark.parametrize(
    "said",
    [
        "There are no keys yet. Connect the accounts by federation, which needs none?",
        "Do this?",
        "Both accounts are connected",
        "the body is empty",
        "there is no user for keys",
    ],
)
def test_the_pages_say_what_the_program_says(said: str) -> None:
    assert any(said in module.read_text(encoding="utf-8") for module in (ROOT / "src").rglob("*.py"))
    assert said in QUICK_START + FAST_LANE


@pytest.mark.parametrize("template", ["sam-template.yaml", "image-pulling.yaml"])
def test_each_parameter_is_explained_with_its_default(template: str) -> None:
    section = PARAMETERS.partition(f"Of `{template}`")[2]
    table = section.partition("| parameter |")[2].partition("\n\n")[0]
    for name, parameter in load_template(template)["Parameters"].items():
        [row] = [line for line in table.splitlines() if f"`{name}`" in line.split("|")[1]]
        default = str(parameter.get("Default", "")).strip()
        if name != "MirrorRules" and default:
            assert default in row.split("|")[2].replace(",", "").replace("`", "").split(), row


def test_each_output_that_a_page_names_exists() -> None:
    templates = ("sam-template.yaml", "image-pulling.yaml", "docs/alarms-to-chat.yaml")
    outputs = {name for template in templates for name in load_template(template)["Outputs"]}
    for name in ("APIGatewayURL", "CopiesPrefix"):
        assert name in QUICK_START
        assert name in outputs
    for name in ("ReconcilerLogGroup", "DeadLetterQueueUrl", "WebhookLogGroup"):
        assert name in TROUBLESHOOTING
        assert name in outputs
    for page in PAGES:
        for name in re.findall(r"'<([A-Z][A-Za-z]+)>'", page.read_text(encoding="utf-8")):
            assert name in outputs, (page.name, name)


def commands_named() -> list[tuple[str, str, tuple[str, ...]]]:
    """Yield each `image-mirror` command that a page asks its reader to run: page, command, options."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, rest in re.findall(r"image-mirror ([a-z-]+)\b([^`\n|]*)", text):
            if name in COMMANDS or rest.startswith(" --"):
                found.append((page.name, name, tuple(sorted(re.findall(r"(?<=\s)--[a-z-]+", rest)))))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command", "options"), commands_named(), ids=str)
def test_each_command_that_a_page_names_has_the_options_it_is_given(
    page: str, command: str, options: tuple[str, ...]
) -> None:
    assert command in COMMANDS, page
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
    assert set(options) <= known, page


def test_prometheus_has_an_expression_for_each_alarm() -> None:
    alarms = re.findall(r"^## (.*)$", ALARMS, re.MULTILINE)
    table = MONITORING.partition("| alarm | expression |\n")[2].partition("\n\n")[0]
    rows = [re.split(r"[;|]", row)[1].strip() for row in table.splitlines()[1:]]
    assert sorted(rows) == sorted(alarms)
    assert len(rows) == sum(
        each["Type"] == "AWS::CloudWatch::Alarm" for each in load_template("sam-template.yaml")["Resources"].values()
    )


def test_the_placeholder_and_the_commands_of_the_readme_are_those_of_the_files() -> None:
    assert "<WEB-HOOK-URL>" in (ROOT / "mutating-webhook.yaml").read_text()
    assert "sed 's|<WEB-HOOK-URL>|<APIGatewayURL>|' mutating-webhook.yaml | kubectl apply -f -" in BY_HAND
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


# The real messages of kubectl, of records and of builds, from failures with real programs (tests/e2e).
@pytest.mark.parametrize(
    "words",
    [
        "is being copied to ECR; the pod waits in ImagePullBackOff until it arrives",
        "stays as written, its copy failed: NOT_FOUND",
        "NOT_FOUND, 2 of 5 attempts; it waits for its copy",
        "failed calling webhook",
        "pod updates may not change fields",
        "Apply failed with 1 conflict",
        "NOT_FOUND: ",
        "DENIED: ",
        "authentication required",
        "BAD_INPUT: ",
        "TOOMANYREQUESTS",
        "connection refused",
        "401 Unauthorized",
        "security token",
        "is empty; fill in",
        "the build ran out of time",
        "AccountLimitExceededException",
    ],
)
def test_troubleshooting_has_the_words_that_users_see(words: str) -> None:
    assert words in TROUBLESHOOTING
