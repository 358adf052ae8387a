"""Ratios measured side by side in one run. Absolute times say little on a shared machine, so none is printed."""

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from benchmarks.cold import cold
from benchmarks.copiers import copiers
from benchmarks.copies import copy, without_the_copy
from benchmarks.memory import memory
from benchmarks.parts import parts_table
from benchmarks.plot import plot
from benchmarks.rounds import Row
from benchmarks.rows import against_naive, new_images, warm
from benchmarks.shares import prices_table, profile_table
from benchmarks.table import HEAD, line, put_into, skipped
from benchmarks.throughput import throughput

DOCS = Path(__file__).parents[1] / "docs"
MEASUREMENTS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "warm": warm,
    "new": new_images,
    "naive": against_naive,
    "cold": cold,
    "copy": copy,
    "copiers": copiers,
    "without-the-copy": without_the_copy,
    "throughput": throughput,
    "memory": memory,
}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds of each row (9)")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="measure these rows alone")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md's table and plot as well")
    parser.add_argument(
        "--profile", action="store_true", help="show where the CPU of a warm admission goes, and no row"
    )
    parser.add_argument("--parts", action="store_true", help="show what each part of a cold start costs, and no row")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.write and (options.only or options.profile or options.parts):
        parser.error("--write: the page shows all rows; leave out --only, --profile and --parts")
    if options.profile:
        print(profile_table(), prices_table(), sep="\n\n")
        return
    if options.parts:
        print(parts_table())
        return
    rows, lines = _measure(options.only or list(MEASUREMENTS), options.rounds)
    if options.write:
        where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.rounds} rounds:"
        page = DOCS / "performance.md"
        page.write_text(put_into(page.read_text(encoding="utf-8"), ["", where, "", *lines, ""]), encoding="utf-8")
        (DOCS / "performance.svg").write_text(plot(rows), encoding="utf-8")


def _measure(names: list[str], rounds: int) -> tuple[list[Row], list[str]]:
    """Return the rows and the lines of their table, each printed as soon as it is measured."""
    rows: list[Row] = []
    lines = [HEAD]
    print(HEAD, flush=True)
    for name in names:
        try:
            for row in MEASUREMENTS[name](rounds):
                rows.append(row)
                lines.append(line(row))
                print(lines[-1], flush=True)
        except pytest.skip.Exception as absent:  # the modules of the end-to-end tests raise it if a program is missing
            lines.append(skipped(name, str(absent)))
            print(lines[-1], flush=True)
    return rows, lines


if __name__ == "__main__":
    main()
