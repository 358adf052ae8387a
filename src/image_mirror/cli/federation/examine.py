"""Reads what there is of the federation: issuers, OIDC providers, and what the reconciler answers. Changes nothing."""

import json
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import DENIED, code_of
from image_mirror.cli import stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError, parted
from image_mirror.cli.federation.plan import OF_CHINA, OF_GLOBAL, Answer, Found, Provider, Side
from image_mirror.cli.stack_updates import BY_HAND
from image_mirror.cli.stacks import Stack
from image_mirror.messages import printable

_OFF = ("FeatureDisabled", "FeatureDisabledException")
_PROBE = b'{"probe": "builds"}'
_LONGEST_MESSAGE = 300


def examine(china: Stack, world: Stack) -> Found:
    """Read both accounts, and ask the reconciler. Raises NoAnswerError, BotoCoreError."""
    try:
        return _found(china, world, ask_reconciler(china))
    except ClientError as error:
        raise named(error) from error


def again(found: Found, answer: Answer | None) -> Found:
    """Read both stacks and accounts again; `answer` is a newer one of the reconciler, None if there is none."""
    china, world = stacks.again(found.china.stack), stacks.again(found.world.stack)
    try:
        return _found(china, world, answer or found.answer)
    except ClientError as error:
        raise named(error) from error


def _found(china: Stack, world: Stack, answer: Answer) -> Found:
    of_china, of_global = issuer_of(china.account), issuer_of(world.account)
    return Found(
        Side(china, OF_CHINA, of_china, provider_of(china.account, of_global)),
        Side(world, OF_GLOBAL, of_global, provider_of(world.account, of_china)),
        answer,
    )


def issuer_of(account: Account) -> str | None:
    """Return who signs the account's tokens, without https://; None while outbound federation is off.

    Raises ClientError.
    """
    try:
        info = account.client("iam").get_outbound_web_identity_federation_info()
    except ClientError as error:
        if code_of(error) in _OFF:
            return None
        raise
    return without_scheme(info["IssuerIdentifier"]) if info.get("JwtVendingEnabled", True) else None


def without_scheme(issuer: str) -> str:
    """Return an issuer as the stacks' parameters have it."""
    return issuer.removeprefix("https://").rstrip("/")


def provider_of(account: Account, issuer: str | None) -> Provider | None:
    """Return the account's OIDC provider for an issuer; None if there is none. Raises ClientError."""
    if issuer is None:
        return None
    iam = account.client("iam")
    listed = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    arn = next((each["Arn"] for each in listed if each["Arn"].partition(":oidc-provider/")[2] == issuer), None)
    if arn is None:
        return None
    audiences = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ClientIDList"]
    return Provider(arn, frozenset(audiences))


def ask_reconciler(china: Stack) -> Answer:
    """Let the reconciler call BatchGetBuilds in the global account. Raises NoAnswerError, ClientError."""
    function = china.output("ReconcilerFunctionName")
    reply = china.account.client("lambda").invoke(FunctionName=function, Payload=_PROBE)
    try:
        said: Any = json.loads(reply["Payload"].read())
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    if reply.get("FunctionError"):
        why = printable(str(said.get("errorMessage")))[:_LONGEST_MESSAGE]
        return Answer("", f"the function {function} failed: {why}")
    match said.get("probe"):
        case {"role": str(role), "error": None}:
            return Answer(role, None)
        case {"role": str(role), "error": str(why)}:
            return Answer(role, printable(why))
    raise NoAnswerError(
        f"{china.account}: the function {function} does not know a probe",
        f"deploy this release to the stack {china.name} first",
    )


def named(error: ClientError) -> NoAnswerError:
    """Return the error of a call, and if it is not permitted also the way by hand."""
    cause, remedy = parted(error)
    by_hand = f"or see {BY_HAND}" if code_of(error) in DENIED else None
    return NoAnswerError(cause, "; ".join(filter(None, (remedy, by_hand))) or None)
