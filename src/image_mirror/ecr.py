"""The copies themselves: repositories and tags in ECR, builds in the global account."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.build_result import UNKNOWN, read_build
from image_mirror.global_access import GlobalAccount, delayed_by
from image_mirror.record import Build, Record, idempotency_token
from image_mirror.settings import Settings

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

MOST_BUILDS = 100  # BatchGetBuilds
_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
_NEVER_DAYS = 36_500


class Copies:
    """Starts builds and says what became of them and what ECR holds."""

    def __init__(self, ecr: "ECRClient", account: GlobalAccount, settings: Settings) -> None:
        """Take a client of the region's ECR, the account that copies, and what repositories are to be like."""
        self._ecr = ecr
        self._account = account
        self._settings = settings

    def start(self, record: Record) -> str:
        """Start the build that makes `record`'s copy, its repository first, and return the build's ID.

        All parameters follow from the record alone: a repeated call within five minutes finds the same build.
        Raises DelayedError.
        """
        self._ensure_repository(record.repo.partition("/")[2])
        variables = {"DOCKER_IMAGE": record.source, "NEW_DOCKER_IMAGE": record.destination}
        answer = self._account.call(
            "StartBuild",
            lambda codebuild: codebuild.start_build(
                projectName=self._settings.project,
                environmentVariablesOverride=[
                    {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
                ],
                idempotencyToken=idempotency_token(record),
            ),
        )
        return answer["build"]["id"]

    def builds(self, build_ids: Sequence[str]) -> dict[str, Build]:
        """Return what each build (at most 100) came to. Raises DelayedError."""
        # Another project's build, from before a change of parameters, would have the whole call refused.
        ours = [build_id for build_id in build_ids if build_id.startswith(f"{self._settings.project}:")]
        if not ours:
            return dict.fromkeys(build_ids, UNKNOWN)
        answer = self._account.call("BatchGetBuilds", lambda codebuild: codebuild.batch_get_builds(ids=ours))
        return dict.fromkeys(build_ids, UNKNOWN) | {build["id"]: read_build(build) for build in answer["builds"]}

    def held(self, record: Record) -> str | None:
        """Return the digest that ECR holds under the record's tag, or None if it holds none."""
        try:
            answer = self._ecr.describe_images(
                repositoryName=record.repo.partition("/")[2], imageIds=[{"imageTag": record.tag}]
            )
        except (self._ecr.exceptions.ImageNotFoundException, self._ecr.exceptions.RepositoryNotFoundException):
            return None
        return answer["imageDetails"][0]["imageDigest"]

    def _ensure_repository(self, repository: str) -> None:
        """Create the repository unless it exists, and give it the policies that are set. Raises DelayedError.

        The policies are written each time, not only at creation: a crash in between must not lose them, and what is set
        anew reaches the repositories that exist.
        """
        exists = self._ecr.exceptions.RepositoryAlreadyExistsException
        try:
            with suppress(exists):
                self._ecr.create_repository(
                    repositoryName=repository,
                    tags=[{"Key": "image-mirror", "Value": "copy"}],
                    imageTagMutability="MUTABLE",  # an immutable tag would refuse a refresh
                    imageScanningConfiguration={"scanOnPush": self._settings.scan_on_push},
                )
            if self._settings.expire_days:
                text = json.dumps(lifecycle_policy(self._settings.expire_days))
                self._ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=text)
            if self._settings.pull_accounts:
                partition = "aws-cn" if self._settings.mirror.registry.endswith(".cn") else "aws"
                text = json.dumps(pull_policy(self._settings.pull_accounts, partition))
                self._ecr.set_repository_policy(repositoryName=repository, policyText=text)
        except (ClientError, BotoCoreError) as error:
            raise delayed_by(f"ensuring the repository {repository}", error) from error


def lifecycle_policy(days: int) -> dict[str, Any]:
    """Return the ECR lifecycle policy that expires copies `days` after their push, but none made by digest.

    ECR never lets a rule expire an image that a rule of higher priority selects, even one that never comes due.
    """
    expire = {"type": "expire"}
    return {
        "rules": [
            {
                "rulePriority": 1,
                "description": "Copies made by digest stay: pods may name them for good",
                "selection": {
                    "tagStatus": "tagged",
                    "tagPatternList": ["digest-sha256-*"],
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": _NEVER_DAYS,
                },
                "action": expire,
            },
            {
                "rulePriority": 2,
                "description": f"Other copies go {days} days after their latest push",
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
