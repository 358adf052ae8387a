"""The files of buildspec/ and the buildspec in image-pulling.yaml are the same."""

import ast
import json
import re
from typing import Any

import pytest
import yaml

from support.buildspec_runner import buildspec
from support.templates import load_template
from tools import put_buildspec_into_template as generator

TEXT = generator.TEMPLATE.read_text(encoding="utf-8")
BUILDSPEC = generator.BUILDSPEC.read_text(encoding="utf-8")
COMMANDS = {path.name: f"the text of {path.name}\n" for path in generator.SCRIPTS}


def text_of(template: str) -> Any:
    """Return the buildspec's text in a template's text, as CodeBuild gets it."""
    return yaml.load(template, Loader=_Untagged)["Mappings"]["Build"]["Spec"]["Text"]


class _Untagged(yaml.SafeLoader):
    pass


_Untagged.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))


def test_the_committed_template_holds_the_buildspec() -> None:
    assert generator.generated() == TEXT, "run: make templates"


def test_the_project_runs_the_text_as_it_stands() -> None:
    """The text is not in a !Sub, so ${NAME} is expanded by bash."""
    template = load_template(generator.TEMPLATE.name)
    source = template["Resources"]["CodeBuildProject"]["Properties"]["Source"]
    assert source["BuildSpec"] == {"Fn::FindInMap": ["Build", "Spec", "Text"]}
    assert template["Mappings"] == {"Build": {"Spec": {"Text": text_of(TEXT)}}}


def test_what_is_deployed_of_a_file_is_all_of_it_but_its_head() -> None:
    deployed = [command for phase in buildspec()["phases"].values() for command in phase["commands"]]
    program = generator.deployed(generator.PROGRAM.read_text(encoding="utf-8"))
    for path in generator.SCRIPTS:
        head, _, rest = path.read_text(encoding="utf-8").partition("\n\n")
        assert head.startswith("#!/bin/bash\n")
        assert all(line.startswith("#") for line in head.splitlines()), "no command is left out"
        assert rest.replace("\ncopy.py\n", f"\n{program}") in deployed
    assert all(line.startswith("#") for line in BUILDSPEC.partition("\n\n")[0].splitlines())


def test_each_file_is_used_and_each_long_command_is_a_script() -> None:
    files = {path for path in generator.BUILDSPEC.parent.iterdir() if path.is_file()}
    assert {generator.BUILDSPEC, *generator.SCRIPTS, generator.PROGRAM} == files
    commands = [command for phase in buildspec()["phases"].values() for command in phase["commands"]]
    assert len([command for command in commands if "\n" in command]) == len(generator.SCRIPTS)


def test_no_indent_of_the_buildspec_is_wider_than_it_must_be() -> None:
    """Each space before the program costs half a kilobyte of the 51,200 bytes."""
    [line] = re.findall(r"^ *python3 -I.*$", TEXT, re.MULTILINE)
    assert len(line) - len(line.lstrip()) == 7
    assert "\n       import base64\n" in TEXT


def test_the_commands_take_the_place_of_their_names() -> None:
    command = "# quotes ' \" and a colon: here\n\n  if true; then\n\t:\n  fi # ${Region} \\\n"
    text = generator.with_commands(BUILDSPEC, COMMANDS | {"copy.sh": command})
    given, written = yaml.safe_load(text), yaml.safe_load(BUILDSPEC)
    assert given["phases"]["build"]["commands"][0] == command
    for name, phase in given["phases"].items():
        phase["commands"][0] = written["phases"][name]["commands"][0]
    assert given == written


def test_a_changed_buildspec_changes_its_text_and_nothing_else() -> None:
    text = "version: 0.2\n# quotes ' \" and a colon: here\n\nphases: {}\n"
    changed = generator.with_text(TEXT, text)
    assert text_of(changed) == text
    assert generator.with_text(changed, text_of(TEXT)) == TEXT, "comments and layout too"


def test_a_module_stands_in_the_place_of_its_import_and_no_import_is_there_twice() -> None:
    program = '''"""A program."""
from __future__ import annotations

import re
import json
from typing import Any

from image_mirror.registry_login import login_of


def run(text: Any) -> Any:
    """Run."""
    return login_of(re.sub("x", "", json.loads(text)), "ghcr.io", "a")
'''
    whole = generator.assembled(program)
    top = [ast.unparse(node) for node in ast.parse(whole).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert top == [
        "from __future__ import annotations",
        "from typing import Any",
        "import base64",
        "import json",
        "import re",
    ]
    defined: dict[str, Any] = {}
    exec(compile(generator.without_comments(whole), "program", "exec"), defined)
    text = json.dumps(json.dumps({"auths": {"ghcr.io": {"username": "u", "password": "p"}}}))
    assert defined["run"](text) == ("ghcr.io", {"username": "u", "password": "p"})


def test_a_program_is_deployed_without_annotations_and_the_imports_that_only_they_use() -> None:
    program = """from __future__ import annotations
import json
from collections.abc import Callable, Mapping
from pathlib import Path
def run(
    é: Mapping[str, int], *more: str, word: str = "a: int -> b", call: Callable[[], dict[str, int]] | None = None
) -> Callable[[str], int]:
    kept: list[tuple[str, int]] = [(word, 1)]
    return lambda text: Path(text) or kept
"""
    assert (
        generator.without_annotations(program)
        == """from pathlib import Path
def run(
    é, *more, word = "a: int -> b", call = None
):
    kept = [(word, 1)]
    return lambda text: Path(text) or kept
"""
    )


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param("import json as j\n", "another name", id="another name of a module"),
        pytest.param(
            "from image_mirror.registry_login import login_of as find\n", "another name", id="another name of a part"
        ),
        pytest.param(
            "from image_mirror.registry_login import login_of\nDOCKER_HUB = 1\n", "define DOCKER_HUB", id="a name twice"
        ),
        pytest.param("class A:\n    b: int\n", "gives no value: b: int", id="an annotation without a value"),
    ],
)
def test_a_program_that_cannot_be_one_file_is_refused(program: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        generator.deployed(program)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("#!/bin/bash\ntrue\n", id="no empty line"),
        pytest.param("#!/bin/bash\n\n", id="no command"),
        pytest.param("#!/bin/bash\n\ntrue", id="no newline at the end"),
        pytest.param("#!/bin/bash\n\ntrue\n\n", id="empty lines at the end"),
    ],
)
def test_a_script_of_another_form_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match="a script is a head"):
        generator.command_of(script)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("  true\nfalse\n", id="a first line that is indented"),
        pytest.param("true\n  \nfalse\n", id="a line of spaces"),
        pytest.param("true\r\nfalse\r\n", id="line ends of Windows"),
    ],
)
def test_a_command_that_yaml_would_change_is_refused(command: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        generator.with_commands(BUILDSPEC, COMMANDS | {"copy.sh": command})


@pytest.mark.parametrize("name", ["other.sh", "COPY_RESULT"])
def test_a_script_that_is_no_command_of_the_buildspec_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="command of the buildspec"):
        generator.with_commands(BUILDSPEC, COMMANDS | {name: "true\n"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("\nMappings:", "\nMapping:", id="no mappings"),
        pytest.param("   Text: |", "   Texts: |", id="no text"),
        pytest.param("   Text: |", "   Text: >", id="a text that YAML folds"),
    ],
)
def test_a_template_without_the_place_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match="no block of text"):
        generator.with_text(TEXT.replace(old, new), "true\n")
