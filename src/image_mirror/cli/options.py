"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from image_mirror.cli import completion

ChinaProfile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="IMAGE_MIRROR_CHINA_PROFILE",
        help="The AWS CLI profile of the account in China.",
        autocompletion=completion.profiles,
    ),
]
ChinaRegion = Annotated[
    str | None,
    typer.Option(metavar="REGION", help="The region of the stack in China, if it differs from the profile's."),
]
StackName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The stack in China; default: from samconfig.toml, or image-mirror."),
]
GlobalProfile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="IMAGE_MIRROR_GLOBAL_PROFILE",
        help="The AWS CLI profile of the global account.",
        autocompletion=completion.profiles,
    ),
]
GlobalRegion = Annotated[
    str | None, typer.Option(metavar="REGION", help="The region of the global stack, if it differs from the profile's.")
]
GlobalStackName = Annotated[str, typer.Option(metavar="NAME", help="The stack in the global account.")]

Recursive = Annotated[
    bool, typer.Option("-R", "--recursive", help="Read the directories below a directory too.", show_default=False)
]


def _kubeconfig(help_text: str) -> Any:
    return typer.Option(
        "--kubeconfig", metavar="FILE", exists=True, dir_okay=False, readable=True, help=help_text, show_default=False
    )


Kubeconfig = Annotated[Path | None, _kubeconfig("The kubeconfig file of the cluster.")]
Kubeconfigs = Annotated[
    list[Path] | None, _kubeconfig("The kubeconfig of a cluster that pulls copies. Can be repeated.")
]
KubeContext = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="The kubeconfig context; default: the current one.",
        autocompletion=completion.contexts,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="The namespace; default: the context's, as kubectl.",
        autocompletion=completion.namespaces,
    ),
]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Look in all namespaces.")]
Selector = Annotated[
    str | None, typer.Option("-l", "--selector", metavar="LABELS", help="Only pods with these labels, as kubectl.")
]
GLOBAL_STACK = "image-pulling"


def require_one_scope(namespace: str | None, *, all_namespaces: bool) -> None:
    """Raise typer.BadParameter if one namespace and all are asked for."""
    if namespace is not None and all_namespaces:
        raise typer.BadParameter("cannot be combined with --namespace", param_hint="--all-namespaces")


def is_given(ctx: typer.Context, parameter: str) -> bool:
    """Return whether a value is the operator's choice for this call, and not of the configuration file or a default."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
