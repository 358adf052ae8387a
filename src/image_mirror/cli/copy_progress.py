"""The progress of copies: from their records, and as a table, as blocks for a terminal, or counted."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from image_mirror.cli.output import aligned, folded
from image_mirror.record import Record, Status
from image_mirror.reference import Destination

WORDS: Mapping[str, str] = {
    Status.COPYING: "being copied",
    Status.REQUESTED: "requested",
    Status.COPIED: "there",
    "GONE": "without a record",
    Status.FAILED: "failed",
}
"""What the last line says of each state, in its order."""


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """One copy: `image` is the source, `copy` its name in ECR, `state` the record's status, or GONE without a record.

    `waited` is in seconds. The fields are the keys of the JSON output.
    """

    image: str
    copy: str
    state: str
    attempts: int
    build: str | None
    reason: str | None
    waited: int

    @property
    def is_copied(self) -> bool:
        """Whether pods find the copy in ECR, also while it is refreshed."""
        return self.state == Status.COPIED

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.state not in (Status.REQUESTED, Status.COPYING)


def progress_of(destination: Destination, source: str, record: Record | None, waited: float) -> CopyProgress:
    """Return the progress of a copy from its record."""
    if record is None:
        reason = "its record was removed, by `image-mirror forget` or because the copy was deleted; run this again"
        return CopyProgress(source, str(destination), "GONE", 0, None, reason, int(waited))
    state = str(Status.COPIED if record.digest is not None else record.status or Status.REQUESTED)
    error = None if state == Status.COPIED else record.error
    return CopyProgress(source, str(destination), state, record.attempts, record.build_id, error, int(waited))


def shown(copies: Sequence[CopyProgress], *, wide: bool) -> Iterator[str]:
    """Return the lines for standard output: blocks for a terminal, else a table."""
    return (listing if sys.stdout.isatty() else table)(copies, wide=wide)


def table(copies: Iterable[CopyProgress], *, wide: bool) -> Iterator[str]:
    """Yield a heading and one aligned line for each copy, of any length; if `wide`, with the copy's name."""
    lines = [["STATE", "IMAGE", *(["COPY"] if wide else []), "REASON"]]
    lines += [[each.state, each.image, *([each.copy] if wide else []), each.reason or ""] for each in copies]
    yield from aligned(lines)


def listing(copies: Iterable[CopyProgress], *, wide: bool) -> Iterator[str]:
    """Yield a block for each copy, for a terminal; if `wide`, with the copy's name."""
    indent = " " * 11
    for each in copies:
        yield from folded(f"{each.state:<9}  {each.image}")
        if wide:
            yield from folded(f"-> {each.copy}", indent)
        if each.reason:
            yield from folded(each.reason, indent)


def counted(copies: Sequence[CopyProgress], words: Mapping[str, str]) -> str:
    """Return how many copies there are, and how many in each state; `words` has the states in order, with their words.

    What no copy is in is not named.
    """
    counts = Counter(each.state for each in copies)
    parts = ", ".join(f"{counts[state]:,} {text}" for state, text in words.items() if counts[state])
    return f"{len(copies):,} {'image' if len(copies) == 1 else 'images'}: {parts}"
