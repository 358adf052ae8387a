"""Removes records whose copies nobody needs any more, and stops the builds that make them.

A build is stopped before its record is removed. If the command ends between the two, the record is still there: the
reconciler sees the stopped build and starts another one, so no pod waits in vain, and the command can be run again. In
the other order nothing would know the ID of the running build any more, and nobody could stop it or watch it. After
both, nothing starts the build again: the reconciler starts builds only for records, and an event of ECR about what the
build had pushed finds no record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.image_selection import MOST_RACES, ImageResult
from image_mirror.record import Record, Status
from image_mirror.table import Records


@dataclass(frozen=True, slots=True)
class Stop:
    """What was done with a running build, for people. `may_run`: it was to be stopped, and may continue."""

    text: str
    ok: bool = True
    may_run: bool = False


class Builds:
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

    def stop(self, record: Record, *, dry_run: bool = False) -> Stop:
        """Stop the record's build if it runs and makes this copy. With `dry_run`, return what would be done."""
        its = f"its build {record.build_id}"
        if self._client is None and self._is_named:
            return _may_run(f"{its} may continue: {self._missing}")
        if self._client is None:
            return Stop(f"{its} continues, because nobody was asked to stop it: {self._missing}")
        try:
            found = self._client.batch_get_builds(ids=[record.build_id])["builds"]
            if not found:
                region = self._account.region
                cause = f"CodeBuild in {region} has no such build; is this the right account?"
                return _may_run(f"{its} is not stopped: {self._account}: {cause}")
            if found[0].get("buildStatus") != "IN_PROGRESS":
                return Stop(f"{its} has already ended")
            # Somebody may have written the ID of another build by hand.
            if destination_of_build(found[0]) != record.destination:
                return Stop(f"{its} is not stopped, because its variables do not name this copy", ok=False)
            if not dry_run:
                self._client.stop_build(id=record.build_id)
        except no_answer_errors() as error:
            return _may_run(f"{its} may continue: {why_no_answer(error)}")
        return Stop(f"{its} {'would be stopped' if dry_run else 'is stopped'}")


def _may_run(text: str) -> Stop:
    remedy = "name the profile of its account, or give --global-profile '' to remove the record only"
    return Stop(f"{text}; {remedy}", ok=False, may_run=True)


def destination_of_build(build: Any) -> str | None:
    """Return the copy that a build makes, by its variables."""
    variables = (build.get("environment") or {}).get("environmentVariables") or ()
    return next((each.get("value") for each in variables if each.get("name") == "NEW_DOCKER_IMAGE"), None)


def forget(
    records: Records, record: Record, builds: Builds | None, is_kept: Callable[[Record], ImageResult | None]
) -> ImageResult:
    """Stop the running build, then remove the record, also if the reconciler changes it at the same time.

    `is_kept` returns why a record stays, None if it does not; it is called again if the record has changed. No build is
    stopped without `builds`.
    """
    current: Record | None = record
    stops: dict[str | None, Stop] = {}
    for _ in range(MOST_RACES):
        if current is None:
            return _result("its record was already removed", stops)
        kept = is_kept(current)
        if kept is not None:
            return kept
        if builds is not None and has_build(current) and current.build_id not in stops:
            stops[current.build_id] = builds.stop(current)
            if stops[current.build_id].may_run:
                return _result("unchanged", stops, ok=False)
        if records.remove(current):
            return _result("forgotten", stops)
        current = records.get(record.repo, record.tag)
    return _result("unchanged: its record keeps changing; try again", stops, ok=False)


def has_build(record: Record) -> bool:
    """Return whether a build that the record names makes its copy now."""
    return record.status is Status.COPYING and record.build_id is not None


def _result(text: str, stops: dict[str | None, Stop], *, ok: bool = True) -> ImageResult:
    texts = [text, *(stop.text for stop in stops.values())]
    return ImageResult("; ".join(texts), ok=ok and all(stop.ok for stop in stops.values()))
