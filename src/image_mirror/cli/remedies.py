"""The commands in remedies, with the account's profile and region, so that they can be pasted into a shell."""

import shlex
from functools import partial
from typing import Protocol

from image_mirror.cli.accounts import Account
from image_mirror.cli.stacks import Stack

AGAIN = "deploy China's stack again"
# CloudFormation compares templates. It does not see that somebody has changed or deleted a resource by hand.
REVERT = (
    "if that finds no changes, a resource was changed by hand: `aws cloudformation create-change-set` with "
    "--deployment-mode REVERT_DRIFT undoes it"
)
RESTORE = f"{AGAIN}; {REVERT}"

# Service Quotas' codes of CodeBuild's "Concurrently running builds for Linux/Small environment" and of "... for Linux
# Lambda/2GB environment".
MAIN_QUOTA, FAST_QUOTA = "L-9D07B6EF", "L-1DFDD5F9"


class AwsCommand(Protocol):
    """Makes a command of the AWS CLI for one account."""

    def __call__(self, service: str, operation: str, *arguments: str) -> str:
        """Return the command in backquotes, quoted for a shell."""


def aws_of(account: Account) -> AwsCommand:
    """Return a function that makes commands for `account`."""
    return partial(_aws, account)


def get_back(account: Account, secret: str) -> str:
    """Return what to do about a secret that is marked for deletion."""
    return f"restore it with {aws_of(account)('secretsmanager', 'restore-secret', '--secret-id', secret)}"


def make_again(stack: str) -> str:
    """Return what to do about a secret of a stack that does not exist any more."""
    return f"deploy the stack {stack} again; {REVERT}"


def raise_quota(aws: AwsCommand, code: str, wanted: int) -> str:
    """Return the command that asks AWS for `wanted` builds at once in place of CodeBuild's quota `code`."""
    quota = ("--service-code", "codebuild", "--quota-code", code, "--desired-value", str(wanted))
    return aws("service-quotas", "request-service-quota-increase", *quota)


def log_of(stack: Stack, output: str) -> str:
    """Return the command that shows the log whose group is in `output`. Raises NoAnswerError."""
    return aws_of(stack.account)("logs", "tail", "--since", "1h", stack.output(output))


def deploy_china(stack: Stack, parameter: str) -> str:
    """Return the command that deploys China's stack again with one parameter changed."""
    where = [*where_of(stack.account), "--stack-name", stack.name]
    return f"`{shlex.join(['sam', 'deploy', *where, '--parameter-overrides', parameter])}`"


def new_table(stack: Stack) -> str:
    """Return what to do about a table that CloudFormation takes for its own, although it is not."""
    again = deploy_china(stack, f"TableName={stack.output('ImageListTableName')}2")
    return f"{again} makes an empty table with its stream; docs/recovery.md says how to keep this one"


def deploy_global(stack: Stack, parameter: str) -> str:
    """Return the command that deploys the global stack again with one parameter changed."""
    template = ("--template-file", "image-pulling.yaml", "--capabilities", "CAPABILITY_IAM")
    named = ("--stack-name", stack.name, *template, "--parameter-overrides", parameter)
    return aws_of(stack.account)("cloudformation", "deploy", *named)


def where_of(account: Account) -> list[str]:
    """Return the options that name the account to the AWS and the SAM CLI."""
    return [*(("--profile", account.profile) if account.profile else ()), "--region", account.region]


def _aws(account: Account, service: str, operation: str, *arguments: str) -> str:
    return f"`{shlex.join(['aws', service, operation, *where_of(account), *arguments])}`"
