"""Finds the project's files that are not code: in the installed package, or in the checkout of an editable install."""

from importlib.resources import files
from pathlib import Path

from image_mirror.cli.errors import NoAnswerError

_CHECKOUT = Path(__file__).parents[3]


def resource(name: str) -> Path:
    """Return the file or folder `name`, a path from the top of a checkout. Raises NoAnswerError if it is missing."""
    # A wheel is unpacked when it is installed, so each of its files has a path.
    for place in (Path(str(files("image_mirror"))) / "resources", _CHECKOUT):
        if (place / name).exists():
            return place / name
    raise NoAnswerError(f"this installation does not have the file {name}; install the wheel again")
