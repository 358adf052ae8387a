"""The repositories of copies in ECR."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from image_mirror.aws_errors import DelayedError
from image_mirror.cli.accounts import Account
from image_mirror.ecr import NotDeletedError, Repositories, pull_policy
from image_mirror.expiry import signature_tags
from image_mirror.record import DAY, Record, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.settings import Settings
from support.cloud import REGISTRY, Cloud
from support.ecr_registry import Registry, ago
from support.lifecycle_policies import RELEASED

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


def test_an_existing_repository_is_fine_and_gets_the_policy_that_is_set_and_no_lifecycle_policy(
    cloud: Cloud, settings: Settings
) -> None:
    name = "mirror/gcr.io/team/app"
    cloud.ecr.create_repository(repositoryName=name)
    expires = replace(settings.policy, expire=90 * DAY)
    changed = replace(settings, policy=expires, pull_accounts=("111111111111",), scan_on_push=True)
    repositories = Repositories(cloud.ecr, changed)
    repositories.ensure(fresh())
    with pytest.raises(ClientError, match="LifecyclePolicyNotFound"):
        cloud.ecr.get_lifecycle_policy(repositoryName=name)
    [statement] = json.loads(cloud.ecr.get_repository_policy(repositoryName=name)["policyText"])["Statement"]
    assert statement["Principal"] == {"AWS": ["arn:aws-cn:iam::111111111111:root"]}
    assert statement["Effect"] == "Allow"
    assert sorted(statement["Action"]) == [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    ]


def test_the_classes_of_errors_are_made_before_threads_start_because_two_threads_could_make_different_ones(
    cloud: Cloud, settings: Settings
) -> None:
    class Client:
        """The client, whose classes of errors are others each time they are asked for."""

        asked = 0

        @property
        def exceptions(self) -> object:
            self.asked += 1
            return cloud.ecr.exceptions if self.asked == 1 else SimpleNamespace(**dict.fromkeys(NAMES, ValueError))

        def __getattr__(self, name: str) -> Any:
            return getattr(cloud.ecr, name)

    client: Any = Client()
    repositories = Repositories(client, settings)
    assert repositories.held(fresh()) is None, "no repository"
    repositories.remove_released_policy(fresh())
    for _ in range(2):
        repositories.ensure(fresh())
    repositories.remove_released_policy(fresh("gcr.io/other:1"))


NAMES = (
    *("ImageNotFoundException", "LifecyclePolicyNotFoundException"),
    *("RepositoryAlreadyExistsException", "RepositoryNotFoundException"),
)


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


# ---- copies that have expired ----

NAME = "mirror/gcr.io/team/app"


@pytest.fixture
def expiring(registry: Registry, settings: Settings) -> Repositories:  # noqa: ARG001 - the client answers as the model
    """The repositories, in a model of ECR."""
    return Repositories(Account("china", "china").client("ecr"), settings)


def expire(expiring: Repositories, record: Record, calls: int = 1000) -> int:
    """Delete a copy and what nobody has used for 30 days; there is time for so many calls about untagged images."""
    image = expiring.image(record)
    assert image is not None
    left = iter(range(calls))
    since = int(ago(30).timestamp() * 1000)
    return expiring.delete(record, image, since, lambda: next(left, None) is not None)


def test_a_copy_goes_with_its_signatures_and_the_platforms_that_only_it_had(
    registry: Registry, expiring: Repositories
) -> None:
    shared, own = (registry.push(NAME, content=each) for each in ("shared", "own"))
    used, new = registry.push(NAME, content="used", pulled=3), registry.push(NAME, content="new", days=3)
    copy = registry.push(
        NAME,
        "1",
        children=(
            shared,
            own,
            used,
            new,
        ),
    )
    registry.push(NAME, "2", children=(shared,))
    registry.push(NAME, content="referrer", subject=copy.digest)
    signatures = signature_tags(copy.digest)
    for tag in (*signatures, "sha256-" + "b" * 64 + ".sig"):
        registry.push(NAME, tag)
    assert expire(expiring, fresh()) == 1
    assert registry.tags() == {f"{NAME}:2", f"{NAME}:sha256-{'b' * 64}.sig"}
    assert {shared.digest, used.digest, new.digest} < registry.untagged(NAME)
    assert own.digest not in registry.untagged(NAME)
    assert len(registry.untagged(NAME)) == 4, "ECR itself removes the referrer"


def test_the_signatures_of_an_image_with_another_tag_stay(registry: Registry, expiring: Repositories) -> None:
    image = registry.push(NAME, "1", "digest-sha256-" + "c" * 64)
    tags = signature_tags(image.digest)
    for tag in tags:
        registry.push(NAME, tag)
    expire(expiring, fresh())
    assert registry.tags() == {f"{NAME}:{tag}" for tag in ("digest-sha256-" + "c" * 64, *tags)}


def test_a_copy_that_an_index_refers_to_stays_with_its_signatures(registry: Registry, expiring: Repositories) -> None:
    image = registry.push(NAME, "1")
    registry.push(NAME, "2", children=(image,))
    registry.push(NAME, signature_tags(image.digest)[0])
    before = registry.tags()
    expire(expiring, fresh())
    assert registry.tags() == before


def test_a_copy_that_is_gone_already_is_no_error(registry: Registry, expiring: Repositories) -> None:
    registry.push(NAME, "1")
    image = expiring.image(fresh())
    assert image is not None
    registry.repositories[NAME].clear()
    assert expiring.delete(fresh(), image, 0, lambda: True) == 0


def test_another_refusal_by_ecr_is_an_error_that_names_the_image(registry: Registry, expiring: Repositories) -> None:
    registry.push(NAME, "1")
    registry.failing["1"] = "KmsError"
    with pytest.raises(NotDeletedError, match=r"mirror/gcr.io/team/app: .*'imageTag': '1'.*KmsError"):
        expire(expiring, fresh())


def test_older_indexes_go_before_their_platforms(registry: Registry, expiring: Repositories) -> None:
    for number in range(3):
        platforms = [registry.push(NAME, content=f"{number} {each}") for each in range(4)]
        registry.push(NAME, content=f"index {number}", children=tuple(platforms))
    registry.push(NAME, "1")
    assert expire(expiring, fresh()) == 15
    assert registry.untagged(NAME) == set()


def test_with_one_copy_at_most_1000_untagged_images_go_and_the_next_copy_continues(
    registry: Registry, expiring: Repositories
) -> None:
    registry.page = 1000
    held = [registry.push(NAME, content=f"held {each}") for each in range(1100)]
    registry.push(NAME, "held", children=tuple(held))
    for number in range(300):
        registry.push(NAME, content=f"free {number}")
    for tag in ("1", "2", "3", "4"):
        registry.push(NAME, tag)
    deleted = [expire(expiring, replace(fresh(), tag=tag)) for tag in ("1", "2", "3", "4")]
    assert 0 < deleted[0] < 300
    assert sum(deleted) > 290, "those that ECR refuses do not take the places of the others each time"
    assert {each.digest for each in held} <= registry.untagged(NAME)


@pytest.mark.parametrize(
    ("calls", "left"),
    [pytest.param(0, 250, id="none"), pytest.param(2, 250, id="two-pages"), pytest.param(4, 50, id="two-more")],
)
def test_untagged_images_are_deleted_only_as_long_as_there_is_time(
    calls: int, left: int, registry: Registry, expiring: Repositories
) -> None:
    registry.page = 200
    for number in range(250):
        registry.push(NAME, content=f"{number}")
    registry.push(NAME, "1")
    expire(expiring, fresh(), calls)
    assert registry.tags() == set(), "the copy itself is always deleted"
    assert len(registry.untagged(NAME)) == left


def test_at_most_ten_pages_of_untagged_images_are_read(registry: Registry, expiring: Repositories) -> None:
    registry.page = 2
    for number in range(30):
        registry.push(NAME, content=f"{number}")
    registry.push(NAME, "1")
    assert expire(expiring, fresh()) == 20


# ---- the lifecycle policies of earlier releases ----


def test_a_policy_of_an_earlier_release_is_deleted(cloud: Cloud, repositories: Repositories) -> None:
    cloud.ecr.create_repository(repositoryName=NAME)
    cloud.ecr.put_lifecycle_policy(repositoryName=NAME, lifecyclePolicyText=RELEASED)
    repositories.remove_released_policy(fresh())
    with pytest.raises(ClientError, match="LifecyclePolicyNotFound"):
        cloud.ecr.get_lifecycle_policy(repositoryName=NAME)


def test_any_other_policy_stays(cloud: Cloud, repositories: Repositories) -> None:
    other = RELEASED.replace("Other copies", "Our copies")
    cloud.ecr.create_repository(repositoryName=NAME)
    cloud.ecr.put_lifecycle_policy(repositoryName=NAME, lifecyclePolicyText=other)
    repositories.remove_released_policy(fresh())
    assert cloud.ecr.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"] == other


@pytest.mark.parametrize("exists", [True, False], ids=["no-policy", "no-repository"])
def test_a_repository_is_asked_for_its_policy_once(
    exists: bool, cloud: Cloud, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exists:
        cloud.ecr.create_repository(repositoryName=NAME)
    asked: list[str] = []
    get = cloud.ecr.get_lifecycle_policy

    def counted(repositoryName: str) -> Any:  # noqa: N803
        asked.append(repositoryName)
        return get(repositoryName=repositoryName)

    monkeypatch.setattr(cloud.ecr, "get_lifecycle_policy", counted)
    for tag in ("1", "2", "1"):
        repositories.remove_released_policy(replace(fresh(), tag=tag))
    assert asked == [NAME]


def test_a_repository_whose_policy_could_not_be_read_is_asked_again(
    cloud: Cloud, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "x"}}, "GetLifecyclePolicy")

    cloud.ecr.create_repository(repositoryName=NAME)
    cloud.ecr.put_lifecycle_policy(repositoryName=NAME, lifecyclePolicyText=RELEASED)
    with monkeypatch.context() as patched:
        patched.setattr(cloud.ecr, "get_lifecycle_policy", refuse)
        with pytest.raises(ClientError, match="AccessDenied"):
            repositories.remove_released_policy(fresh())
    repositories.remove_released_policy(fresh())
    with pytest.raises(ClientError, match="LifecyclePolicyNotFound"):
        cloud.ecr.get_lifecycle_policy(repositoryName=NAME)
