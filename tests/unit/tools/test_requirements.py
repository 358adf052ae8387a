"""The functions' packages are pinned, each file by its hash, without addresses of where they come from."""

import re

import pytest
from packaging.requirements import Requirement

from support.templates import ROOT

PINNED = (ROOT / "src" / "requirements.txt").read_text(encoding="utf-8")
RANGES = [
    Requirement(line)
    for line in (ROOT / "src" / "requirements.in").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
ENTRIES = re.findall(r"^[^\s#].*(?:\n    --hash.*)*", PINNED, re.MULTILINE)
VERSIONS = dict(entry.split(" ")[0].split("==") for entry in ENTRIES)


@pytest.mark.parametrize("word", ["://", "--find-links", "--index-url"])
def test_no_address_is_in_it(word: str) -> None:
    assert word not in PINNED


def test_every_package_is_pinned_with_a_hash() -> None:
    assert ENTRIES
    for entry in ENTRIES:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( \\\n +--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_the_pins_are_within_the_ranges() -> None:
    assert {each.name for each in RANGES} <= set(VERSIONS)
    for each in RANGES:
        assert each.specifier.contains(VERSIONS[each.name]), each


def test_the_build_takes_nothing_without_a_hash() -> None:
    assert "--require-hashes" in (ROOT / "src" / "Makefile").read_text(encoding="utf-8")
