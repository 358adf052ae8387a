"""The scripts in buildspec/ and the commands in image-pulling.yaml are the same."""

from typing import Any

import pytest
import yaml

from support.buildspec_runner import buildspec
from support.templates import load_template
from tools import put_buildspec_into_template as generator

TEXT = generator.TEMPLATE.read_text(encoding="utf-8")


def buildspec_of(text: str) -> Any:
    """Return the buildspec of a template's text, as CodeBuild gets it."""
    template = yaml.load(text, Loader=_Untagged)
    return yaml.safe_load(template["Resources"]["CodeBuildProject"]["Properties"]["Source"]["BuildSpec"])


class _Untagged(yaml.SafeLoader):
    pass


_Untagged.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))


def test_the_committed_template_holds_the_scripts() -> None:
    assert generator.generated() == TEXT, "run: make templates"


def test_what_is_deployed_of_a_script_is_all_of_it_but_its_head() -> None:
    for phase, path in generator.SCRIPTS.items():
        head, _, rest = path.read_text(encoding="utf-8").partition("\n\n")
        assert head.startswith("#!/bin/bash\n")
        assert all(line.startswith("#") for line in head.splitlines()), "no command is left out"
        deployed = generator.without_comments(generator.PROGRAM.read_text(encoding="utf-8"))
        assert buildspec()["phases"][phase]["commands"][0] == rest.replace("\ncopy.py\n", f"\n{deployed}")


def test_each_script_is_used_and_each_long_command_is_a_script() -> None:
    folder = {path.parent for path in generator.SCRIPTS.values()}
    files = {path for each in folder for path in each.iterdir() if path.is_file()}
    assert {*generator.SCRIPTS.values(), generator.PROGRAM} == files
    places = [
        (phase, place)
        for phase, entry in buildspec()["phases"].items()
        for place, command in enumerate(entry["commands"])
        if "\n" in command
    ]
    assert places == [(phase, 0) for phase in generator.SCRIPTS]


def test_a_changed_script_changes_its_command_and_nothing_else() -> None:
    command = "# quotes ' \" and a colon: here\n\n  if true; then\n\t:\n  fi # ${Region} \\\n"
    changed = generator.with_commands(TEXT, {"build": command})
    expected = buildspec()
    given = buildspec_of(changed)
    assert given["phases"]["build"]["commands"][0] == command
    given["phases"]["build"]["commands"][0] = expected["phases"]["build"]["commands"][0]
    assert given == expected
    original = {"build": expected["phases"]["build"]["commands"][0]}
    assert generator.with_commands(changed, original) == TEXT, "comments and layout too"


def test_cloudformation_replaces_nothing_in_the_buildspec() -> None:
    """It is not a !Sub, so ${NAME} is expanded by bash."""
    source = load_template(generator.TEMPLATE.name)["Resources"]["CodeBuildProject"]["Properties"]["Source"]
    assert isinstance(source["BuildSpec"], str)


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
        generator.with_commands(TEXT, {"build": command})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("BuildSpec: |", "Buildspec: |", id="no buildspec"),
        pytest.param("    build:\n", "    built:\n", id="no such phase"),
        pytest.param("BuildSpec: |", "BuildSpec: >", id="a text that YAML folds"),
    ],
)
def test_a_template_without_the_place_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match="no block of text"):
        generator.with_commands(TEXT.replace(old, new), {"build": "true\n"})
