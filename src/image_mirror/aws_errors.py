"""What AWS's errors mean: their codes, and how a failed call delays a copy. Pure.

Codes differ from service to service; each set has those of all services that are called here.
"""

import re

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.record import BuildResult

KEY_REFUSED = frozenset(
    (
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    )
)
"""AWS does not accept the access key."""
EXPIRED = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"))
"""The credentials have expired."""
DENIED = frozenset(("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"))
"""AWS accepts the key, but its user or role lacks the permission."""
ABSENT = frozenset(
    (
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchEntity",
        "NoSuchEntityException",
        "NoSuchResourceException",
        "ResourceNotFoundException",
    )
)
"""What the call names does not exist."""
THROTTLED = frozenset(("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"))
"""Too many calls; the same call succeeds later."""

_NO_CAPACITY = THROTTLED | {"AccountLimitExceededException"}  # the latter is StartBuild's: its queue is full
# Codes whose messages quote no part of a key.
_QUOTED = frozenset(
    (
        *("AccessDeniedException", "InvalidInputException", "InvalidParameterException", "KmsException"),
        "ResourceNotFoundException",
    )
)
INVALID = frozenset(("InvalidParameterException", "InvalidTagParameterException", "TooManyTagsException"))
"""AWS refuses what the call says, whenever it is made."""
_LONGEST_MESSAGE = 300
# IncompleteSignature quotes the header with the signature, SignatureDoesNotMatch all headers.
_QUOTED_REQUEST = re.compile(r"(The Canonical String|\S*AWS4-).*", re.DOTALL)


class DelayedError(Exception):
    """AWS, the network or the configuration delays a copy; its source is not the cause.

    `no_capacity`: AWS is only busy. `uncertain`: the call may have succeeded nevertheless. `key`: the key is
    missing or was refused. `refusal`: AWS refuses this copy, which counts like a build with that result. The message is
    for people and contains no secret.
    """

    def __init__(
        self,
        message: str,
        *,
        no_capacity: bool = False,
        uncertain: bool = False,
        key: bool = False,
        refusal: BuildResult | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.no_capacity = no_capacity
        self.uncertain = uncertain
        self.key = key

    def again(self) -> "DelayedError":
        """Return the same error for another caller, without this one's traceback."""
        return DelayedError(
            str(self), no_capacity=self.no_capacity, uncertain=self.uncertain, key=self.key, refusal=self.refusal
        )


def code_of(error: ClientError) -> str:
    """Return the code of an AWS error, such as AccessDeniedException."""
    return error.response["Error"]["Code"]


def message_of(error: ClientError) -> str:
    """Return the message of an AWS error without the request that a refusal of a signature quotes.

    That has the session's token among its headers.
    """
    return _QUOTED_REQUEST.sub("", error.response["Error"].get("Message", "")).rstrip()


def delayed_by(
    name: str, error: ClientError | BotoCoreError, *, about_key: frozenset[str] = frozenset()
) -> DelayedError:
    """Describe the error of the call `name` without anything that may contain a key.

    The message of AWS is quoted only for codes whose messages contain no part of a key. `about_key` are the codes that
    mean, for this call, that the key is missing or refused.
    """
    if isinstance(error, ClientError):
        code = code_of(error)
        message = f": {error.response['Error'].get('Message', '')[:_LONGEST_MESSAGE]}" if code in _QUOTED else ""
        broken = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500
        return DelayedError(
            f"{name}: AWS answered {code}{message}",
            no_capacity=code in _NO_CAPACITY,
            uncertain=broken,
            key=code in about_key,
        )
    return DelayedError(f"{name}: {type(error).__name__}", uncertain=True)
