"""Takes unused copies away, in an order in which no pod loses its copy that has pulled it or that a cluster knows.

First the record goes. The webhook answers by a record for a minute after it has read it, so that minute is let pass.
Then whatever was asked for, pushed, pulled or started meanwhile stays, and has its record again; the rest leaves ECR.

A pod that was sent to a copy shortly before, and has not pulled it yet, is known to its cluster alone: so the clusters
are asked once more; where none is asked, such a pod loses its copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.cli.commands.prune.selection import Details, InUse, Tag, Unused, leftovers, tags
from image_mirror.cli.image_selection import ImageResult
from image_mirror.cli.terminal import each
from image_mirror.table import Records

if TYPE_CHECKING:
    from image_mirror.record import Record

REMOVED = ImageResult("removed")
_IN_DOUBT = ImageResult(
    "perhaps removed: ECR gave no answer; a record that stands again goes once the reconciler has looked", ok=False
)
ENDED_EARLY = ImageResult("kept: the command has ended early")
_REFERRED = "ImageReferencedByManifestList"
_MOST_IDS = 100  # of one BatchDeleteImage

Key = tuple[str, str]


def images(ecr: Any, repo: str) -> list[Details]:
    """Return what ECR says of a repository's images, tagged or not; nothing of a repository that is not there."""
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=_repository(repo))
    try:
        return [image for page in pages for image in page["imageDetails"]]
    except ecr.exceptions.RepositoryNotFoundException:
        return []


class Pruning:
    """One run. `outcomes` says what has come of each copy so far; `untagged` counts the manifests that went as well."""

    def __init__(self, ecr: Any, records: Records, cutoff: int) -> None:
        """Take a client of ECR, the table, and the time since which nobody has used what goes."""
        self._ecr = ecr
        self._records = records
        self._cutoff = cutoff
        self._taken: dict[Key, Record] = {}  # what has to stand again where its copy stays
        self.outcomes: dict[Key, ImageResult] = {}
        self.untagged = 0

    def take_records(self, going: Sequence[Unused]) -> None:
        """Remove the records, each where it still is what was read. Raises ClientError, BotoCoreError."""
        each("removing records", self._take, [one for one in going if one.record is not None])

    def remove_images(self, going: Sequence[Unused], running: InUse) -> None:
        """Remove from ECR what nobody has come to need meanwhile; `running` is what clusters run now.

        Raises ClientError, BotoCoreError.
        """
        repos: dict[str, list[Unused]] = {}
        for one in going:
            if one.tag.key not in self.outcomes:
                repos.setdefault(one.tag.repo, []).append(one)
        each("removing images", lambda some: self._remove(some, running), list(repos.values()))

    def put_back(self, now: int) -> None:
        """Have a record again for each copy that stays; the reconciler looks at once whether it does."""
        try:
            each("putting records back", lambda key: self._put_back(key, now), list(self._taken))
        finally:
            for key in self._taken:
                self.outcomes[key] = _not_put_back("ended early")

    def _take(self, one: Unused) -> None:
        key, record = one.tag.key, one.record
        if record is None:
            return
        self._taken[key] = record  # before the call, which may take effect and fail all the same
        try:
            removed = self._records.remove(record)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) < 500:
                del self._taken[key]
            raise
        # None stands where a request that was repeated found the first one's work done.
        if not removed and self._records.get(*key) is not None:
            del self._taken[key]
            self.outcomes[key] = ImageResult("kept: its record has changed meanwhile")

    def _remove(self, some: Sequence[Unused], running: InUse) -> None:
        repo = some[0].tag.repo
        found = images(self._ecr, repo)
        held = {tag.key: tag for tag in tags(repo, found)}
        going: list[str] = []
        for one in some:
            kept = self._reason_to_keep(one.tag, held.get(one.tag.key), running)
            if kept is None:
                going.append(one.tag.name)
            else:
                self.outcomes[one.tag.key] = kept
        for names in _batches(going):
            self._remove_tags(repo, names)
        if going:
            self._sweep(repo, found, running)

    def _reason_to_keep(self, before: Tag, now: Tag | None, running: InUse) -> ImageResult | None:
        if self._records.get(*before.key) is not None:
            self._taken.pop(before.key, None)
            return ImageResult("kept: it was asked for meanwhile")
        if now is None:
            self._taken.pop(before.key, None)
            return ImageResult("gone already")
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
            said = f"{failure['failureCode']}: {failure.get('failureReason', '')}"
            referred = failure["failureCode"] == _REFERRED
            why = "an index in its repository refers to it" if referred else f"ECR did not remove it: {said}"
            kept[failure["imageId"].get("imageTag", "")] = ImageResult(f"kept: {why}", ok=referred)
        self._settle(repo, names, kept)

    def _look_again(self, repo: str, names: Sequence[str]) -> None:
        """Settle what a request without a good answer has removed all the same; what stays has no outcome yet."""
        try:
            held = {tag.name for tag in tags(repo, images(self._ecr, repo))}
        except Exception:  # noqa: BLE001 - the first error is raised; this one says no more
            self.outcomes |= {(repo, name): _IN_DOUBT for name in names}
        else:
            self._settle(repo, [name for name in names if name not in held], {})

    def _settle(self, repo: str, names: Sequence[str], kept: Mapping[str, ImageResult]) -> None:
        for name in names:
            if name not in kept:
                self._taken.pop((repo, name), None)
            self.outcomes[repo, name] = kept.get(name, REMOVED)

    def _sweep(self, repo: str, found: Sequence[Details], running: InUse) -> None:
        """Remove the untagged images that no index refers to any more: what a copy of several platforms consists of."""
        for digests in chain(*map(_batches, leftovers(repo, found, running, self._cutoff))):
            # One that an index still refers to is refused: no matter, and no need to look into the indexes, which would
            # count as pulling them.
            self.untagged += len(digests) - len(self._delete(repo, "imageDigest", digests))

    def _delete(self, repo: str, kind: str, names: Sequence[str]) -> list[Any]:
        """Delete a batch of images by tags or digests. Return the failures; that one is gone already is none."""
        ids = [{kind: name} for name in names]
        failures = self._ecr.batch_delete_image(repositoryName=_repository(repo), imageIds=ids)["failures"]
        return [failure for failure in failures if failure["failureCode"] != "ImageNotFound"]

    def _put_back(self, key: Key, now: int) -> None:
        try:
            self._records.create(replace(self._taken[key], due_at=now))
        except (ClientError, BotoCoreError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            self.outcomes[key] = _not_put_back(code)
        else:
            self.outcomes.setdefault(key, ENDED_EARLY)
        del self._taken[key]


def _not_put_back(cause: str) -> ImageResult:
    said = f"kept, without its record, which was not put back ({cause}): the next pod that names it has it copied anew"
    return ImageResult(said, ok=False)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _MOST_IDS] for start in range(0, len(names), _MOST_IDS))


def _repository(repo: str) -> str:
    return repo.partition("/")[2]
