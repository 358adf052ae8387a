"""`make release` in a clone, then the commands of docs/bundle.md on the emulated AWS, without make, SAM or Python 3.13.

The commands run in a shell with the real AWS CLI and the wheel of the bundle. pip gets no packages from PyPI: the
wheel's dependencies are those of this environment. kubectl's part is in test_webhook_config.py and others.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.harness.artefact import function
from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, cloud, registry
from e2e.harness.processes import free_port, program
from e2e.harness.sam import KEY, Region, Sam, python_program
from e2e.harness.stacks import CHINA
from e2e.harness.traffic import REVIEW, admit, expected_images
from support.templates import ROOT
from tools import bundle

pytest_plugins = ["e2e.harness.deployed"]

PAGE = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
VERSION = bundle.version()
ZIP, WHEEL = f"image-mirror-{VERSION}.zip", f"image_mirror-{VERSION}-py3-none-any.whl"
# What the page says that nobody needs who deploys.
NOT_NEEDED = ("make", "sam", "python3.13")


def commands(title: str) -> str:
    """Return the commands of a section of the page, which are one block."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return str(block)


@dataclass(frozen=True)
class Clone:
    """A clone of the files here, in which all is committed, with a section of the version in its changelog."""

    folder: Path

    @property
    def dist(self) -> Path:
        return self.folder / "dist"

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def release(self) -> "subprocess.CompletedProcess[str]":
        """Run what `make release` runs, with this environment's Python."""
        paths = [str(self.folder / name) for name in ("src", "tests", "")]
        path = f"{python_program().parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, "-m", "tools.release"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    def files(self) -> dict[str, bytes]:
        """Return what is in dist/."""
        return {path.name: path.read_bytes() for path in self.dist.iterdir()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    program("git", "apt-get install git")
    made = Clone(tmp_path_factory.mktemp("clone"))
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, made.folder / name)
    changelog = made.folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    text = re.sub(rf"^## {re.escape(VERSION)} .*$", "## 0.0.1 - 2026-01-01", text, flags=re.MULTILINE)
    changelog.write_text(text.replace("## Unreleased", f"## {VERSION} - 2026-12-01"), encoding="utf-8")
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All")
    return made


@pytest.fixture(scope="module")
def released(clone: Clone) -> Clone:
    done = clone.release()
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


def test_a_release_has_the_bundle_the_wheel_and_their_checksums_and_tags_nothing(released: Clone) -> None:
    done = released.release()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "dist/SHA256SUMS",
        f"dist/{ZIP}",
        f"dist/{WHEEL}",
        "",
        "Nothing is published yet. Next:",
        f"git tag -a v{VERSION} -m 'Release {VERSION}'",
        f"git push origin v{VERSION}",
        f"# then attach the files of dist/ to the release v{VERSION}, with its section of CHANGELOG.md as the text",
    ]
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=released.dist, check=True)
    tags = subprocess.run(["git", "tag"], cwd=released.folder, capture_output=True, check=True)
    assert tags.stdout == b""


def test_the_same_sources_give_the_same_bytes(released: Clone) -> None:
    before = released.files()
    shutil.rmtree(released.dist)
    assert released.release().returncode == 0
    assert {ZIP, WHEEL, "SHA256SUMS"} == before.keys()
    assert released.files() == before


def test_with_a_change_that_is_in_no_commit_nothing_is_built(released: Clone) -> None:
    before, notes = released.files(), released.folder / "notes.txt"
    notes.touch()
    try:
        done = released.release()
    finally:
        notes.unlink()
    assert done.returncode == 1
    assert done.stderr == "Error: the tree is not clean; commit or remove: notes.txt\nNothing was built.\n"
    assert released.files() == before


@dataclass(frozen=True)
class Deployer:
    """Somebody with the zip, the AWS CLI, a Python without the functions' runtime, and an AWS of their own."""

    folder: Path
    endpoint: str

    @property
    def china(self) -> Region:
        return Region(self.endpoint, "cn-northwest-1")

    @property
    def global_region(self) -> Region:
        return Region(self.endpoint, "us-west-2")

    def run(self, script: str, folder: str = "", **known: str) -> str:
        """Run commands of the page in the zip's folder, or below it, with `known` in the place of <NAMES>."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment = outside | {
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": self.endpoint,
            "HOME": str(self.folder),
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]),
            "PYTHONPATH": str(self.folder / "installed"),
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", re.sub(r"<([^<>\n]+)>", lambda found: known[found[1]], script)],
            cwd=self.folder / folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + (self.folder / "cloud.log").read_text()[-4000:]
        return done.stdout


def programs(folder: Path) -> None:
    """Make the programs of somebody who deploys: those that are not needed only say so."""
    program("unzip", "apt-get install unzip")
    installed = '"$HOME/installed"'
    pip = f"{shlex.quote(sys.executable)} -m pip --disable-pip-version-check"
    scripts = {name: f'echo "{name} is called" >&2; exit 1' for name in NOT_NEEDED} | {
        "aws": f'exec {shlex.quote(str(program("aws", "make .venv-aws/.done")))} "$@"',
        "pip": f'exec {pip} "$1" --quiet --no-deps --no-index --target {installed} "${{@:2}}"',
        "image-mirror": f'exec {installed}/bin/image-mirror "$@"',
    }
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def deployer(released: Clone, tmp_path: Path) -> Iterator[Deployer]:
    programs(tmp_path / "bin")
    shutil.copy(released.dist / ZIP, tmp_path)
    port = free_port()
    made = Deployer(tmp_path, f"http://localhost:{port}")
    key = "\n".join(f"{name.lower()} = {value}" for name, value in KEY.items())
    sides = (("china", made.china.name), ("global", made.global_region.name))
    (tmp_path / "config").write_text("".join(f"[profile {side}]\nregion = {name}\n{key}\n" for side, name in sides))
    with cloud(port, tmp_path / "cloud.log"):
        yield made


def physical(region: Region) -> dict[str, str]:
    """Return the name of each resource of China's stack that a user or a record refers to."""
    found = region.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    kinds = ("AWS::ApiGatewayV2::Api", "AWS::DynamoDB::Table", "AWS::IAM::User", "AWS::Lambda::Function")
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found if each["ResourceType"] in kinds}


def test_the_page_s_commands_deploy_a_bundle_and_a_pod_gets_its_copies(deployer: Deployer, tmp_path: Path) -> None:
    deployer.run(commands("Unpack and check"))
    unpacked = f"image-mirror-{VERSION}"
    deployer.run(commands("China: the webhook, the table, the reconciler"), unpacked)
    outputs = deployer.china.outputs(STACK)
    assert outputs["CopiesPrefix"] == f"{registry(deployer.china)}/mirror/"

    deployer.run(commands("Global: the project that copies"), unpacked, **{"account in China": CHINA.account})
    # doctor ends with 1, because the emulated AWS lacks some of what it checks.
    script = commands("Connect the accounts").replace("image-mirror doctor", "! image-mirror doctor --output json")
    said = deployer.run(script, unpacked)
    assert deployer.run("image-mirror --version") == f"image-mirror {VERSION}\n"
    states = {each["topic"]: each["state"] for each in json.loads(said[said.index("[\n") :])}
    assert {states[topic] for topic in ("table", "stream mapping")} == {"ok"}
    assert "ImagePullProject" in deployer.global_region.outputs(GLOBAL_STACK)["ProjectName"]

    [route] = [each["RouteKey"] for each in deployer.china.routes() if each["RouteKey"].count("/") == 1]
    code = tmp_path / "code"
    deployer.china.unpack(STACK, "ApiFunction", code)
    configuration = deployer.china.function(STACK, "ApiFunction")
    with function(python_program(), code, configuration, deployer.china, tmp_path / "webhook.log") as webhook:
        assert admit(webhook, route, REVIEW) == expected_images(deployer.china)
    assert {item["status"]["S"] for item in deployer.china.items()} == {"REQUESTED"}


def test_a_stack_of_sam_is_updated_from_a_bundle_and_keeps_its_resources_and_parameters(
    deployer: Deployer, built: Checkout
) -> None:
    own = Checkout(built.folder, Sam(built.folder, deployer.endpoint, built.python), deployer.endpoint, built.python)
    own.deploy_china(deployer.china.name)
    before, url = physical(deployer.china), deployer.china.outputs(STACK)["APIGatewayURL"]

    deployer.run(commands("Unpack and check"))
    # Without `aws s3 mb`, TOKEN and --parameter-overrides, as the page says; here nothing has made the bucket before.
    script = commands("China: the webhook, the table, the reconciler")
    script = script.replace("TOKEN=$(openssl rand -hex 24)\n", "").replace(
        ' --parameter-overrides WebhookToken="$TOKEN"', ""
    )
    assert "TOKEN" not in script
    deployer.run(script, f"image-mirror-{VERSION}")
    assert physical(deployer.china) == before
    assert len(before) >= 4
    assert deployer.china.outputs(STACK)["APIGatewayURL"] == url
    codes = [deployer.china.code(STACK, name) for name in ("ApiFunction", "ReconcilerFunction")]
    assert codes[0] == codes[1], "it is uploaded once"
    assert codes[0]["S3Bucket"] == f"image-mirror-{CHINA.account}-cn-northwest-1"
