"""The repositories of copies in ECR: created as set in the settings, and read; copies that expired are deleted."""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws_errors import DENIED, INVALID, code_of, delayed_by
from image_mirror.expiry import Details, is_released_policy, signature_tags, unused_untagged
from image_mirror.record import BuildResult, Record
from image_mirror.settings import Settings

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
_MOST_IDS = 100  # of one BatchDeleteImage
_MOST_IMAGES = 1_000  # of one page of DescribeImages
_MOST_PAGES = 10
_MOST_UNTAGGED = 1_000  # deleted with one copy
_MOST_KNOWN = 10_000
# The image is not there any more; or an index in the repository refers to it, so ECR keeps it.
_GONE, _REFERRED = "ImageNotFound", "ImageReferencedByManifestList"


class Repositories:
    """The repositories below the prefix, in the region."""

    def __init__(self, ecr: "ECRClient", settings: Settings) -> None:
        self._ecr = ecr
        self._settings = settings
        # botocore makes these classes at their first use. If two threads did that at the same time, each would have its
        # own, and would not catch an error of the other's class.
        self._errors = ecr.exceptions
        self._without_released_policy: set[str] = set()

    def ensure(self, record: Record) -> None:
        """Create the repository of `record`'s copy unless it exists, and let the accounts that are set pull from it.

        The policy is written each time, not only at creation: a crash in between must not lose it, and what is set
        again reaches the repositories that exist. Raises DelayedError.
        """
        repository, key = _name(record), self._settings.kms_key_id
        # ECR takes the encryption at creation only. Without a key, the account's own default applies.
        encrypted: Any = {"encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": key}} if key else {}
        exists = self._errors.RepositoryAlreadyExistsException
        try:
            with suppress(exists):
                self._ecr.create_repository(
                    repositoryName=repository,
                    tags=[{"Key": "image-mirror", "Value": "copy"}],
                    imageTagMutability="MUTABLE",  # an immutable tag would refuse a refresh
                    imageScanningConfiguration={"scanOnPush": self._settings.scan_on_push},
                    **encrypted,
                )
            if self._settings.pull_accounts:
                partition = "aws-cn" if self._settings.mirror.registry.endswith(".cn") else "aws"
                text = json.dumps(pull_policy(self._settings.pull_accounts, partition))
                self._ecr.set_repository_policy(repositoryName=repository, policyText=text)
        except (ClientError, BotoCoreError) as error:
            delay = delayed_by(f"creating the repository {repository}", error)
            delay.refusal = _refusal(error)
            raise delay from error

    def held(self, record: Record) -> str | None:
        """Return the digest that pods can pull under the record's tag, or None if there is none."""
        image = self.image(record)
        return None if image is None else image["imageDigest"]

    def image(self, record: Record) -> Details | None:
        """Return what ECR says of the image that pods can pull under the record's tag, or None if there is none."""
        try:
            answer = self._ecr.describe_images(repositoryName=_name(record), imageIds=[{"imageTag": record.tag}])
        except (self._errors.ImageNotFoundException, self._errors.RepositoryNotFoundException):
            return None
        return next((image for image in answer["imageDetails"] if can_be_pulled(image)), None)

    def delete(self, record: Record, image: Details, since: int, goes_on: Callable[[], bool]) -> int:
        """Delete an expired copy, whose record has been removed, and what only this copy needed.

        First its tag; if that was the last tag of `image`, also cosign's tags; then the repository's untagged images
        that nobody has used since `since`: the platforms of this copy and of older ones. Of these, at most 1,000, and
        only as long as `goes_on()`. The next copy of the repository that expires continues. Return how many untagged
        images were deleted. Raises NotDeletedError, ClientError, BotoCoreError.
        """
        repository, digest = _name(record), image["imageDigest"]
        signatures = signature_tags(digest)
        kept = self._delete(repository, [{"imageTag": record.tag}])
        if not kept and not set(image.get("imageTags", ())) - {record.tag, *signatures}:
            self._delete(repository, [{"imageTag": tag} for tag in signatures])
        deleted = 0
        # An index goes in an earlier call than its platforms.
        for some in self._unused_untagged(repository, since, goes_on):
            # ECR refuses those that belong to an index, each time. In an order that differs from copy to copy, they do
            # not always take the places of the others.
            some.sort(key=lambda each: zlib.crc32(f"{each} {record.destination}".encode()))
            for digests in _batches(some[: _MOST_UNTAGGED - deleted]):
                if not goes_on():
                    return deleted
                deleted += len(digests) - len(self._delete(repository, [{"imageDigest": each} for each in digests]))
        return deleted

    def remove_released_policy(self, record: Record) -> None:
        """Delete the lifecycle policy of the record's repository if an earlier release wrote it.

        Such a policy deletes copies in daily use. Nothing writes one any more, so a repository is asked about once in
        the life of this object. Raises ClientError, BotoCoreError.
        """
        repository, errors = _name(record), self._errors
        if repository in self._without_released_policy:
            return
        with suppress(errors.LifecyclePolicyNotFoundException, errors.RepositoryNotFoundException):
            if is_released_policy(self._ecr.get_lifecycle_policy(repositoryName=repository)["lifecyclePolicyText"]):
                self._ecr.delete_lifecycle_policy(repositoryName=repository)
        if len(self._without_released_policy) >= _MOST_KNOWN:
            self._without_released_policy.clear()
        self._without_released_policy.add(repository)

    def _unused_untagged(self, repository: str, since: int, goes_on: Callable[[], bool]) -> tuple[list[str], list[str]]:
        """Return the digests of untagged images that nobody has used since a time, indexes first; of 10 pages."""
        indexes: list[str] = []
        others: list[str] = []
        more: Any = {}
        for _ in range(_MOST_PAGES):
            if not goes_on():
                break
            answer = self._ecr.describe_images(
                repositoryName=repository, filter={"tagStatus": "UNTAGGED"}, maxResults=_MOST_IMAGES, **more
            )
            for found, added in zip((indexes, others), unused_untagged(answer["imageDetails"], since), strict=True):
                found += added
            if not answer.get("nextToken"):
                break
            more = {"nextToken": answer["nextToken"]}
        return indexes, others

    def _delete(self, repository: str, ids: Any) -> list[Any]:
        """Delete at most 100 images. Return those that an index refers to; raise NotDeletedError for other failures."""
        failures = self._ecr.batch_delete_image(repositoryName=repository, imageIds=ids)["failures"]
        kept = [failure for failure in failures if failure["failureCode"] != _GONE]
        for failure in kept:
            if failure["failureCode"] != _REFERRED:
                raise NotDeletedError(f"{repository}: {failure}")
        return kept


class NotDeletedError(Exception):
    """ECR did not delete an image. Its record has been removed, so `image-mirror prune` shows it."""


def can_be_pulled(image: Details) -> bool:
    """Return whether an image that DescribeImages has listed can be pulled: ECR answers 404 for an archived one.

    It answers the same until an image that is being restored from the archive is there again.
    """
    return bool(image.get("imageStatus", "ACTIVE") == "ACTIVE")


def _refusal(error: ClientError | BotoCoreError) -> BuildResult | None:
    """Return what a refusal counts as: the name is refused for good, or a quota or a policy, which may change."""
    code = code_of(error) if isinstance(error, ClientError) else ""
    if code in INVALID:
        return BuildResult.ENDED
    return BuildResult.DELAYED if code in DENIED | {"LimitExceededException", "KmsException"} else None


def pull_policy(accounts: Sequence[str], partition: str) -> dict[str, Any]:
    """Return the repository policy that lets other accounts pull."""
    principals = [f"arn:{partition}:iam::{account}:root" for account in accounts]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Pull", "Effect": "Allow", "Principal": {"AWS": principals}, "Action": _PULL}],
    }


def _name(record: Record) -> str:
    return record.repo.partition("/")[2]


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _MOST_IDS] for start in range(0, len(names), _MOST_IDS))
