"""Errors that end a command, each with its remedy; and the exit codes of all commands.

0    done, and everything is in order
1    done, and something needs attention
2    an option, an argument or a file is wrong; nothing was done (preview and warm: the other files were read)
3    AWS or the cluster did not answer, or refused the request
130  ended by Ctrl-C
"""

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from image_mirror.aws_errors import DENIED, EXPIRED, KEY_REFUSED, THROTTLED, code_of, message_of
from image_mirror.cli.output import say
from image_mirror.messages import printable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_LOG_IN = "log in again (aws sso login, or the tool that fills the profile), or name another profile"
_REMEDIED = KEY_REFUSED | EXPIRED | DENIED | THROTTLED


class ExitCode(IntEnum):
    """The exit codes other than 0; the text above says what they mean."""

    NOT_WELL = 1
    WRONG_INPUT = 2
    NO_ANSWER = 3


class NoAnswerError(Exception):
    """AWS or the cluster did not answer, or refused. The message is `cause` and `remedy`; it contains no secret.

    `remedy` is None if nothing is known that helps, or if `cause` says it already.
    """

    def __init__(self, cause: str, remedy: str | None = None) -> None:
        super().__init__("; ".join(filter(None, (cause, remedy))))
        self.cause = cause
        self.remedy = remedy


def reported(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make `command` end with one line on standard error and exit code 3 if AWS or the cluster gives no answer."""

    @wraps(command)
    def guarded(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return command(*arguments, **options)
        except NoAnswerError as error:
            message = printable(str(error))
        except Exception as error:
            text = describe_aws_error(error)
            if text is None:
                raise
            message = text
        say(f"Error: {message}")
        raise typer.Exit(ExitCode.NO_ANSWER)

    return guarded


def describe_aws_error(error: Exception) -> str | None:
    """Return on one line what an error of AWS or the network was about, and what to do; None for any other error.

    A command that asks again and again continues after an error of AWS or the network.
    """
    # It is not a BotoCoreError.
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 - it would make `preview` 40 ms slower

    if isinstance(error, ClientError) and code_of(error) not in _REMEDIED:
        return f"{remedy(error)}; `image-mirror doctor` may show what is wrong"
    if isinstance(error, BotoCoreError | ClientError):
        return remedy(error)
    if isinstance(error, ResponseParserError):  # its own text quotes the whole answer
        return "the answer is not from AWS, perhaps from a proxy: check the network and HTTPS_PROXY"
    return None


def no_answer_errors() -> tuple[type[Exception], ...]:
    """Return what is raised if AWS or the cluster gives no answer: for `except`, where a command continues."""
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 - as above

    return NoAnswerError, BotoCoreError, ClientError, ResponseParserError


def why_no_answer(error: Exception) -> str:
    """Return on one line what one of these errors was about, and what to do."""
    return str(error) if isinstance(error, NoAnswerError) else describe_aws_error(error) or type(error).__name__


def remedy(error: BotoCoreError | ClientError) -> str:
    """Return on one line what an error was about and what to do."""
    return "; ".join(filter(None, parted(error)))


def parted(error: BotoCoreError | ClientError) -> tuple[str, str | None]:
    """Return what an error was about, and what to do; None if that is not known."""
    cause, remedy = _refusal(error) if isinstance(error, ClientError) else _unsent(error)
    return printable(cause), remedy


def _refusal(error: ClientError) -> tuple[str, str | None]:
    code = code_of(error)
    message = message_of(error).rstrip(". ")
    account = error.response.get("Account", "AWS")  # set by accounts.py
    text = f"{account}: {error.operation_name}: {code}: {message}"
    if code in KEY_REFUSED:
        return text, "AWS does not accept this profile's access key: correct it, or name another profile"
    if code in EXPIRED:
        return text, _LOG_IN
    if code in DENIED:
        return text, "ask for this permission, or name another profile"
    if code in THROTTLED:
        return text, "too many requests to AWS at the moment: try again in a minute"
    return text, None


def _unsent(error: BotoCoreError) -> tuple[str, str | None]:
    if isinstance(error, aws.ProfileNotFound):
        return str(error), "`aws configure list-profiles` prints the existing ones"
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return str(error), "name a profile that has credentials, or set AWS_PROFILE"
    if isinstance(error, aws.TokenRetrievalError | aws.SSOError | aws.UnauthorizedSSOTokenError):
        return str(error), _LOG_IN
    if isinstance(error, aws.CredentialRetrievalError):
        return str(error), "check the tool that fills this profile"
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError):
        return str(error), "check the network, and HTTPS_PROXY if there is a proxy"
    return f"{type(error).__name__}: {error}", None
