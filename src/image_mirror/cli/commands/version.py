"""`image-mirror version`: the version of this command."""

from importlib.metadata import version as version_of

import typer


def version() -> None:
    """Print the version of this command, as --version does."""
    typer.echo(f"image-mirror {version_of('image-mirror')}")
