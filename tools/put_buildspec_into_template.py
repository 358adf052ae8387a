"""Puts the buildspec and its scripts, the files of buildspec/, into image-pulling.yaml: `make templates`.

CloudFormation needs one file, the template; shellcheck, tests and editors need the scripts. A template that is passed
inline has at most 51,200 bytes, so the program of the build is in it as an archive: all its files, unchanged.
"""

import base64
import gzip
import io
import re
import textwrap
import zipfile
from collections.abc import Mapping, Sequence

import yaml

from support.templates import ROOT

TEMPLATE = ROOT / "image-pulling.yaml"
BUILDSPEC = ROOT / "buildspec" / "buildspec.yaml"
"""The buildspec, with the names of the scripts in the place of their commands."""

SCRIPTS = (ROOT / "buildspec" / "install.sh", ROOT / "buildspec" / "copy.sh")
"""The long commands of the buildspec."""

PROGRAM = {
    "__main__.py": ROOT / "buildspec" / "copy.py",
    "image_mirror/__init__.py": ROOT / "src" / "image_mirror" / "__init__.py",
    "image_mirror/registry_login.py": ROOT / "src" / "image_mirror" / "registry_login.py",
}
"""The files of the program by their names in its archive, which Python runs (zipapp)."""

ARCHIVE = "copy.pyz"
"""The line of a script that is replaced by the archive, in base64."""

PLACE = ("Mappings", "Build", "Spec", "Text")
"""Where the buildspec is in the template: projects can share it."""

KEY_PLACE = ("Mappings", "Build", "Key", "Text")
"""Where the lines before SHARED are, which a project has only if its builds push with a key."""

SHARED = "# With "
"""How the line begins that divides the buildspec."""

_WIDTH = 480  # long lines, because the template's indent counts in each


def generated() -> str:
    """Return the text of the template: the committed one with the current buildspec."""
    template = TEMPLATE.read_text(encoding="utf-8")
    commands = {path.name: command_of(path.read_text(encoding="utf-8")) for path in SCRIPTS}
    # Another version of zlib packs the same files in other bytes.
    archive = archive_in(template)
    if archive is None or files_of(archive) != {name: path.read_bytes() for name, path in PROGRAM.items()}:
        archive = packed({name: path.read_bytes() for name, path in PROGRAM.items()})
    lines = "\n".join(textwrap.wrap(base64.b64encode(archive).decode(), _WIDTH))
    commands = {name: command.replace(f"\n{ARCHIVE}\n", f"\n{lines}\n") for name, command in commands.items()}
    key, shared = divided(with_commands(BUILDSPEC.read_text(encoding="utf-8"), commands))
    return with_text(with_text(template, key, KEY_PLACE), shared)


def divided(text: str) -> tuple[str, str]:
    """Return the part of a buildspec with the secrets, and the rest. Raises ValueError if no line divides them."""
    key, line, shared = text.partition(f"\n{SHARED}")
    if not line:
        raise ValueError(f"no line of the buildspec begins with {SHARED}")
    return f"{key}\n", f"{SHARED}{shared}"


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of files by their names, compressed as a whole; the same one for the same files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return gzip.compress(data.getvalue(), mtime=0)


def files_of(archive: bytes) -> dict[str, bytes]:
    """Return the files of a compressed zip archive by their names."""
    with zipfile.ZipFile(io.BytesIO(gzip.decompress(archive))) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def archive_in(template: str) -> bytes | None:
    """Return the archive in the text of a template, or None if it has none that can be read."""
    found = re.search(r"^ *base64 --decode <<'ARCHIVE'.*?\n(.*?)^ *ARCHIVE$", template, re.MULTILINE | re.DOTALL)
    try:
        archive = base64.b64decode("".join(found[1].split()), validate=True) if found else b""
        files_of(archive)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None
    return archive


def command_of(script: str) -> str:
    """Return the part of a script that is deployed: all after the first empty line. The lines before are for readers.

    Raises ValueError if nothing follows, or if it does not end in exactly one newline, as a YAML block does.
    """
    command = script.partition("\n\n")[2]
    if not command.strip() or command != command.rstrip("\n") + "\n":
        raise ValueError("a script is a head, an empty line and commands, with one newline at the end")
    return command


def with_commands(buildspec: str, commands: Mapping[str, str]) -> str:
    """Return a buildspec after its head, with half of its indents, and with each name of `commands` as that command.

    Raises ValueError if a name is not there once, or if YAML would not read the same buildspec back.
    """
    text = re.sub(r"^ +", lambda indent: " " * (len(indent[0]) // 2), command_of(buildspec), flags=re.MULTILINE)
    for name, command in commands.items():
        places = re.findall(rf"^( *)- {re.escape(name)}\n", text, re.MULTILINE)
        if len(places) != 1:
            raise ValueError(f"not one command of the buildspec is {name}")
        [indent] = places
        text = text.replace(f"{indent}- {name}\n", f"{indent}- |\n{indented(command, f'{indent} ')}")
    expected = yaml.safe_load(buildspec)
    for phase in expected["phases"].values():
        phase["commands"] = [commands.get(each, each) for each in phase["commands"]]
    if yaml.safe_load(text) != expected:
        raise ValueError("YAML reads a command of the buildspec as something else")
    return text


def indented(text: str, indent: str) -> str:
    """Return a text with each of its lines indented, but empty ones."""
    return "".join(indent + line if line.strip() else line for line in text.splitlines(keepends=True))


def with_text(template: str, text: str, place: Sequence[str] = PLACE) -> str:
    """Return the template's text with the block of text at `place` replaced, and nothing else.

    Raises ValueError if the template has no such block, or if YAML would not read the same text back.
    """
    block = _block(template, place)
    first = block.start_mark.line + 1
    lines = template.splitlines(keepends=True)
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip(" "))]
    lines[first : first + block.value.count("\n")] = [indented(text, indent)]
    changed = "".join(lines)
    if _block(changed, place).value != text:
        raise ValueError("YAML reads the buildspec as something else")
    return changed


def _block(template: str, place: Sequence[str]) -> yaml.ScalarNode:
    node: yaml.Node | None = yaml.compose(template, Loader=yaml.SafeLoader)
    for step in place:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == step), None)
    if not isinstance(node, yaml.ScalarNode) or node.style != "|":
        raise ValueError(f"no block of text (|) is under {'/'.join(place)}")
    return node


if __name__ == "__main__":
    TEMPLATE.write_text(generated(), encoding="utf-8")
