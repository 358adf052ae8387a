"""`image-mirror templates`: what `sam build` and `sam deploy` need, out of the installation, without a checkout."""

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
_NOT_FOR_LAMBDA = ("__main__.py", "cli", "resources")  # of the package: src/bundle.py leaves them out too


def templates(
    folder: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="The folder; it is made if need be.")],
) -> None:
    """Write the templates and the functions' code into a folder, for sam build and sam deploy.

    They are those of this image-mirror, so that what is deployed and what operates it are of one version:

    \b
    image-mirror templates image-mirror-1.0
    cd image-mirror-1.0
    sam build

    A file that is there with other content is never overwritten: nothing is written then. Name a new folder for each
    version; sam deploy finds the stack by its name, not by the folder.

    Exits with 2 where a file is in the way, or cannot be written.
    """
    wanted = {folder / name: content for name, content in _contents().items()}
    in_the_way = [path for path, content in wanted.items() if not _may_be_written(path, content)]
    if in_the_way:
        for path in in_the_way:
            typer.echo(f"Error: {printable(str(path))}: is there with other content", err=True)
        typer.echo("Error: nothing was written; name another folder", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT)
    missing = {path: content for path, content in wanted.items() if not path.exists()}
    _write(missing)
    typer.echo(f"{printable(str(folder))}: files written: {len(missing)}, there already: {len(wanted) - len(missing)}")
    typer.echo("Next, in this folder: sam build, then sam deploy.")


def _contents() -> dict[str, bytes]:
    """Return each file by its path in the folder. Raises NoAnswerError where the installation lacks one."""
    package = Path(str(files("image_mirror")))  # a wheel is unpacked when it is installed
    code = {path.relative_to(package): path for path in sorted(package.rglob("*.py"))}
    return {name: resource(name).read_bytes() for name in _FILES} | {
        f"src/{package.name}/{place.as_posix()}": path.read_bytes()
        for place, path in code.items()
        if place.parts[0] not in _NOT_FOR_LAMBDA
    }


def _may_be_written(path: Path, content: bytes) -> bool:
    """Say whether nothing is at `path`, or the same content."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return not path.is_symlink()  # one that leads nowhere is written through
    except OSError:  # a folder, a file in a folder's place, or what may not be read
        return False


def _write(missing: dict[Path, bytes]) -> None:
    """Write files that are not there. Raises typer.BadParameter, with none of them left, where one cannot be."""
    written: list[Path] = []
    for path, content in missing.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # never over one that has come in the meantime
                written.append(path)
                file.write(content)
        except OSError as error:
            for each in written:
                each.unlink(missing_ok=True)
            raise typer.BadParameter(f"{printable(str(path))}: {error.strerror}", param_hint="DIR") from None
