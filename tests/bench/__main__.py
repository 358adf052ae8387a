"""`make bench`: a table of ratios, printed. Absolute times say little on a shared machine, so none is printed."""

import argparse

from rounds import Row
from rows import against_naive, cold, new_images, warm


def line(row: Row) -> str:
    """Return a row of the table."""
    low, high = row.spread
    goal = f"{'at most' if row.at_most else 'at least'} {row.reach:g}x"
    mark = "reached" if row.reached else "NOT REACHED"
    return f"| {row.what} | {row.reference} | {row.median:.2f}x | {low:.2f} to {high:.2f} | {goal} | {mark} |"


def main() -> None:
    """Measure all rows and print the table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds of each row")
    rounds = parser.parse_args().rounds
    print("| what | reference | median ratio | spread | goal | |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for rows in (warm, new_images, against_naive, cold):
        for row in rows(rounds):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
