"""Where progress is shown: a bar on a terminal, one line that changes in a notebook, now and then a line elsewhere."""

import contextlib
import importlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

PLAIN_LINE_SECONDS = 15.0
"""Without a terminal a long job reports at most this often."""

NOTEBOOK_SECONDS = 0.5
"""A line in a notebook changes at most this often."""

_BLOCKS = 20
"""Width of the bar in a notebook, in characters."""


class Display(Protocol):
    """Shows what is being done."""

    def show(self, text: str, share: float, left: str) -> None:
        """Show a state.

        Args:
            text: what is being done, and how much of it is.
            share: of all that the display is for, between 0 and 1.
            left: the time left, in words; may be empty.
        """
        ...

    def close(self) -> None:
        """Nothing more will be shown."""
        ...


class TerminalBar:
    """A bar at the bottom of the terminal. Lines that are printed meanwhile appear above it."""

    def __init__(self, console: Console) -> None:
        left = TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True))
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        self._progress = Progress(text, BarColumn(20), left, console=console, transient=True)
        self._task = self._progress.add_task("", total=1.0, left="")
        self._progress.start()

    def show(self, text: str, share: float, left: str) -> None:
        self._progress.update(self._task, description=text, completed=share, left=left)

    def close(self) -> None:
        self._progress.stop()


class NotebookLine:
    """One output of a notebook cell, replaced again and again."""

    def __init__(self) -> None:
        # Its own display instead of rich's, which needs ipywidgets and prints a warning where they are missing.
        self._module: Any = importlib.import_module("IPython.display")
        self._handle: Any = None
        self._shown = -NOTEBOOK_SECONDS

    def show(self, text: str, share: float, left: str) -> None:
        now = time.monotonic()
        if now - self._shown < NOTEBOOK_SECONDS:
            return
        self._shown = now
        full = round(_BLOCKS * share)
        self._write(f"{'█' * full}{'░' * (_BLOCKS - full)} {share:.0%}  {text}{f', {left}' if left else ''}")

    def close(self) -> None:
        if self._handle is not None:
            self._write("")

    def _write(self, line: str) -> None:
        shown = {"text/plain": line}
        if self._handle is None:
            self._handle = self._module.display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


class PlainLines:
    """Lines in a file or pipe, at most every 15 seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last = time.monotonic()

    def show(self, text: str, share: float, left: str) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_LINE_SECONDS:
            return
        self._last = now
        self._write(f"{text}, {left}" if left else text)

    def close(self) -> None:
        pass


def display_for(console: Console, write: Callable[[str], None]) -> Display:
    """The display that fits. `write` prints a line."""
    if console.is_jupyter and not console.quiet:
        with contextlib.suppress(ImportError):
            return NotebookLine()
    if console.is_terminal and not console.is_jupyter and not console.quiet:
        return TerminalBar(console)
    return PlainLines(write)
