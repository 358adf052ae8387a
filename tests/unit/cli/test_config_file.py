"""The operator's configuration file: which values it gives, what comes before it, and its errors."""

from contextlib import suppress
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.cli import config_file
from support.operators import CHINA_OUTPUTS, TOKEN, Operated
from support.recorded import run
from support.templates import ROOT

FILE = Path("/etc/mirror.toml")
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'gcr.io/a:1'}]}\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the operator's file, which the commands read."""
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("IMAGE_MIRROR_CONFIG", str(path))
    return path


def test_each_key_sets_the_option_of_its_name() -> None:
    values = {key: f"{key}-value" for key in config_file.KEYS}
    values |= {"china-region": "cn-north-1", "global-region": "us-west-2"}
    text = "".join(f'{key} = "{value}"\n' for key, value in values.items())
    assert config_file.parsed(text, FILE) == {key.replace("-", "_"): value for key, value in values.items()}


def test_the_home_directory_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ops")
    assert config_file.parsed('kubeconfig = "~/.kube/prod"', FILE) == {"kubeconfig": "/home/ops/.kube/prod"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param('stack = "x"', "'stack' is not a key; the keys are china-profile, china-region", id="unknown-key"),
        pytest.param("context = 3", 'context must be a text in quotes, such as context = "name"', id="number"),
        pytest.param('context = ""', "context must be a text in quotes", id="empty"),
        pytest.param('china-region = "us-west-2"', "china-region must be a region in China", id="region-in-china"),
        pytest.param('global-region = "cn-north-1"', "global-region must be a region outside China", id="outside"),
        pytest.param('[china]\nprofile = "x"', "'china' is not a key", id="section"),
        pytest.param("context = prod", "it is not TOML: Invalid value", id="no-quotes"),
        pytest.param('"\\u001b[31m" = "x"', r"'\x1b[31m' is not a key", id="control-character"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_file_and_the_key(text: str, words: str, written: Path) -> None:
    written.write_text(text)
    result = run("status")
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"Error: Invalid value for {written}: {words}")


@given(text=st.text())
def test_any_text_is_read_or_is_an_error_for_people(text: str) -> None:
    with suppress(typer.BadParameter):
        assert config_file.parsed(text, FILE).keys() <= set(config_file.KEYS.values())


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        pytest.param({"HOME": "{tmp}"}, ".config/image-mirror/config.toml", id="home"),
        pytest.param({"XDG_CONFIG_HOME": "{tmp}/xdg"}, "xdg/image-mirror/config.toml", id="xdg"),
        pytest.param({"IMAGE_MIRROR_CONFIG": "{tmp}/mine"}, "mine", id="named"),
    ],
)
def test_the_file_is_found_where_programs_keep_theirs(
    environ: dict[str, str], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {name: value.format(tmp=tmp_path) for name, value in environ.items()}
    monkeypatch.setenv("HOME", str(tmp_path))
    if "IMAGE_MIRROR_CONFIG" not in environ:
        assert config_file.defaults(environ) == {}
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text('context = "prod"')
    assert config_file.defaults(environ) == {"context": "prod"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param('\ufeffcontext = "prod"', {"context": "prod"}, id="byte-order-mark"),
        pytest.param('kubeconfig = "~no-such-user/x"', {"kubeconfig": "~no-such-user/x"}, id="no-such-user"),
    ],
)
def test_a_file_as_editors_write_it_is_read(text: str, values: dict[str, str], written: Path) -> None:
    written.write_text(text, encoding="utf-8")
    assert config_file.defaults() == values


def test_without_a_home_directory_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert config_file.defaults({}) == {}
    assert config_file.defaults({"XDG_CONFIG_HOME": "~no-such-user"}) == {}


def test_a_file_of_nested_lists_is_an_error_for_people(written: Path) -> None:
    written.write_text("a = " + "[" * 5_000)
    result = run("status")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: Invalid value for {written}: it is not TOML")


def test_a_file_that_is_named_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGE_MIRROR_CONFIG", str(tmp_path / "none"))
    result = run("status")
    assert result.exit_code == 2
    assert "there is no such file; correct IMAGE_MIRROR_CONFIG, or unset it" in result.stderr
    for arguments in (["status", "--help"], ["version"], ["templates", "-h"]):
        assert run(*arguments).exit_code == 0  # they need nothing of it


def test_a_wrong_value_of_the_file_is_not_blamed_on_an_option_alone(written: Path) -> None:
    written.write_text('kubeconfig = "/nowhere/config"')
    result = run("pods")
    assert result.exit_code == 2
    assert f"does not exist. (as {written} says)" in result.stderr
    assert "says)" not in run("pods", "--kubeconfig", "/nowhere/other").stderr


@pytest.mark.usefixtures("operated")
def test_an_option_comes_first_then_its_variable_then_the_file(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written.write_text('china-profile = "of-the-file"\nstack-name = "of-the-file"\n')
    assert "--stack-name" in run("status").stderr  # the variable of the fixture names the profile
    assert "of-the-file" in run("status").stderr
    assert "of-the-option" in run("status", "--stack-name", "of-the-option").stderr
    monkeypatch.delenv("IMAGE_MIRROR_CHINA_PROFILE")
    assert "profile (of-the-file) could not be found" in run("status").stderr
    assert "profile (of-the-option) could not be found" in run("status", "--china-profile", "of-the-option").stderr


def test_a_stack_in_the_file_does_not_make_preview_ask_aws(written: Path, operated: Operated, tmp_path: Path) -> None:
    operated.deploy(
        "sam-template.yaml", "cn-northwest-1", "mine", CHINA_OUTPUTS, WebhookToken=TOKEN, MirrorRules="!gcr.io"
    )
    pod = tmp_path / "pod.yaml"
    pod.write_text(POD)
    written.write_text('stack-name = "mine"')
    assert "decided by the default rules" in run("preview", pod).stdout
    assert "the rules of the stack mine" in run("preview", pod, "--stack").stdout


def test_the_page_names_each_key() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert config_file.parsed(example, FILE).keys() == set(config_file.KEYS.values())
