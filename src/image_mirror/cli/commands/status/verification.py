"""What `status --verify` prints: each COPIED record beside what ECR holds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from image_mirror.cli.held_copies import Held, InECR
from image_mirror.cli.image_selection import title
from image_mirror.cli.output import aligned
from image_mirror.record import Record

_ORDER = (InECR.GONE, InECR.ARCHIVED, InECR.OTHER_DIGEST, InECR.NOT_SERVED, InECR.HELD)
_IN_ORDER = (InECR.HELD, InECR.NOT_SERVED)


@dataclass(frozen=True, slots=True)
class VerifiedRow:
    """One copy. The fields are the keys of the JSON output."""

    image: str
    copy: str
    in_ecr: str
    digest: str | None
    digest_in_ecr: str | None


def verified_rows(records: Iterable[Record], held: Mapping[str, Held]) -> list[VerifiedRow]:
    """Return a row for each record; `held` has what ECR holds, by the copy's name. What is gone comes first."""
    found = [(record, held[record.destination]) for record in records]
    found.sort(key=lambda pair: (_ORDER.index(pair[1].state), title(pair[0])))
    return [
        VerifiedRow(title(record), record.destination, there.state, record.digest, there.digest)
        for record, there in found
    ]


def verified_table(rows: Sequence[VerifiedRow]) -> Iterator[str]:
    """Yield a heading and an aligned line for each row, what is gone last, next to the prompt.

    The digest in ECR is shown where it is not the record's.
    """
    lines = [["IN ECR", "IMAGE", "DIGEST IN ECR"]]
    lines += [
        [row.in_ecr, row.image, "" if row.digest_in_ecr == row.digest else row.digest_in_ecr or ""]
        for row in reversed(rows)
    ]
    yield from aligned(lines)


def verified_summary(rows: Sequence[VerifiedRow], held: Mapping[str, Held]) -> str:
    """Count the copies by what ECR holds, on one line, and say what to do if some are lost."""
    states = Counter(row.in_ecr for row in rows)
    counts = ", ".join(f"{states[state]:,} {state}" for state in _ORDER if states[state])
    text = f"{len(rows):,} COPIED record{'' if len(rows) == 1 else 's'}" + (f": {counts}" if counts else "")
    lost = any(held[row.copy].lost for row in rows)
    return text + ("; `image-mirror retry --gone` requests the lost copies again" if lost else "")


def all_in_order(rows: Iterable[VerifiedRow]) -> bool:
    """Return whether ECR holds each copy that the stack serves, with the record's digest."""
    return all(row.in_ecr in _IN_ORDER for row in rows)
