"""Writes docs/commands.md and a page of docs/commands/ for each command, from the commands' own help: `make docs`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.templates import ROOT

INDEX = ROOT / "docs" / "commands.md"
FOLDER = ROOT / "docs" / "commands"
_WRITTEN = "<!-- Written by `make docs` out of the code. Change the command's docstring instead. -->"
# What the pictures of docs/pictures show, which tests/unit/docs/test_pictures.py makes from real output.
PICTURES = {
    "status": "a terminal with the list of all copies, those that need attention last, and two copies tried again",
    "pods": "a terminal with the pods that cannot pull, why, and what to do",
    "warm": "a terminal with the progress of copies that are made before anyone deploys them",
}


def pages() -> dict[Path, str]:
    """Return the text of each page by its path."""
    listed = subprocess.run(
        [sys.executable, "-m", "typer", "image_mirror.cli", "utils", "docs", "--name", "image-mirror"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    usage = listed.partition("\n")[2].strip().replace("```console\n$ ", "```text\n")  # no transcript
    listing = "\n".join(_fenced(usage.splitlines())).replace(" *.", r" \*.")
    head, *commands = re.split(r"^## `image-mirror ([a-z-]+)`\n", listing, flags=re.MULTILINE)
    found = {INDEX: _index(head)}
    for name, body in zip(commands[::2], commands[1::2], strict=True):
        found[FOLDER / f"{name}.md"] = f"# `image-mirror {name}`\n\n{_WRITTEN}\n{_with_picture(name, body.rstrip())}\n"
    return found


def _index(text: str) -> str:
    head, _, commands = text.partition("**Commands**:\n")
    item = re.compile(r"^\* `([a-z-]+)`: ", re.MULTILINE)
    linked = item.sub(r"- [image-mirror \1](commands/\1.md): ", commands.strip())
    common = f"## Exit codes\n\nAll commands share them:\n\n{_exit_codes()}\n\n## Without a command\n\n{head.strip()}\n"
    return f"# Commands\n\n{_WRITTEN}\n\n{linked}\n\n{common}"


def _with_picture(name: str, body: str) -> str:
    """Put the picture of a command behind its first paragraph."""
    if name not in PICTURES:
        return body
    first, _, rest = body.lstrip("\n").partition("\n\n")
    return f"\n{first}\n\n{picture(name, '../pictures')}\n\n{rest}"


def picture(name: str, folder: str) -> str:
    """Return the HTML of a picture in light or dark, as the reader's system is; Gitee shows the light one."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}-dark.svg">\n'
        f'  <img alt="{PICTURES[name]}" src="{folder}/{name}-light.svg">\n'
        "</picture>"
    )


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


def write() -> None:
    """Write all pages, and remove the page of a command that no longer exists."""
    written = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in set(FOLDER.glob("*.md")) - written.keys():
        path.unlink()
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
