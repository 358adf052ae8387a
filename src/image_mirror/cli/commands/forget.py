"""`image-mirror forget`: removes records, so that the next pod requests the copies again. --force also stops builds.

A build is stopped before its record is removed. If the command ends between the two, the record is still there: the
reconciler sees the stopped build and starts another one, so no pod waits in vain, and the command can be run again. In
the other order nothing would know the ID of the running build any more, and nobody could stop it or watch it. After
both, nothing starts the build again: the reconciler starts builds only for records, and an event of ECR about what the
build had pushed finds no record.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import ExitCode, no_answer_errors, why_no_answer
from image_mirror.cli.image_selection import MOST_RACES, ImageResult, each_image, select
from image_mirror.cli.options import ChinaProfile, ChinaRegion, GlobalProfile, GlobalRegion, StackName
from image_mirror.cli.stacks import china_stack, mirror_of, records_of
from image_mirror.record import Record, Status
from image_mirror.table import Records


def forget(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|GLOB",
            help="An image as in a manifest, its copy in ECR, or a quoted pattern.",
            autocompletion=completion.images,
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also forget what is requested or being copied; stop its build.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
    global_profile: GlobalProfile = None,
    global_region: GlobalRegion = None,
) -> None:
    """Remove the records of images. The next pod with such an image requests it again.

    \b
    image-mirror forget nginx:1.27

    The copies stay in ECR, and pods can still pull them. `image-mirror prune` removes copies that nobody pulls. The
    webhook remembers a record for a minute. In that minute a new pod still gets the copy, and requests nothing.

    A copy that is requested or being copied needs --force, because pods may be waiting for it. Nothing starts its build
    without its record. The waiting pods get the copy only if another pod requests it again.

    With --force, a build that makes the copy now is stopped in the global account first, and no other build. If the
    account does not stop it, the record stays. Without a profile for that account, or with --global-profile '', the
    record is removed and the build goes on. It can only push this image under its own name; `image-mirror prune` shows
    it later.

    The next pod writes the record again. So the command acts at once, without --yes; --dry-run shows what it would do.

    Prints a line for each image. Exits with 1 if an image has no record, if its record was not removed, or if its build
    is that of another copy.
    """
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    records = records_of(stack)
    found = select(images, records, mirror_of(stack))
    builds = _Builds(global_profile, global_region) if force else None

    def step(record: Record) -> ImageResult:
        return _preview(record, builds) if dry_run else _forget(records, record, builds)

    if not each_image("forgetting", step, found):
        raise typer.Exit(ExitCode.NOT_WELL)


@dataclass(frozen=True, slots=True)
class _Stop:
    """What was done with a running build, for people. `may_run`: it was to be stopped, and may go on."""

    text: str
    ok: bool = True
    may_run: bool = False


class _Builds:
    """Stops the running builds of copies, in the global account. Several threads use it."""

    def __init__(self, profile: str | None, region: str | None) -> None:
        self._account = Account("global", profile or None, region)
        self._is_named = bool(profile)
        self._client: Any = None
        self._missing = "no profile is given"
        if profile == "":
            return
        try:
            self._client = self._account.client("codebuild")
        except no_answer_errors() as error:
            text = why_no_answer(error)
            self._missing = text if str(self._account) in text else f"{self._account}: {text}"

    def stop(self, record: Record, *, dry_run: bool = False) -> _Stop:
        """Stop the record's build if it runs and makes this copy. With `dry_run`, return what would be done."""
        its = f"its build {record.build_id}"
        if self._client is None and self._is_named:
            return _may_run(f"{its} may go on: {self._missing}")
        if self._client is None:
            return _Stop(f"{its} goes on, because nobody was asked to stop it: {self._missing}")
        try:
            found = self._client.batch_get_builds(ids=[record.build_id])["builds"]
            if not found:
                region = self._account.region
                cause = f"CodeBuild in {region} has no such build; is this the right account?"
                return _may_run(f"{its} is not stopped: {self._account}: {cause}")
            if found[0].get("buildStatus") != "IN_PROGRESS":
                return _Stop(f"{its} has already ended")
            # Somebody may have written the ID of another build by hand.
            if _destination(found[0]) != record.destination:
                return _Stop(f"{its} is not stopped, because its variables do not name this copy", ok=False)
            if not dry_run:
                self._client.stop_build(id=record.build_id)
        except no_answer_errors() as error:
            return _may_run(f"{its} may go on: {why_no_answer(error)}")
        return _Stop(f"{its} {'would be stopped' if dry_run else 'is stopped'}")


def _may_run(text: str) -> _Stop:
    remedy = "name the profile of its account, or give --global-profile '' to remove the record only"
    return _Stop(f"{text}; {remedy}", ok=False, may_run=True)


def _destination(build: Any) -> str | None:
    variables = (build.get("environment") or {}).get("environmentVariables") or ()
    return next((each.get("value") for each in variables if each.get("name") == "NEW_DOCKER_IMAGE"), None)


def _preview(record: Record, builds: _Builds | None) -> ImageResult:
    kept = _kept(record, force=builds is not None)
    if kept is not None:
        return kept
    if builds is None or not _has_build(record):
        return ImageResult("would be forgotten")
    stop = builds.stop(record, dry_run=True)
    if stop.may_run:
        return ImageResult(f"would be unchanged; {stop.text}", ok=False)
    return ImageResult(f"would be forgotten; {stop.text}", ok=stop.ok)


def _forget(records: Records, record: Record, builds: _Builds | None) -> ImageResult:
    """Stop the running build, then remove the record, also if the reconciler changes it at the same time."""
    current: Record | None = record
    stops: dict[str | None, _Stop] = {}
    for _ in range(MOST_RACES):
        if current is None:
            return _result("its record was already removed", stops)
        kept = _kept(current, force=builds is not None)
        if kept is not None:
            return kept
        if builds is not None and _has_build(current) and current.build_id not in stops:
            stops[current.build_id] = builds.stop(current)
            if stops[current.build_id].may_run:
                return _result("unchanged", stops, ok=False)
        if records.remove(current):
            return _result("forgotten", stops)
        current = records.get(record.repo, record.tag)
    return _result("unchanged: its record keeps changing; try again", stops, ok=False)


def _has_build(record: Record) -> bool:
    return record.status is Status.COPYING and record.build_id is not None


def _result(text: str, stops: dict[str | None, _Stop], *, ok: bool = True) -> ImageResult:
    texts = [text, *(stop.text for stop in stops.values())]
    return ImageResult("; ".join(texts), ok=ok and all(stop.ok for stop in stops.values()))


def _kept(record: Record, *, force: bool) -> ImageResult | None:
    """Return why the record is not removed without --force; None if it is removed."""
    if force:
        return None
    if record.status is Status.COPYING:
        return ImageResult(f"unchanged: its build {record.build_id} is running; --force forgets it anyway", ok=False)
    if record.status is Status.REQUESTED and record.digest is None:
        return ImageResult("unchanged: pods may be waiting for it; --force forgets it anyway", ok=False)
    return None
