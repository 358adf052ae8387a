"""The operator's configuration file: which profiles, regions, stacks and cluster the options have by default.

It is ~/.config/image-mirror/config.toml (XDG_CONFIG_HOME is respected), or the file that IMAGE_MIRROR_CONFIG names. Its
keys are the names of options. An option comes first, then its environment variable, then the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import typer

from image_mirror.messages import printable

# The keys, and the commands' parameters that they set. prune has no such parameter for a cluster: it must be told of
# each cluster that pulls the copies.
KEYS = {
    name: name.replace("-", "_")
    for name in (
        "china-profile",
        "china-region",
        "stack-name",
        "global-profile",
        "global-region",
        "global-stack-name",
        "kubeconfig",
        "context",
    )
}


def defaults(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the file's values by the parameters' names; none if there is no file.

    Raises typer.BadParameter for a file that cannot be read, and for a file that IMAGE_MIRROR_CONFIG names but that
    does not exist.
    """
    path, is_named = _path(os.environ if environ is None else environ)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        if not is_named:
            return {}
        raise _wrong(path, "there is no such file; correct IMAGE_MIRROR_CONFIG, or unset it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"it cannot be read: {error}") from error
    return parsed(text, path)


def name() -> str:
    """Return the file's name, for people."""
    return printable(str(_path(os.environ)[0]))


def parsed(text: str, path: Path) -> dict[str, str]:
    """Return the values of a file's text by the parameters' names. Raises typer.BadParameter, which names the key."""
    import tomllib  # noqa: PLC0415 - most calls have no file

    try:
        entries = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _wrong(path, f"it is not TOML: {error}") from error
    for key, value in entries.items():
        if key not in KEYS:
            raise _wrong(path, f"{key!r} is not a key; the keys are {', '.join(KEYS)}")
        if not isinstance(value, str) or not value:
            raise _wrong(path, f'{key} must be a text in quotes, such as {key} = "name"')
        side = key.removesuffix("-region")
        if key != side and value.startswith("cn-") is not (side == "china"):
            where = "in China, cn-north-1 or cn-northwest-1" if side == "china" else "outside China"
            raise _wrong(path, f"{key} must be a region {where}; it is {value!r}")
    values = {KEYS[key]: value for key, value in entries.items()}
    if "kubeconfig" in values:
        values["kubeconfig"] = os.path.expanduser(values["kubeconfig"])
    return values


def _path(environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Return the file, and whether the operator named it."""
    if named := environ.get("IMAGE_MIRROR_CONFIG"):
        return Path(named), True
    directory = environ.get("XDG_CONFIG_HOME") or "~/.config"
    # Path's own method raises an error if there is no such user, or no home directory, as in a container.
    return Path(os.path.expanduser(directory)) / "image-mirror" / "config.toml", False


def _wrong(path: Path, cause: str) -> typer.BadParameter:
    return typer.BadParameter(printable(cause), param_hint=printable(str(path)))
