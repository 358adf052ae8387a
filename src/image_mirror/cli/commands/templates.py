"""`image-mirror templates`: writes the files that a deployment needs, from the installed package."""

import stat
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.output import say
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
# Of the package's modules: what the functions never load. src/bundle.py leaves it out as well.
_NOT_FOR_LAMBDA = ("__main__.py", "cli", "registry_login.py", "resources")


def templates(
    name: Annotated[
        str, typer.Argument(metavar="DIR", help="Where to write them. It is created if it does not exist.")
    ],
) -> None:
    """Write the templates, and all that `sam build` needs, into a directory. Makes no network call.

    \b
    image-mirror templates deployment
    cd deployment && sam build
    sam deploy --profile china --region cn-northwest-1 --parameter-overrides WebhookToken="$TOKEN"

    TOKEN is 32 to 64 letters and digits, the secret path of the webhook's URL: `openssl rand -hex 24` makes one.

    DIR then has sam-template.yaml for the account in China, image-pulling.yaml for the global account,
    mutating-webhook.yaml for the clusters, samconfig.toml, and src/ with the code of the functions.

    A file that already exists with other content is never overwritten: the command names each such file, writes nothing
    and exits with 2. It also exits with 2 if it cannot write. After an upgrade of image-mirror, use a new directory.
    """
    directory = _directory(name)
    contents = {name: resource(name).read_bytes() for name in _FILES} | _package()
    differ = [name for name, content in contents.items() if _is_other(directory / name, content)]
    if differ:
        for name in differ:
            say(f"Error: {directory / name} already exists with other content")
        say("Nothing was written; name another directory, or move these files away.")
        raise typer.Exit(ExitCode.WRONG_INPUT)
    _write({directory / name: content for name, content in contents.items()})
    say(f"{len(contents)} files are in {directory.absolute()}", err=False)


def _directory(text: str) -> Path:
    """Return the directory of that name. Raises typer.BadParameter for a file and for an empty name."""
    if not text:  # a variable that is not set
        raise typer.BadParameter("it is empty; name a directory, such as deployment", param_hint="DIR")
    path = Path(text)
    try:
        is_file = not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):  # it is created, or that fails with the reason
        return path
    except OSError as error:  # a name that is too long, a loop of links, no permission
        raise typer.BadParameter(f"{printable(text)}: {error.strerror}", param_hint="DIR") from None
    if is_file:
        raise typer.BadParameter(f"{printable(text)} is a file; name a directory", param_hint="DIR")
    return path


def _package() -> dict[str, bytes]:
    """Return the modules of the functions by their names below the directory."""
    package = Path(str(files("image_mirror")))
    places = {path.relative_to(package): path for path in sorted(package.rglob("*.py"))}
    return {
        f"src/image_mirror/{place.as_posix()}": path.read_bytes()
        for place, path in places.items()
        if place.parts[0] not in _NOT_FOR_LAMBDA
    }


def _is_other(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return path.is_symlink()  # to a file that does not exist: writing would create it elsewhere
    except NotADirectoryError:
        return False  # a folder cannot be created there, which writing reports
    except OSError:  # a folder of that name, or no permission to read
        return True


def _write(contents: dict[Path, bytes]) -> None:
    """Write the files that do not exist yet; those that exist have the same content.

    If one cannot be written, removes those that it wrote, and raises typer.BadParameter.
    """
    written: list[Path] = []
    for path, content in contents.items():
        if path.exists():
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # fails if somebody has written the file meanwhile
                written.append(path)
                file.write(content)
        except OSError as error:
            for each in written:
                each.unlink(missing_ok=True)
            place = printable(str(error.filename or path))
            raise typer.BadParameter(f"{place}: {error.strerror}", param_hint="DIR") from None
