"""Emulated AWS for each test: the region in China with the template's table, the global region with its project."""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from moto import mock_aws

from image_mirror.aws import CallLimits, connect
from image_mirror.settings import Settings
from image_mirror.table import STATE_REPO
from support.templates import sam_template

if TYPE_CHECKING:
    from types_boto3_codebuild import CodeBuildClient
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_ecr import ECRClient
    from types_boto3_secretsmanager import SecretsManagerClient

# No deadline: a slow machine is no failure. In CI a commit always gives the same examples; elsewhere they change.
hypothesis_settings.register_profile("project", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis_settings.load_profile("project")

REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
ENVIRONMENT = {
    "DDB_TABLE_NAME": "ImageListTable",
    "GLOBAL_AKSK": "GlobalAKSK",
    "G_PROJECT_NAME": "ImagePullProject",
    "ECR_REGISTRY": REGISTRY,
}
LIMITS = CallLimits(connect=1, read=5, attempts=1)
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@dataclass(frozen=True)
class Cloud:
    """Clients of the emulated services."""

    dynamodb: "DynamoDBClient"
    ecr: "ECRClient"
    secrets: "SecretsManagerClient"
    codebuild: "CodeBuildClient"

    def items(self) -> list[dict[str, Any]]:
        """Return the items of records."""
        items = self.dynamodb.scan(TableName="ImageListTable")["Items"]
        return [item for item in items if item["repo"]["S"] != STATE_REPO]

    def push(self, repository: str, tag: str, content: str = "1") -> str:
        """Put an image into ECR as a build does, and return its digest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": content},
            "layers": [],
        }
        answer = self.ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)
        return answer["image"]["imageId"]["imageDigest"]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Collect what both functions write to their logs from now on."""
    stream = io.StringIO()
    for name in ("webhook", "reconciler"):
        for handler in logging.getLogger(name).handlers:
            monkeypatch.setattr(handler, "stream", stream)
    return stream


@pytest.fixture
def published(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], dict[str, list[float]]]:
    """Return a function for the values of each metric, by name, that CloudWatch would read since its last call.

    It sets the variables for metrics that the template gives both functions.
    """
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "ImageMirror")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "image-mirror")

    def read() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for line in capsys.readouterr().out.splitlines():
            blob = json.loads(line)
            [directive] = blob["_aws"]["CloudWatchMetrics"]
            assert (directive["Namespace"], directive["Dimensions"]) == ("ImageMirror", [["service"]])
            assert blob["service"] == "image-mirror"
            names = [metric["Name"] for metric in directive["Metrics"]]
            assert blob.keys() == {"_aws", "service", *names}, "no members besides the metrics"
            for name in names:
                found.setdefault(name, []).extend(blob[name])
        return found

    return read


@pytest.fixture
def settings() -> Settings:
    return Settings.from_env(ENVIRONMENT)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-northwest-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        import boto3

        clients = Cloud(
            connect("dynamodb", LIMITS),
            connect("ecr", LIMITS),
            connect("secretsmanager", LIMITS),
            boto3.client("codebuild", region_name="us-west-2"),
        )
        table = sam_template()["Resources"]["ImageListTable"]["Properties"]
        clients.dynamodb.create_table(
            TableName="ImageListTable",
            StreamSpecification={
                "StreamEnabled": True,
                "StreamViewType": table["StreamSpecification"]["StreamViewType"],
            },
            **{
                name: table[name]
                for name in ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
            },
        )
        secret = {"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": "AKIAIOSFODNN7EXAMPLE", "G_SECRET_KEY": SECRET_KEY}
        clients.secrets.create_secret(Name="GlobalAKSK", SecretString=json.dumps(secret))
        clients.codebuild.create_project(
            name="ImagePullProject",
            source={"type": "NO_SOURCE", "location": "none"},  # moto asks for a location
            artifacts={"type": "NO_ARTIFACTS"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/standard:8.0",
                "computeType": "BUILD_GENERAL1_SMALL",
            },
            serviceRole="arn:aws:iam::123456789012:role/builds",
        )
        yield clients
