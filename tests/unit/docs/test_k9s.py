"""docs/k9s-plugins.yaml: what each plugin runs, with the names of a cluster in the places that k9s fills."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from image_mirror.cli import app, plugin
from support.templates import ROOT

PLUGINS: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "k9s-plugins.yaml").read_text(encoding="utf-8"))["plugins"]
_FILLED = {"$NAME": "web-1", "$NAMESPACE": "shop", "$CONTEXT": "prod $(touch pwned)"}


@pytest.mark.parametrize("name", PLUGINS)
def test_each_plugin_runs_a_command_that_exists_with_the_names_as_arguments(name: str, tmp_path: Path) -> None:
    plugin = PLUGINS[name]
    # The fields that k9s requires, and no other than it knows.
    assert plugin.keys() == {"shortCut", "description", "scopes", "command", "background", "args"}
    for program in ("image-mirror", "less"):
        written = tmp_path / program
        kept = f'printf "%s\\n" "$@" > {shlex.quote(str(tmp_path / "arguments"))}'
        written.write_text(f"#!/bin/sh\n{kept if program == 'image-mirror' else 'cat'}\n")
        written.chmod(0o755)
    filled = [_FILLED.get(each, each) for each in plugin["args"]]
    assert not any("$" in each for each in filled[2:] if each not in _FILLED.values())
    environ = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([plugin["command"], *filled], check=True, env=environ, cwd=tmp_path)
    given = (tmp_path / "arguments").read_text().splitlines()
    assert given == filled[3:]
    assert not (tmp_path / "pwned").exists()
    command = typer.main.get_command(app).commands[given[0]]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {each for each in given if each.startswith("-")} <= options


def test_two_plugins_share_a_key_only_in_different_views() -> None:
    places = [(each["shortCut"], scope) for each in PLUGINS.values() for scope in each["scopes"]]
    assert len(places) == len(set(places))


def test_the_plugin_of_kubectl_has_its_own_name_in_its_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl-image_mirror", "status", "-h"])
    with pytest.raises(SystemExit) as ended:
        plugin()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: kubectl image-mirror status ")
    assert CliRunner().invoke(app, ["status", "-h"], prog_name="image-mirror").stdout.startswith("Usage: image-mirror")
