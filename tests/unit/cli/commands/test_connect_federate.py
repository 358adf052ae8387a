"""The options of `image-mirror connect --federate`, and stacks that cannot federate."""

import pytest
from typer.testing import CliRunner

from image_mirror.cli import app
from support.operators import Operated


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param("--federate --rotate", "--rotate: cannot be combined with --federate", id="rotate"),
        pytest.param("--federate --keys", "--keys: cannot be combined with --federate", id="keys"),
        pytest.param("--delete-keys", "--delete-keys: needs --federate", id="delete-keys"),
        pytest.param("--yes", "--yes: needs --federate", id="yes"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: str, words: str) -> None:
    result = CliRunner().invoke(app, ["connect", *options.split()])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.usefixtures("operated")
def test_stacks_of_an_older_release_are_named_and_nothing_is_asked_of_iam() -> None:
    result = CliRunner().invoke(app, ["connect", "--federate", "--yes"])
    assert result.exit_code == 1
    china, world = result.stderr.splitlines()
    assert china.startswith(
        "Error: china account (profile china): the stack image-mirror is of an older release, which"
    )
    assert world.startswith("Error: global account (profile global): the stack image-pulling is of an older release")


def test_a_stack_in_the_middle_of_an_update_is_named(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operated
    monkeypatch.setattr("image_mirror.cli.commands.connect._DEPLOYED", ())
    result = CliRunner().invoke(app, ["connect", "--federate", "--yes"])
    assert result.exit_code == 1
    assert "the stack image-mirror is CREATE_COMPLETE" in result.stderr
