"""The repositories of copies in ECR."""

import json
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from image_mirror.aws_errors import DelayedError
from image_mirror.ecr import Repositories, lifecycle_policy, pull_policy
from image_mirror.record import Record, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.settings import Settings
from support.cloud import REGISTRY, Cloud

NOW = 1_800_000_000_000


def fresh(image: str = "gcr.io/team/app:1") -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, NOW)


@pytest.fixture
def repositories(cloud: Cloud, settings: Settings) -> Repositories:
    return Repositories(cloud.ecr, settings)


def test_a_new_repository_is_mutable_and_tagged(cloud: Cloud, repositories: Repositories) -> None:
    repositories.ensure(fresh())
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
    changed = replace(settings, expire_days=90, pull_accounts=("111111111111",), scan_on_push=True)
    repositories = Repositories(cloud.ecr, changed)
    repositories.ensure(fresh())
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
    assert second["selection"]["tagStatus"] == "any", "copies by tag, and images that lost their tag to a newer one"


def test_a_new_repository_scans_what_is_pushed_where_that_is_set(cloud: Cloud, settings: Settings) -> None:
    Repositories(cloud.ecr, replace(settings, scan_on_push=True)).ensure(fresh())
    [repository] = cloud.ecr.describe_repositories(repositoryNames=["mirror/gcr.io/team/app"])["repositories"]
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}


def test_a_new_repository_is_encrypted_with_the_key_that_is_set_and_an_existing_one_is_not_changed(
    cloud: Cloud, settings: Settings
) -> None:
    key = "1234abcd-12ab-34cd-56ef-1234567890ab"
    cloud.ecr.create_repository(repositoryName="mirror/gcr.io/team/old")
    for image in ("gcr.io/team/app:1", "gcr.io/team/old:1"):
        Repositories(cloud.ecr, replace(settings, kms_key_id=key)).ensure(fresh(image))
    found = cloud.ecr.describe_repositories()["repositories"]
    assert {each["repositoryName"]: each["encryptionConfiguration"] for each in found} == {
        "mirror/gcr.io/team/app": {"encryptionType": "KMS", "kmsKey": key},
        "mirror/gcr.io/team/old": {"encryptionType": "AES256"},
    }


def test_a_key_that_ecr_may_not_use_is_the_reason(
    cloud: Cloud, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "KmsException", "Message": "the key is disabled"}}, "CreateRepository")

    monkeypatch.setattr(cloud.ecr, "create_repository", refuse)
    with pytest.raises(DelayedError, match=r"AWS answered KmsException: the key is disabled"):
        Repositories(cloud.ecr, settings).ensure(fresh())


def test_outside_china_the_partition_of_other_accounts_is_aws() -> None:
    assert pull_policy(("111111111111",), "aws")["Statement"][0]["Principal"] == {
        "AWS": ["arn:aws:iam::111111111111:root"]
    }


def test_a_repository_that_cannot_be_created_delays(
    cloud: Cloud, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "LimitExceededException", "Message": "x"}}, "CreateRepository")

    monkeypatch.setattr(cloud.ecr, "create_repository", refuse)
    with pytest.raises(DelayedError, match=r"creating the repository mirror/.*: AWS answered LimitExceeded"):
        Repositories(cloud.ecr, settings).ensure(fresh())


def test_what_ecr_holds_is_a_digest_or_nothing(cloud: Cloud, repositories: Repositories) -> None:
    record = fresh()
    assert repositories.held(record) is None, "no repository"
    repositories.ensure(record)
    assert repositories.held(record) is None, "no image"
    digest = cloud.push("mirror/gcr.io/team/app", "1")
    assert repositories.held(record) == digest
    assert repositories.held(replace(record, tag="2")) is None, "no such tag"


@pytest.mark.parametrize(
    ("images", "held"),
    [
        pytest.param([{"imageStatus": "ACTIVE"}], True, id="active"),
        pytest.param([{"imageStatus": "ARCHIVED"}], False, id="archived"),
        pytest.param([{"imageStatus": "ACTIVATING"}], False, id="being-restored"),
        pytest.param([{}], True, id="where-ecr-does-not-say"),
        pytest.param([], False, id="where-ecr-lists-only-active-ones"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_not_held(
    images: list[dict[str, str]],
    held: bool,
    cloud: Cloud,
    repositories: Repositories,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = "sha256:" + "a" * 64
    answer = {"imageDetails": [{"imageDigest": digest, **image} for image in images]}
    monkeypatch.setattr(cloud.ecr, "describe_images", lambda **_: answer)
    assert repositories.held(fresh()) == (digest if held else None)
