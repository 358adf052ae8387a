"""Puts the buildspec and its scripts, the files of buildspec/, into image-pulling.yaml: `make templates`.

CloudFormation needs one file, the template; shellcheck, tests and editors need the scripts. The template has at most
51,200 bytes, so indents are as small as YAML and Python allow.
"""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Mapping

import yaml

from support.templates import ROOT

TEMPLATE = ROOT / "image-pulling.yaml"
BUILDSPEC = ROOT / "buildspec" / "buildspec.yaml"
"""The buildspec, with the names of the scripts in the place of their commands."""

SCRIPTS = (ROOT / "buildspec" / "install.sh", ROOT / "buildspec" / "copy.sh")
"""The long commands of the buildspec."""

PROGRAM = ROOT / "buildspec" / "copy.py"
"""The program in the script of the build; a line with its name is replaced by it."""

PACKAGE = ROOT / "src" / "image_mirror"
"""The package whose modules the program may import; their text becomes a part of it."""

PLACE = ("Mappings", "Build", "Spec", "Text")
"""Where the buildspec is in the template: not in its project, where each line would have a longer indent."""


def generated() -> str:
    """Return the text of the template: the committed one with the current buildspec."""
    program = deployed(PROGRAM.read_text(encoding="utf-8"))
    commands = {path.name: command_of(path.read_text(encoding="utf-8")) for path in SCRIPTS}
    commands = {name: command.replace(f"\n{PROGRAM.name}\n", f"\n{program}") for name, command in commands.items()}
    buildspec = with_commands(BUILDSPEC.read_text(encoding="utf-8"), commands)
    return with_text(TEMPLATE.read_text(encoding="utf-8"), buildspec)


def deployed(program: str) -> str:
    """Return a program as the template has it: one file, and in it what Python runs. Raises ValueError."""
    return without_comments(without_annotations(assembled(program)))


def assembled(program: str) -> str:
    """Return a program as one file: in the place of each import from PACKAGE stands that module, and no import twice.

    Raises ValueError if an import gives another name, or if two modules define the same name.
    """
    imports: dict[str, set[str]] = {}
    body = _without_imports(program, imports, set())
    names = [name for node in ast.parse(body).body for name in _defined(node)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two modules of the program define {', '.join(sorted(twice))}")
    whole = sorted(f"import {module}\n" for module, named in imports.items() if "" in named)
    parts = {module: ", ".join(sorted(named - {""})) for module, named in sorted(imports.items())}
    # "__future__", which must come first, also sorts first.
    return "".join([*(f"from {module} import {names}\n" for module, names in parts.items() if names), *whole]) + body


def _without_imports(program: str, imports: dict[str, set[str]], modules: set[str]) -> str:
    """Return the text of a module without its docstring and its imports, but with those of PACKAGE in their places.

    Adds what is imported to `imports`, names by module, "" for the module itself; and the modules of PACKAGE to
    `modules`.
    """
    lines = program.splitlines(keepends=True)
    tree = ast.parse(program)
    for node in reversed(tree.body):
        text = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            if any(each.asname for each in node.names):
                raise ValueError(f"an import of the program gives another name: {ast.unparse(node)}")
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module is None:
                for each in node.names:
                    imports.setdefault(each.name, set()).add("")
            elif not module.startswith(f"{PACKAGE.name}."):
                imports.setdefault(module, set()).update(each.name for each in node.names)
            elif module not in modules:
                modules.add(module)
                path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
                text = _without_imports(path.read_text(encoding="utf-8"), imports, modules)
        elif node is not tree.body[0] or ast.get_docstring(tree) is None:
            continue
        lines[node.lineno - 1 : node.end_lineno] = [text]
    return "".join(lines)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def without_annotations(program: str) -> str:
    """Return a program without type annotations, and without the imports that only they use.

    Raises ValueError if Python would read another program.
    """
    tree = ast.parse(program)
    data = program.encode()
    lines = [0, *itertools.accumulate(len(line) for line in data.splitlines(keepends=True))]

    def end(node: ast.expr) -> int:
        return lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    cuts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            cuts.append((lines[node.lineno - 1] + node.col_offset + len(node.arg.encode()), end(node.annotation)))
        elif isinstance(node, ast.AnnAssign):
            cuts.append((end(node.target), end(node.annotation)))
        elif isinstance(node, ast.FunctionDef) and node.returns:
            arrow = data.rindex(b" ->", 0, lines[node.returns.lineno - 1] + node.returns.col_offset)
            cuts.append((arrow, end(node.returns)))
    for first, last in sorted(cuts, reverse=True):
        data = data[:first] + data[last:]
    kept = data.decode()
    if ast.dump(ast.parse(kept)) != ast.dump(_Unannotated().visit(tree)):
        raise ValueError("the program without annotations is another program")
    return _without_unused_imports(kept)


class _Unannotated(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            raise ValueError(f"an annotation of the program gives no value: {ast.unparse(node)}")
        return ast.Assign([node.target], node.value)


def _without_unused_imports(program: str) -> str:
    """Return a program, whose imports are one line each, without names that it does not use, and without __future__."""
    tree = ast.parse(program)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    lines = program.splitlines(keepends=True)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [each for each in node.names if each.name.partition(".")[0] in used]
            lines[node.lineno - 1] = f"{ast.unparse(node)}\n" if node.names else ""
    return "".join(lines)


def without_comments(program: str) -> str:
    """Return a Python program without comments, docstrings and empty lines, and with indents of one space.

    Raises ValueError if Python would read another program.
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


def with_text(template: str, text: str) -> str:
    """Return the template's text with the block of text at PLACE replaced, and nothing else.

    Raises ValueError if the template has no such block, or if YAML would not read the same text back.
    """
    block = _block(template)
    first = block.start_mark.line + 1
    lines = template.splitlines(keepends=True)
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip(" "))]
    lines[first : first + block.value.count("\n")] = [indented(text, indent)]
    changed = "".join(lines)
    if _block(changed).value != text:
        raise ValueError("YAML reads the buildspec as something else")
    return changed


def _block(template: str) -> yaml.ScalarNode:
    node: yaml.Node | None = yaml.compose(template, Loader=yaml.SafeLoader)
    for step in PLACE:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == step), None)
    if not isinstance(node, yaml.ScalarNode) or node.style != "|":
        raise ValueError(f"no block of text (|) is under {'/'.join(PLACE)}")
    return node


if __name__ == "__main__":
    TEMPLATE.write_text(generated(), encoding="utf-8")
