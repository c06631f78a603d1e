"""The registered formats. Importing this imports none of their tools."""

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import ExportError
from potstill.export.formats import coreml, executorch, litert, onnx, openvino, torch_export
from potstill.export.formats.base import Format

FORMATS: dict[str, Format] = {}
"""By name."""


def register(new: Format) -> None:
    """Make a format available to `potstill export`. Raises ExportError where its name or suffix is taken."""
    for known in FORMATS.values():
        if new.name == known.name or new.suffix == known.suffix:
            raise ExportError(f"{known.title} has the name {known.name!r} and the suffix {known.suffix!r} already.")
    FORMATS[new.name] = new


register(onnx.FORMAT)
register(litert.FORMAT)
register(executorch.FORMAT)
register(openvino.FORMAT)
register(coreml.FORMAT)
register(torch_export.FORMAT)


def format_named(name: str, module: str) -> Format:
    """The format of this name; `module` is imported first where it has yet to register it."""
    if name not in FORMATS:
        importlib.import_module(module)
    return FORMATS[name]


def find_formats(names: Sequence[str], *, installed: bool = True) -> list[Format]:
    """The formats of these names.

    Args:
        installed: refuse formats whose tools are missing.
    Raises:
        ExportError: an unknown name, with the nearest valid one, or missing tools, with the line that installs them.
    """
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, 1, 0.4)
            guess = f" Did you mean {near[0]}?" if near else ""
            raise ExportError(f"There is no format {name!r}.{guess} There are: {', '.join([*FORMATS, 'web'])}.")
    formats = [FORMATS[name] for name in dict.fromkeys(names)]
    missing = [f for f in formats if not f.is_installed] if installed else []
    if missing:
        raise ExportError(_how_to_install(missing))
    return formats


def _how_to_install(missing: Sequence[Format]) -> str:
    clashes = [f"{f.title}: {f.conflict}." for f in missing if f.conflict]
    if clashes:
        return "\n  ".join(clashes) + "\n  Add --isolated: Potstill keeps them in an environment of their own."
    extras = ",".join(f.extra for f in missing)
    return (
        f"The tools for {', '.join(f.title for f in missing)} are not installed. Install them:\n"
        f"    pip install 'potstill[{extras}]'\n"
        "  or add --isolated, and Potstill keeps them in an environment of their own."
    )


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix. Raises ExportError."""
    for candidate in FORMATS.values():
        if path.suffix == candidate.suffix:
            return candidate
    raise ExportError(f"{path} is none of {', '.join('*' + f.suffix for f in FORMATS.values())}.")
