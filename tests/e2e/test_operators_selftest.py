"""`image-mirror selftest` through all parts: gateway, webhook, table, stream, reconciler, real builds, registry."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from e2e.fakes.adapter import gateway
from e2e.harness.build import check_programs
from e2e.harness.circle import TABLE, TWO_LANES, Circle, whole_circle
from e2e.harness.principals import CASES, FEDERATED, china, globally
from e2e.harness.simulated import principals, simulated
from e2e.harness.source_images import oci_index
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.stage import TOKEN, routes
from e2e.harness.stage import answer as admitted
from image_mirror.cli import app, waiting
from image_mirror.cli.commands.selftest import copies, removal
from image_mirror.cli.output import current_time
from image_mirror.record import Record, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import Records
from support.buildspec_runner import Run
from support.operators import PROFILES, Operated
from support.operators import refuse as refuse

OPERATOR = "AKIAGLOBALEXAMPLE000"
OUTPUTS = (
    *("ReconcilerRoleArn", "WebhookRoleArn", "PushRoleArn", "ImagePushUserName", "ImageListTableName", "GlobalSecret"),
    "WebhookLogGroup",
)
WORLD_OUTPUTS = ("BuildRoleArn", "StartRoleArn", "ImagePullUserName", "GlobalRegion", "ProjectName", "FastProjectName")


@dataclass
class Whole:
    """All parts, which work in a thread of their own while the command runs."""

    circle: Circle
    done: threading.Event = field(default_factory=threading.Event)
    before_turn: Callable[[], None] = lambda: None
    errors: list[BaseException] = field(default_factory=list)

    def selftest(self, *arguments: str) -> Result:
        self.done.clear()
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            return CliRunner().invoke(app, ["selftest", "--yes", "--output", "json", *arguments])
        finally:
            self.done.set()
            thread.join(60)
            assert self.errors == []

    def rows(self, *arguments: str) -> tuple[int, dict[tuple[str, str | None], Any]]:
        """Run it, and return its exit code and its results by check and lane; permissions have several."""
        result = self.selftest(*arguments)
        assert TOKEN not in result.output
        return result.exit_code, {(row["check"], row["lane"]): row for row in printed(result)}

    def _work(self) -> None:
        while not self.done.is_set():
            time.sleep(0.2)  # what happens meanwhile is seen by the next turn
            try:
                self.before_turn()
                self.circle.turn()
                self._make_due()
                self.circle.schedule()
            except BaseException as error:  # noqa: BLE001 - the test asserts that there is none
                self.errors.append(error)
                return

    def _make_due(self) -> None:
        """Let the schedule look at ended builds at once, not a minute later."""
        records = Records(self.circle.dynamodb, TABLE)
        for record in self.circle.records():
            build = record.open_build or (record.build_id if record.status is Status.COPYING else None)
            if build and self.circle.builds.builds[build]["buildStatus"] != "IN_PROGRESS":
                records.replace(record, replace(record, due_at=current_time()))

    def running(self) -> list[str]:
        return [name for name, each in self.circle.builds.builds.items() if each["buildStatus"] == "IN_PROGRESS"]

    def repositories(self) -> dict[str, list[str]]:
        """The repositories in ECR, with their tags."""
        ecr = self.circle.ecr
        names = [each["repositoryName"] for each in ecr.describe_repositories()["repositories"]]
        images = {name: ecr.describe_images(repositoryName=name)["imageDetails"] for name in names}
        return {
            name: sorted(tag for each in found for tag in each.get("imageTags", ())) for name, found in images.items()
        }


def printed(result: Result) -> list[Any]:
    """Return what the command printed as JSON. The functions, in the same process, print their metrics as lines."""
    lines = [line for line in result.stdout.splitlines() if not line.startswith('{"_aws"')]
    assert lines, result.output
    rows: list[Any] = json.loads("\n".join(lines))
    return rows


@pytest.fixture
def whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    answer: Callable[..., None],
) -> Iterator[Whole]:
    """Both stacks in one of CASES, with the default images in the source registry."""
    check_programs()
    case = request.param
    in_china, world = china(case), globally(case)
    folder = tmp_path / "gateway"
    folder.mkdir()
    config = tmp_path / "config"
    config.write_text(PROFILES)
    with ExitStack() as stack:
        circle = stack.enter_context(whole_circle(tmp_path, case, operator=OPERATOR))
        gate = stack.enter_context(gateway(folder, routes(), admitted))
        for tag in ("3.1", "3.2"):
            circle.source.push("registry.k8s.io/pause", tag, oci_index(f"pause {tag}"))
        for module, name in ((waiting, "_SHORTEST"), (copies, "_PAUSE"), (copies, "LANE_FREE")):
            monkeypatch.setattr(module, name, 0.2)
        for name in ("_PAUSE", "IN_FLIGHT"):
            monkeypatch.setattr(removal, name, 0.2)
        outputs = in_china.outputs(*OUTPUTS) | {
            "APIGatewayURL": f"{gate.url}/{TOKEN}",
            "CopiesPrefix": f"{circle.target.host}/mirror/",
            "SwapWhenRoutes": "always, copied, paused",
        }
        operated = Operated()
        given = CASES[case]
        operated.deploy("sam-template.yaml", CHINA.region, "image-mirror", outputs, WebhookToken=TOKEN, **given)
        parameters = {name: world._values[name] for name in world.template["Parameters"]}
        operated.deploy(
            "image-pulling.yaml", GLOBAL.region, "image-pulling", world.outputs(*WORLD_OUTPUTS), **parameters
        )
        policies = principals(in_china, world)
        host, ecr = circle.target.host, in_china.environment()["ECR_REGISTRY"]

        def simulate(asked: dict[str, str]) -> dict[str, Any]:
            return simulated(policies, {name: value.replace(f"{host}/", f"{ecr}/") for name, value in asked.items()})

        answer("iam", "SimulatePrincipalPolicy", simulate)
        for name, value in {
            "AWS_CONFIG_FILE": str(config),
            "IMAGE_MIRROR_CHINA_PROFILE": "china",
            "IMAGE_MIRROR_GLOBAL_PROFILE": "global",
            "SSL_CERT_FILE": str(folder / "gateway.pem"),
        }.items():
            monkeypatch.setenv(name, value)
        yield Whole(circle)


CHECKS = ["webhook", "permissions", "copy", "missing image", "build", "removal"]
REPOSITORY = "mirror/registry.k8s.io/pause"


def of_somebody(circle: Circle) -> Record:
    """Put a copy with its record into the repository of the default images, as pods had it before."""
    source = parse_reference("registry.k8s.io/pause:3.9")
    destination = destination_of(source, circle.target.host, "mirror")
    circle.ecr.create_repository(repositoryName=REPOSITORY)
    manifest = json.dumps({"schemaVersion": 2, "of": "somebody"})
    pushed = circle.ecr.put_image(
        repositoryName=REPOSITORY,
        imageManifest=manifest,
        imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
        imageTag="3.9",
    )
    record = replace(
        new_record(destination, source, current_time()),
        status=Status.COPIED,
        digest=pushed["image"]["imageId"]["imageDigest"],
        due_at=current_time() + 3_600_000,
    )
    return Records(circle.dynamodb, TABLE).create(record)


def assert_all_passed(whole: Whole, lanes: list[str]) -> None:
    """Run it with the default images: each check passes, and each phase has its time."""
    code, rows = whole.rows()
    assert [row for row in rows.values() if row["state"] != "ok"] == []
    assert code == 0
    assert list(dict.fromkeys(check for check, _ in rows)) == CHECKS
    for check in ("copy", "missing image"):
        assert [lane for name, lane in rows if name == check] == lanes
    for lane in lanes:
        seconds = rows["copy", lane]["seconds"]
        by_review = {"admission"} if lane == lanes[0] else set()
        assert seconds.keys() == {"start", "queue", "copying", "arrival", "total", *by_review}
        assert rows["missing image", lane]["seconds"].keys() == {"start", "queue", "copying", *by_review}
    assert rows["webhook", None]["seconds"].keys() == {"first", "median"}


@pytest.mark.parametrize("whole", [TWO_LANES], indirect=True)
def test_ctrl_c_removes_all_that_was_made_and_then_all_checks_pass_in_both_lanes(whole: Whole) -> None:
    circle, ended = whole.circle, threading.Event()
    theirs, projects = of_somebody(circle), circle.builds.projects

    def held(*_: str, **__: str) -> Run:
        ended.wait(60)
        return Run(None, 0, {"COPY_RESULT": "COPIED"}, "", ())

    def press() -> None:
        if len(whole.running()) == 2 and sum(each.status is Status.COPYING for each in circle.records()) == 2:
            whole.before_turn = lambda: None
            os.kill(os.getpid(), signal.SIGINT)

    circle.builds.projects = {name: replace(each, run=held) for name, each in projects.items()}
    whole.before_turn = press
    result = whole.selftest("--image", "registry.k8s.io/pause:a", "--image", "gcr.io/other/image:1")
    ended.set()
    assert result.exit_code == 130, result.output
    assert "Interrupted. What was made is removed now" in result.stderr
    [*_, removed] = printed(result)
    assert (removed["check"], removed["state"]) == ("removal", "ok")
    assert [each["buildStatus"] for each in circle.builds.builds.values()] == ["STOPPED"] * 2
    assert (circle.records(), whole.repositories()) == ([theirs], {REPOSITORY: ["3.9"]})

    circle.builds.projects = projects
    circle.builds.builds.clear()
    assert_all_passed(whole, ["fast", "main"])
    assert [len(circle.builds.of(name)) for name in projects] == [2, 2]
    assert (circle.records(), whole.running()) == ([theirs], [])
    assert whole.repositories() == {REPOSITORY: ["3.9"]}
    assert circle.refused() == []


@pytest.mark.parametrize("whole", [FEDERATED], indirect=True)
def test_without_keys_all_checks_pass_and_a_missing_image_with_another_reason_fails(whole: Whole) -> None:
    circle = whole.circle
    assert_all_passed(whole, ["main"])
    assert (circle.records(), whole.running(), whole.repositories()) == ([], [], {})
    assert circle.refused() == []

    copies_one = circle.builds.projects["ImagePullProject"].run

    def denied(image: str, destination: str, **variables: str) -> Run:
        if image.endswith(":none"):
            return Run("copy", 43, {"COPY_RESULT": "DENIED", "COPY_REASON": "a login is needed"}, "", ())
        return copies_one(image, destination, **variables)

    circle.builds.projects = {name: replace(each, run=denied) for name, each in circle.builds.projects.items()}
    code, rows = whole.rows("--image", "registry.k8s.io/pause:3.1", "--missing", "gcr.io/private/image:none")
    assert code == 1
    failed = {key: row["found"] for key, row in rows.items() if row["state"] != "ok"}
    assert failed == {
        ("missing image", "main"): "gcr.io/private/image:none: its first build should say NOT_FOUND, and says: "
        "DENIED: a login is needed"
    }
    assert (circle.records(), whole.running(), whole.repositories()) == ([], [], {})
