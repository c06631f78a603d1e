"""The scripts of tools/ as modules, for tests of what they make."""

import importlib.util
from types import ModuleType

from tests.docs.pages import ROOT


def load_tool(name: str) -> ModuleType:
    """A fresh copy of tools/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
