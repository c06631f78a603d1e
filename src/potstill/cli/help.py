"""How --help looks: names that people type, the settings by section where they are asked for, and examples."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from cyclopts.help import DefaultFormatter

EVERYTHING = ContextVar("EVERYTHING", default=False)
"""Whether --help-all was asked for."""


class HelpFormatter(DefaultFormatter):
    """One panel of the help, without the names that are accepted but that nobody need know."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        entries = [
            entry.copy(
                positive_names=() if entry.positional_label else _typed(entry.positive_names),
                negative_names=(),
                default=None if entry.default == "False" else entry.default,
            )
            for entry in panel.entries
        ]
        super().__call__(console, options, panel.copy(entries=entries))


class OnlyInFull(HelpFormatter):
    """A panel that only --help-all shows."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        if EVERYTHING.get():
            super().__call__(console, options, panel)


def _typed(names: Sequence[str]) -> tuple[str, ...]:
    """Short ones first, and without those that are written as in a recipe."""
    return tuple(sorted((name for name in names if "_" not in name), key=lambda name: "." in name))


def examples(lines: Sequence[str], note: str = "") -> str:
    """The end of a command's help, in Markdown."""
    shown = "  \n".join(["Example:" if len(lines) == 1 else "Examples:", *(f"`{line}`" for line in lines)])
    return "\n\n".join(part for part in (shown if lines else "", note) if part)
