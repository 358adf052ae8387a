"""What prune prints: one row for each copy that nobody has pulled or empty repository, and a summary."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from image_mirror.cli.commands.prune.removal import ENDED_EARLY, REMOVED, Pruning
from image_mirror.cli.commands.prune.selection import Found, Unused
from image_mirror.cli.image_selection import title
from image_mirror.cli.output import Output, aligned, folded, say, show, utc

_WOULD_BE_REMOVED = "would be removed"


@dataclass(frozen=True, slots=True)
class PruneRow:
    """One copy that nobody has pulled, or an empty repository.

    The fields are the keys of the JSON output; times are in ISO 8601 and UTC.
    """

    image: str | None
    copy: str
    digest: str | None
    bytes: int
    last_pull: str | None
    pushed: str | None
    outcome: str


def show_pruning(found: Found, pruning: Pruning | None, output: Output) -> None:
    """Print what was found and what was done with it; without a `pruning`, what would be removed."""
    default = ENDED_EARLY.text if pruning else _WOULD_BE_REMOVED
    outcomes = pruning.outcomes if pruning else {}
    rows = [_row(one, outcomes[one.tag.key].text if one.tag.key in outcomes else default) for one in found.removable]
    for repo in found.empty:
        outcome = outcomes[repo, ""].text if (repo, "") in outcomes else default
        rows.append(PruneRow(None, repo, None, 0, None, None, outcome))
    lines = _listing if sys.stdout.isatty() else _table
    show(rows, output, name=lambda row: row.copy, table=lambda: lines(rows))
    for line in _summary(found, rows, pruning):
        say(line)


def _table(rows: Sequence[PruneRow]) -> Iterator[str]:
    lines = [
        (
            row.image or row.copy,
            "yes" if row.image else "no",
            decimal(row.bytes) if row.digest else "empty",
            _day(row.last_pull) or ("never" if row.digest else "-"),
            _day(row.pushed) or "-",
            row.outcome,
        )
        for row in rows
    ]
    yield from aligned([("IMAGE", "RECORD", "SIZE", "LAST PULL", "PUSHED", "OUTCOME"), *lines])


def _listing(rows: Sequence[PruneRow]) -> Iterator[str]:
    """Yield a block for each row, for a terminal: a table with the names of copies is wider than most."""
    for row in rows:
        yield from folded(row.image or row.copy)
        if row.digest:
            pulled = f"last pulled {_day(row.last_pull)}" if row.last_pull else "never pulled"
            size = f"{decimal(row.bytes)}, {pulled}, pushed {_day(row.pushed)}"
            about = size if row.image else f"{size}, no record"
        else:
            about = "an empty repository"
        yield from folded(f"{about}: {row.outcome}", "  ")


def _day(time: str | None) -> str:
    return (time or "").partition("T")[0]


def _summary(found: Found, rows: Sequence[PruneRow], pruning: Pruning | None) -> Iterator[str]:
    ours = [row for row in rows if row.outcome in (REMOVED.text, _WOULD_BE_REMOVED)]
    removed = [row for row in ours if row.digest]
    noun = "copy" if len(removed) == 1 else "copies"
    count = f"{len(removed):,} {noun} of {decimal(sum(row.bytes for row in removed))}"
    if empty := len(ours) - len(removed):
        count += f" and {empty:,} empty {'repository' if empty == 1 else 'repositories'}"
    if not rows:
        yield "There is nothing to remove."
    elif pruning:
        yield f"Removed {count}" + (f", and {pruning.untagged:,} untagged images." if pruning.untagged else ".")
    else:
        yield f"{count} would be removed; --yes removes them."
    if found.running:
        yield f"Kept although nobody has pulled them: {found.running:,} that a cluster runs."
    if found.not_copied:
        yield f"Kept although nobody has pulled them: {found.not_copied:,} whose records are not COPIED."


def _row(one: Unused, outcome: str) -> PruneRow:
    return PruneRow(
        image=title(one.record) if one.record else None,
        copy=f"{one.tag.repo}:{one.tag.name}",
        digest=one.tag.digest,
        bytes=one.tag.size,
        last_pull=utc(one.tag.pulled_at),
        pushed=utc(one.tag.pushed_at),
        outcome=outcome,
    )
