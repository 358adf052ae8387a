"""The source registries: the digest of each reference, and the tags that move."""

import hashlib
from dataclasses import dataclass

from image_mirror.reference import InvalidReferenceError, parse_reference
from simulation.world import World


@dataclass(frozen=True, slots=True)
class Ending:
    """How each build of one source ends, COPIED or another COPY_RESULT, and the seconds of the copy itself."""

    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an image, and for how many seconds its layers are sent."""

    gigabytes: float
    seconds: float


# A usual image has 0.2 GB, sent in 35 s on average. This one is sent as fast, and the fast lane ends it as TOO_LARGE.
LARGE = Size(4.0, 700.0)
# This one is sent at a fifth of the speed, and the fast lane ends it as OUT_OF_TIME.
SLOW = Size(1.0, 900.0)


class Sources:
    """Every image exists except those in `absent`; a tag's digest is computed from the number of its moves.

    The builds of a source in `endings` all end like this, whatever the dice say. `sizes` has the images that are not
    of a usual size: the dice decide how long those take.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._moves: dict[str, int] = {}
        self.absent: dict[str, bool] = {}
        self.endings: dict[str, Ending] = {}
        self.sizes: dict[str, Size] = {}

    def digest(self, source: str) -> str | None:
        """Return the current digest of a canonical reference, or None if the registry has no such image."""
        if self.absent.get(source):
            return None
        try:
            by_digest = parse_reference(source).digest
        except InvalidReferenceError:
            return None
        content = f"{source} {self._moves.get(source, 0)}"
        return by_digest or "sha256:" + hashlib.sha256(content.encode()).hexdigest()

    def move(self, source: str) -> None:
        """Point a tag at another image."""
        self._world.note("moved", source)
        self._moves[source] = self._moves.get(source, 0) + 1

    def withdraw(self, source: str) -> None:
        """Remove an image."""
        self._world.note("withdrawn", source)
        self.absent[source] = True

    def publish(self, source: str) -> None:
        """Add an image that was absent."""
        self._world.note("published", source)
        self.absent.pop(source, None)
