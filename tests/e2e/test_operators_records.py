"""`image-mirror status`, `retry`, `forget` and `prune` as programs, with the deployed stacks and a real cluster."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from e2e.fakes.dynamodb_local import create_table, dynamodb_local
from e2e.fakes.event_source_mapping import EventSourceMapping
from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.control_plane import Cluster
from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout
from e2e.harness.pods import COPIES, images, pod
from e2e.harness.processes import wait_for
from e2e.harness.sam import Json, Region
from e2e.harness.stage import emptied
from image_mirror.lifecycle import started
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import MINUTE, Record, Status
from image_mirror.table import Records
from support.recorded import DIGEST, record, write
from support.templates import ROOT

pytest_plugins = ["e2e.harness.deployed"]

MANY = 5_000
TABLE = "ImageListTable"
# The emulated ECR has no pull times, and all its images are new, so the command's clock is forty days ahead.
_LATER = "import time; now = time.time; time.time = lambda: now() + 40 * 86_400"
# Counts the command's calls of AWS and its writes of output, and writes the counts into the file that COUNTS names.
_COUNTED = """
import atexit, collections, json, os, pathlib, sys
from botocore.endpoint import Endpoint
counts = collections.Counter()
make_request, flush = Endpoint.make_request, sys.stdout.flush
def counted(self, operation, request):
    counts[operation.name] += 1
    return make_request(self, operation, request)
def flushed():
    counts["flush"] += 1
    flush()
Endpoint.make_request, sys.stdout.flush = counted, flushed
atexit.register(lambda: pathlib.Path(os.environ["COUNTS"]).write_text(json.dumps(counts)))
"""
_CONFIG = """\
[profile china]
region = cn-northwest-1
aws_access_key_id = testing
aws_secret_access_key = testing
[profile global]
region = us-west-2
aws_access_key_id = testing
aws_secret_access_key = testing
"""


@dataclass(frozen=True)
class Operator:
    """An operator with both profiles, who runs `image-mirror` in a checkout."""

    folder: Path
    environment: Mapping[str, str]

    @contextmanager
    def started(self, *arguments: object, after: str = "", **more: Any) -> Iterator[subprocess.Popen[str]]:
        """Run the program while the context is active, after the Python code `after`."""
        program = ["-c", f"{after}\nfrom image_mirror.cli import app; app()"] if after else ["-m", "image_mirror.cli"]
        command = [sys.executable, *program, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *arguments: object, after: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        with self.started(*arguments, after=after) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def operator(checkout: Checkout, china: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    assert china.outputs(STACK)["ImageListTableName"] == TABLE
    config = tmp_path / "config"
    config.write_text(_CONFIG)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    environment = {
        **os.environ,
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": checkout.endpoint,
        "PYTHONPATH": str(ROOT / "src"),
        "IMAGE_MIRROR_CHINA_PROFILE": "china",
        "IMAGE_MIRROR_GLOBAL_PROFILE": "global",
    }
    return Operator(checkout.folder, environment)


@pytest.fixture
def records(china: Region) -> Iterator[Records]:
    """The stack's table; it is emptied at the end."""
    dynamodb = china.client("dynamodb")
    yield Records(dynamodb, TABLE)
    keys = [{"repo": item["repo"], "tag": item["tag"]} for item in china.items()]
    for start in range(0, len(keys), 25):
        requests = [{"DeleteRequest": {"Key": key}} for key in keys[start : start + 25]]
        dynamodb.batch_write_item(RequestItems={TABLE: requests})


def statuses(records: Records) -> dict[Status | None, int]:
    found: dict[Status | None, int] = {}
    for each in (each for page in records.pages() for each in page):
        found[each.status] = found.get(each.status, 0) + 1
    return found


@dataclass(frozen=True)
class Local:
    """The table in DynamoDB Local, which is fast and has a stream, and an operator who uses it."""

    operator: Operator
    records: Records
    client: Any
    streams: Any
    stream: str


@pytest.fixture
def local(operator: Operator, tmp_path: Path) -> Iterator[Local]:
    key = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "cn-northwest-1"}
    with dynamodb_local(tmp_path) as url:
        make: Any = boto3.client
        dynamodb, streams = (make(name, endpoint_url=url, **key) for name in ("dynamodb", "dynamodbstreams"))
        stream = create_table(dynamodb, TABLE)
        there = replace(operator, environment={**operator.environment, "AWS_ENDPOINT_URL_DYNAMODB": url})
        yield Local(there, Records(dynamodb, TABLE), dynamodb, streams, stream)


def test_five_thousand_records_are_shown_and_ctrl_c_ends_a_retry_of_them(local: Local, tmp_path: Path) -> None:
    half = MANY // 2
    write(
        local.client,
        (
            record(
                f"gcr.io/project-{number}/{'component/' * (number % 9)}image:1",
                Status.FAILED if number % 2 else Status.COPIED,
                hours=number % 1_000 + 1,
            )
            for number in range(MANY)
        ),
    )
    there = {**local.operator.environment, "COUNTS": str(tmp_path / "counts.json")}
    shown = replace(local.operator, environment=there).run("status", after=_COUNTED)
    # The table is read once, in pages of 1 MB, and all lines are written in one call.
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts == {"DescribeStacks": 1, "Scan": sum(1 for _ in local.records.pages()), "flush": 1}
    assert 1 < counts["Scan"] < 10
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 1 + MANY)
    assert shown.stderr == "5,000 records: 2,500 FAILED, 2,500 COPIED\n"
    some = local.operator.run("status", "--output", "json", "--state", "FAILED", "gcr.io/project-1?/*")
    assert {row["image"].split("/")[1] for row in json.loads(some.stdout)} == {f"project-{n}" for n in range(11, 20, 2)}

    with local.operator.started("retry", "--failed") as first:
        wait_for(lambda: statuses(local.records).get(Status.REQUESTED, 0) > 50, "the first are asked for again", 60)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    done = statuses(local.records)[Status.REQUESTED]
    assert first.returncode == 130
    assert len(out.splitlines()) == done < half
    assert err == f"Ended early: {half - done:,} of 2,500 images are unchanged.\n"
    rest = local.operator.run("retry", "--failed")
    assert (rest.returncode, len(rest.stdout.splitlines())) == (0, half - done)
    assert statuses(local.records) == {Status.COPIED: half, Status.REQUESTED: half}


def test_one_image_is_shown_with_its_build_in_the_global_account(
    operator: Operator, records: Records, global_region: Region
) -> None:
    project = global_region.outputs(GLOBAL_STACK)["ProjectName"]
    build = global_region.client("codebuild").start_build(projectName=project)["build"]["id"]
    records.create(record("gcr.io/x:1", Status.FAILED, build_id=build))
    shown = operator.run("status", "gcr.io/x:1")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^state +FAILED$", shown.stdout, re.MULTILINE)
    assert f"\n{build}: " in shown.stdout
    assert re.search(r"^  BUILD +SUCCEEDED", shown.stdout, re.MULTILINE)


def test_watching_ends_by_ctrl_c_without_a_trace(operator: Operator, records: Records) -> None:
    records.create(record("gcr.io/x:1", Status.COPYING))
    with operator.started("status", "--watch") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert "gcr.io/x:1" in lines[1]
        records.create(record("gcr.io/y:1", Status.REQUESTED))
        assert process.stdout.readline().split()[1:] == ["REQUESTED", "gcr.io/y:1"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    first, *progress = err.splitlines()
    assert first == "1 record: 1 COPYING"
    assert progress[-1].startswith("2 requested: ")


def test_fifty_images_at_once_are_watched_from_their_requests_to_their_copies(local: Local) -> None:
    running: set[str] = set()

    def codebuild(request: Request) -> Answer:
        assert request.headers["x-amz-target"].endswith(".BatchGetBuilds")
        ids = json.loads(request.body)["ids"]
        builds = [
            {"id": each, "buildStatus": "IN_PROGRESS", "currentPhase": "BUILD" if each in running else "QUEUED"}
            for each in ids
        ]
        return Answer(200, json.dumps({"builds": builds}).encode())

    def step(changed: list[Record]) -> None:
        """Write the next state of some records, and wait until both watchers have told all of them."""
        write(local.client, changed)
        for watcher, name in ((lines, "line"), (rows, "row")):
            told = [watcher.stdout.readline() for _ in changed if watcher.stdout]
            assert all(told), f"a {name} is missing"

    at = int(time.time() * 1000)
    asked = [record(f"gcr.io/project/app-{n}:1", Status.REQUESTED, at=at - 5 * MINUTE, hours=0) for n in range(50)]
    write(local.client, [replace(each, updated_at=each.requested_at, due_at=at) for each in asked])
    often = "import image_mirror.cli.commands.status.watch as watch; watch._EVERY = 0.2"
    with serving(codebuild) as port:
        there = {**local.operator.environment, "AWS_ENDPOINT_URL_CODEBUILD": f"http://localhost:{port}"}
        operator = replace(local.operator, environment=there)
        with (
            operator.started("status", "-w", after=often) as lines,
            operator.started("status", "-w", "-o", "json", after=often) as rows,
        ):
            assert lines.stdout is not None
            assert rows.stdout is not None
            assert lines.stdout.readline().split()[:5] == ["STATE", "TRY", "NEXT", "AGE", "IMAGE"]
            assert all(lines.stdout.readline().startswith("REQUESTED") for _ in asked)
            assert all(json.loads(rows.stdout.readline())["state"] == "REQUESTED" for _ in asked)
            copying = [started(each, f"ImagePullProject:{number}", at) for number, each in enumerate(asked)]
            running |= {f"ImagePullProject:{number}" for number in range(5)}
            step(copying[:8])
            arrived = [
                replace(each, status=Status.COPIED, digest=DIGEST, updated_at=at - number * MINUTE // 5)
                for number, each in enumerate(copying)
            ]
            step(arrived[:8])
            failed = replace(asked[49], status=Status.FAILED, attempts=5, error="NOT_FOUND: manifest unknown")
            step([failed])
            step(arrived[8:49])
            for watcher in (lines, rows):
                watcher.send_signal(signal.SIGINT)
            out, err = lines.communicate(timeout=60)
            assert (lines.returncode, out) == (130, "")
            assert rows.communicate(timeout=60) == ("", "")
            assert rows.returncode == 130
    assert err.startswith("50 records: 50 REQUESTED\n50 requested: 50 waiting\n")
    assert "\n50 requested: 5 running, 3 queued, 42 waiting\n" in err
    assert re.search(r"\n50 requested: 8 copied, 1 failed, 41 waiting; \d+\.\d a minute, about \d+ minutes left\n", err)
    ended = operator.run("status", "--exit-code")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].endswith("gcr.io/project/app-49:1  NOT_FOUND: manifest unknown")
    assert ended.stderr == "50 records: 1 FAILED, 49 COPIED\n"


def test_a_terminal_is_drawn_again_and_restored_at_the_end(operator: Operator, records: Records) -> None:
    records.create(record("gcr.io/x:1", Status.FAILED))
    reader, writer = pty.openpty()
    text = ""
    with operator.started("status", "--watch", stdout=writer, stderr=writer) as process:
        os.close(writer)
        while "gcr.io/x:1" not in text:
            text += os.read(reader, 10_000).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        with suppress(OSError):  # the terminal raises it when its last program has ended
            while True:
                text += os.read(reader, 10_000).decode()
    os.close(reader)
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
    assert "Traceback" not in text


def test_a_retry_has_the_stream_call_the_reconciler(local: Local, china: Region) -> None:
    seen: list[Json] = []

    def function(event: Json) -> Json:
        seen.extend(event["Records"])
        return {"batchItemFailures": []}

    ecr = china.client("ecr")
    ecr.create_repository(repositoryName="mirror/gcr.io/there")
    there = record("gcr.io/there:1", digest=_push(ecr, "mirror/gcr.io/there", "there"))
    waiting = record("gcr.io/waiting:1", Status.REQUESTED, attempts=2)
    for each in (record("gcr.io/failed:1", Status.FAILED), waiting, there, record("gcr.io/lost:1")):
        local.records.create(each)
    mapping = EventSourceMapping(local.streams, local.stream, function)
    assert mapping.poll() == 1, "the waiting one keeps the time of its request"
    seen.clear()
    done = local.operator.run("retry", "gcr.io/failed:1", "gcr.io/waiting:1", "gcr.io/there:1")
    assert done.returncode == 0, done.stderr
    assert mapping.poll() == 2
    assert [each["eventName"] for each in seen] == ["MODIFY", "MODIFY"]
    verified = local.operator.run("status", "--verify")
    assert verified.returncode == 1
    assert [line.split() for line in verified.stdout.splitlines()[1:]] == [
        ["held", "gcr.io/there:1"],
        ["gone", "gcr.io/lost:1"],
    ]
    assert local.operator.run("retry", "--gone").stdout == "gcr.io/lost:1: requested again: ECR no longer holds it\n"
    assert mapping.poll() == 1
    assert local.operator.run("forget", "gcr.io/there:1").stdout == "gcr.io/there:1: forgotten\n"
    assert local.operator.run("retry", "gcr.io/there:1").returncode == 1
    assert mapping.poll() == 0, "forget requests no copy"
    ecr.delete_repository(repositoryName="mirror/gcr.io/there", force=True)


NAMES = ("tag", "digest", "source", "annotated", "init", "debug", "volume", "deployed", "ended", "unused")


@pytest.fixture
def copies(records: Records, china: Region) -> Iterator[dict[str, Record]]:
    """Copies with their records: by name, the copy of gcr.io/NAME:1."""
    ecr = china.client("ecr")
    made: dict[str, Record] = {}
    for name in NAMES:
        ecr.create_repository(repositoryName=f"mirror/gcr.io/{name}")
        digest = _push(ecr, f"mirror/gcr.io/{name}", name)
        made[name] = record(f"gcr.io/{name}:1", digest=digest)
        records.create(made[name])
    yield made
    for name in NAMES:
        ecr.delete_repository(repositoryName=f"mirror/gcr.io/{name}", force=True)


def _push(ecr: Any, repository: str, content: str) -> str:
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"size": 7_000_000},
        "layers": [{"digest": content}],
    }
    answer = ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag="1")
    digest: str = answer["image"]["imageId"]["imageDigest"]
    return digest


def repositories_in(china: Region) -> set[str]:
    ecr = china.client("ecr")
    return {name for name in NAMES if ecr.describe_images(repositoryName=f"mirror/gcr.io/{name}")["imageDetails"]}


def recorded(records: Records) -> set[str]:
    return {each.source.removeprefix("gcr.io/").removesuffix(":1") for page in records.pages() for each in page}


def test_what_a_real_cluster_runs_is_never_removed(
    operator: Operator, records: Records, copies: dict[str, Record], china: Region, cluster: Cluster
) -> None:
    program, _, kubeconfig = cluster._command
    path = f"{Path(program).parent}{os.pathsep}{operator.environment['PATH']}"
    there = replace(operator, environment={**operator.environment, "PATH": path})
    annotated = pod("annotated", "example.com/moved:1")
    annotated["metadata"]["annotations"] = {ORIGINALS: json.dumps({"containers/c0": "gcr.io/annotated:1"})}
    inner = pod(
        "inner", f"{COPIES}/gcr.io/tag:1", f"{COPIES}/gcr.io/digest@{copies['digest'].digest}", "gcr.io/source:1"
    )
    inner["spec"]["initContainers"] = [{"name": "i", "image": "gcr.io/init:1"}]
    inner["spec"]["volumes"] = [{"name": "v", "image": {"reference": "gcr.io/volume:1"}}]
    template = {"metadata": {"labels": {"app": "d"}}, "spec": pod("d", f"{COPIES}/gcr.io/deployed:1")["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template},
    }
    with emptied(cluster):
        for each in (annotated, inner, deployment, pod("ended", f"{COPIES}/gcr.io/ended:1")):
            cluster.apply(each)
        ended = json.dumps({"status": {"phase": "Succeeded"}})
        cluster.kubectl("patch", "pod", "ended", "--subresource=status", "--type=merge", "-p", ended)
        debugger = {"spec": {"ephemeralContainers": [{"name": "e", "image": "gcr.io/debug:1"}]}}
        cluster.kubectl("patch", "pod", "inner", "--subresource=ephemeralcontainers", "-p", json.dumps(debugger))
        assert images(cluster.get("pod", "inner"))["e"] == "gcr.io/debug:1"
        wait_for(lambda: cluster.get("pods", "-l", "app=d")["items"], "the deployment has its pod")

        shown = there.run("prune", "--unused-days", 30, "--kubeconfig", kubeconfig, "--output", "json", after=_LATER)
        assert shown.returncode == 0, shown.stderr
        rows = json.loads(shown.stdout)
        # Images of other tests in this ECR have no record.
        assert {row["image"] for row in rows} - {None} == {"gcr.io/ended:1", "gcr.io/unused:1"}
        assert f"3 pods run in the cluster ({kubeconfig})." in shown.stderr
        assert "Kept although nobody has pulled them: 8 that a cluster runs." in shown.stderr

        began = time.monotonic()
        done = there.run("prune", "--unused-days", 30, "--kubeconfig", kubeconfig, "--yes", after=_LATER)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began > 125, "prune waits longer than the webhook's cache lasts"
    removed = [row for row in rows if row["digest"]]
    assert f"Removed {len(removed)} copies of {sum(row['bytes'] for row in removed) / 1e6:.1f} MB" in done.stderr
    if empty := len(rows) - len(removed):  # other tests in this ECR have left them
        assert f" and {empty} empty repositor" in done.stderr
    assert repositories_in(china) == recorded(records) == set(NAMES) - {"ended", "unused"}


def test_ctrl_c_while_prune_waits_puts_every_record_back(
    operator: Operator, records: Records, copies: dict[str, Record], china: Region
) -> None:
    with operator.started("prune", "--unused-days", 30, "--no-cluster", "--yes", after=_LATER) as process:
        wait_for(lambda: not recorded(records), "the records are removed", 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    ours = [line for line in out.splitlines() if line.startswith("gcr.io/")]
    assert len(ours) == len(NAMES)
    assert all("kept: the command has ended early" in line for line in ours)
    assert "Traceback" not in err
    after = {each.source: each for page in records.pages() for each in page}
    assert {replace(each, due_at=0) for each in after.values()} == {replace(each, due_at=0) for each in copies.values()}
    assert repositories_in(china) == set(NAMES)


@pytest.mark.parametrize(
    "command", [["status"], ["retry", "--failed"], ["forget", "*"], ["prune", "--unused-days", "9"]]
)
def test_no_network_is_reported_on_one_line(command: list[str], operator: Operator) -> None:
    away = replace(operator, environment={**operator.environment, "AWS_ENDPOINT_URL": "http://localhost:1"})
    done = away.run(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert "check the network" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
