"""The whole circle on real parts: kubectl, API server, webhook, table, stream, reconciler, build, registry, pull."""

import json
import os
import queue
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from adapter import gateway
from build import Project, write_home
from codebuild_service import CodeBuildService, codebuild_service
from control_plane import Cluster
from dynamodb_local import EventSourceMapping, create_table, dynamodb_local, streams_client
from processes import program, wait_for
from registries import ACCOUNT, ECR_LOGIN, Registry, ecr_api, registry
from servers import Answer, Request, serving
from source_images import SourceImage, oci_index
from stage import Json, answer, configuration, configured, pods_of, route

from buildspec_runner import Run
from image_mirror import reconciler, webhook
from image_mirror.cli.emulation import Context
from image_mirror.record import Record, Status
from image_mirror.records import Records, to_record
from templates import ROOT

SOURCE = "gcr.io/google-samples/hello-app:1.0"


@dataclass
class Circle:
    """All parts, wired together; `turn` lets what has happened reach the reconciler."""

    target: Registry
    image: SourceImage
    dynamodb: Any
    ecr: Any
    mapping: EventSourceMapping
    builds: CodeBuildService
    runs: list[Run]
    pushes: "queue.Queue[Json]"
    seen: list[str] = field(default_factory=list)

    def records(self) -> list[Record]:
        return [to_record(item) for item in self.dynamodb.scan(TableName="ImageListTable")["Items"]]

    def turn(self) -> None:
        """Read the stream, and tell of each push what ECR tells through EventBridge; note each status that is new."""
        self.note()
        self.mapping.poll()
        self.note()
        while not self.pushes.empty():
            target = self.pushes.get()["target"]
            # The registry has no ECR API: what it holds is put into the emulated ECR, which the reconciler asks.
            self.ecr.put_image(
                repositoryName=target["repository"],
                imageTag=target["tag"],
                imageDigest=target["digest"],
                imageManifest=json.dumps({"schemaVersion": 2, "digest": target["digest"]}),
                imageManifestMediaType=target["mediaType"],
            )
            detail = {
                "action-type": "PUSH",
                "result": "SUCCESS",
                "repository-name": target["repository"],
                "image-tag": target["tag"],
                "image-digest": target["digest"],
            }
            event = {"source": "aws.ecr", "detail-type": "ECR Image Action", "account": ACCOUNT, "detail": detail}
            reconciler.handler(event, Context())
        self.note()

    def note(self) -> None:
        for record in self.records():
            if record.status and (not self.seen or self.seen[-1] != record.status):
                self.seen.append(record.status)


@pytest.fixture
def circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Circle]:
    pushes: queue.Queue[Json] = queue.Queue()

    def notified(request: Request) -> Answer:
        for event in json.loads(request.body)["events"]:
            if event["action"] == "push" and event["target"].get("tag"):
                pushes.put(event)
        return Answer(200)

    folders = {name: tmp_path / name for name in ("source", "target", "aws", "dynamodb", "builds")}
    for folder in folders.values():
        folder.mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    runs: list[Run] = []
    with (
        serving(notified) as port,
        registry(folders["source"]) as source,
        registry(folders["target"], ECR_LOGIN, f"http://127.0.0.1:{port}/") as target,
        ecr_api(folders["aws"]) as api,
        dynamodb_local(folders["dynamodb"]) as table_url,
    ):

        def build(image: str, home: str) -> Run:
            folder = folders["builds"] / str(len(runs))
            folder.mkdir()
            runs.append(Project(folder, api, target, {"gcr.io": f"{source.host}/gcr.io"}).run(image, home))
            return runs[-1]

        with codebuild_service(build) as builds:
            environment = {
                "AWS_DEFAULT_REGION": "cn-northwest-1",
                "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "example",
                "AWS_ENDPOINT_URL_DYNAMODB": table_url,
                "AWS_ENDPOINT_URL_CODEBUILD": builds.url,
                "DDB_TABLE_NAME": "ImageListTable",
                "GLOBAL_AKSK": "GlobalAKSK",
                "G_PROJECT_NAME": "ImagePullProject",
                "ECR_REGISTRY": target.host,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            with emulated_services() as (ecr, _secrets):
                dynamodb = boto3.client("dynamodb")
                stream = create_table(dynamodb, "ImageListTable")
                webhook.load.cache_clear()
                reconciler.load.cache_clear()
                mapping = EventSourceMapping(
                    streams_client(table_url), stream, lambda event: reconciler.handler(event, Context())
                )
                image = oci_index("the whole circle")
                source.push("gcr.io/google-samples/hello-app", "1.0", image)
                yield Circle(target, image, dynamodb, ecr, mapping, builds, runs, pushes)
    webhook.load.cache_clear()
    reconciler.load.cache_clear()


class emulated_services:  # noqa: N801 - a context manager
    """ECR and Secrets Manager emulated in this process; calls with an endpoint of their own go there."""

    def __enter__(self) -> tuple[Any, Any]:
        from moto import mock_aws

        self._mock = mock_aws()
        self._mock.start()
        secrets = boto3.client("secretsmanager")
        key = {"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": "AKIAGLOBAL", "G_SECRET_KEY": "global"}
        secrets.create_secret(Name="GlobalAKSK", SecretString=json.dumps(key))
        return boto3.client("ecr"), secrets

    def __exit__(self, *_: object) -> None:
        self._mock.stop()


def test_a_deployment_s_image_comes_round_to_the_registry_that_its_pods_name(
    cluster: Cluster, circle: Circle, tmp_path: Path
) -> None:
    """From `kubectl apply` to an image that the rewritten name pulls."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    with (
        gateway(folder, route(), answer) as gate,
        configured(cluster, gate, configuration(gate), host=circle.target.host),
    ):
        cluster.kubectl("apply", "-f", ROOT / "samples" / "nginx-gcr.yaml")
        wait_for(lambda: pods_of(cluster, "app=nginx-gcr"), "the Deployment has a pod")
        [pod] = pods_of(cluster, "app=nginx-gcr")
        cluster.kubectl("delete", "deployment,replicaset,pod", "--all", "--force", "--grace-period=0")
    name = pod["spec"]["containers"][0]["image"]
    assert name == f"{circle.target.host}/mirror/{SOURCE}"

    def arrived() -> bool:
        circle.turn()
        return [record.status for record in circle.records()] == [Status.COPIED]

    wait_for(arrived, "the copy has arrived", 60)
    [record] = circle.records()
    assert circle.seen == [Status.REQUESTED, Status.COPYING, Status.COPIED]
    assert (record.source, record.digest) == (SOURCE, circle.image.manifest.digest)
    assert circle.mapping.dead_letters == []
    assert len(circle.builds.builds) == 1
    [run] = circle.runs
    assert (run.exit_code, run.exported["COPY_RESULT"]) == (0, "COPIED")

    pulled = tmp_path / "pulled"
    home = write_home(tmp_path / "home", circle.target, {})
    command = [str(program("skopeo", "apt-get install skopeo")), "copy", "--all", "--preserve-digests"]
    command += ["--src-creds", ":".join(ECR_LOGIN), f"docker://{name}", f"dir:{pulled}"]
    done = subprocess.run(command, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (pulled / "manifest.json").read_bytes() == circle.image.manifest.data


def test_a_build_whose_event_is_lost_is_found_by_the_schedule(circle: Circle) -> None:
    records = Records(circle.dynamodb, "ImageListTable")
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "operation": "CREATE",
            "resource": {"resource": "pods"},
            "object": {"metadata": {}, "spec": {"containers": [{"name": "a", "image": SOURCE}]}},
        },
    }
    assert answer({"body": json.dumps(review)})["statusCode"] == 200
    circle.mapping.poll()
    [copying] = circle.records()
    assert copying.status is Status.COPYING
    for thread in circle.builds.threads:
        thread.join(60)
    wait_for(lambda: not circle.pushes.empty(), "the registry tells of the push")
    target = circle.pushes.get()["target"]
    circle.ecr.put_image(
        repositoryName=target["repository"],
        imageTag=target["tag"],
        imageDigest=target["digest"],
        imageManifest=json.dumps({"schemaVersion": 2}),
        imageManifestMediaType=target["mediaType"],
    )
    records.replace(copying, replace(copying, due_at=int(time.time() * 1000)))
    reconciler.handler({"source": "aws.events"}, Context())
    [copied] = circle.records()
    assert (copied.status, copied.digest) == (Status.COPIED, circle.image.manifest.digest)


# ---- the poller itself: it has to fail as the service does ----


def batch_of(*numbers: int) -> list[Json]:
    return [{"dynamodb": {"SequenceNumber": str(number)}} for number in numbers]


def mapping_to(function: Any) -> EventSourceMapping:
    return EventSourceMapping(None, "arn", function)


def numbers_of(event: Json) -> list[int]:
    return [int(each["dynamodb"]["SequenceNumber"]) for each in event["Records"]]


def test_the_lowest_failure_of_a_batch_is_where_it_goes_on() -> None:
    seen: list[list[int]] = []

    def function(event: Json) -> Json:
        seen.append(numbers_of(event))
        return {"batchItemFailures": [{"itemIdentifier": "3"}, {"itemIdentifier": "2"}] if len(seen) == 1 else []}

    mapping_to(function).deliver(batch_of(1, 2, 3, 4))
    assert seen == [[1, 2, 3, 4], [2, 3, 4]]


def test_a_batch_that_raises_is_halved_until_the_poison_stands_alone_and_is_given_up() -> None:
    done: list[int] = []

    def function(event: Json) -> Json:
        if 3 in numbers_of(event):
            raise RuntimeError("poison")
        done.extend(numbers_of(event))
        return {"batchItemFailures": []}

    mapping = mapping_to(function)
    mapping.deliver(batch_of(1, 2, 3, 4))
    assert sorted(done) == [1, 2, 4]
    assert numbers_of({"Records": mapping.dead_letters}) == [3]
