"""Copies of the samples through the whole path: requested, followed to their end, and judged.

A sample of the lane that a new copy uses by itself is requested by a real review, sent to the webhook's public URL:
only that is the whole path. The main lane of two has to be forced: its record is written by the same conditional put as
that of `image-mirror warm`, with a `not_fast`, which is how the reconciler remembers that an image is not for the fast
lane. Nothing that a pod can say chooses the lane, so no review can do this.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from image_mirror.cli.commands.selftest.phases import seconds_of
from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.commands.selftest.reviews import fault_of, review_of, url_of
from image_mirror.cli.commands.selftest.samples import NAMESPACE, Sample
from image_mirror.cli.copy_progress import CopyProgress, progress_of
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.doctor.webhook import Reply, send
from image_mirror.cli.output import current_time
from image_mirror.cli.remedies import log_of
from image_mirror.cli.stacks import Stack
from image_mirror.cli.terminal import waiting
from image_mirror.cli.waiting import CopyRecords, display, follow
from image_mirror.record import TOO_LARGE, Lane, Record, Status, new_record
from image_mirror.state_item import StateItem
from image_mirror.table import Records

COPY, MISSING, BUILD = "copy", "missing image", "build"
LANE_FREE = 5.0
"""Seconds between two looks at the fast lane."""
_PAUSE = 3.0  # seconds between two looks at a build
_EXPECTED = "NOT_FOUND"
_UNRECORDED, _LATER = (
    "the webhook has sent the pod to the copy, but no record was written",
    "run this again in two minutes: for a minute, the webhook remembers the records of a run before this",
)
_FOREIGN, _ANOTHER = (
    "somebody has requested it in this moment, so it was not followed",
    "run this again, with another image",
)
_ROLE_VARIABLE = "CHINA_PUSH_ROLE_ARN"


@dataclass(slots=True)
class Followed:
    """One sample while it is followed: the latest record, and the first one that had a digest.

    `fault` is why it could not be requested, with what to do. `build` is what CodeBuild says of its latest build.
    """

    sample: Sample
    admission: float | None = None
    latest: Record | None = None
    copied: Record | None = None
    build: Mapping[str, Any] | None = None
    fault: tuple[str, str | None] | None = None
    requested_at: int = 0

    def see(self, record: Record | None, waited: float) -> CopyProgress:
        """Remember a record, and return the progress; its state is END if there is nothing left to wait for."""
        self.latest = record
        if record is not None:
            self.requested_at = record.requested_at
            if self.copied is None and record.digest is not None:
                self.copied = record
        progress = progress_of(self.sample.copy.destination, self.sample.image, record, waited)
        if not progress.ended and is_over(self.sample, record):
            return replace(progress, state="END")
        return progress


@dataclass(slots=True)
class Run:
    """One run: the stacks, the records, and the name of the pod in its reviews; `deadline` is of the monotonic clock.

    `requested` has each sample whose request has begun, also if its answer never came: these are what a run removes.
    `recorded` has the keys of those whose record was read.
    """

    china: Stack
    world: Stack
    records: Records
    name: str
    deadline: float
    requested: list[Sample] = field(default_factory=list)
    recorded: set[tuple[str, str]] = field(default_factory=set)

    @property
    def requester(self) -> str:
        """What `requested_by` of the run's records says."""
        return f"{NAMESPACE}/Pod/{self.name}"

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    def copy(self, samples: Sequence[Sample]) -> list[Followed]:
        """Request the samples, and follow them and their builds to their ends or that of the time.

        Raises ClientError, BotoCoreError.
        """
        all_followed = [self._request(sample) for sample in samples]
        wanted = {each.sample.copy.destination: each for each in all_followed if each.fault is None}
        began = time.monotonic()

        def describe(latest: CopyRecords) -> list[CopyProgress]:
            waited = time.monotonic() - began
            return [each.see(latest[destination], waited) for destination, each in wanted.items()]

        if wanted:
            with display() as draw:
                existing = {destination: each.latest for destination, each in wanted.items()}
                for progress in follow(self.records, existing, describe, time.sleep):
                    draw(progress)
                    if self.is_over:
                        break
            self._look_at_builds([each for each in wanted.values() if each.latest and each.latest.build_id])
        return all_followed

    def wait_for_fast_lane(self) -> str | None:
        """Wait until the fast lane has a free slot. Return why it has none, None if it has.

        A build holds its slot until the schedule has read its end. The next copy would use the main lane meanwhile.
        """
        item = StateItem(self.china.account.client("dynamodb"), self.china.output("ImageListTableName"))
        state = item.read()
        with waiting("Waiting until the reconciler has read the end of the builds; this can take a minute ..."):
            while state is not None and not state.fast_is_off(current_time()):
                if sum(state.fast.out.values()) < max(1, (state.fast.most + 1) // 2):
                    return None
                if self.is_over:
                    return "all its slots were in use until the time was over"
                time.sleep(LANE_FREE)
                state = item.read()
        return None if state is None else "the reconciler has switched it off for an hour"

    def _request(self, sample: Sample) -> Followed:
        followed = Followed(sample)
        self.requested.append(sample)  # before the request: after Ctrl-C nobody knows whether it took effect
        destination, now = sample.copy.destination, current_time()
        if sample.forced:
            record = replace(new_record(destination, sample.copy.source, now, self.requester), not_fast=TOO_LARGE)
            self.records.create(record)
        else:
            review = review_of(sample.image, self.name, dry_run=False)
            reply = send(url_of(self.china), review)
            followed.fault = fault_of(review, reply, str(destination), log_of(self.china, "WebhookLogGroup"))
            followed.admission = reply.seconds if isinstance(reply, Reply) else None
        if followed.fault is None:
            record_now = self.records.get(*sample.key)
            self.recorded |= {sample.key} if record_now else set()
            followed.see(record_now, 0)
            if record_now is None or record_now.requested_by != self.requester:
                followed.fault = (_UNRECORDED, _LATER) if record_now is None else (_FOREIGN, _ANOTHER)
        return followed

    def _look_at_builds(self, some: Sequence[Followed]) -> None:
        """Wait until the builds have ended, or the time is over. Raises ClientError, BotoCoreError."""
        codebuild = self.world.account.client("codebuild")
        pending = {each.latest.build_id: each for each in some if each.latest and each.latest.build_id}
        while pending:
            found = codebuild.batch_get_builds(ids=list(pending))["builds"]
            # Of one that CodeBuild does not know, it will say nothing later either.
            pending = {build["id"]: pending[build["id"]] for build in found}
            for build in found:
                pending[build["id"]].build = build
                if build.get("buildStatus") != "IN_PROGRESS":
                    del pending[build["id"]]
            if not pending or self.is_over:
                return
            time.sleep(_PAUSE)


def is_over(sample: Sample, record: Record | None) -> bool:
    """Return whether nothing more is to be seen of a sample: one build without a copy is enough.

    So a run starts at most two builds for a sample: a record that continues in the main lane is given up as soon as
    that is seen.
    """
    if record is None or record.digest is not None or record.status in (None, Status.FAILED):
        return True
    if sample.lane is Lane.FAST and record.lane is Lane.MAIN:
        return True
    return record.status is Status.REQUESTED and record.error is not None and record.build_id is not None


def judge(followed: Followed, minutes: int, pushed_at: Any = None) -> list[Result]:
    """Judge a sample that was followed; `pushed_at` is when ECR got its copy. Pure."""
    sample, record = followed.sample, followed.latest
    seconds = seconds_of(
        admission=followed.admission,
        requested_at=followed.requested_at,
        build=followed.build,
        pushed_at=pushed_at,
        copied_at=followed.copied.updated_at if followed.copied else None,
    )

    def result(state: State, found: str, remedy: str | None = None) -> list[Result]:
        check = MISSING if sample.missing else COPY
        return [Result(check, state, f"{sample.image}: {found}", remedy, str(sample.lane), sample.image, seconds)]

    if followed.fault is not None:
        return result(State.FAILED, *followed.fault)
    if record is None:
        return result(State.FAILED, "its record was removed by something else", "run this again, with another image")
    error = record.error or "no reason is known yet"
    if sample.lane is Lane.FAST and (record.lane or Lane.MAIN) is Lane.MAIN and (record.build_id or record.not_fast):
        why = record.error or (f"it is {record.not_fast} for the fast lane" if record.not_fast else "no slot was free")
        return result(State.FAILED, f"its build is in the main lane: {why}", "see `image-mirror doctor`: fast lane")
    if sample.missing:
        return _judged_missing(followed, record, result, minutes)
    if record.digest is not None:
        return result(State.OK, f"COPIED as {record.digest} by {record.build_id}")
    if is_over(sample, record):
        return result(State.FAILED, error, f"see `image-mirror doctor`, and the build {record.build_id}")
    return result(State.FAILED, f"still {record.status} after {minutes} minutes: {error}", _doctor(record))


def _doctor(record: Record) -> str:
    build = f", and the build {record.build_id}" if record.build_id else ""
    return f"see `image-mirror doctor`{build}"


def _judged_missing(
    followed: Followed, record: Record, result: Callable[..., list[Result]], minutes: int
) -> list[Result]:
    """Judge a missing image: its first build must fail, and say why by its exported variables.

    The record can know the reason by the build's exit code too. So the export is looked at by itself.
    """
    if record.digest is not None:
        return result(State.FAILED, "there is such an image", "choose one that does not exist with --missing")
    if not is_over(followed.sample, record):
        found = f"still {record.status} after {minutes} minutes: {record.error or 'no reason is known yet'}"
        return result(State.FAILED, found, _doctor(record))
    reason = record.error or ""
    if not reason.startswith(f"{_EXPECTED}: ") or record.attempts != 1:
        found = f"its first build should say {_EXPECTED}, and says: {reason or 'nothing'}"
        return result(State.FAILED, found, f"see the build {record.build_id}, or choose another image with --missing")
    exported = {each.get("name"): each.get("value") for each in (followed.build or {}).get(_EXPORTS, ())}
    if exported.get("COPY_RESULT") != _EXPECTED:
        found = f"{_EXPECTED} after one build, by its exit code alone: CodeBuild returned no exported variables"
        return result(State.WARNING, found, "copies work; some reasons of failures are less exact: docs/first-run.md")
    return result(State.OK, f"{_EXPECTED} after one build, by the variables that it exported")


_EXPORTS = "exportedEnvironmentVariables"


def judge_builds(all_followed: Sequence[Followed], world: Stack) -> list[Result]:
    """Judge whether CodeBuild says of a build what `forget --force` and `connect --delete-keys` read. Pure."""
    builds = [each for each in all_followed if each.build is not None]
    if not builds:
        return []
    role = world.parameters.get("ChinaPushRoleArn", "")
    wrong, starters = [], set[str]()
    for each in builds:
        build = each.build or {}
        given = (build.get("environment") or {}).get("environmentVariables") or ()
        variables = {one.get("name"): one.get("value") for one in given}
        if variables.get("NEW_DOCKER_IMAGE") != str(each.sample.copy.destination.by_tag):
            wrong.append(f"{build['id']}: its variables do not name its copy, so `forget --force` would not stop it")
        if variables.get(_ROLE_VARIABLE, "") != role:
            wrong.append(f"{build['id']}: its variables do not have {_ROLE_VARIABLE} of its project")
        if initiator := build.get("initiator"):
            starters.add(str(initiator))
        else:
            wrong.append(f"{build['id']}: it has no initiator")
    if wrong:
        remedy = "nothing is copied wrongly; docs/first-run.md says what to do by hand instead"
        return [Result(BUILD, State.WARNING, "; ".join(dict.fromkeys(wrong)), remedy)]
    found = f"BatchGetBuilds names the variables and the initiator of each build ({', '.join(sorted(starters))})"
    return [Result(BUILD, State.OK, found)]
