"""The files of buildspec/ and the buildspec in image-pulling.yaml are the same."""

import base64
import re
from typing import Any

import pytest
import yaml

from support.buildspec_runner import PROJECTS, buildspec
from support.templates import load_template
from tools import put_buildspec_into_template as generator

TEXT = generator.TEMPLATE.read_text(encoding="utf-8")
BUILDSPEC = generator.BUILDSPEC.read_text(encoding="utf-8")
WITHOUT_KEY = "version: 0.2\nenv:\n"
COMMANDS = {path.name: f"the text of {path.name}\n" for path in generator.SCRIPTS}


def text_of(template: str, part: str = "Spec") -> Any:
    """Return a part of the buildspec in a template's text."""
    return yaml.load(template, Loader=_Untagged)["Mappings"]["Build"][part]["Text"]


class _Untagged(yaml.SafeLoader):
    pass


_Untagged.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))


def test_the_committed_template_holds_the_buildspec() -> None:
    assert generator.generated() == TEXT, "run: make templates"


def test_the_projects_run_the_text_as_it_stands() -> None:
    """The text is not in a !Sub, so ${NAME} is expanded by bash."""
    template = load_template(generator.TEMPLATE.name)
    for name in PROJECTS:
        source = template["Resources"][name]["Properties"]["Source"]
        head = {"Fn::If": ["RolePushes", WITHOUT_KEY, {"Fn::FindInMap": ["Build", "Key", "Text"]}]}
        assert source["BuildSpec"] == {"Fn::Join": ["", [head, {"Fn::FindInMap": ["Build", "Spec", "Text"]}]]}
    texts = {part: {"Text": text_of(TEXT, part)} for part in ("Key", "Spec")}
    assert template["Mappings"] == {"Build": texts}


def test_a_build_that_pushes_with_a_role_has_all_of_the_buildspec_but_the_keys() -> None:
    with_key, with_role = buildspec(), buildspec(ChinaPushRoleArn="arn:aws-cn:iam::123456789012:role/push")
    assert "secrets-manager" not in with_role["env"], "CodeBuild would read the secret before the first command"
    assert with_role == with_key | {"env": {name: with_key["env"][name] for name in with_role["env"]}}
    assert with_key["env"].keys() - with_role["env"].keys() == {"secrets-manager"}
    assert text_of(TEXT, "Key").startswith(WITHOUT_KEY)


def test_what_is_deployed_of_a_file_is_all_of_it_but_its_head() -> None:
    deployed = [command for phase in buildspec()["phases"].values() for command in phase["commands"]]
    packed = generator.archive_in(TEXT)
    assert packed is not None
    lines = re.findall(r"<<'ARCHIVE'.*?\n(.*?)ARCHIVE\n", deployed[1], re.DOTALL)
    assert base64.b64decode("".join(lines)) == packed
    for path in generator.SCRIPTS:
        head, _, rest = path.read_text(encoding="utf-8").partition("\n\n")
        assert head.startswith("#!/bin/bash\n")
        assert all(line.startswith("#") for line in head.splitlines()), "no command is left out"
        assert rest.replace("\ncopy.pyz\n", "\n" + "".join(lines)) in deployed
    assert all(line.startswith("#") for line in BUILDSPEC.partition("\n\n")[0].splitlines())


def test_the_archive_has_the_files_of_the_program_unchanged() -> None:
    packed = generator.archive_in(TEXT)
    assert packed is not None
    assert generator.files_of(packed) == {name: path.read_bytes() for name, path in generator.PROGRAM.items()}


def test_an_archive_of_the_same_files_is_kept_and_of_others_is_replaced() -> None:
    files = {name: path.read_bytes() for name, path in generator.PROGRAM.items()}
    assert generator.packed(files) == generator.packed(files)
    assert generator.files_of(generator.packed(files)) == files
    for broken in (TEXT.replace("base64 --decode", "base64 -d"), re.sub("H4sI", "H4sX", TEXT), "no template"):
        assert generator.archive_in(broken) is None


def test_each_file_is_used_and_each_long_command_is_a_script() -> None:
    files = {path for path in generator.BUILDSPEC.parent.iterdir() if path.is_file()}
    assert {generator.BUILDSPEC, *generator.SCRIPTS, generator.PROGRAM["__main__.py"]} == files
    commands = [command for phase in buildspec()["phases"].values() for command in phase["commands"]]
    assert len([command for command in commands if "\n" in command]) == len(generator.SCRIPTS)


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
