"""`image-mirror demo` runs the main job on emulated AWS, and says what is emulated."""

import builtins
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from image_mirror.cli import app, resources
from image_mirror.cli.emulation import REGISTRY, emulated_aws
from image_mirror.table import DUE_INDEX
from support.templates import ROOT, sam_template


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["demo", *arguments])


@pytest.fixture(scope="module")
def shown() -> str:
    result = run()
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_is_emulated_and_what_is_real(shown: str) -> None:
    assert shown.startswith("Emulated, in this process, with no network and no account: DynamoDB")
    assert "Real: both functions" in shown


@pytest.mark.parametrize(
    "line",
    [
        "samples/nginx-gcr.yaml: Deployment/nginx-gcr",
        "samples/every-image-field.yaml: Pod/every-image-field",
        "samples/opted-out.yaml: Pod/opted-out",
        "tests/reviews/create-pod.json (as a 1.36 API server sent it)",
        "tests/reviews/create-pod-from-deployment.json (as a 1.36 API server sent it)",
        "  containers/hello-app: gcr.io/google-samples/hello-app:1.0",
        f"    -> {REGISTRY}/mirror/gcr.io/google-samples/hello-app:1.0",
        "    left unchanged",
        "  (a controller creates this pod, so kubectl shows no warnings)",
        "  Warning: nginx is being copied to ECR; the pod waits in ImagePullBackOff until it arrives",
        "The same pods, later: their copies are in ECR, so nothing is recorded, and there is no warning about a copy.",
    ],
)
def test_it_shows_what_a_user_sees(shown: str, line: str) -> None:
    assert line in shown.splitlines()


def test_each_record_goes_from_requested_to_copied(shown: str) -> None:
    lines = shown.splitlines()
    start = lines.index("Records, one for each image, and their states:") + 1
    printed = lines[start : lines.index("", start)]
    ways = [printed[number : number + 5] for number in range(0, len(printed), 5)]
    assert len({way[0] for way in ways}) == len(ways) == 7
    for source, requested, copying, copied, ended in ways:
        assert requested == "    REQUESTED"
        assert copying.startswith("    COPYING by ImagePullProject:")
        assert copied.startswith("    COPIED as sha256:")
        assert ended == "    the build has ended: it pushed this digest, signatures copied with it: 0"
        if "@" in source:
            assert copied.endswith(source.partition("@")[2])


def test_a_file_that_is_wrong_ends_with_2_and_its_place(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: 5}]}\n")
    result = run(str(file))
    assert result.exit_code == 2
    assert f"{file}: document 1: Pod/a: spec.containers[0].image" in result.stderr


def test_an_image_that_stays_as_written_is_warned_of_and_is_no_failure(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: GCR.io/x}]}\n"
    )
    result = run(str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  Warning: GCR.io/x stays as written: " in result.stdout
    assert "Records" not in result.stdout


def test_more_images_than_the_stream_may_start_at_once_are_all_copied(tmp_path: Path) -> None:
    containers = "".join(f"    - {{name: c{number}, image: 'gcr.io/team/app{number}:1'}}\n" for number in range(40))
    file = tmp_path / "pod.yaml"
    file.write_text(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n{containers}")
    result = run(str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("    REQUESTED\n    COPYING by ") == 40


def test_a_file_without_a_pod_says_so(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    assert run(str(file)).stderr == "No pod found.\n"


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate installation, which the test damages."""
    for name in ("samples", "tests/reviews"):
        shutil.copytree(ROOT / name, tmp_path / "installed" / name)
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path / "installed")
    return tmp_path / "installed"


@pytest.mark.parametrize("name", ["samples", "tests/reviews/create-pod.json"])
def test_a_damaged_installation_is_reported_on_one_line_with_its_remedy(damaged: Path, name: str) -> None:
    (damaged / name).rename(damaged / "elsewhere")
    done = run()
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr == f"Error: this installation does not have the file {name}; install the wheel again\n"


def test_a_file_of_ones_own_needs_no_samples(damaged: Path, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: nginx}]}\n")
    shutil.rmtree(damaged)
    done = run(str(file), str(ROOT / "tests" / "reviews" / "create-pod.json"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert {f"{file}: Pod/a", str(ROOT / "tests" / "reviews" / "create-pod.json")} <= {*done.stdout.splitlines()}


def test_a_damaged_review_of_the_installation_is_named(damaged: Path) -> None:
    (damaged / "tests" / "reviews" / "create-pod.json").write_text('{"kind": "Adm')
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {damaged / 'tests' / 'reviews' / 'create-pod.json'}: ")


@pytest.mark.parametrize(
    ("module", "raised", "said"),
    [
        ("moto", ModuleNotFoundError("no moto", name="moto"), "moto is not installed"),
        ("moto", ImportError("no mock_aws", name="moto"), "moto is too old or damaged"),
    ],
)
def test_without_the_extra_the_remedy_is_to_install_it(
    module: str, raised: ImportError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == module:
            raise raised
        return there(name, *rest, **options)

    for name in ("image_mirror.cli.commands.demo.run", "image_mirror.cli.emulation"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    remedy = "run `pip install './image_mirror-VERSION-py3-none-any.whl[demo]'`, or `make demo` in a checkout"
    assert done.stderr == f"Error: {said}; {remedy}\n"


def test_a_bug_in_an_import_of_the_product_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def broken(name: str, *rest: Any, **options: Any) -> Any:
        if name == "image_mirror.cli.emulation":
            raise ImportError("cannot import name 'x'", name=name)
        return there(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "image_mirror.cli.commands.demo.run", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    assert isinstance(run().exception, ImportError)


def test_pods_without_an_image_to_copy_are_not_said_to_have_copies() -> None:
    done = run(str(ROOT / "samples" / "opted-out.yaml"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("\n\nNo image of these pods is copied.\n")
    assert "Records" not in done.stdout


@pytest.mark.parametrize("removed", [{"object": None, "oldObject": {}}, {"object": {"kind": "Binding"}}])
def test_a_review_without_a_pod_is_no_failure(removed: dict[str, Any], tmp_path: Path) -> None:
    review = json.loads((ROOT / "tests" / "reviews" / "create-pod.json").read_text())
    review["request"] |= {"operation": "DELETE", **removed}
    file = tmp_path / "review.json"
    file.write_text(json.dumps(review))
    done = run(str(file))
    assert (done.exit_code, done.stderr) == (0, "")
    assert str(file) in done.stdout.splitlines()
    assert "->" not in done.stdout


def test_it_needs_no_account_and_leaves_the_environment_alone() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean["POWERTOOLS_METRICS_NAMESPACE"] = "ImageMirror"  # as on a machine where functions are developed
    command = [sys.executable, "-m", "image_mirror.cli", "demo", str(ROOT / "samples" / "nginx-gcr.yaml")]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CloudWatchMetrics" not in done.stdout


def test_the_emulated_table_is_the_template_s() -> None:
    table = sam_template()["Resources"]["ImageListTable"]["Properties"]
    with emulated_aws() as aws:
        described = aws._dynamodb.describe_table(TableName="ImageListTable")["Table"]
    attributes = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
    assert attributes == {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    assert described["KeySchema"] == table["KeySchema"]
    [index] = described["GlobalSecondaryIndexes"]
    assert index["IndexName"] == DUE_INDEX
    assert index["KeySchema"] == table["GlobalSecondaryIndexes"][0]["KeySchema"]
