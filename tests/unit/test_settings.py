"""Settings are checked together: one error names everything that is missing or wrong."""

import pytest

from image_mirror.record import HOUR, MINUTE
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.settings import Settings, SettingsError
from image_mirror.swap_when import VALUES
from support.cloud import ENVIRONMENT


def test_what_is_not_set_has_the_defaults_of_the_template() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    assert settings.mirror.prefix == "mirror"
    assert settings.mirror.rules == parse_rules(DEFAULT_RULES)
    assert settings.swap_when == "always"
    assert settings.max_new_images == 50
    assert (settings.policy.retry_failed, settings.policy.refresh, settings.policy.verify) == (
        60 * MINUTE,
        24 * HOUR,
        24 * HOUR,
    )
    assert (settings.scan_on_push, settings.pull_accounts) == (False, ())
    assert (settings.policy.expire, settings.policy.expire_digests) == (0, False)
    assert settings.kms_key_id == ""


def test_one_error_names_all_that_is_missing() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({})
    for name in ENVIRONMENT:
        assert f"{name} is missing" in str(caught.value)


def test_an_empty_variable_counts_as_missing() -> None:
    with pytest.raises(SettingsError, match="DDB_TABLE_NAME is missing"):
        Settings.from_env({**ENVIRONMENT, "DDB_TABLE_NAME": ""})


@pytest.mark.parametrize("value", VALUES)
def test_swap_when_has_each_of_its_values(value: str) -> None:
    assert Settings.from_env({**ENVIRONMENT, "SWAP_WHEN": value}).swap_when == value


def test_one_error_names_all_that_is_wrong() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**ENVIRONMENT, "SWAP_WHEN": "never", "REFRESH_HOURS": "-1", "MIRROR_RULES": "nginx"})
    for part in ("SWAP_WHEN='never'", "REFRESH_HOURS='-1'", "rule 'nginx'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(
            "ECR_REGISTRY", "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", id="registry with scheme"
        ),
        pytest.param("ECR_REGISTRY", "123.dkr.ecr.cn-north-1.amazonaws.com.cn", id="registry with a short account"),
        pytest.param("REPOSITORY_PREFIX", "Mirror", id="prefix in upper case"),
        pytest.param("REPOSITORY_PREFIX", "1mirror", id="prefix led by a digit"),
        pytest.param("REPOSITORY_PREFIX", "mirror/", id="prefix ending in a slash"),
        pytest.param("RETRY_FAILED_MINUTES", "1.5", id="fraction"),
        pytest.param("VERIFY_HOURS", "0", id="verification can't be off"),
        pytest.param("MAX_NEW_IMAGES", "0", id="no image at all"),
        pytest.param("SCAN_ON_PUSH", "yes", id="neither true nor false"),
        pytest.param("REPOSITORY_KMS_KEY_ID", "alias/copies", id="alias of a key"),
        pytest.param("REPOSITORY_KMS_KEY_ID", "1234abcd-12ab-34cd-56ef-1234567890a", id="short key"),
        pytest.param("EXPIRE_DAYS", "soon", id="no number"),
        pytest.param("EXPIRE_DIGESTS", "1", id="neither, for digests"),
        pytest.param("G_START_ROLE_ARN", "role/start", id="no ARN of a role"),
        pytest.param("G_START_ROLE_ARN", "arn:aws:iam::210987654321:user/start", id="a user"),
        pytest.param("G_REGION", "us-west-2.evil.example", id="a region that would change the host"),
        pytest.param("PULL_ACCOUNTS", "123456789012,5", id="no account"),
        pytest.param("MIRROR_RULES", "gcr.io=", id="bad rule"),
    ],
)
def test_a_wrong_value_is_quoted_with_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**ENVIRONMENT, name: value})
    assert f"{name}={value!r}: " in str(caught.value)


ROLE = "arn:aws:iam::210987654321:role/global/mirror-StartRole-1A2B3C4D"


def test_a_role_starts_builds_only_where_one_is_set() -> None:
    settings = Settings.from_env({**ENVIRONMENT, "G_START_ROLE_ARN": ROLE, "G_REGION": "us-west-2"})
    assert (settings.start_role, settings.start_region) == (ROLE, "us-west-2")
    settings = Settings.from_env({**ENVIRONMENT, "G_REGION": "us-west-2"})
    assert (settings.start_role, settings.start_region) == ("", "us-west-2")
    assert Settings.from_env(ENVIRONMENT).start_role == ""


def test_a_role_needs_its_region() -> None:
    with pytest.raises(SettingsError, match="G_REGION is missing, and G_START_ROLE_ARN needs it"):
        Settings.from_env({**ENVIRONMENT, "G_START_ROLE_ARN": ROLE})


def test_days_of_expiry_become_a_time() -> None:
    policy = Settings.from_env({**ENVIRONMENT, "EXPIRE_DAYS": "90", "EXPIRE_DIGESTS": "true"}).policy
    assert (policy.expire, policy.expire_digests) == (90 * 24 * HOUR, True)


@pytest.mark.parametrize("key", ["1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-" + "0a" * 16])
def test_a_key_is_named_by_its_id(key: str) -> None:
    assert Settings.from_env({**ENVIRONMENT, "REPOSITORY_KMS_KEY_ID": key}).kms_key_id == key


def test_accounts_may_be_split_by_commas_and_spaces() -> None:
    settings = Settings.from_env({**ENVIRONMENT, "PULL_ACCOUNTS": "111111111111, 222222222222"})
    assert settings.pull_accounts == ("111111111111", "222222222222")
