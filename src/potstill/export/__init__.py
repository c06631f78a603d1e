"""Stage 6: files to deploy in `6_export/`, each scored by its own runtime on the test photos.

`stage` goes through the formats, `files` converts and scores, `formats` has one module per format, `int8` the
candidates for int8 files, `web` the page that runs in the browser; `results` and `manifest` are what others read.
Imports the foundation and `deploy`. A new format goes to `formats`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.export.hub import push
    from potstill.export.load import load_exported, verify
    from potstill.export.stage import export
    from potstill.export.tolerance import Tolerance

_WHERE = {"export": "stage", "Tolerance": "tolerance", "push": "hub", "load_exported": "load", "verify": "load"}

__all__ = ["Tolerance", "export", "load_exported", "push", "verify"]


def __getattr__(name: str) -> Any:
    """Import on first use: the process that scores a file loads that file's runtime and nothing else (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"potstill.export.{_WHERE[name]}"), name)
