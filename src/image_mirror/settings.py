"""The functions' settings: one frozen object made from the environment, checked as a whole."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from image_mirror.decisions import Mirror
from image_mirror.record import DAY, HOUR, MINUTE, Policy
from image_mirror.reference import PREFIX
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.swap_when import SwapWhen, parse_swap_when

_REGISTRY = re.compile(r"[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?|localhost:[0-9]+")

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
"""A region's name; it becomes part of a host name."""
_ROLE = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,576}")
_KMS_KEY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}")  # mrk: of several regions


class SettingsError(ValueError):
    """Environment variables that are missing or wrong; the message names all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What both functions are configured with.

    `table` is DDB_TABLE_NAME; `secret` is GLOBAL_AKSK, the name of the secret with the global key; `project` is
    G_PROJECT_NAME, the CodeBuild project there. `kms_key_id` is the key of new repositories, "" for ECR's own
    encryption; `max_new_images` is how many copies one pod may request; `build_quota` is how many builds CodeBuild runs
    at once. `fast_project` is G_FAST_PROJECT_NAME, the project of the fast lane, "" for one lane only; `fast_quota` is
    how many builds that one runs at once. `pull_accounts` are account IDs that may pull the copies. `start_role` is
    G_START_ROLE_ARN, the role with which builds are started, in the region `start_region` (G_REGION); if it is "", the
    key in the secret is used.
    """

    table: str
    secret: str
    start_role: str
    start_region: str
    project: str
    mirror: Mirror
    swap_when: SwapWhen
    policy: Policy
    max_new_images: int
    build_quota: int
    fast_project: str
    fast_quota: int
    scan_on_push: bool
    kms_key_id: str
    pull_accounts: tuple[str, ...]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings. Raises SettingsError, whose message names each variable that is missing or wrong."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name, (parse, default) in _VARIABLES.items():
            text = environ.get(name) or default
            if text is None:
                problems.append(f"{name} is missing")
                continue
            try:
                values[name] = parse(text)
            except ValueError as error:
                problems.append(f"{name}={text!r}: {error}")
        if values.get("G_START_ROLE_ARN") and not values.get("G_REGION", True):
            problems.append("G_REGION is missing, and G_START_ROLE_ARN needs it")
        if problems:
            raise SettingsError("environment: " + "; ".join(problems))
        return cls(
            table=values["DDB_TABLE_NAME"],
            secret=values["GLOBAL_AKSK"],
            start_role=values["G_START_ROLE_ARN"],
            start_region=values["G_REGION"],
            project=values["G_PROJECT_NAME"],
            mirror=Mirror(values["ECR_REGISTRY"], values["REPOSITORY_PREFIX"], values["MIRROR_RULES"]),
            swap_when=values["SWAP_WHEN"],
            policy=Policy(
                retry_failed=values["RETRY_FAILED_MINUTES"] * MINUTE,
                refresh=values["REFRESH_HOURS"] * HOUR,
                verify=values["VERIFY_HOURS"] * HOUR,
                give_up=values["GIVE_UP_HOURS"] * HOUR,
                expire=values["EXPIRE_DAYS"] * DAY,
                expire_digests=values["EXPIRE_DIGESTS"],
            ),
            max_new_images=values["MAX_NEW_IMAGES"],
            build_quota=values["BUILD_QUOTA"],
            fast_project=values["G_FAST_PROJECT_NAME"],
            fast_quota=values["FAST_BUILD_QUOTA"],
            scan_on_push=values["SCAN_ON_PUSH"],
            kms_key_id=values["REPOSITORY_KMS_KEY_ID"],
            pull_accounts=values["PULL_ACCOUNTS"],
        )


def parse_registry(text: str) -> str:
    """Return `text` if it is the host of a private ECR registry, or of one on this machine; else raise ValueError."""
    if not _REGISTRY.fullmatch(text):
        raise ValueError("must be an ECR registry's host, such as 123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")
    return text


def parse_prefix(text: str) -> str:
    """Return `text` if ECR allows it at the start of a repository's name, or raise ValueError."""
    if not PREFIX.fullmatch(text):
        raise ValueError("must start with a lower-case letter and be legal in an ECR repository name, such as mirror")
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def _kms_key_id(text: str) -> str:
    if text and not _KMS_KEY_ID.fullmatch(text):
        raise ValueError("must be the ID of a KMS key, not an alias or an ARN, or empty")
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _role(text: str) -> str:
    if text and not _ROLE.fullmatch(text):
        raise ValueError("must be the ARN of an IAM role, or empty")
    return text


def _region(text: str) -> str:
    if text and not REGION.fullmatch(text):
        raise ValueError("must be a region such as us-west-2, or empty")
    return text


def _accounts(text: str) -> tuple[str, ...]:
    accounts = tuple(account for account in re.split(r"[,\s]+", text) if account)
    if not all(re.fullmatch(r"[0-9]{12}", account) for account in accounts):
        raise ValueError("must be account IDs of 12 digits, split by commas")
    return accounts


_VARIABLES: Mapping[str, tuple[Callable[[str], Any], str | None]] = {
    "DDB_TABLE_NAME": (str, None),
    "GLOBAL_AKSK": (str, None),
    "G_START_ROLE_ARN": (_role, ""),
    "G_REGION": (_region, ""),
    "G_PROJECT_NAME": (str, None),
    "ECR_REGISTRY": (parse_registry, None),
    "REPOSITORY_PREFIX": (parse_prefix, "mirror"),
    "MIRROR_RULES": (parse_rules, DEFAULT_RULES),
    "SWAP_WHEN": (parse_swap_when, "always"),
    "MAX_NEW_IMAGES": (_positive, "50"),
    "BUILD_QUOTA": (_positive, "20"),
    "G_FAST_PROJECT_NAME": (str, ""),
    "FAST_BUILD_QUOTA": (_positive, "1"),
    "RETRY_FAILED_MINUTES": (_count, "60"),
    "REFRESH_HOURS": (_count, "24"),
    "VERIFY_HOURS": (_positive, "24"),
    "GIVE_UP_HOURS": (_positive, "72"),
    "SCAN_ON_PUSH": (_flag, "false"),
    "REPOSITORY_KMS_KEY_ID": (_kms_key_id, ""),
    "EXPIRE_DAYS": (_count, "0"),
    "EXPIRE_DIGESTS": (_flag, "false"),
    "PULL_ACCOUNTS": (_accounts, ""),
}
