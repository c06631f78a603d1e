"""What the cells of a table say of the labels of a photo: one, or several.

Several labels come as a list, as a text with ; or | between them, as a JSON list in a text, or as columns of 0 and 1.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.config.schema import ImagesConfig
from potstill.data.table_file import Row, Table
from potstill.errors import ConfigError, DataError
from potstill.wording import counted

Labels = tuple[str, ...] | None
"""Of a photo: None where they are not known, empty where it shows none of the classes."""

_SETTING = "--images.labels-per-photo several"
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "")


def cell_text(value: Any) -> str:
    """A cell as text; empty for missing values. Raises DataError for lists and mappings."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | dict | bytes):
        raise DataError(f"a cell holds a {type(value).__name__} instead of one text: {str(value)[:40]}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a gap becomes one of fractions in most tools
    return str(value).strip()


@dataclass(frozen=True, slots=True)
class LabelCells:
    """How the labels of a table are read."""

    columns: tuple[str, ...]
    """The column of the labels; several where each class has one, of 0 and 1."""
    several: bool
    """Whether a photo may have several labels."""
    separator: str
    """Between the labels of a text."""
    without_label: str
    """The setting of this name."""

    @classmethod
    def of(cls, table: Table, columns: Sequence[str], images: ImagesConfig) -> "LabelCells":
        """By the settings and, where these leave it open, by what the table holds.

        Raises:
            ConfigError: the settings say that photos have one label each, and the table holds lists.
        """
        cells = [row.values.get(columns[0]) for row in table.rows] if len(columns) == 1 else []
        lists = next((cell for cell in cells if _is_list(cell)), None)
        holds_several = len(columns) > 1 or lists is not None
        if images.labels_per_photo == "one" and holds_several:
            raise ConfigError(
                f'images.labels_per_photo is "one", but {table.path} holds lists of labels, such as {str(lists)[:40]}.'
            )
        bars = any("|" in cell for cell in cells if isinstance(cell, str))
        several = holds_several or images.labels_per_photo == "several"
        if not several and images.without_label != "refuse":
            raise ConfigError("images.without_label is for photos that may have several labels. Add " + _SETTING + ".")
        return cls(tuple(columns), several, "|" if bars else ";", images.without_label)

    def notes(self, table: Table) -> Iterator[str]:
        """What people should know about how the labels of the table were understood."""
        if self.several and len(self.columns) > 1:
            yield (
                f"Several labels per photo: {table.path.name} has a column of 0 and 1 for each of "
                f"{counted(len(self.columns), 'class')}."
            )
        elif self.several:
            how = f"in lists or with {self.separator} between them, or in several rows"
            yield f"Several labels per photo, in the column {self.columns[0]!r} ({how})."
        elif joined := next((t for row in table.rows if ";" in (t := str(row.values.get(self.columns[0]) or ""))), ""):
            yield f"{joined!r} is taken for the name of one class; if it stands for several labels: {_SETTING}."

    def labels(self, row: Row) -> tuple[str, ...]:
        """The labels that a row names. Raises DataError for cells that are wrong."""
        if len(self.columns) > 1:
            return tuple(name for name in self.columns if _is_yes(row, name))
        cell = row.values.get(self.columns[0])
        if not self.several:
            label = cell_text(cell)
            if "|" in label:
                raise DataError(f"the class name {label!r} contains '|'. If it stands for several labels: {_SETTING}")
            return (label,) if label else ()
        names = [cell_text(item) for item in _listed(cell)] if _is_list(cell) else self._split(cell_text(cell))
        if "" in names:
            raise DataError(f"one of the labels in {str(cell)!r} is empty")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"the label {twice[0]!r} is there twice in {str(cell)!r}")
        return tuple(names)

    def known(self, labels: tuple[str, ...]) -> Labels:
        """The labels of a photo whose row names these. Raises DataError for none, where no setting says what that
        means."""
        if labels:
            return labels
        if self.several and self.without_label == "refuse":
            raise DataError(
                "the photo has no label. --images.without-label none: it shows none of the classes; unlabeled: it is "
                "not known what it shows"
            )
        return () if self.several and self.without_label == "none" else None

    def _split(self, text: str) -> list[str]:
        names = [name.strip() for name in text.split(self.separator)] if text else []
        if comma := next((name for name in names if "," in name), ""):
            raise DataError(
                f"the label {comma!r} has a comma in it. Write ; or | between labels; a name with a comma goes into a "
                'JSON list, such as ["salt, pepper", "oil"]'
            )
        return names


def _is_list(cell: Any) -> bool:
    """Whether a cell is a list, or a text that begins as a JSON list does."""
    return isinstance(cell, list) or (isinstance(cell, str) and cell.lstrip().startswith('["')) or cell == "[]"


def _listed(cell: Any) -> list[Any]:
    """The items of a list. Raises DataError where the text is none."""
    if isinstance(cell, list):
        return cell
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        raise DataError(f"{cell[:60]!r} begins like a JSON list and is none") from None
    assert isinstance(found, list), "JSON that begins with ["
    return found


def _is_yes(row: Row, column: str) -> bool:
    text = cell_text(row.values.get(column)).casefold()
    text = {"1.0": "1", "0.0": "0"}.get(text, text)
    if text not in (*_YES, *_NO):
        raise DataError(f"the column {column!r} holds {text!r} instead of 0 or 1")
    return text in _YES
