"""The recipes of docs/operation.md for what is lost, followed on the emulated AWS with the commands of the page.

The page's blocks run in a shell, with the AWS CLI, the SAM CLI and `image-mirror`. A stub answers for kubectl. moto
makes no backup of a table that is deleted, so the test makes it before. A lost region is one whose stack nobody uses
any more: the commands and the functions only get the other region.
"""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import jsonpatch
import pytest

from e2e.harness.artefact import Function
from e2e.harness.deployment import STACK, Checkout, cloud
from e2e.harness.processes import free_port, program
from e2e.harness.sam import KEY, Json, Region, Sam, sam_program
from e2e.harness.stacks import CHINA
from e2e.harness.traffic import COPIES, REVIEW, builds, ecr_event, expected_images, stream_batch
from image_mirror.cli.emulation import http_event
from image_mirror.table import STATE_REPO, Records
from support.reviews_data import DIGEST, images_of
from support.slots import run_twenty_builds
from support.templates import ROOT

pytest_plugins = ["e2e.harness.deployed"]

PAGE = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8")
TABLE, OTHER_TABLE = "ImageListTable", "ImageListTable2"
# Nobody can push an image whose digest is that of the captured pod.
DIGEST_NAMED, TAG_NAMED = f"@{DIGEST}", ":latest"
POD_REVIEW: Json = json.loads(json.dumps(REVIEW).replace(DIGEST_NAMED, TAG_NAMED))
DUE = {"source": "aws.events"}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": DIGEST},
    "layers": [],
}
DEPLOY_GLOBAL = (
    "aws cloudformation deploy --profile global --stack-name image-pulling --template-file image-pulling.yaml "
    f"--capabilities CAPABILITY_IAM --parameter-overrides Region=cn-northwest-1 ChinaAccountId={CHINA.account}"
)
CHECK = "image-mirror doctor --china-profile china --global-profile global"
FINE, LATE = {"table": "ok", "stream mapping": "ok"}, {"table": "failed", "stream mapping": "failed"}


def recipe(title: str) -> list[str]:
    """Return the commands of a section, block by block."""
    section = PAGE.partition(f"\n### {title}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    found = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    assert found, title
    return found


@dataclass(frozen=True)
class Operator:
    """Both stacks in an AWS of their own, and an operator's shell in the checkout."""

    checkout: Checkout
    china: Region
    global_region: Region
    folder: Path

    def start(self, commands: str, arn: str) -> "subprocess.Popen[str]":
        """Start commands of the page, with what the operator knows in the place of <NAMES>.

        doctor may end with 1, because the emulated AWS lacks some of what it checks.
        """
        known = self.china.outputs(STACK) | {"account in China": CHINA.account, "its ARN": arn}
        commands = re.sub(r"^(image-mirror doctor .*)$", r"\1 || true", commands, flags=re.MULTILINE)
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment = outside | {
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": self.checkout.endpoint,
            "HOME": str(self.folder),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "SAM_CLI_POLL_DELAY": "0.2",
            "SAM_CLI_TELEMETRY": "0",
        }
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", re.sub(r"<([^<>\n]+)>", lambda found: known[found[1]], commands)],
            cwd=self.checkout.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, commands: str, arn: str = "", meanwhile: Callable[[], None] = lambda: None) -> str:
        """Run commands of the page, call `meanwhile` again and again, and return what they printed."""
        process = self.start(commands, arn)
        answer: str | None = "y\n"  # to SAM's question whether to deploy
        deadline = time.monotonic() + 300
        while True:
            try:
                said, _ = process.communicate(answer, timeout=1)
                break
            except subprocess.TimeoutExpired:
                answer = None
                if time.monotonic() > deadline:
                    process.kill()
                    pytest.fail(f"not within five minutes: {commands}")
                meanwhile()
        assert process.returncode == 0, said + (self.folder / "cloud.log").read_text()[-4000:]
        return said

    def doctor(self) -> dict[str, str]:
        """Return what doctor says about the table and the mapping that reads its stream."""
        said = self.run(f"{CHECK} --output json")
        return {each["topic"]: each["state"] for each in json.loads(said) if each["topic"] in FINE}

    def items(self, table: str = TABLE) -> list[Json]:
        """Return the items of a table's records."""
        found: list[Json] = self.china.client("dynamodb").scan(TableName=table)["Items"]
        return [item for item in found if item["repo"]["S"] != STATE_REPO]

    def states(self, table: str = TABLE) -> list[str]:
        return sorted(item["status"]["S"] for item in self.items(table))

    def send(self, tries: int = 1) -> Json:
        """Send a pod to the deployed webhook, again after a 503 with Retry-After, and return the last answer."""
        keys = [route["RouteKey"] for route in self.china.routes()]
        [route] = [key for key in keys if key.count("/") == 1]
        event = http_event(POD_REVIEW) | {"routeKey": route, "rawPath": route.removeprefix("POST ")}
        with self.checkout.start(self.china, "ApiFunction") as webhook:
            answer = webhook(event)
            while answer["statusCode"] == 503 and (tries := tries - 1):
                time.sleep(int(answer["headers"]["Retry-After"]))
                answer = webhook(event)
        return answer

    def admit(self) -> Json:
        """Send a pod to the deployed webhook, which requests its copies, and return the pod as it is then stored."""
        answer = self.send(tries=30)
        assert answer["statusCode"] == 200, answer
        response = json.loads(answer["body"])["response"]
        patch = jsonpatch.JsonPatch.from_string(base64.b64decode(response["patch"]).decode())
        pod: Json = patch.apply(POD_REVIEW["request"]["object"])
        expected = expected_images(self.china)
        assert images_of(pod) == {field: image.replace(DIGEST_NAMED, TAG_NAMED) for field, image in expected.items()}
        return pod

    def reconciler(self) -> AbstractContextManager[Function]:
        return self.checkout.start(self.china, "ReconcilerFunction")

    def schedule(self, reconciler: Function, table: str = TABLE) -> None:
        """Let the schedule look at each record that waits."""
        dynamodb = self.china.client("dynamodb")
        for item in self.items(table):
            if item["status"]["S"] in ("REQUESTED", "COPYING"):
                dynamodb.update_item(
                    TableName=table,
                    Key={name: item[name] for name in ("repo", "tag")},
                    UpdateExpression="SET due_at = :past",
                    ExpressionAttributeValues={":past": {"N": "1"}},
                )
        assert reconciler(DUE) == {}

    def copy_all(self, reconciler: Function) -> None:
        """Let all copies be made. The first builds of an account are started one after another."""
        for _ in range(10):
            if set(self.states()) == {"COPIED"}:
                break
            self.copy(reconciler)
        assert self.states() == ["COPIED"] * len(COPIES)

    def copy(self, reconciler: Function, table: str = TABLE) -> None:
        """Let the schedule start builds. Each ends at once, and has pushed its copy, of which ECR sends an event."""
        if "REQUESTED" in self.states(table):
            self.schedule(reconciler, table)
        for item in self.items(table):
            if item["status"]["S"] == "COPYING":
                repository, tag = item["repo"]["S"].partition("/")[2], item["tag"]["S"]
                manifest = json.dumps(MANIFEST | {"annotations": {"source": item["source"]["S"]}})
                ecr = self.china.client("ecr")
                with suppress(ecr.exceptions.ImageAlreadyExistsException):
                    ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)
                assert reconciler(ecr_event(repository, tag)) == {}

    def fill(self) -> Json:
        """Let a pod be created and its copies be made; return the pod."""
        pod = self.admit()
        with self.reconciler() as reconciler:
            self.copy_all(reconciler)
        return pod


@pytest.fixture
def operator(built: Checkout, tmp_path: Path) -> Iterator[Operator]:
    """The built stacks, deployed as the README says, to an AWS that no other test uses."""
    checkout, port = tmp_path / "checkout", free_port()
    shutil.copytree(built.folder, checkout, ignore=shutil.ignore_patterns("functions", "*.log"))
    endpoint = f"http://localhost:{port}"
    programs(tmp_path / "bin")
    with cloud(port, tmp_path / "cloud.log"):
        own = Checkout(checkout, Sam(checkout, endpoint, built.python), endpoint, built.python)
        china = own.deploy_china("cn-northwest-1")
        global_region = Region(endpoint, "us-west-2")
        (tmp_path / "config").write_text(profile("china", china) + profile("global", global_region))
        found = Operator(own, china, global_region, tmp_path)
        found.run(DEPLOY_GLOBAL)
        found.run("image-mirror connect --china-profile china --global-profile global")
        yield found


def profile(name: str, region: Region) -> str:
    key = "\n".join(f"{name.lower()} = {value}" for name, value in KEY.items())
    return f"[profile {name}]\nregion = {region.name}\n{key}\n"


def programs(folder: Path) -> None:
    """Make the programs that the page's commands call."""
    aws = program("aws", "make .venv-aws/.done")
    scripts = {
        # Version 1 reads no other endpoint of SQS from the environment.
        "aws": f'exec {shlex.quote(str(aws))} --endpoint-url "$AWS_ENDPOINT_URL" "$@"',
        "image-mirror": f'exec {shlex.quote(sys.executable)} -m image_mirror.cli "$@"',
        # It was built before.
        "sam": f'[ "$1" = build ] || exec {shlex.quote(str(sam_program()))} "$@"',
        "kubectl": """case "$*" in
            *apply*) cat >"$HOME/applied.yaml";;
            *" pods "*) cat "$HOME/pods.json";;
            *) echo '{"items": []}';;
            esac""",
    }
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)


def run_in_cluster(operator: Operator, pod: Json) -> None:
    """Let the stub of kubectl answer with a pod."""
    pod["metadata"] |= {"name": "a", "namespace": "default"}
    (operator.folder / "pods.json").write_text(json.dumps({"items": [pod]}))


def test_dead_letters(operator: Operator) -> None:
    """The message is as AWS documents it; moto's Lambda never gives a batch up."""
    operator.admit()
    letter = {
        "requestContext": {
            "requestId": "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
            "functionArn": "arn:aws-cn:lambda:cn-northwest-1:123456789012:function:reconciler",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 11,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2026-11-29T00:13:49.717Z",
        "DDBStreamBatchInfo": {"shardId": "shardId-1", "batchSize": len(COPIES)},
    }
    queue = operator.china.outputs(STACK)["DeadLetterQueueUrl"]
    operator.china.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(letter))

    look, finish = recipe("Dead letters")
    assert json.loads(operator.run(look)) == letter
    with operator.reconciler() as reconciler:
        operator.copy_all(reconciler)  # by the schedule: nothing here reads the stream
    said = operator.run(finish)
    assert "1 batches of the stream could not be handled; the schedule still finds their records" in said
    [letters] = [each for each in json.loads(operator.run(f"{CHECK} --output json")) if each["topic"] == "dead letters"]
    assert (letters["state"], letters["found"]) == ("ok", "none")


def test_the_table_is_lost(operator: Operator) -> None:
    run_in_cluster(operator, operator.fill())
    operator.china.client("dynamodb").delete_table(TableName=TABLE)
    assert operator.doctor() == LATE
    assert operator.send()["statusCode"] == 503

    [commands] = recipe("The table")
    deploy, warm, options = commands.partition("image-mirror warm")
    operator.run(deploy)
    with operator.reconciler() as reconciler:
        operator.run(warm + options, meanwhile=lambda: operator.copy(reconciler, OTHER_TABLE))
    assert operator.doctor() == FINE
    assert operator.states(OTHER_TABLE) == ["COPIED"] * len(COPIES)


def test_a_table_is_restored_under_its_own_name(operator: Operator) -> None:
    operator.fill()
    dynamodb, ecr = operator.china.client("dynamodb"), operator.china.client("ecr")
    before = operator.items()
    dynamodb.create_backup(TableName=TABLE, BackupName="Deleted")
    dynamodb.delete_table(TableName=TABLE)
    lost = before[0]["repo"]["S"].partition("/")[2]
    ecr.batch_delete_image(repositoryName=lost, imageIds=[{"imageTag": before[0]["tag"]["S"]}])

    restore, repair = recipe("A restored table")
    find, command, rest = restore.partition("aws dynamodb restore-table-from-backup")
    [arn] = re.findall(r"arn:\S+", operator.run(find))
    operator.run(command + rest, arn)
    assert operator.doctor() == LATE
    assert operator.items() == before
    operator.admit()  # it works without the stream too

    operator.run(repair)
    assert operator.doctor() == FINE
    assert operator.states() == ["COPIED"] * (len(COPIES) - 1) + ["REQUESTED"], "what ECR has lost is requested"
    stack, own = operator.china.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    differing = {name for name in stack.keys() | own.keys() if stack.get(name) != own.get(name)}
    assert differing <= {"UUID", "EventSourceArn", "EventSourceMappingArn", "LastModified"}
    assert len(stream_batch(operator.china, own["EventSourceArn"])["Records"]) == 1
    with operator.reconciler() as reconciler:
        operator.copy_all(reconciler)
    status = dynamodb.describe_continuous_backups(TableName=TABLE)["ContinuousBackupsDescription"]
    assert status["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_a_restored_table_is_left_for_an_empty_one(operator: Operator) -> None:
    run_in_cluster(operator, operator.fill())
    dynamodb = operator.china.client("dynamodb")
    made = dynamodb.create_backup(TableName=TABLE, BackupName="Deleted")["BackupDetails"]
    dynamodb.delete_table(TableName=TABLE)
    dynamodb.restore_table_from_backup(TargetTableName=TABLE, BackupArn=made["BackupArn"])
    assert operator.doctor() == LATE
    operator.run(recipe("The table")[0].partition("image-mirror warm")[0])
    assert operator.doctor() == FINE
    assert len(operator.items()) == len(COPIES), "the stack keeps the old table"
    assert operator.items(OTHER_TABLE) == []


def test_the_global_region_is_lost(operator: Operator) -> None:
    operator.admit()
    run_twenty_builds(Records(operator.china.client("dynamodb"), TABLE))
    with operator.reconciler() as reconciler:
        operator.schedule(reconciler)
    assert operator.states() == ["COPYING"] * len(COPIES)
    assert {item["build_id"]["S"] for item in operator.items()} == builds(operator.global_region)

    [commands] = recipe("The global account, or its region")
    said = operator.run(commands)
    assert "Both accounts are connected" in said
    assert "is kept: it is not from this secret; if nothing uses it, run `aws iam delete-access-key" in said
    moved = replace(operator, global_region=Region(operator.checkout.endpoint, "eu-central-1"))
    with moved.reconciler() as reconciler:
        moved.schedule(reconciler)
        assert moved.states() == ["REQUESTED"] * len(COPIES), "no build of the old region is known here"
        moved.copy_all(reconciler)
    assert builds(moved.global_region)


def test_the_region_in_china_is_lost(operator: Operator) -> None:
    run_in_cluster(operator, operator.fill())
    move, follow = recipe("The region in China")
    said = operator.run(move)
    assert "Both accounts are connected" in said
    moved = replace(operator, china=Region(operator.checkout.endpoint, "cn-north-1"))
    with moved.reconciler() as reconciler:
        said = moved.run(follow, meanwhile=lambda: moved.copy(reconciler))
    assert moved.states() == ["COPIED"] * len(COPIES)
    assert moved.china.outputs(STACK)["APIGatewayURL"] in (operator.folder / "applied.yaml").read_text()
    moved.admit()
    assert moved.doctor() == FINE
