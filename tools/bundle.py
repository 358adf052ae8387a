"""Writes dist/: the bundle, which deploys with the AWS CLI alone, the command's wheel, and checksums: `make bundle`.

Building needs what `sam build` needs: make, and Python 3.13 with pip. The same sources give the same bytes, if the
versions of Python and zlib are the same. docs/bundle.md is for whoever deploys from it.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from support.templates import ROOT

DIST = ROOT / "dist"
SUMS = "SHA256SUMS"
CODE = "functions.zip"
CHINA_TEMPLATE = "image-mirror.yaml"
_COPIED = (
    "image-pulling.yaml",
    "mutating-webhook.yaml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
)
_FOLDERS = ("samples", "docs")
_SHOWN = (".md", ".svg", ".png", ".json", ".yaml", ".yml")
# The earliest time that a zip can have, and -rw-r--r--: Lambda's user must be able to read the code.
_TIME, _MODE = (1980, 1, 1, 0, 0, 0), 0o100644 << 16


def version() -> str:
    """Return the version, which pyproject.toml has and no other file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def template(text: str) -> str:
    """Return sam-template.yaml's text with the packaged code in the place of the sources, which nothing builds again.

    Each function names the code itself: `aws cloudformation package` does not read Globals, and zips the whole folder.
    The SAM transform stays, because CloudFormation does it: so a stack of `sam deploy` can be updated with this
    template, and the reverse. Raises ValueError if the text names the sources or the build in another way.
    """
    without, sources = re.subn(r"(?m)^ *CodeUri: src/\n", "", text)
    build = r"(?m)^    Metadata: \{BuildMethod: makefile\}.*\n    Properties:\n"
    packaged, functions = re.subn(build, f"    Properties:\n      CodeUri: {CODE}\n", without)
    if sources != 1 or functions != text.count("AWS::Serverless::Function"):
        raise ValueError(f"the template has CodeUri: src/ {sources} times, and {functions} functions with a build")
    return packaged


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by their names. Neither their order nor their times change it."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, _MODE, 3
            archive.writestr(entry, files[name])
    return data.getvalue()


def checksums(files: Mapping[str, bytes]) -> bytes:
    """Return what `sha256sum -c` reads for files by their names."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def build() -> list[Path]:
    """Write the bundle, the wheel and their checksums into an empty dist/, and return them.

    Raises subprocess.CalledProcessError if the functions or the wheel cannot be built.
    """
    wheel, code = _wheel(), packed(_functions())
    folder = f"image-mirror-{version()}"
    inside = wheel | _sources() | {CODE: code}
    inside[CHINA_TEMPLATE] = template((ROOT / "sam-template.yaml").read_text(encoding="utf-8")).encode()
    inside[SUMS] = checksums(inside)
    made = wheel | {f"{folder}.zip": packed({f"{folder}/{name}": content for name, content in inside.items()})}
    made[SUMS] = checksums(made)
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    for name, content in made.items():
        (DIST / name).write_bytes(content)
    return [DIST / name for name in sorted(made)]


def _functions() -> dict[str, bytes]:
    """Build the code of both functions as `sam build` does, and return its files."""
    with tempfile.TemporaryDirectory() as name:
        # The order of a set in a compiled file can depend on the seed.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        make = ["make", "--silent", "-C", str(ROOT / "src"), "build-ApiFunction", f"ARTIFACTS_DIR={name}"]
        subprocess.run(make, env=environment, check=True)
        return _files(Path(name), Path(name))


def _wheel() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        environment = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
        hatchling = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", name]
        subprocess.run(hatchling, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        return _files(Path(name), Path(name))


def _sources() -> dict[str, bytes]:
    """Return the files that are in the bundle as they are here: the links of the README lead somewhere there too."""
    found = {name: (ROOT / name).read_bytes() for name in _COPIED}
    for path in ROOT.glob("README.*.md"):
        found[path.name] = path.read_bytes()
    for folder in _FOLDERS:
        found |= {name: text for name, text in _files(ROOT / folder, ROOT).items() if name.endswith(_SHOWN)}
    return found


def _files(folder: Path, top: Path) -> dict[str, bytes]:
    """Return all files below a folder, by their names below `top`, without hidden and generated folders."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(("_build", ".")) for part in path.relative_to(top).parts)
    }


def main() -> int:
    """Build, and print what was built; the result is 1 if a program failed or is missing."""
    try:
        made = build()
    except (OSError, subprocess.CalledProcessError) as error:
        print(getattr(error, "stderr", None) or "", error, sep="\n", file=sys.stderr)
        return 1
    print(*(path.relative_to(ROOT) for path in made), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
