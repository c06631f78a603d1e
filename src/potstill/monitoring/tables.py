"""Tables on the terminal, and as plain text in files and pipes."""

import sys
from collections.abc import Container, Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int]) -> Table:
    """A table without a frame. The columns in `right` are aligned there, as numbers are."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print a table, to stdout by default. In files and pipes it is as wide as it needs to be."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)
