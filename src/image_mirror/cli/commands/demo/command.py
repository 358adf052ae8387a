"""The command itself: its options. What it runs needs the packages of an extra."""

from typing import Annotated

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.output import say

_PACKAGES = frozenset(("aws_lambda_powertools", "boto3", "botocore", "jsonpatch", "moto"))


def demo(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Manifests, or AdmissionReviews as JSON. Default: the samples."),
    ] = None,
) -> None:
    """Run the main job on emulated AWS: what users see, and the states of each copy. No account, network or Docker.

    It needs the packages of the extra demo: make demo installs them, or pipx install '.[demo]' in a clone.

    Exits with 1 if a copy is not in ECR, with 2 if a file is wrong, with 3 if the installation is damaged.
    """
    try:
        from image_mirror.cli.commands.demo.run import run  # noqa: PLC0415 - it needs the extra
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        lacks = "is not installed" if isinstance(error, ModuleNotFoundError) else "is too old or damaged"
        remedy = "run `pip install './image_mirror-VERSION-py3-none-any.whl[demo]'`, or `make demo` in a checkout"
        say(f"Error: {error.name} {lacks}; {remedy}")
        raise typer.Exit(ExitCode.WRONG_INPUT) from error
    run(files)
