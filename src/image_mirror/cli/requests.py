"""Copies asked for by an operator: recorded as a pod's would be, or told how they stand."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.admission import Demand
from image_mirror.cli.copy_progress import Arrival, arrival
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.plan import Wanted
from image_mirror.record import Policy, Record
from image_mirror.recorder import KnownRecords, NotRecordedError, Promises
from image_mirror.reference import Home
from image_mirror.table import Records

_AT_ONE_TIME = 100
_RECORDED_WITHIN = 60.0  # seconds for so many
_PARALLEL = 8
# Whoever asks wants a failed copy tried again now, whatever a pod would have to wait for.
_POLICY = Policy(retry_failed=0)


def planned(records: Records, found: Wanted) -> list[Arrival]:
    """Tell of each copy how it stands; NEW is what would be asked for, a failed copy among it."""
    with ThreadPoolExecutor(_PARALLEL) as threads:
        standing = list(threads.map(lambda home: records.get(home.repo, home.tag), found.copies))
    planned = []
    for (home, copy), record in zip(found.copies.items(), standing, strict=True):
        told = arrival(home, str(copy.source), record, 0)
        if record is None or record.status is None:  # an older deployment's record is asked for anew
            told = replace(told, state="NEW", reason=None)
        elif told.ended and not told.arrived:
            told = replace(told, state="NEW", reason=f"it failed before: {told.reason}")
        planned.append(told)
    return planned


def requested(records: Records, found: Wanted) -> dict[Home, Record]:
    """Have each copy recorded. Raises NoAnswerError, ClientError, BotoCoreError."""
    promises = Promises(records, _POLICY, KnownRecords())
    demands = [Demand(copy, pull_always=False) for copy in found.copies.values()]
    standing: dict[Home, Record] = {}
    for start in range(0, len(demands), _AT_ONE_TIME):
        some = demands[start : start + _AT_ONE_TIME]
        try:
            standing |= promises.make(some, now=int(time.time() * 1000), seconds=_RECORDED_WITHIN, dry_run=False)
        except NotRecordedError as error:
            if isinstance(error.__cause__, ClientError | BotoCoreError):
                raise error.__cause__ from None
            raise NoAnswerError(f"{error}; run the command again") from error
    return standing
