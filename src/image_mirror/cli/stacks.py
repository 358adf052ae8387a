"""What the two deployed stacks say of themselves: outputs and parameters, by one call of CloudFormation each."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.aws_errors import code_of
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError
from image_mirror.decisions import Mirror
from image_mirror.rules import RuleError, parse_rules
from image_mirror.settings import parse_prefix, parse_registry
from image_mirror.table import Records

FAST_PROJECT = "FastProjectName"
"""The output of the global stack that only a stack with a fast lane has."""
FAST_PARAMETER = "GlobalFastProjectName"
"""The parameter of China's stack that switches the fast lane on."""
_DEFAULT = "image-mirror"
_SAMCONFIG = Path("samconfig.toml")


@dataclass(frozen=True)
class Stack:
    """A deployed stack: where, its name, CloudFormation's status, its outputs and the values of its parameters."""

    account: Account
    name: str
    status: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]

    def output(self, name: str) -> str:
        """Return an output. Raises NoAnswerError for one that this stack lacks."""
        return self._entry("output", self.outputs, name)

    def parameter(self, name: str) -> str:
        """Return a parameter's value. Raises NoAnswerError for one that this stack lacks."""
        return self._entry("parameter", self.parameters, name)

    def _entry(self, kind: str, entries: Mapping[str, str], name: str) -> str:
        if name not in entries:
            raise NoAnswerError(
                f"{self.account}: the stack {self.name} has no {kind} {name}: it is of an older release or not of this "
                "project",
                "deploy it again, or name the right one",
            )
        return entries[name]


def china_stack(account: Account, name: str | None) -> Stack:
    """Read China's stack: the one named, else the one that samconfig.toml in the working directory names."""
    return _read(account, name or default_name()[0], "--stack-name")


def default_name() -> tuple[str, str]:
    """Return the name of China's stack if no option names it, and where it comes from, for people."""
    configured = _configured()
    return (configured, str(_SAMCONFIG)) if configured else (_DEFAULT, "the default")


def global_stack(account: Account, name: str) -> Stack:
    """Read the global stack. Raises NoAnswerError."""
    return _read(account, name, "--global-stack-name")


def again(stack: Stack) -> Stack:
    """Read a stack again. Raises NoAnswerError."""
    return _read(stack.account, stack.name, "--stack-name" if stack.account.side == "china" else "--global-stack-name")


def offered_fast_project(global_side: Stack) -> str | None:
    """Return the CodeBuild project of the fast lane; None if the global stack has none.

    It has none if FastLane is false, in a region without CodeBuild's Lambda compute, and in an older release.
    """
    return global_side.outputs.get(FAST_PROJECT) or None


def used_fast_project(china: Stack) -> str | None:
    """Return the project that China's stack uses as the fast lane, "" for none; None in a stack of an older release."""
    return china.parameters.get(FAST_PARAMETER)


def fast_project_in_use(china: Stack, global_side: Stack) -> str | None:
    """Return the fast project if China's stack uses it; None if not, or if the stacks differ."""
    used = used_fast_project(china)
    return used if used and used == offered_fast_project(global_side) else None


def projects_of(global_side: Stack) -> list[str]:
    """Return the projects of the global stack, that of the main lane first. Raises NoAnswerError."""
    return [name for name in (global_side.output("ProjectName"), offered_fast_project(global_side)) if name]


def records_of(stack: Stack) -> Records:
    """Return the records of the stack's table. Raises NoAnswerError."""
    return Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))


def mirror_of(stack: Stack) -> Mirror:
    """Return the mirror that China's stack deploys: where copies go, and which images are copied.

    Raises NoAnswerError; also for a wrong rule, because CloudFormation accepts any text as a rule.
    """
    registry, _, prefix = stack.output("CopiesPrefix").rstrip("/").partition("/")
    try:
        rules = parse_rules(stack.parameter("MirrorRules"))
    except RuleError as error:
        raise NoAnswerError(
            f"{stack.account}: MirrorRules of the stack {stack.name}: {error}",
            "deploy it again with the rule corrected",
        ) from error
    return Mirror(parse_registry(registry), parse_prefix(prefix), rules)


def _read(account: Account, name: str, option: str) -> Stack:
    try:
        [found] = account.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if code_of(error) != "ValidationError":
            raise
        raise NoAnswerError(
            f"{account}: there is no stack {name!r} in {account.region}",
            f"deploy it, or name it by {option}, its region by --{account.side}-region",
        ) from error
    return Stack(account, name, found["StackStatus"], _texts(found, "Output"), _texts(found, "Parameter"))


def _texts(found: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {each[f"{kind}Key"]: each[f"{kind}Value"] for each in found.get(f"{kind}s", ())}


def _configured() -> str | None:
    try:
        config = tomllib.loads(_SAMCONFIG.read_text(encoding="utf-8"))
        name = config["default"]["deploy"]["parameters"]["stack_name"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return name if isinstance(name, str) else None
