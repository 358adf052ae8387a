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
    """Run the main job on emulated AWS: what users see, and each copy's way. No account, no network, no Docker.

    Exits with 1 where a copy did not arrive, with 2 where a file is wrong, with 3 where the installation is damaged.
    """
    try:
        from image_mirror.cli.commands.demo import run  # here, for without the extra it cannot be imported
    except ImportError as error:
        lacks = "is not installed" if isinstance(error, ModuleNotFoundError) else "is too old or damaged"
        typer.echo(f"Error: {error.name} {lacks}; install image-mirror with its demo extra", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT) from error
    run(files)
