"""`image-mirror templates`: writes the files that a deployment needs, from the installed package."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.resources import resource
from image_mirror.messages import printable

_FILES = (
    "sam-template.yaml",
    "image-pulling.yaml",
    "mutating-webhook.yaml",
    "samconfig.toml",
    "src/Makefile",
    "src/bundle.py",
    "src/requirements.txt",
)
# What the functions never load; src/bundle.py leaves it out as well.
_NOT_FOR_LAMBDA = shutil.ignore_patterns("__pycache__", "__main__.py", "py.typed", "cli", "resources")


def templates(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", file_okay=False, help="Where to write them; made if it does not exist.")
    ],
) -> None:
    """Write the templates, and all that `sam build` needs, into a directory. Nothing is called.

    \b
    image-mirror templates deployment
    cd deployment && sam build && sam deploy

    DIR then has sam-template.yaml for the account in China, image-pulling.yaml for the global account,
    mutating-webhook.yaml for the clusters, samconfig.toml, and src/ with the code of the functions.

    A file that is there with other content is never overwritten: the command names each such file, writes nothing and
    exits with 2. After an upgrade of image-mirror, write into a new directory.
    """
    contents = {name: resource(name).read_bytes() for name in _FILES} | _package()
    differ = [name for name, content in contents.items() if _is_other(directory / name, content)]
    if differ:
        for name in differ:
            typer.echo(f"Error: {printable(str(directory / name))} is there with other content", err=True)
        typer.echo("Nothing was written; name another directory, or move these files away.", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT)
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    typer.echo(f"{len(contents)} files are in {printable(str(directory))}.")


def _package() -> dict[str, bytes]:
    """Return the modules of the functions by their names below the directory."""
    package = Path(str(files("image_mirror")))
    left_out = _NOT_FOR_LAMBDA(str(package), [each.name for each in package.iterdir()])
    found = (each for each in sorted(package.iterdir()) if each.name not in left_out)
    return {f"src/image_mirror/{each.name}": each.read_bytes() for each in found}


def _is_other(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return False
    except OSError:  # a folder of that name, or no permission to read
        return True
