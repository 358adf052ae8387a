"""The repositories of copies in ECR: created as set in the settings, and read."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws_errors import DENIED, INVALID, code_of, delayed_by
from image_mirror.record import BuildResult, Record
from image_mirror.reference import DIGEST_TAG
from image_mirror.settings import Settings

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
_NEVER_DAYS = 36_500


class Repositories:
    """The repositories below the prefix, in the region."""

    def __init__(self, ecr: "ECRClient", settings: Settings) -> None:
        self._ecr = ecr
        self._settings = settings

    def ensure(self, record: Record) -> None:
        """Create the repository of `record`'s copy unless it exists, and give it the policies that are set.

        The policies are written each time, not only at creation: a crash in between must not lose them, and what is set
        again reaches the repositories that exist. Raises DelayedError.
        """
        repository, key = record.repo.partition("/")[2], self._settings.kms_key_id
        # ECR takes the encryption at creation only. Without a key, the account's own default applies.
        encrypted: Any = {"encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": key}} if key else {}
        exists = self._ecr.exceptions.RepositoryAlreadyExistsException
        try:
            with suppress(exists):
                self._ecr.create_repository(
                    repositoryName=repository,
                    tags=[{"Key": "image-mirror", "Value": "copy"}],
                    imageTagMutability="MUTABLE",  # an immutable tag would refuse a refresh
                    imageScanningConfiguration={"scanOnPush": self._settings.scan_on_push},
                    **encrypted,
                )
            if self._settings.expire_days:
                text = json.dumps(lifecycle_policy(self._settings.expire_days))
                self._ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=text)
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
        try:
            answer = self._ecr.describe_images(
                repositoryName=record.repo.partition("/")[2], imageIds=[{"imageTag": record.tag}]
            )
        except (self._ecr.exceptions.ImageNotFoundException, self._ecr.exceptions.RepositoryNotFoundException):
            return None
        return next((image["imageDigest"] for image in answer["imageDetails"] if can_be_pulled(image)), None)


def can_be_pulled(image: Mapping[str, Any]) -> bool:
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


def lifecycle_policy(days: int) -> dict[str, Any]:
    """Return the ECR lifecycle policy that deletes copies `days` after their push, except those made by digest.

    A rule never deletes an image that a rule of higher priority selects, even if that rule never deletes it.
    """
    expire = {"type": "expire"}
    return {
        "rules": [
            {
                "rulePriority": 1,
                "description": "Copies made by digest stay: pods may name them for good",
                "selection": {
                    "tagStatus": "tagged",
                    "tagPatternList": [f"{DIGEST_TAG}*"],
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": _NEVER_DAYS,
                },
                "action": expire,
            },
            {
                "rulePriority": 2,
                "description": f"Other copies: deleted {days} days after their latest push",
                "selection": {
                    "tagStatus": "any",
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": days,
                },
                "action": expire,
            },
        ]
    }


def pull_policy(accounts: Sequence[str], partition: str) -> dict[str, Any]:
    """Return the repository policy that lets other accounts pull."""
    principals = [f"arn:{partition}:iam::{account}:root" for account in accounts]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "Pull", "Effect": "Allow", "Principal": {"AWS": principals}, "Action": _PULL}],
    }
