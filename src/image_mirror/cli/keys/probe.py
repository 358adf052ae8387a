"""Proves an access key by a real call that is signed with it and changes nothing: the one that it is there for."""

import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DENIED, KEY_REFUSED
from image_mirror.cli.accounts import Account
from image_mirror.cli.remedies import REVERT
from image_mirror.messages import printable

NO_OTHER_KEY = (
    f"no other key would fare better: deploy its user's stack again; {REVERT}; where neither helps, see to the "
    "organisation's policies"
)
"""What to do about a key that is denied what it is for."""
_PAUSE = 3.0  # seconds between two tries
_NO_BUILD = "00000000-0000-0000-0000-000000000000"


class ProbeResult(Enum):
    """What AWS makes of a key: it works; it is not taken; it is taken, but its user may not do this."""

    WORKS = "works"
    REFUSED = "refused"
    DENIED = "denied"


class Verdict(NamedTuple):
    """The outcome, and what was called or what AWS said; it holds nothing of the key."""

    outcome: ProbeResult
    said: str


def can_push(china: Account, key: AccessKey) -> Verdict:
    """Log in to ECR in the key's region. Raises ClientError (for what is not about the key), BotoCoreError."""
    return _tried(f"ECR login in {key.region}", lambda: china.client("ecr", key).get_authorization_token())


def can_copy(world: Account, key: AccessKey, project: str) -> Verdict:
    """Ask for a build of `project` that there is not. Raises as `can_push`."""
    builds = [f"{project}:{_NO_BUILD}"]
    what = f"BatchGetBuilds of {project} in {key.region}"
    return _tried(what, lambda: world.client("codebuild", key).batch_get_builds(ids=builds))


def patiently(prove: Callable[[], Verdict], seconds: float) -> Verdict:
    """Try until it works, for as long as `seconds`: IAM lets a new key or policy be known everywhere only gradually."""
    deadline = time.monotonic() + seconds
    while True:
        verdict = prove()
        if verdict.outcome is ProbeResult.WORKS or time.monotonic() + _PAUSE > deadline:
            return verdict
        time.sleep(_PAUSE)


def _tried(what: str, call: Callable[[], object]) -> Verdict:
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in KEY_REFUSED:
            return Verdict(ProbeResult.REFUSED, f"{what}: {code}")  # its message quotes the request
        if code in DENIED:
            return Verdict(
                ProbeResult.DENIED, printable(f"{what}: {code}: {error.response['Error'].get('Message', '')}")
            )
        raise
    return Verdict(ProbeResult.WORKS, what)
