"""What stands between a command and its answer, told with its remedy; and the exit codes of all commands.

0    done, and all is well
1    done, and something that was asked about is not well
2    an option, an argument or a file is wrong; nothing was done
3    AWS or the cluster could not be asked, or refused
130  ended by Ctrl-C
"""

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws_errors import DENIED, EXPIRED, KEY_REFUSED, THROTTLED, code_of
from image_mirror.messages import printable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_LOG_IN = "log in again (aws sso login, or whatever fills the profile), or name another profile"
_REMEDIED = KEY_REFUSED | EXPIRED | DENIED | THROTTLED


class ExitCode(IntEnum):
    """What a command ends with, beside 0."""

    NOT_WELL = 1
    WRONG_INPUT = 2
    NO_ANSWER = 3


class NoAnswerError(Exception):
    """AWS or the cluster could not be asked, or refused. The message is `cause` and `remedy`; it holds no secret."""

    def __init__(self, cause: str, remedy: str | None = None) -> None:
        """Keep what is not so, and what to do about it where that stands apart."""
        super().__init__("; ".join(filter(None, (cause, remedy))))
        self.cause = cause
        self.remedy = remedy


def reported(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make `command` end with one line on standard error and exit code 3 where AWS or the cluster gives no answer."""

    @wraps(command)
    def guarded(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return command(*arguments, **options)
        except NoAnswerError as error:
            message = printable(str(error))
        except Exception as error:
            told = passing(error)
            if told is None:
                raise
            message = told
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(ExitCode.NO_ANSWER)

    return guarded


def passing(error: Exception) -> str | None:
    """Say on one line what AWS's error was about and what to do; None for an error that is not AWS's or the network's.

    Whoever asks again and again goes on after the former.
    """
    from botocore.parsers import ResponseParserError  # no BotoCoreError; here, for it costs `preview` 40 ms

    if isinstance(error, ClientError) and code_of(error) not in _REMEDIED:
        return f"{remedy(error)}; `image-mirror doctor` may say what is wrong"
    if isinstance(error, BotoCoreError | ClientError):
        return remedy(error)
    if isinstance(error, ResponseParserError):  # which quotes the whole answer
        return "what answered is not AWS, a proxy perhaps: see to the network, and to HTTPS_PROXY"
    return None


def remedy(error: BotoCoreError | ClientError) -> str:
    """Say on one line what AWS's error was about and what to do."""
    return "; ".join(filter(None, parted(error)))


def parted(error: BotoCoreError | ClientError) -> tuple[str, str | None]:
    """Return what AWS's error was about, and what to do, None where nothing is known."""
    cause, then = _refusal(error) if isinstance(error, ClientError) else _unsent(error)
    return printable(cause), then


def _refusal(error: ClientError) -> tuple[str, str | None]:
    code = code_of(error)
    message = error.response["Error"].get("Message", "").rstrip(". ")
    account = error.response.get("Account", "AWS")  # set by accounts.py
    said = f"{account}: {error.operation_name}: {code}: {message}"
    if code in KEY_REFUSED:
        return said, "AWS does not take this profile's access key: correct it, or name another profile"
    if code in EXPIRED:
        return said, _LOG_IN
    if code in DENIED:
        return said, "have this permission granted to you, or name another profile"
    if code in THROTTLED:
        return said, "AWS is asked too often just now: try again in a minute"
    return said, None


def _unsent(error: BotoCoreError) -> tuple[str, str | None]:
    if isinstance(error, aws.ProfileNotFound):
        return str(error), "`aws configure list-profiles` prints those there are"
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return str(error), "name a profile that has them, or set AWS_PROFILE"
    if isinstance(error, aws.TokenRetrievalError | aws.SSOError | aws.UnauthorizedSSOTokenError):
        return str(error), _LOG_IN
    if isinstance(error, aws.CredentialRetrievalError):
        return str(error), "see to what fills this profile"
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError):
        return str(error), "see to the network, and to HTTPS_PROXY where there is a proxy"
    return f"{type(error).__name__}: {error}", None
