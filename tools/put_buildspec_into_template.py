"""Puts the scripts in buildspec/ into image-pulling.yaml as the commands of its build: `make templates`.

CloudFormation needs one file, the template; shellcheck, tests and editors need the scripts.
"""

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from support.templates import ROOT

TEMPLATE = ROOT / "image-pulling.yaml"
SCRIPTS = {"install": ROOT / "buildspec" / "install.sh", "build": ROOT / "buildspec" / "copy.sh"}
"""Each phase of the build whose first command is a script, and the script's file."""

PROGRAM = ROOT / "buildspec" / "copy.py"
"""The program in the script of the build; a line with its name is replaced by it."""

_BUILDSPEC = ("Resources", "CodeBuildProject", "Properties", "Source", "BuildSpec")


def generated() -> str:
    """Return the text of the template: the committed one with the commands of the current scripts."""
    commands = {phase: command_of(path.read_text(encoding="utf-8")) for phase, path in SCRIPTS.items()}
    program = without_comments(PROGRAM.read_text(encoding="utf-8"))
    commands = {phase: command.replace(f"\n{PROGRAM.name}\n", f"\n{program}") for phase, command in commands.items()}
    return with_commands(TEMPLATE.read_text(encoding="utf-8"), commands)


def without_comments(program: str) -> str:
    """Return a Python program without comments, docstrings and empty lines, and with indents of one space.

    A template has at most 51,200 bytes. Raises ValueError if Python would read another program.
    """
    lines = program.splitlines(keepends=True)
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            dropped |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1].lstrip().startswith("#"):
            dropped.add(token.start[0])
    kept = "".join(
        " " * ((len(line) - len(line.lstrip(" "))) // 4) + line.lstrip(" ")
        for number, line in enumerate(lines, 1)
        if number not in dropped and line.strip()
    )
    if ast.dump(ast.parse(kept)) != ast.dump(_without_docstrings(ast.parse(program))):
        raise ValueError("the program without comments is another program")
    return kept


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return tree


def command_of(script: str) -> str:
    """Return the part of a script that is deployed: all after the first empty line. The lines before are for readers.

    Raises ValueError if nothing follows, or if it does not end in exactly one newline, as a YAML block does.
    """
    command = script.partition("\n\n")[2]
    if not command.strip() or command != command.rstrip("\n") + "\n":
        raise ValueError("a script is a head, an empty line and commands, with one newline at the end")
    return command


def with_commands(template: str, commands: Mapping[str, str]) -> str:
    """Return the template's text with the first command of each phase in `commands` replaced, and nothing else.

    Raises ValueError if the template has no such place, or if YAML would not read the same commands back.
    """
    for phase, command in commands.items():
        outer = _block(template, *_BUILDSPEC)
        inner = _block(outer.value, "phases", phase, "commands", 0)
        first, indent = outer.first + inner.first, outer.indent + inner.indent
        lines = template.splitlines(keepends=True)
        lines[first : first + inner.value.count("\n")] = [
            " " * indent + line if line.strip() else line for line in command.splitlines(keepends=True)
        ]
        template = "".join(lines)
        if _block(_block(template, *_BUILDSPEC).value, "phases", phase, "commands", 0).value != command:
            raise ValueError(f"YAML reads the command of the phase {phase} as something else")
    return template


@dataclass(frozen=True)
class _Block:
    """A block of text in a YAML document: the number of its first line, its indent, and the text without the indent."""

    first: int
    indent: int
    value: str


def _block(document: str, *path: str | int) -> _Block:
    """Return the block under `path`, keys of mappings and places in lists. Raises ValueError for none."""
    node = yaml.compose(document, Loader=yaml.SafeLoader)
    for step in path:
        node = _under(node, step)
    if not isinstance(node, yaml.ScalarNode) or node.style != "|":
        raise ValueError(f"no block of text (|) is under {'/'.join(map(str, path))}")
    first = node.start_mark.line + 1
    line = document.split("\n")[first]
    return _Block(first, len(line) - len(line.lstrip(" ")), node.value)


def _under(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        found: yaml.Node = node.value[step]
        return found
    return None


if __name__ == "__main__":
    TEMPLATE.write_text(generated(), encoding="utf-8")
