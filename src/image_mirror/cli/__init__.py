"""The operator's command, `image-mirror`. A command imports what it alone needs inside its function."""

from typing import Annotated

import typer

from image_mirror.cli.commands.connect import connect
from image_mirror.cli.commands.doctor import doctor
from image_mirror.cli.commands.forget import forget
from image_mirror.cli.commands.preview import preview
from image_mirror.cli.commands.prune import prune
from image_mirror.cli.commands.retry import retry
from image_mirror.cli.commands.status import status
from image_mirror.cli.commands.warm import warm
from image_mirror.cli.commands.webhook_config import webhook_config
from image_mirror.cli.errors import ExitCode, reported

# Without rich_markup_mode errors are single lines, which survive a pipe, not boxes that wrap.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"image-mirror {version('image-mirror')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Mirror container images into ECR for Kubernetes clusters in AWS China."""


# In the order in which an operator meets them; each with its line in the list, whole where Typer would cut the help's.
for command, line in (
    (connect, "Let the two accounts reach each other."),
    (webhook_config, "Print the cluster's webhook configuration."),
    (doctor, "Look at both accounts and say what is wrong."),
    (preview, "Show what the images in manifests become."),
    (warm, "Copy images before anyone deploys them."),
    (status, "Show every copy and how it stands."),
    (retry, "Have failed and waiting copies made now."),
    (forget, "Remove records, so that copies are made anew."),
    (prune, "Show copies that nobody pulls, or remove them."),
):
    app.command(short_help=line)(reported(command))


@app.command(short_help="Run the main job on emulated AWS.")
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
        from image_mirror.cli.commands.demo import run
    except ModuleNotFoundError as error:
        typer.echo(f"Error: {error.name} is not installed; install image-mirror with its demo extra", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT) from error
    run(files)
