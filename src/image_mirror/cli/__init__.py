"""The operator's command, `image-mirror`. A command imports what it alone needs inside its function."""

from typing import Annotated

import typer

from image_mirror.cli.connect import connect
from image_mirror.cli.doctor import doctor
from image_mirror.cli.failures import reported
from image_mirror.cli.forget import forget
from image_mirror.cli.preview import preview
from image_mirror.cli.prune import prune
from image_mirror.cli.retry import retry
from image_mirror.cli.status import status
from image_mirror.cli.warm import warm
from image_mirror.cli.webhook_config import webhook_config

# Without rich_markup_mode errors are single lines, which survive a pipe, not boxes that wrap.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Mirror container images into ECR for Kubernetes clusters in AWS China."""


for command in (connect, doctor, preview, warm, webhook_config, status, retry, forget, prune):
    app.command()(reported(command))


@app.command()
def demo(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Manifests, or AdmissionReviews as JSON; by default the samples."),
    ] = None,
) -> None:
    """Run the main job on emulated AWS: what users see, and each copy's way. No account, no network, no Docker.

    Exits with 1 where a copy did not arrive, with 2 where a file is wrong.
    """
    try:
        from image_mirror.cli.demo import run
    except ModuleNotFoundError as error:
        typer.echo(f"Error: {error.name} is not installed; install image-mirror with its demo extra", err=True)
        raise typer.Exit(2) from error
    run(files)
