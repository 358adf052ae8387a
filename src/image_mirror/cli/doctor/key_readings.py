"""The calls about the two keys: what keeps them, whose they are, and what can be done with them.

They raise what botocore raises.
"""

from collections.abc import Sequence

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.keys import Absent
from image_mirror.cli.doctor.readings import or_none
from image_mirror.cli.keys.probe import Verdict, can_copy, can_push
from image_mirror.review import Json


def secret_text(account: Account, name: str) -> str | Absent:
    """Return a secret's text, "" for one that has none."""
    try:
        text: str = account.client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "InvalidRequestException":
            return Absent.MARKED
        if code != "ResourceNotFoundException":
            raise
        # "... can't find the specified secret value for staging label: AWSCURRENT" is said of a secret without one.
        return "" if "secret value" in message else Absent.GONE
    return text


def user_keys(account: Account, user: str) -> Sequence[Json] | None:
    """Return what ListAccessKeys says; a user has at most two."""
    return or_none(lambda: account.client("iam").list_access_keys(UserName=user)["AccessKeyMetadata"])


def last_use(account: Account, key_id: str) -> Json:
    """Return when a key was last used, and for which service."""
    found: Json = account.client("iam").get_access_key_last_used(AccessKeyId=key_id)["AccessKeyLastUsed"]
    return found


def global_call(account: Account, key: AccessKey, project: str) -> Verdict:
    """Call with the key for the global account what it is there for."""
    return can_copy(account, key, project)


def china_call(account: Account, key: AccessKey) -> Verdict:
    """Call with the key for China what it is there for."""
    return can_push(account, key)
