"""Mixed load over HTTP while the table is restarted: all copies that pods were sent to are recorded.

SOAK_SECONDS says how long the load lasts besides the restart (30).
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from e2e.fakes.adapter import gateway
from e2e.fakes.dynamodb_local import create_table, dynamodb_local
from e2e.harness.processes import free_port
from e2e.harness.soak import Client
from e2e.harness.stage import answer, routes
from image_mirror import webhook
from image_mirror.cli.emulation import REGISTRY
from image_mirror.record import Record, Status
from image_mirror.table import to_record

TABLE = "ImageListTable"
CLIENTS = 6


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port on which a webhook that has just started calls the table."""
    found = free_port()
    environment = {
        "AWS_ENDPOINT_URL_DYNAMODB": f"http://localhost:{found}",
        "AWS_DEFAULT_REGION": "cn-northwest-1",
        "AWS_ACCESS_KEY_ID": "soak",
        "AWS_SECRET_ACCESS_KEY": "soak",
        "DDB_TABLE_NAME": TABLE,
        "ECR_REGISTRY": REGISTRY,
        "GLOBAL_AKSK": "none",
        "G_PROJECT_NAME": "none",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    webhook.load.cache_clear()
    yield found
    webhook.load.cache_clear()


@dataclass(frozen=True)
class Totals:
    """The answers to all clients up to a moment: the number of each status, and of rewritten images."""

    statuses: Counter[int]
    rewritten: int


def totals(clients: list[Client]) -> Totals:
    return Totals(
        sum((client.statuses for client in clients), Counter()), sum(len(client.rewritten) for client in clients)
    )


def test_no_record_is_lost_when_the_table_restarts_under_load(port: int, tmp_path: Path) -> None:
    half, ended = float(os.environ.get("SOAK_SECONDS", "30")) / 2, threading.Event()
    with gateway(tmp_path, routes(), answer) as gate, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [Client(gate, number) for number in range(CLIENTS)]
        try:
            with dynamodb_local(tmp_path, port, kept=True) as url:
                create_table(boto3.client("dynamodb", endpoint_url=url), TABLE)
                runs = [pool.submit(client.run, lambda: not ended.is_set()) for client in clients]
                time.sleep(half)
                gone = totals(clients)  # while the table still answers: calls at its end may be refused
            with dynamodb_local(tmp_path, port, kept=True) as url:
                back = totals(clients)
                time.sleep(half)
                ended.set()
                for run in runs:
                    run.result()
                pages = boto3.client("dynamodb", endpoint_url=url).get_paginator("scan").paginate(TableName=TABLE)
                records = [to_record(item) for page in pages for item in page["Items"]]
        finally:
            ended.set()
    end = totals(clients)
    print(f"\n{end.statuses}, {end.rewritten} rewritten, {len(records)} records; table ended at {gone}, back at {back}")
    check_records(clients, records)
    assert end.statuses.keys() == {200, 400, 503}
    assert back.statuses[503] > gone.statuses[503], "the restart was not noticed: the test proves nothing"
    assert 0 < gone.rewritten < end.rewritten
    assert back.rewritten < end.rewritten, "no image was rewritten any more after the table was back"


def check_records(clients: list[Client], records: list[Record]) -> None:
    """Check that copies that pods were sent to are recorded with the right source, and those of dry runs are not."""
    sources = {record.destination: record.source for record in records}
    for client in clients:
        lost = {image for image, source in client.rewritten.items() if sources.get(image) != source}
        assert not lost, f"written into pods of client {client.number} and not recorded: {sorted(lost)}"
        assert not client.foreseen & sources.keys(), "a dry run wrote records"
    assert any(client.foreseen for client in clients)
    assert {record.status for record in records} == {Status.REQUESTED}
