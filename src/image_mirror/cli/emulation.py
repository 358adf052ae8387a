"""AWS emulated in this process (moto), for a demonstration without an account: regions, stream and events.

The events have their real format: HTTP API (payload 2.0), DynamoDB stream batches, EventBridge events of ECR. Only the
copy itself is replaced: where CodeBuild would copy an image, an empty image is pushed.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import boto3
from moto import mock_aws
from moto.codebuild.models import codebuild_backends

from image_mirror import reconciler, webhook
from image_mirror.global_access import ENTRIES
from image_mirror.record import Record
from image_mirror.table import DUE_INDEX, Records

ACCOUNT, REGION, GLOBAL_REGION = "123456789012", "cn-northwest-1", "us-west-2"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com.cn"
TABLE, SECRET, PROJECT = "ImageListTable", "GlobalAKSK", "ImagePullProject"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_DEFAULT_REGION": REGION,
    "DDB_TABLE_NAME": TABLE,
    "GLOBAL_AKSK": SECRET,
    "G_PROJECT_NAME": PROJECT,
    "ECR_REGISTRY": REGISTRY,
}


class Context:
    """Lambda's context of a function that has just begun."""

    def get_remaining_time_in_millis(self) -> int:
        """Return two minutes."""
        return 120_000


class Emulation:
    """The emulated services, and the events between them."""

    def __init__(self) -> None:
        """Make the table, the secret and the project, as the two stacks do."""
        self._dynamodb = boto3.client("dynamodb")
        self._ecr = boto3.client("ecr")
        # botocore would use an address with the account in it, which moto does not know.
        self._streams = boto3.client(
            "dynamodbstreams", endpoint_url=f"https://streams.dynamodb.{REGION}.amazonaws.com.cn"
        )
        table = self._dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "N" if name == "due_at" else "S"}
                for name in ("repo", "tag", "due", "due_at")
            ],
            KeySchema=[{"AttributeName": "repo", "KeyType": "HASH"}, {"AttributeName": "tag", "KeyType": "RANGE"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": DUE_INDEX,
                    "KeySchema": [
                        {"AttributeName": "due", "KeyType": "HASH"},
                        {"AttributeName": "due_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        self._stream_arn = table["TableDescription"]["LatestStreamArn"]
        [shard] = self._streams.describe_stream(StreamArn=self._stream_arn)["StreamDescription"]["Shards"]
        self._position: str = self._streams.get_shard_iterator(
            StreamArn=self._stream_arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        entries = dict(zip(ENTRIES, (GLOBAL_REGION, "emulated", "emulated"), strict=True))
        boto3.client("secretsmanager").create_secret(Name=SECRET, SecretString=json.dumps(entries))
        boto3.client("codebuild", region_name=GLOBAL_REGION).create_project(
            name=PROJECT,
            source={"type": "NO_SOURCE", "location": "moto requires one"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/standard:8.0",
                "computeType": "BUILD_GENERAL1_SMALL",
            },
            serviceRole=f"arn:aws:iam::{ACCOUNT}:role/emulated",
        )

    def records(self) -> list[Record]:
        """Return all records, in the order in which they were requested."""
        records = [record for page in Records(self._dynamodb, TABLE).pages() for record in page]
        return sorted(records, key=lambda record: (record.requested_at, record.destination))

    def stream_batch(self) -> dict[str, Any]:
        """Return the changes in the table's stream since the last call that pass the event source mapping's filter."""
        answer = self._streams.get_records(ShardIterator=self._position)
        self._position = answer["NextShardIterator"]
        records: list[Any] = []
        for record in answer["Records"]:
            change: dict[str, Any] = {**record["dynamodb"]}
            change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
            new = change.get("NewImage", {})  # none after a deletion
            if new.get("status") == {"S": "REQUESTED"} and "claimed_at" not in new:
                records.append({**record, "awsRegion": REGION, "eventSourceARN": self._stream_arn, "dynamodb": change})
        return {"Records": records}

    def push(self, record: Record) -> dict[str, Any]:
        """Push an image as the build would, and return the event that ECR sends.

        The image has no signatures, which the build exports with the digest.
        """
        repository = record.repo.partition("/")[2]
        manifest = json.dumps(
            {"schemaVersion": 2, "config": {}, "layers": [], "annotations": {"source": record.source}}
        )
        _, by_digest, requested = record.source.partition("@")
        digest = requested if by_digest else "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
        self._ecr.put_image(
            repositoryName=repository,
            imageTag=record.tag,
            imageManifest=manifest,
            imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
            imageDigest=digest,
        )
        exported = {"COPY_RESULT": "COPIED", "COPY_DIGEST": digest, "COPY_SIGNATURES": "0"}
        project = (record.build_id or "").partition(":")[0]
        for build in codebuild_backends[ACCOUNT][GLOBAL_REGION].build_metadata_history[project]:
            if build["id"] == record.build_id:
                build["exportedEnvironmentVariables"] = [
                    {"name": name, "value": value} for name, value in exported.items()
                ]
        return {
            "version": "0",
            "source": "aws.ecr",
            "detail-type": "ECR Image Action",
            "account": ACCOUNT,
            "region": REGION,
            "detail": {
                "action-type": "PUSH",
                "result": "SUCCESS",
                "repository-name": repository,
                "image-tag": record.tag,
                "image-digest": digest,
            },
        }


def http_event(review: dict[str, Any]) -> dict[str, Any]:
    """Return the HTTP API event (payload 2.0) for an API server's call with `review`."""
    return {
        "version": "2.0",
        "routeKey": "POST /token",
        "rawPath": "/token",
        "rawQueryString": "timeout=10s",
        "queryStringParameters": {"timeout": "10s"},
        "headers": {"content-type": "application/json", "accept-encoding": "gzip"},
        "requestContext": {
            "http": {"method": "POST", "path": "/token", "protocol": "HTTP/1.1"},
            "timeEpoch": int(time.time() * 1000),
        },
        "body": json.dumps(review),
        "isBase64Encoded": False,
    }


@contextmanager
def emulated_aws() -> Iterator[Emulation]:
    """Emulate AWS while the context lasts. The caller's own account cannot be reached."""
    # If a Powertools namespace were set, metrics would be printed between the lines.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POWERTOOLS_"))}
    with mock.patch.dict(os.environ, kept | _ENVIRONMENT, clear=True), mock_aws():
        for function in (webhook, reconciler):
            function.load.cache_clear()
        logging.disable()  # the functions' logs would be printed between the lines
        try:
            yield Emulation()
        finally:
            logging.disable(logging.NOTSET)
