"""`image-mirror demo`: its options; the demonstration itself needs packages of an extra."""

from typing import Annotated

import typer

from image_mirror.cli.errors import ExitCode


def demo(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Manifests, or AdmissionReviews as JSON; by default the samples."),
    ] = None,
) -> None:
    """Run the main job on emulated AWS: what users see, and the states of each copy. No account, no network, no Docker.

    Exits with 1 if a copy is not in ECR, with 2 if a file is wrong, with 3 if the installation is damaged.
    """
    try:
        from image_mirror.cli.commands.demo import run  # here, because it needs the extra's packages
    except ImportError as error:
        lacks = "is not installed" if isinstance(error, ModuleNotFoundError) else "is too old or damaged"
        typer.echo(f"Error: {error.name} {lacks}; install image-mirror with its demo extra", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT) from error
    run(files)
