"""The program of the build, buildspec/copy.py, as a module."""

import importlib.util
from types import ModuleType

from support.templates import ROOT


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("copy_program", ROOT / "buildspec" / "copy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAM = _load()
