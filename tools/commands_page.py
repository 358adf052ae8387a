"""Writes docs/commands.md, the reference of all commands, from the commands' own help: `make docs`."""

import re
import subprocess
import sys
from collections.abc import Iterator

from support.templates import ROOT

PAGE = ROOT / "docs" / "commands.md"
_HEAD = """\
# Commands

<!-- Written by `make docs` out of the code. Change the command's docstring instead. -->

All commands share these exit codes:

"""


def page() -> str:
    """Return the text of the page."""
    listed = subprocess.run(
        [sys.executable, "-m", "typer", "image_mirror.cli", "utils", "docs", "--name", "image-mirror"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    usage = listed.partition("\n")[2].strip().replace("```console\n$ ", "```text\n")  # no transcript
    lines = list(_fenced(usage.splitlines()))
    return f"{_HEAD}{_exit_codes()}\n\n" + "\n".join(lines).replace(" *.", r" \*.") + "\n"


def _exit_codes() -> str:
    from image_mirror.cli import errors

    rows = re.findall(r"^ *(\d+) +(.*)$", errors.__doc__ or "", re.MULTILINE)
    table = [f"| {code} | {meaning[0].upper()}{meaning[1:]}. |" for code, meaning in rows]
    return "\n".join(["| exit code | meaning |", "| --- | --- |", *table])


def _fenced(lines: list[str]) -> Iterator[str]:
    """Yield the lines; each paragraph that Typer does not wrap (\\b) is put into a code block."""
    verbatim = False
    for line in lines:
        if line == "\b":
            verbatim = True
            yield "```text"
        elif verbatim and not line:
            verbatim = False
            yield from ("```", "")
        else:
            yield line


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
