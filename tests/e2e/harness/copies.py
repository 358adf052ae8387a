"""What becomes of the copies that the webhook has requested, in place of the reconciler and the builds."""

from dataclasses import replace
from typing import Any

import boto3

from image_mirror import webhook
from image_mirror.cli.emulation import TABLE, Emulation
from image_mirror.record import Record, Status
from image_mirror.table import Records


def change(aws: Emulation, source: str, new: Record | None = None, **changes: Any) -> Record:
    """Replace the record of `source`, and return the new one."""
    [record] = [each for each in aws.records() if each.source == source]
    changed = replace(new or record, **changes)
    assert Records(boto3.client("dynamodb"), TABLE).replace(record, changed) is changed
    return changed


def arrive(aws: Emulation, source: str) -> None:
    """Put the copy into ECR as a build does, and let its record say so. The webhook forgets what it has read."""
    [record] = [each for each in aws.records() if each.source == source]
    boto3.client("ecr").create_repository(repositoryName=record.repo.partition("/")[2])
    event = aws.push(record)
    change(aws, source, status=Status.COPIED, digest=event["detail"]["image-digest"])
    webhook.load.cache_clear()
