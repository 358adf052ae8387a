"""How long each phase of a copy took: from its record, its build, and ECR's time of the push. Pure.

The times come from the clocks of three services, so a phase between two of them can be wrong by their difference; one
that would be negative is 0.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from image_mirror.cli.output import milliseconds

_QUEUE = ("SUBMITTED", "QUEUED")
_PROVISIONING = ("PROVISIONING", "DOWNLOAD_SOURCE")
_END = "COMPLETED"  # which is no work


def seconds_of(
    *,
    requested_at: int,
    build: Mapping[str, Any] | None,
    admission: float | None = None,
    pushed_at: datetime | None = None,
    copied_at: int | None = None,
) -> dict[str, float]:
    """Return the seconds of each phase that is known.

    `requested_at` and `copied_at` are the record's, in milliseconds. `build` is an entry of BatchGetBuilds; `admission`
    is the measured time of the webhook's answer, and `pushed_at` what ECR says of the copy.

    admission     the webhook's answer to a review
    start         from the record to StartBuild
    queue         the build waits in CodeBuild's queue
    provisioning  CodeBuild makes its machine ready
    copying       the build's commands, with the installation of crane
    arrival       from the push to the record that says COPIED
    total         from the record to COPIED
    """
    found: dict[str, float | None] = {"admission": admission}
    if build is not None:
        if started := build.get("startTime"):
            found["start"] = (milliseconds(started) - requested_at) / 1000
        phases = [each for each in build.get("phases", ()) if each.get("phaseType") != _END]
        found["queue"] = _sum(each for each in phases if each.get("phaseType") in _QUEUE)
        found["provisioning"] = _sum(each for each in phases if each.get("phaseType") in _PROVISIONING)
        found["copying"] = _sum(each for each in phases if each.get("phaseType") not in (*_QUEUE, *_PROVISIONING))
    if copied_at is not None:
        found["arrival"] = None if pushed_at is None else (copied_at - milliseconds(pushed_at)) / 1000
        found["total"] = (copied_at - requested_at) / 1000
    return {name: round(max(0.0, value), 3) for name, value in found.items() if value is not None}


def _sum(phases: Any) -> float | None:
    lengths = [length for each in phases if (length := _length(each)) is not None]
    return sum(lengths) if lengths else None


def _length(phase: Mapping[str, Any]) -> float | None:
    """Return the seconds of a phase that has ended. Its times are more exact than `durationInSeconds`."""
    if "startTime" in phase and "endTime" in phase:
        length: float = (phase["endTime"] - phase["startTime"]).total_seconds()
        return length
    whole = phase.get("durationInSeconds")
    return None if whole is None else float(whole)
