"""The program of the build: buildspec/copy.py as a module, and as it is deployed in image-pulling.yaml."""

import importlib.util
from types import ModuleType

from support.buildspec_runner import buildspec
from support.templates import ROOT


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("copy_program", ROOT / "buildspec" / "copy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deployed_text() -> str:
    """Return the text of the program in the template."""
    [command] = [each for each in buildspec()["phases"]["build"]["commands"] if "<<'PYTHON'" in each]
    return str(command.partition("<<'PYTHON'\n")[2].partition("\nPYTHON\n")[0]) + "\n"


def _deployed() -> ModuleType:
    module = ModuleType("deployed_program")
    exec(compile(deployed_text(), "image-pulling.yaml", "exec"), vars(module))  # its own text
    return module


PROGRAM = _load()
DEPLOYED = _deployed()
