"""DynamoDB Local: the table in memory or in a folder, with its real stream."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from e2e.harness.processes import absent, free_port, listening, program, running, wait_for
from support.templates import ROOT, sam_template

_LIBRARIES = ROOT / ".dynamodb-local"


@contextmanager
def dynamodb_local(folder: Path, port: int | None = None, *, kept: bool = False) -> Iterator[str]:
    """Run DynamoDB Local on a free port or on `port` and yield its URL; with `kept`, tables are stored in `folder`."""
    java = program("java", "a Java runtime, 17 or later")
    if not list(_LIBRARIES.glob("DynamoDBLocal-*.jar")):
        absent("DynamoDB Local is not here: make .dynamodb-local/.done (Maven fetches it)")
    port = port or free_port()
    # Shared: else callers with different keys would see different tables.
    tables = ("-sharedDb", *(("-dbPath", folder) if kept else ("-inMemory",)))
    command: list[str | Path] = [
        *(java, f"-Djava.library.path={_LIBRARIES}", "-cp", f"{_LIBRARIES}/*"),
        *("software.amazon.dynamodb.services.local.main.ServerRunner", *tables, "-port", str(port)),
    ]
    with running(command, folder / "dynamodb.log", {**os.environ, "DDB_LOCAL_TELEMETRY": "0"}):
        wait_for(lambda: listening(port), "DynamoDB Local listens", 60)
        yield f"http://localhost:{port}"


def create_table(dynamodb: Any, name: str) -> str:
    """Create the template's table and return its stream's ARN."""
    table = sam_template()["Resources"]["ImageListTable"]["Properties"]
    made = dynamodb.create_table(
        TableName=name,
        StreamSpecification={"StreamEnabled": True, **table["StreamSpecification"]},
        **{key: table[key] for key in ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")},
    )
    arn: str = made["TableDescription"]["LatestStreamArn"]
    return arn


def streams_client(url: str) -> Any:
    """Return a client of DynamoDB Local's streams."""
    return boto3.client("dynamodbstreams", endpoint_url=url)
