"""What the shell offers while an operator types: in a real bash, and by the functions for AWS and the cluster."""

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from image_mirror.cli import app, completion, plugin_completion
from support.operators import Operated
from support.recorded import record, write

_SOURCES = ("gcr.io/a:1", "gcr.io/a:2", "gcr.io/b:1", "quay.io/c:1")
_KUBECTL = """\
#!/bin/sh
case "$*" in
*namespaces*) names='shop shipping web' ;;
*--namespace=shop*) names='cart-1 cart-2' ;;
*pods*) names='default-1' ;;
*config*--kubeconfig*) exit 1 ;;
*config*) printf '{"contexts": [{"name": "prod"}, {"name": "preview"}]}'; exit ;;
esac
printf '{"items": ['
comma=
for name in $names; do printf '%s{"metadata": {"name": "%s"}}' "$comma" "$name"; comma=, ; done
printf ']}'
"""


@pytest.fixture(autouse=True)
def _any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine changes no result."""
    monkeypatch.setenv("IMAGE_MIRROR_COMPLETION_SECONDS", "120")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a kubectl on PATH that knows three namespaces, three pods and two contexts."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(_KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def in_bash(line: str, tmp_path: Path) -> list[str]:
    """Return what a real bash offers for a line that ends at the cursor, with no colon in it."""
    program = tmp_path / "bin" / "image-mirror"
    program.parent.mkdir(exist_ok=True)
    code = "from image_mirror.cli import app; app(prog_name='image-mirror')"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    program.chmod(0o755)
    words = line.split(" ")
    script = f"""
        eval "$(_IMAGE_MIRROR_COMPLETE=source_bash {program})"
        COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD={len(words) - 1}
        _image_mirror_completion {program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = ["bash", "--norc", "-c", script]
    environ = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.usefixtures("kubectl")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        pytest.param("image-mirror pods -n sh", ["shipping", "shop"], id="namespaces"),
        pytest.param("image-mirror pods -n shop c", ["cart-1", "cart-2"], id="pods-of-the-namespace"),
        pytest.param("image-mirror pods ", ["default-1"], id="pods"),
        pytest.param("image-mirror pods --context pr", ["preview", "prod"], id="contexts"),
        pytest.param("image-mirror pods --kubeconfig /etc/hosts --context pr", [], id="no-answer"),
        pytest.param("image-mirror pods -o y", ["yaml"], id="format"),
        pytest.param("image-mirror sta", ["status"], id="command"),
    ],
)
def test_a_real_bash_offers_what_the_cluster_has(line: str, offered: list[str], tmp_path: Path) -> None:
    assert in_bash(line, tmp_path) == offered


def offered(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is offered for the last of the words, which bash has split at each colon."""
    monkeypatch.setenv("_IMAGE_MIRROR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["image-mirror", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return CliRunner().invoke(app, prog_name="image-mirror").stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["status", "gcr.io/"], ["gcr.io/a:1", "gcr.io/a:2", "gcr.io/b:1"], id="one-image"),
        pytest.param(["status", "gcr.io/a", ":"], ["1", "2"], id="after-the-colon"),
        pytest.param(["status", "gcr.io/a", ":", "2"], ["2"], id="a-tag"),
        pytest.param(["retry", "gcr.io/a", ":", "1", "gcr.io/a"], ["gcr.io/a:2"], id="not-again-what-is-typed"),
        pytest.param(["forget", "gcr.io/b", ":", "1", "gcr.io/a", ":"], ["1", "2"], id="second-image"),
        pytest.param(["status", "--stack-name", "none", "gcr.io/"], [], id="no-such-stack"),
        pytest.param(["status", "--china-profile", "c"], ["china"], id="profiles"),
        pytest.param(["status", "x.io/"], [], id="no-such-image"),
    ],
)
def test_images_of_records_are_offered(
    words: list[str], expected: list[str], operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(operated.cloud.dynamodb, map(record, _SOURCES))
    assert offered(words, monkeypatch) == expected


@pytest.mark.parametrize(
    ("words", "number", "merged", "current"),
    [
        pytest.param("p a : 1", 3, "p a:1", 1, id="tag"),
        pytest.param("p a :", 2, "p a:", 1, id="colon"),
        pytest.param("p a : 1 b", 4, "p a:1 b", 2, id="before"),
        pytest.param("p b a : 1", 1, "p b a:1", 1, id="after-the-cursor"),
        pytest.param("p h : 5 / a : 1", 7, "p h:5 / a:1", 3, id="two"),
        pytest.param("p a", 1, "p a", 1, id="none"),
        pytest.param("p a : 1 ", 4, "p a:1 ", 2, id="empty-word"),
        pytest.param("p a : 1", 4, "p a:1", 2, id="past-the-end"),
    ],
)
def test_the_words_that_bash_makes_of_an_image_become_one(words: str, number: int, merged: str, current: int) -> None:
    assert completion.merged(words.split(" "), number) == (merged.split(" "), current)


def test_a_table_that_answers_late_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_MIRROR_COMPLETION_SECONDS", "0.01")
    ended = threading.Event()

    def slow(*_: Any) -> list[str]:
        ended.wait(60)
        return ["late"]

    monkeypatch.setattr(completion, "_names", slow)
    assert completion.namespaces(SimpleNamespace(params={}), "") == []  # type: ignore[arg-type]
    ended.set()


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("plain", ["gcr.io/b:1"]),
        ("coded", []),
        ("assumes-coded", []),
        ("circular", ["gcr.io/b:1"]),
    ],
)
def test_a_profile_that_asks_for_a_code_offers_nothing(
    profile: str, expected: list[str], operated: Operated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(operated.cloud.dynamodb, map(record, _SOURCES))
    config = tmp_path / "profiles"
    key = "region = cn-northwest-1\naws_access_key_id = testing\naws_secret_access_key = testing\n"
    config.write_text(
        f"[profile plain]\n{key}"
        f"[profile coded]\n{key}role_arn = arn:aws-cn:iam::123456789012:role/x\n"
        "source_profile = plain\nmfa_serial = arn:aws-cn:iam::123456789012:mfa/me\n"
        f"[profile assumes-coded]\n{key}source_profile = coded\n"
        f"[profile circular]\n{key}source_profile = circular\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert offered(["status", "--china-profile", profile, "gcr.io/b"], monkeypatch) == expected


def test_a_wrong_configuration_file_stops_no_completion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("not toml")
    for name in ("bad.toml", "none.toml"):
        monkeypatch.setenv("IMAGE_MIRROR_CONFIG", str(tmp_path / name))
        assert offered(["status", "--chin"], monkeypatch) == ["--china-profile", "--china-region"]


def test_no_more_records_are_read_than_the_limit(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    write(operated.cloud.dynamodb, map(record, _SOURCES))
    read: list[int] = []

    def pages(_: object) -> Any:
        for size in (3, 3, 3):
            read.append(size)
            yield [record(f"gcr.io/x:{len(read)}-{number}") for number in range(size)]

    monkeypatch.setattr(completion, "_MOST_RECORDS", 5)
    monkeypatch.setattr("image_mirror.table.Records.pages", pages)
    assert len(offered(["status", "gcr.io/x"], monkeypatch)) == 6
    assert read == [3, 3]


def test_the_answer_of_kubectl_is_json(kubectl: Path) -> None:
    done = subprocess.run([kubectl, "get", "namespaces"], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["items"]) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["status", "gcr.io/a:"], ["gcr.io/a:1", "gcr.io/a:2"], id="image"),
        pytest.param(["pods", "-n", "sh"], ["shipping", "shop"], id="namespace"),
        pytest.param(["nud"], ["nudge"], id="command"),
        pytest.param(["status", "a b", ""], [], id="nothing"),
    ],
)
@pytest.mark.usefixtures("kubectl")
def test_kubectl_gets_whole_names_and_no_files(
    words: list[str],
    expected: list[str],
    operated: Operated,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(operated.cloud.dynamodb, map(record, _SOURCES))
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-image_mirror", *words])
    for name in ("_IMAGE_MIRROR_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")  # so that they are restored
    plugin_completion()
    assert capsys.readouterr().out.split() == [*expected, ":4"]


def test_a_word_that_bash_has_not_split_is_replaced_as_a_whole(
    operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(operated.cloud.dynamodb, map(record, _SOURCES))
    assert offered(["status", "gcr.io/a:"], monkeypatch) == ["gcr.io/a:1", "gcr.io/a:2"]
