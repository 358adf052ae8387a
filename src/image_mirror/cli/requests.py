"""Copies asked for by an operator: recorded as a pod's would be, or told how they stand."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import CopyRequest
from image_mirror.cli.copy_progress import CopyProgress, arrival
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.wanted import ImagesToCopy
from image_mirror.record import Policy, Record
from image_mirror.recorder import KnownRecords, NotRecordedError, Recorder
from image_mirror.reference import Destination
from image_mirror.table import Records

_AT_ONE_TIME = 100
_RECORDED_WITHIN = 60.0  # seconds for so many
_PARALLEL = 8
# Whoever asks wants a failed copy tried again now, whatever a pod would have to wait for.
_POLICY = Policy(retry_failed=0)


def planned(records: Records, found: ImagesToCopy) -> list[CopyProgress]:
    """Tell of each copy how it stands; NEW is what would be asked for, a failed copy among it."""
    with ThreadPoolExecutor(_PARALLEL) as threads:
        standing = list(threads.map(lambda destination: records.get(destination.repo, destination.tag), found.copies))
    planned = []
    for (destination, copy), record in zip(found.copies.items(), standing, strict=True):
        told = arrival(destination, str(copy.source), record, 0)
        if record is None or record.status is None:  # an older deployment's record is asked for anew
            told = replace(told, state="NEW", reason=None)
        elif told.ended and not told.arrived:
            told = replace(told, state="NEW", reason=f"it failed before: {told.reason}")
        planned.append(told)
    return planned


def requested(records: Records, found: ImagesToCopy) -> dict[Destination, Record]:
    """Have each copy recorded. Raises NoAnswerError, ClientError, BotoCoreError."""
    recorder = Recorder(records, _POLICY, KnownRecords())
    copy_requests = [CopyRequest(copy, pull_always=False) for copy in found.copies.values()]
    standing: dict[Destination, Record] = {}
    for start in range(0, len(copy_requests), _AT_ONE_TIME):
        some = copy_requests[start : start + _AT_ONE_TIME]
        try:
            standing |= recorder.record(some, now=int(time.time() * 1000), seconds=_RECORDED_WITHIN, dry_run=False)
        except NotRecordedError as error:
            if isinstance(error.__cause__, ClientError | BotoCoreError):
                raise error.__cause__ from None
            raise NoAnswerError(f"{error}; run the command again") from error
    return standing
