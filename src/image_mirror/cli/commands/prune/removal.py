"""Removes unused copies, in an order in which no pod that has pulled a copy, or that a cluster lists, loses it.

First the record is removed. The webhook remembers a record for a minute, so that minute has to pass. Copies that were
requested, pushed, pulled or started in the meantime are kept, and their records are put back. The others are removed
from ECR.

Only its cluster knows of a pod that got the name of a copy shortly before, and has not pulled it yet. So the clusters
are asked once more. If no cluster is asked, such a pod loses its copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.cli.commands.prune.selection import (
    InUse,
    Tag,
    Unused,
    signatures_left,
    tags,
    unused_untagged,
)
from image_mirror.cli.errors import no_answer_errors
from image_mirror.cli.held_copies import images_of
from image_mirror.cli.image_selection import ImageResult
from image_mirror.cli.terminal import each
from image_mirror.expiry import Details, signed_digest
from image_mirror.table import Records

if TYPE_CHECKING:
    from image_mirror.record import Record

REMOVED = ImageResult("removed")
GONE = ImageResult("gone already")
REQUESTED = ImageResult("kept: it was asked for meanwhile")
_IN_DOUBT = ImageResult(
    "perhaps removed: ECR gave no answer; if it is, the reconciler removes the record that was put back", ok=False
)
ENDED_EARLY = ImageResult("kept: the command has ended early")
_REFERRED = "ImageReferencedByManifestList"
_MOST_IDS = 100  # of one BatchDeleteImage

Key = tuple[str, str]


class Pruning:
    """One run. `outcomes` has the result of each copy so far; `untagged` counts the untagged images that were removed.

    Images that were used after `cutoff` are kept. An empty repository has the tag "" in `outcomes`.
    """

    def __init__(self, ecr: Any, records: Records, cutoff: int) -> None:
        self._ecr = ecr
        self._records = records
        self._cutoff = cutoff
        self._removed_records: dict[Key, Record] = {}  # to be put back if the copy is kept
        self.outcomes: dict[Key, ImageResult] = {}
        self.untagged = 0

    def remove_records(self, removable: Sequence[Unused]) -> None:
        """Remove the records that have not changed since they were read. Raises ClientError, BotoCoreError."""
        each("removing records", self._remove_record, [one for one in removable if one.record is not None])

    def remove_images(self, removable: Sequence[Unused], running: InUse) -> None:
        """Remove from ECR what nobody has used in the meantime; `running` is what clusters run now.

        Raises ClientError, BotoCoreError.
        """
        repos: dict[str, list[Unused]] = {}
        for one in removable:
            if one.tag.key not in self.outcomes:
                repos.setdefault(one.tag.repo, []).append(one)
        each("removing images", lambda some: self._remove(some, running), list(repos.values()))

    def remove_repositories(self, repos: Sequence[str]) -> None:
        """Remove repositories that are still empty. Raises ClientError, BotoCoreError."""
        each("removing empty repositories", self._remove_repository, repos)

    def put_back(self, now: int) -> None:
        """Write the record of each kept copy again. The reconciler then checks at once that ECR has the copy."""
        try:
            each("putting records back", lambda key: self._put_back(key, now), list(self._removed_records))
        finally:
            for key in self._removed_records:
                self.outcomes[key] = _not_put_back("ended early")

    def _remove_repository(self, repo: str) -> None:
        errors = self._ecr.exceptions
        try:
            self._ecr.delete_repository(repositoryName=_repository(repo))  # without `force`: only if it is empty
        except errors.RepositoryNotEmptyException:
            self.outcomes[repo, ""] = ImageResult("kept: an image was pushed meanwhile")
        except errors.RepositoryNotFoundException:
            self.outcomes[repo, ""] = GONE
        else:
            self.outcomes[repo, ""] = REMOVED

    def _remove_record(self, one: Unused) -> None:
        key, record = one.tag.key, one.record
        if record is None:
            return
        self._removed_records[key] = record  # before the call, because it may take effect and still fail
        try:
            removed = self._records.remove(record)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) < 500:
                del self._removed_records[key]
            raise
        # If the client repeated the request, the first one may already have removed the record.
        if not removed and self._records.get(*key) is not None:
            del self._removed_records[key]
            self.outcomes[key] = ImageResult("kept: its record has changed meanwhile")

    def _remove(self, some: Sequence[Unused], running: InUse) -> None:
        repo = some[0].tag.repo
        found = images_of(self._ecr, repo) or []
        current = {tag.key: tag for tag in tags(repo, found)}
        removable: list[str] = []
        for one in some:
            kept = self._reason_to_keep(one.tag, current.get(one.tag.key), running)
            if kept is None:
                removable.append(one.tag.name)
            else:
                self.outcomes[one.tag.key] = kept
        for names in _batches(removable):
            self._remove_tags(repo, names)
        if removable:
            self._remove_untagged(repo, found, running)
            if any(signed_digest(tag.name) for tag in tags(repo, found)):
                for names in _batches(signatures_left(repo, images_of(self._ecr, repo) or [], running)):
                    self._delete(repo, "imageTag", names)

    def _reason_to_keep(self, before: Tag, now: Tag | None, running: InUse) -> ImageResult | None:
        if self._records.get(*before.key) is not None:
            self._removed_records.pop(before.key, None)
            return REQUESTED
        if now is None:
            self._removed_records.pop(before.key, None)
            return GONE
        if now.digest != before.digest or now.used_at > before.used_at:
            return ImageResult("kept: it was pushed or pulled meanwhile")
        if running.holds(now.repo, now.name, now.digest):
            return ImageResult("kept: a cluster runs it now")
        return None

    def _remove_tags(self, repo: str, names: Sequence[str]) -> None:
        try:
            failures = self._delete(repo, "imageTag", names)
        except Exception:
            self._look_again(repo, names)
            raise
        kept: dict[str, ImageResult] = {}
        for failure in failures:
            error = f"{failure['failureCode']}: {failure.get('failureReason', '')}"
            referred = failure["failureCode"] == _REFERRED
            cause = "an index in its repository refers to it" if referred else f"ECR did not remove it: {error}"
            kept[failure["imageId"].get("imageTag", "")] = ImageResult(f"kept: {cause}", ok=referred)
        self._set_outcomes(repo, names, kept)

    def _look_again(self, repo: str, names: Sequence[str]) -> None:
        """Set the outcomes of images that a failed request has removed nevertheless. The others have no outcome yet."""
        try:
            current = {tag.name for tag in tags(repo, images_of(self._ecr, repo) or [])}
        except Exception:  # noqa: BLE001 - the first error is raised; this one adds nothing
            self.outcomes |= {(repo, name): _IN_DOUBT for name in names}
        else:
            self._set_outcomes(repo, [name for name in names if name not in current], {})

    def _set_outcomes(self, repo: str, names: Sequence[str], kept: Mapping[str, ImageResult]) -> None:
        for name in names:
            if name not in kept:
                self._removed_records.pop((repo, name), None)
            self.outcomes[repo, name] = kept.get(name, REMOVED)

    def _remove_untagged(self, repo: str, found: Sequence[Details], running: InUse) -> None:
        """Remove the untagged images that no index refers to any more: the platforms of a removed copy."""
        for digests in chain(*map(_batches, unused_untagged(repo, found, running, self._cutoff))):
            # ECR refuses to remove an image that an index still refers to, so the indexes need not be read. Reading
            # would count as pulling them.
            self.untagged += len(digests) - len(self._delete(repo, "imageDigest", digests))

    def _delete(self, repo: str, kind: str, names: Sequence[str]) -> list[Any]:
        """Delete a batch of images by tags or digests. Return the failures; a missing image is not a failure."""
        ids = [{kind: name} for name in names]
        failures = self._ecr.batch_delete_image(repositoryName=_repository(repo), imageIds=ids)["failures"]
        return [failure for failure in failures if failure["failureCode"] != "ImageNotFound"]

    def _put_back(self, key: Key, now: int) -> None:
        try:
            self._records.create(replace(self._removed_records[key], due_at=now))
        except no_answer_errors() as error:
            code = code_of(error) if isinstance(error, ClientError) else type(error).__name__
            self.outcomes[key] = _not_put_back(code)
        else:
            self.outcomes.setdefault(key, ENDED_EARLY)
        del self._removed_records[key]


def _not_put_back(cause: str) -> ImageResult:
    text = f"kept, without its record, which was not put back ({cause}): the next pod requests the copy again"
    return ImageResult(text, ok=False)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _MOST_IDS] for start in range(0, len(names), _MOST_IDS))


def _repository(repo: str) -> str:
    return repo.partition("/")[2]
