"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ChinaProfile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", envvar="IMAGE_MIRROR_CHINA_PROFILE", help="The AWS CLI's profile of the account in China."
    ),
]
ChinaRegion = Annotated[
    str | None, typer.Option(metavar="REGION", help="The stack's region in China, where the profile has another.")
]
StackName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The stack in China; by default samconfig.toml's, else image-mirror."),
]
GlobalProfile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", envvar="IMAGE_MIRROR_GLOBAL_PROFILE", help="The AWS CLI's profile of the global account."
    ),
]
GlobalRegion = Annotated[
    str | None, typer.Option(metavar="REGION", help="The global stack's region, where the profile has another.")
]
GlobalStackName = Annotated[str, typer.Option(metavar="NAME", help="The stack in the global region.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="The cluster, by a file as kubectl takes it.",
        show_default=False,
    ),
]
KubeContext = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="The context in it, where not the current one.")
]
GLOBAL_STACK = "image-pulling"
