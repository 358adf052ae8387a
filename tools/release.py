"""Builds a release into dist/, and says how to publish it, but publishes nothing itself: `make release`.

The version is in pyproject.toml and nowhere else. CONTRIBUTING.md has the whole recipe.
"""

import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from support.templates import ROOT
from tools import bundle

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_IGNORED = ".gitignore"
_DATED = re.compile(r" - \d{4}-\d\d-\d\d$")


def problems(version: str, changelog: str, changed: Collection[str], tags: Collection[str]) -> Iterator[str]:
    """Yield what prevents a release: each with what to do.

    `changed` are the lines of `git status --porcelain`, `tags` the names of all tags.
    """
    if not _VERSION.fullmatch(version):
        yield f"the version in pyproject.toml is {version}; write it as three numbers, like 1.2.0"
    if tag(version) in tags:
        yield f"the tag {tag(version)} exists already: raise the version in pyproject.toml"
    sections = _sections(changelog)
    dated = [title for title in sections if _DATED.sub("", title) == version != title]
    if not dated:
        yield f'CHANGELOG.md has no section "## {version} - YYYY-MM-DD"'
    elif not sections[dated[0]]:
        yield f"CHANGELOG.md says nothing in its section {dated[0]}"
    if sections.get("Unreleased"):
        yield "CHANGELOG.md still has entries under Unreleased: move them into the section of the version"
    if changed:
        yield f"the tree is not clean; commit or remove: {', '.join(line[3:] for line in changed)}"


def tag(version: str) -> str:
    """Return the tag of a version."""
    return f"v{version}"


def next_commands(version: str) -> list[str]:
    """Return the commands that publish what was built."""
    return [
        f"git tag -a {tag(version)} -m 'Release {version}'",
        f"git push origin {tag(version)}",
        f"# then attach the files of dist/ to the release {tag(version)}, with its section of CHANGELOG.md as the text",
    ]


def _sections(changelog: str) -> dict[str, str]:
    """Return the text of each section of the second level by its title."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)
    return {title.strip(): text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def changes(folder: Path = ROOT) -> list[str]:
    """Return, as lines of `git status --porcelain`, what is in no commit of a clone.

    Files that only this machine's own settings of git ignore or hide are among them: the build would pack them.
    """
    untracked = _git(
        "ls-files", "--others", "--directory", "--no-empty-directory", f"--exclude-from={_IGNORED}", folder=folder
    )
    return _git("status", "--porcelain", "--untracked-files=no", folder=folder) + [f"?? {name}" for name in untracked]


def _git(*arguments: str, folder: Path = ROOT) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def main() -> int:
    """Check, build and print the next commands; the result is 1 if there is a problem."""
    version, changelog = bundle.version(), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        found = list(problems(version, changelog, changes(), _git("tag")))
    except (OSError, subprocess.CalledProcessError) as error:
        found = [f"git does not answer: {getattr(error, 'stderr', None) or error}; a release is built in a clone"]
    for problem in found:
        print(f"Error: {problem}", file=sys.stderr)
    if found:
        print("Nothing was built.", file=sys.stderr)
        return 1
    if failed := bundle.main():
        return failed
    print("", "Nothing is published yet. Next:", *next_commands(version), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
