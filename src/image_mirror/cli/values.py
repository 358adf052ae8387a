"""Which values a command uses to reach the accounts, the stacks and the cluster, and where each comes from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import typer
from botocore.exceptions import BotoCoreError

from image_mirror.cli.accounts import Account
from image_mirror.cli.stacks import default_name

if TYPE_CHECKING:
    from image_mirror.cli.kubernetes import Cluster

_PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # in botocore's order


@dataclass(frozen=True, slots=True)
class Value:
    """One value: whose it is, what it sets, the value ("-" if there is none), and where it comes from."""

    side: str
    name: str
    value: str
    source: str

    def __str__(self) -> str:
        """Return it for people, without its side."""
        return f"{self.name} {self.value} ({self.source})"


def values_of(ctx: typer.Context, china: Account, other: Account, cluster: "Cluster | None") -> list[Value]:
    """Return the values that a command with the shared options uses; `ctx` knows what gave each of its parameters.

    Asks nothing but the files of the AWS CLI, samconfig.toml and kubectl's configuration.
    """
    name = ctx.params["stack_name"]
    default, its_source = default_name()
    values = [
        *_of_account(ctx, china),
        Value("China", "stack", name or default, source_of(ctx, "stack_name") if name else its_source),
        *_of_account(ctx, other),
        Value("Global", "stack", ctx.params["global_stack_name"], source_of(ctx, "global_stack_name")),
    ]
    return values + _of_cluster(ctx, cluster) if cluster else values


def lines(values: Sequence[Value]) -> Iterator[str]:
    """Yield one line for each side, of any length."""
    for side, some in groupby(values, lambda value: value.side):
        yield f"{side}: {', '.join(map(str, some))}"


def source_of(ctx: typer.Context, name: str) -> str:
    """Return what gave a parameter its value, for people: an option, a variable, the file, or the default."""
    source = ctx.get_parameter_source(name)
    parameter = next(each for each in ctx.command.params if each.name == name)
    given: Mapping[str, str] = {
        "COMMANDLINE": parameter.opts[0],
        "ENVIRONMENT": str(parameter.envvar),
        "DEFAULT_MAP": "the configuration file",
    }
    return given.get(source.name if source else "", "the default")


def _of_account(ctx: typer.Context, account: Account) -> list[Value]:
    side, option = account.side.capitalize(), f"{account.side}_profile"
    if account.profile:
        profile = Value(side, "profile", account.profile, source_of(ctx, option))
    else:
        variable = next((name for name in _PROFILES if os.environ.get(name)), None)
        default = "none is named: AWS chooses the credentials"
        profile = Value(side, "profile", os.environ[variable] if variable else "-", variable or default)
    try:
        region, source = account.found_region()
    except BotoCoreError as error:  # such as a profile that does not exist
        region, source = None, str(error)
    if account.given_region:
        source = source_of(ctx, f"{account.side}_region")
    return [profile, Value(side, "region", region or "-", source)]


def _of_cluster(ctx: typer.Context, cluster: "Cluster") -> list[Value]:
    file = source_of(ctx, "kubeconfig") if cluster.kubeconfig else "kubectl's own configuration"
    source = source_of(ctx, "context") if cluster.context else f"the current one of {cluster.kubeconfig or file}"
    named = cluster.named()
    values = [Value("Cluster", "context", named[0] if named else cluster.context or "-", source)]
    if cluster.kubeconfig:
        values.insert(0, Value("Cluster", "kubeconfig", str(cluster.kubeconfig), file))
    return [*values, Value("Cluster", "server", named[1], "of this context")] if named else values
