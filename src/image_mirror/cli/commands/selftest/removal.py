"""Removes what a run has made, and nothing else: records, running builds, tags, images, and new repositories.

Whatever stays is named with the command that removes it. What somebody else has requested meanwhile is left.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from image_mirror.cli import forgetting
from image_mirror.cli.commands.selftest.copies import Run
from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.commands.selftest.samples import Before, Sample
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.errors import no_answer_errors, why_no_answer
from image_mirror.cli.forgetting import Builds, destination_of_build
from image_mirror.cli.held_copies import INDEXES, Details, images_of
from image_mirror.cli.image_selection import ImageResult
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import projects_of
from image_mirror.cli.terminal import waiting
from image_mirror.expiry import signature_tags
from image_mirror.record import Record, Status

REMOVAL = "removal"
IN_FLIGHT = 5.0
"""Seconds after which a StartBuild that was on its way when its record was removed is in CodeBuild's list."""
_LONGEST_STOP = 90.0
_PAUSE = 3.0
_MOST_IDS = 100  # of one BatchGetBuilds or BatchDeleteImage
_INTERRUPTED = "the removal was interrupted"


@dataclass(slots=True)
class Thing:
    """One thing to remove: what it is, the command that removes it, and how; `remove` returns why it stays, or None."""

    name: str
    command: str
    remove: Callable[[], str | None]


@dataclass(slots=True)
class Removal:
    """Removes what the samples of `run` have made. `builds` stops builds in the global account."""

    run: Run
    before: Before
    builds: Builds
    _foreign: set[tuple[str, str]] = field(default_factory=set)
    _unsettled: bool = False
    _notes: list[str] = field(default_factory=list)

    def carry_out(self) -> Result:
        """Remove all, and return what became of it. After Ctrl-C, what is left is named too."""
        samples = self.run.requested
        if not samples:
            return Result(REMOVAL, State.OK, "nothing was made, so nothing is removed")
        left: list[str] = []
        things = list(self._things(samples))
        with waiting("Removing what was made ..."):
            for number, thing in enumerate(things):
                try:
                    reason = thing.remove()
                except no_answer_errors() as error:
                    reason = why_no_answer(error)
                except KeyboardInterrupt:
                    left += [f"{each.name}: {_INTERRUPTED}; run {each.command}" for each in things[number:]]
                    break
                if reason is not None:
                    left.append(f"{thing.name}: {reason}; run {thing.command}")
        notes = "".join(f"; {note}" for note in dict.fromkeys(self._notes))
        if left:
            return Result(REMOVAL, State.FAILED, f"this is left: {'. '.join(left)}{notes}")
        return Result(REMOVAL, State.OK, f"the records, builds, tags and repositories of this run are gone{notes}")

    def _things(self, samples: Sequence[Sample]) -> Iterator[Thing]:
        aws, world = aws_of(self.run.china.account), aws_of(self.run.world.account)
        for sample in samples:
            command = f"`image-mirror forget --force {sample.image}`"
            yield Thing(f"the record of {sample.image}", command, partial(self._record, sample))
        for project in projects_of(self.run.world):
            listed = world("codebuild", "list-builds-for-project", "--project-name", project)
            command = f"{listed}, and `aws codebuild stop-build` for each build of these images"
            yield Thing(f"builds of {project}", command, partial(self._stop, project))
        for sample in samples:
            name, tag = sample.repository, f"imageTag={sample.copy.destination.tag}"
            command = aws("ecr", "batch-delete-image", "--repository-name", name, "--image-ids", tag)
            yield Thing(f"the copy {sample.copy.destination}", command, partial(self._copy, sample))
        for name in dict.fromkeys(each.repository for each in samples):
            if self.before.digests[name] is None:
                command = aws("ecr", "delete-repository", "--repository-name", name)
                yield Thing(f"the repository {name}", command, partial(self._repository, name))

    def _record(self, sample: Sample) -> str | None:
        record = self.run.records.get(*sample.key)
        if record is None and sample.key not in self.run.recorded:
            time.sleep(IN_FLIGHT)  # the webhook may be about to write it
            record = self.run.records.get(*sample.key)
        if record is None:
            return None
        if self._is_foreign(sample, record):
            return None
        ended = record.status is Status.COPIED and record.open_build is None
        # A claim without a build, or a record without an error, may have a StartBuild on its way.
        self._unsettled = self._unsettled or not (ended or record.error is not None)

        def kept(current: Record) -> ImageResult | None:
            return ImageResult("unchanged", ok=False) if self._is_foreign(sample, current) else None

        done = forgetting.forget(self.run.records, record, self.builds, kept)
        record = self.run.records.get(*sample.key)
        return None if record is None or self._is_foreign(sample, record) else done.text

    def _is_foreign(self, sample: Sample, record: Record | None) -> bool:
        """Return whether somebody else has requested a sample, and note that it is left."""
        if record is not None and record.requested_by != self.run.requester:
            self._foreign.add(sample.key)
            self._notes.append(f"{sample.image} is left, because somebody else has requested it meanwhile")
        return sample.key in self._foreign

    def _is_foreign_now(self, sample: Sample) -> bool:
        """Return the same after another look: a pod may have requested it since its record was removed."""
        return sample.key in self._foreign or self._is_foreign(sample, self.run.records.get(*sample.key))

    def _stop(self, project: str) -> str | None:
        """Stop the builds that make these copies, and wait until they have ended: they could still push."""
        if self._unsettled:
            time.sleep(IN_FLIGHT)
            self._unsettled = False
        codebuild = self.run.world.account.client("codebuild")
        ours = {each.copy.destination.by_tag for each in self.run.requested if not self._is_foreign_now(each)}
        deadline = time.monotonic() + _LONGEST_STOP
        asked: set[str] = set()
        while True:
            ids = codebuild.list_builds_for_project(projectName=project)["ids"][:_MOST_IDS]  # the latest come first
            builds = codebuild.batch_get_builds(ids=ids)["builds"] if ids else []
            running = [each["id"] for each in builds if _runs(each) and destination_of_build(each) in ours]
            if not running:
                return None
            for build_id in running:
                if build_id not in asked:
                    codebuild.stop_build(id=build_id)
                    asked.add(build_id)
            if time.monotonic() >= deadline:
                return f"{', '.join(running)} still runs"
            time.sleep(_PAUSE)

    def _copy(self, sample: Sample) -> str | None:
        """Remove the tag, then what belonged to it and was not there before: platforms, signatures.

        An image that was there before, or that has another tag, loses the tag only. ECR deletes an image with its last
        tag: so the tag of an image that was there before without one stays.
        """
        ecr, before = self.run.china.account.client("ecr"), self.before.digests[sample.repository] or frozenset()
        if self._is_foreign_now(sample):
            return None
        images = images_of(ecr, sample.copy.destination.repo)
        tag = sample.copy.destination.tag
        image = next((each for each in images or () if tag in each.get("imageTags", ())), None)
        if images is None or image is None:
            return None
        digest, has_others = image["imageDigest"], image["imageTags"] != [tag]
        if digest in before and not has_others:
            self._notes.append(
                f"the tag {tag} of {sample.repository} stays, because ECR had this image without a tag before"
            )
            return None
        named = {"repositoryName": sample.repository}
        index = ecr.batch_get_image(**named, imageIds=[{"imageTag": tag}], acceptedMediaTypes=list(INDEXES))["images"]
        children = _children(index[0]["imageManifest"] if index else "")
        failures = ecr.batch_delete_image(**named, imageIds=[{"imageTag": tag}])["failures"]
        if failures:
            return f"ECR did not remove it: {failures[0].get('failureCode')}: {failures[0].get('failureReason', '')}"
        if digest in before or has_others:
            return None
        others = [each for each in images if each["imageDigest"] not in before and each is not image]
        ids = [*_signatures(digest, others), *_untagged(digest, children, others)]
        for start in range(0, len(ids), _MOST_IDS):
            # One that another index refers to is kept by ECR itself.
            ecr.batch_delete_image(**named, imageIds=ids[start : start + _MOST_IDS])
        return None

    def _repository(self, name: str) -> str | None:
        ecr = self.run.china.account.client("ecr")
        repo = next(each.copy.destination.repo for each in self.run.requested if each.repository == name)
        if self.run.records.has_any(repo):
            self._notes.append(f"the repository {name} stays, because other images of it are requested")
            return None
        try:
            ecr.delete_repository(repositoryName=name)  # without `force`: only if it is empty
        except ecr.exceptions.RepositoryNotFoundException:
            return None
        except ecr.exceptions.RepositoryNotEmptyException:
            self._notes.append(f"the repository {name} stays, because it has images that this run has not made")
        return None


def _runs(build: Any) -> bool:
    return bool(build.get("buildStatus") == "IN_PROGRESS")


def _children(manifest: str) -> set[str]:
    """Return the digests that an index lists; none for another manifest."""
    try:
        listed = json.loads(manifest).get("manifests")
        return {str(each["digest"]) for each in listed or ()}
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):  # whoever pushes may push any text
        return set()


def _signatures(digest: str, images: Sequence[Details]) -> list[dict[str, str]]:
    """Return cosign's tags of an image that were not there before."""
    tags = {tag for each in images for tag in each.get("imageTags", ())}
    return [{"imageTag": tag} for tag in signature_tags(digest) if tag in tags]


def _untagged(digest: str, children: set[str], images: Sequence[Details]) -> list[dict[str, str]]:
    """Return the new images without a tag that belonged to an image: its platforms, and what has it as its subject."""
    ours = {digest, *children}
    return [
        {"imageDigest": each["imageDigest"]}
        for each in images
        if not each.get("imageTags") and (each["imageDigest"] in ours or each.get("subjectManifestDigest") in ours)
    ]
