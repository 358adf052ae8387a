"""The rows about memory: a process that admits a million images, each once. `main` is the program of that process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.admissions import InstantTable, new_admissions
from benchmarks.rounds import Row
from image_mirror.recorder import KnownRecords
from image_mirror.reference import parse_reference

IMAGES, STEP, EACH = 1_000_000, 100_000, 25  # images in total, between two measurements, and in one pod
_STATM = Path(
    "/proc/self/statm"
)  # proc(5); getrusage has only the greatest size, and a child starts with that of its parent


def memory(_rounds: int) -> Iterator[Row]:
    """Resident memory after a million images. Skips if the system has no /proc."""
    if not _STATM.exists():
        pytest.skip("resident memory is read from /proc, which Linux has")
    command = [sys.executable, "-m", "benchmarks.memory"]
    start, full, *later = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    looks = f"{2 * STEP:,} to {IMAGES:,} images"
    yield Row(f"memory after {looks}", f"that after {STEP:,}, when all caches are full", _by(later, full), 1.1)
    yield Row(f"memory after {IMAGES:,} images", "the start", _by(later[-1:], start), 2.0)


def _by(sizes: list[int], base: int) -> tuple[float, ...]:
    return tuple(size / base for size in sizes)


def main() -> None:
    """Admit all images and print the resident memory after each step. Raises AssertionError if a cache is too large."""
    known = KnownRecords()
    with new_admissions(InstantTable(), known) as admit:
        sizes = [_resident()]
        for number in range(EACH, IMAGES + EACH, EACH):
            admit(EACH)
            assert len(known) <= known._size
            if number % STEP == 0:
                sizes.append(_resident())
        parsed = parse_reference.cache_info()
        assert len(known) == known._size
        assert parsed.maxsize is not None
        assert parsed.currsize == parsed.maxsize
    print(json.dumps(sizes))


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
