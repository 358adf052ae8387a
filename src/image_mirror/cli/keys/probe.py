"""Tests an access key with a real call that is signed with it and changes nothing: the call that the key exists for."""

import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DENIED, KEY_REFUSED, code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.remedies import REVERT
from image_mirror.codebuild import NO_BUILD
from image_mirror.messages import printable

NO_OTHER_KEY = (
    f"another key does not help: deploy its user's stack again; {REVERT}; if neither helps, check the "
    "organisation's policies"
)
"""What to do about a key whose user may not make the call that the key exists for."""
_PAUSE = 3.0  # seconds between two tries


class ProbeResult(Enum):
    """What AWS answers: the key works; it does not accept the key; it accepts the key, but its user may not do this."""

    WORKS = "works"
    REFUSED = "refused"
    DENIED = "denied"


class Verdict(NamedTuple):
    """The result, and in `text` the call and the error that AWS answered; it contains nothing of the key."""

    result: ProbeResult
    text: str


def can_push(china: Account, key: AccessKey) -> Verdict:
    """Log in to ECR in the key's region. Raises ClientError if it is not about the key, BotoCoreError."""
    return _test(f"ECR login in {key.region}", lambda: china.client("ecr", key).get_authorization_token())


def can_copy(global_account: Account, key: AccessKey, project: str) -> Verdict:
    """Ask for a build of `project` that does not exist. Raises as `can_push`."""
    builds = [f"{project}:{NO_BUILD}"]
    what = f"BatchGetBuilds of {project} in {key.region}"
    return _test(what, lambda: global_account.client("codebuild", key).batch_get_builds(ids=builds))


def retry_until_it_works(test: Callable[[], Verdict], seconds: float) -> Verdict:
    """Repeat a test until the key works, for at most `seconds`: a new key or policy is not known everywhere at once."""
    deadline = time.monotonic() + seconds
    while True:
        verdict = test()
        if verdict.result is ProbeResult.WORKS or time.monotonic() + _PAUSE > deadline:
            return verdict
        time.sleep(_PAUSE)


def _test(what: str, call: Callable[[], object]) -> Verdict:
    try:
        call()
    except ClientError as error:
        code = code_of(error)
        if code in KEY_REFUSED:
            return Verdict(ProbeResult.REFUSED, f"{what}: {code}")  # its message quotes the request
        if code in DENIED:
            return Verdict(
                ProbeResult.DENIED, printable(f"{what}: {code}: {error.response['Error'].get('Message', '')}")
            )
        raise
    return Verdict(ProbeResult.WORKS, what)
