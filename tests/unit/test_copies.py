"""Repositories and tags in ECR, builds in the global account."""

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from image_mirror.aws import connect
from image_mirror.build_result import UNKNOWN
from image_mirror.copies import Copies, lifecycle_policy, pull_policy
from image_mirror.global_access import DelayedError, GlobalAccount
from image_mirror.lifecycle import delayed
from image_mirror.record import Build, BuildResult, Record, idempotency_token, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.settings import Settings
from support.cloud import PATIENCE, REGISTRY, Cloud

NOW = 1_800_000_000_000
DIGEST = "sha256:" + "a" * 64


def fresh(image: str = "gcr.io/team/app:1") -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, NOW)


def make_copies(cloud: Cloud, settings: Settings) -> Copies:
    account = GlobalAccount(cloud.secrets, "GlobalAKSK", lambda key: connect("codebuild", PATIENCE, key), lambda: 0.0)
    return Copies(cloud.ecr, account, settings)


@pytest.fixture
def copies(cloud: Cloud, settings: Settings) -> Copies:
    return make_copies(cloud, settings)


class RecordingAccount:
    """Stands in for the global account and keeps what StartBuild was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def call(self, _name: str, operation: Any) -> Any:
        return operation(self)

    def start_build(self, **request: Any) -> Any:
        self.requests.append(request)
        return {"build": {"id": "x"}}


@pytest.mark.parametrize(
    ("image", "target"),
    [
        pytest.param("gcr.io/team/app:1", f"{REGISTRY}/mirror/gcr.io/team/app:1", id="tag"),
        pytest.param(
            f"gcr.io/team/app:1@{DIGEST}", f"{REGISTRY}/mirror/gcr.io/team/app:digest-sha256-{'a' * 64}", id="digest"
        ),
    ],
)
def test_a_build_gets_the_two_variables_and_no_other_override(
    cloud: Cloud, settings: Settings, image: str, target: str
) -> None:
    account = RecordingAccount()
    record = fresh(image)
    Copies(cloud.ecr, account, settings).start(record)  # type: ignore[arg-type]
    assert account.requests == [
        {
            "projectName": "ImagePullProject",
            "environmentVariablesOverride": [
                {"name": "DOCKER_IMAGE", "value": record.source, "type": "PLAINTEXT"},
                {"name": "NEW_DOCKER_IMAGE", "value": target, "type": "PLAINTEXT"},
            ],
            "idempotencyToken": idempotency_token(record),
        }
    ]


def test_a_build_starts_in_the_region_and_project_that_secret_and_settings_name(cloud: Cloud, copies: Copies) -> None:
    build_id = copies.start(fresh())
    [build] = cloud.codebuild.batch_get_builds(ids=[build_id])["builds"]
    assert build["projectName"] == "ImagePullProject"


def test_all_parameters_of_a_build_follow_from_the_record(cloud: Cloud, settings: Settings) -> None:
    account = RecordingAccount()
    copies = Copies(cloud.ecr, account, settings)  # type: ignore[arg-type]
    record = fresh()
    retried = delayed(replace(record, build_id="ImagePullProject:1"), "FAULT", NOW + 5)
    for each in (record, record, retried):
        copies.start(each)
    first, again, later = account.requests
    assert first == again
    assert first["idempotencyToken"] == idempotency_token(record)
    assert later == {**first, "idempotencyToken": idempotency_token(retried)}
    assert first["idempotencyToken"] != later["idempotencyToken"]


def test_a_new_repository_is_mutable_and_tagged(cloud: Cloud, copies: Copies) -> None:
    copies.start(fresh())
    [repository] = cloud.ecr.describe_repositories(repositoryNames=["mirror/gcr.io/team/app"])["repositories"]
    assert repository["imageTagMutability"] == "MUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": False}
    tags = cloud.ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
    assert tags == [{"Key": "image-mirror", "Value": "copy"}]
    with pytest.raises(ClientError, match="LifecyclePolicyNotFound"):
        cloud.ecr.get_lifecycle_policy(repositoryName="mirror/gcr.io/team/app")


def test_an_existing_repository_is_fine_and_gets_the_policies_that_are_set(cloud: Cloud, settings: Settings) -> None:
    name = "mirror/gcr.io/team/app"
    cloud.ecr.create_repository(repositoryName=name)
    wishes = replace(settings, expire_days=90, pull_accounts=("111111111111",), scan_on_push=True)
    copies = make_copies(cloud, wishes)
    assert copies.start(fresh())
    assert json.loads(cloud.ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"]) == lifecycle_policy(
        90
    )
    [statement] = json.loads(cloud.ecr.get_repository_policy(repositoryName=name)["policyText"])["Statement"]
    assert statement["Principal"] == {"AWS": ["arn:aws-cn:iam::111111111111:root"]}
    assert statement["Effect"] == "Allow"
    assert sorted(statement["Action"]) == [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    ]


def test_copies_by_digest_are_selected_first_so_that_no_other_rule_expires_them() -> None:
    first, second = lifecycle_policy(90)["rules"]
    assert first["rulePriority"] < second["rulePriority"]
    assert first["selection"]["tagPatternList"] == ["digest-sha256-*"]
    assert first["selection"]["countNumber"] > 100 * 364
    assert second["selection"]["countNumber"] == 90
    assert second["selection"]["tagStatus"] == "any", "copies by tag, and what a moved tag has left untagged"


def test_a_new_repository_scans_what_is_pushed_where_that_is_set(cloud: Cloud, settings: Settings) -> None:
    make_copies(cloud, replace(settings, scan_on_push=True)).start(fresh())
    [repository] = cloud.ecr.describe_repositories(repositoryNames=["mirror/gcr.io/team/app"])["repositories"]
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}


def test_outside_china_the_partition_of_other_accounts_is_aws() -> None:
    assert pull_policy(("111111111111",), "aws")["Statement"][0]["Principal"] == {
        "AWS": ["arn:aws:iam::111111111111:root"]
    }


def test_a_repository_that_cannot_be_made_delays_and_starts_no_build(
    cloud: Cloud, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = RecordingAccount()

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "LimitExceededException", "Message": "x"}}, "CreateRepository")

    monkeypatch.setattr(cloud.ecr, "create_repository", refuse)
    with pytest.raises(DelayedError, match=r"ensuring the repository mirror/.*: AWS answered LimitExceeded"):
        Copies(cloud.ecr, account, settings).start(fresh())  # type: ignore[arg-type]
    assert account.requests == []


def test_builds_are_looked_up_and_unknown_ones_are_said_to_be(copies: Copies) -> None:
    build_id = copies.start(fresh())
    known = copies.builds([build_id, "ImagePullProject:00000000-0000-0000-0000-000000000000"])
    assert known[build_id] == Build(BuildResult.COPIED)  # moto says that each build has succeeded
    assert known["ImagePullProject:00000000-0000-0000-0000-000000000000"] == UNKNOWN


def test_what_ecr_holds_is_a_digest_or_nothing(cloud: Cloud, copies: Copies) -> None:
    record = fresh()
    assert copies.held(record) is None, "no repository"
    copies.start(record)
    assert copies.held(record) is None, "no image"
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    assert copies.held(record) == digest
    assert copies.held(replace(record, tag="2")) is None, "no such tag"
