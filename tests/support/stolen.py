"""What docs/security.md says of a stolen token or session: its table, cell by cell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from support.pages import quoted, table
from support.templates import ROOT

_PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Stolen:
    """One row: actions or the role that it opens, seconds in the order of the cell, and what limits the thief."""

    opens: Sequence[str]
    seconds: Sequence[int]
    limits: Sequence[str]


def _row(opens: str, seconds: str, limits: str) -> Stolen:
    return Stolen(quoted(opens), [int(each) for each in re.findall(r"(\d+) s\b", seconds)], limits.split(", "))


STOLEN: Mapping[str, Stolen] = {name.replace("`", ""): _row(*cells) for name, *cells in table(_PAGE, "stolen")}
LIMITS: Mapping[str, str] = dict(table(_PAGE, "limit"))
"""What each limit means."""
