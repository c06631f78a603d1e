"""Soft labels that someone else made: one row of logits or probabilities for each photo, in a CSV or .npy file."""

import csv
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.table_file import Table, read_table
from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.wording import counted

PATHS = ("path", "file", "filename", "file_name", "image", "photo")
"""Names of the column with the photos of a CSV file."""

MAX_VALUES = 500_000_000
"""Numbers in a file: 2 GB in memory."""

_LISTED = 3


@dataclass(frozen=True, slots=True)
class GivenLabels:
    """The content of a file with soft labels."""

    path: Path
    labels: tuple[str, ...]
    """Names of its classes; empty for a .npy file."""
    values: np.ndarray
    """(N, K) float32."""
    rows: Mapping[str, int]
    """The row of each photo, by its path in the photo folder."""
    first_row: int
    """What the file's first row is called in messages: that of a CSV file is row 2."""

    def where(self, row: int) -> str:
        """What messages call a row of the values."""
        return f"{self.path}, row {row + self.first_row}"


def read_given_labels(path: Path, order: str, photos: Collection[str]) -> GivenLabels:
    """Read a file with soft labels.

    Args:
        path: a CSV file with the column `path` and one for each class, or a .npy file (N, K).
        order: of a .npy file: a text file with the path of the photo of each row.
        photos: paths of all photos in the folder, as `potstill count --list` prints them.
    Raises:
        DataError: the file is missing or damaged, a cell is not a number, or a photo is unknown or in it twice.
        ConfigError: the order of the rows is not stated, or stated twice.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} with soft labels.")
    kind = path.suffix.lower()
    if kind == ".npy":
        values, names = _read_npy(path), _read_order(path, order)
        if len(names) != len(values):
            raise DataError(
                f"{path} has {counted(len(values), 'row')}, {order} {counted(len(names), 'photo')}. They must be of "
                "the same photos."
            )
        return GivenLabels(path, (), values, _rows_of(names, photos, order, 1), 1)
    if kind not in (".csv", ".tsv", ".txt"):
        raise DataError(f"{path} is not a file with soft labels that can be read (.csv, .npy).")
    if order:
        raise ConfigError(f"external.order is for .npy files; {path} names its photos itself. Leave it out.")
    table = read_table(path)
    column = next((name for name in table.columns if name.strip().casefold() in PATHS), "")
    if not column:
        raise DataError(
            f"{path} has no column with the paths of the photos, such as path. Its columns: "
            f"{', '.join(table.columns[:_LISTED])}{', …' if len(table.columns) > _LISTED else ''}."
        )
    labels = tuple(name for name in table.columns if name and name != column)
    names = [str(row.values.get(column, "")) for row in table.rows]
    numbers = [row.number for row in table.rows]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DataError(f"{path} has empty rows. Remove them.")
    return GivenLabels(path, labels, _cells(table, labels), _rows_of(names, photos, str(path), numbers[0]), numbers[0])


def _cells(table: Table, labels: Sequence[str]) -> np.ndarray:
    """(N, K) of a table. Raises DataError for a cell that is not a number."""
    values = np.empty((len(table.rows), len(labels)), np.float32)
    for place, row in enumerate(table.rows):
        for column, name in enumerate(labels):
            text = str(row.values.get(name, "")).strip()
            try:
                values[place, column] = float(text)
            except ValueError:
                hint = " Decimals are written with a point." if "," in text else ""
                raise DataError(
                    f"{table.path}, row {row.number}: {text!r} in the column {name!r} is not a number.{hint}"
                ) from None
    return values


def _read_npy(path: Path) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a .npy file of numbers: {error}") from None
    if stored.ndim != 2 or stored.dtype.kind != "f" or stored.size > MAX_VALUES:
        raise DataError(
            f"{path} holds {stored.dtype} of the shape {stored.shape}; soft labels are floats, a row for each photo "
            f"and a column for each class, {MAX_VALUES:,} numbers at most."
        )
    with np.errstate(over="ignore"):
        return np.array(stored, np.float32)


def _read_order(path: Path, order: str) -> list[str]:
    if not order:
        raise ConfigError(
            f"{path} does not name its photos. Say with --order FILE which photo each row is of: a text file with a "
            "path per line, as `potstill count PHOTOS --list` prints them."
        )
    try:
        lines = Path(order).read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"There is no file {order}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{order} is not a text in UTF-8: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _rows_of(names: Sequence[str], photos: Collection[str], source: str, first_row: int) -> dict[str, int]:
    """The place of each photo. Raises DataError for one that is not there, or that was named before."""
    known = {unicodedata.normalize("NFC", photo): photo for photo in photos}
    rows: dict[str, int] = {}
    for place, name in enumerate(names):
        plain = unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
        where = f"{source}, row {place + first_row}"
        if (photo := known.get(plain)) is None:
            raise DataError(
                f"{where}: there is no photo {plain!r} in the photo folder.{did_you_mean(plain, list(known)[:1000])} "
                "Paths begin in the photo folder, as `potstill count PHOTOS --list` prints them."
            )
        if photo in rows:
            raise DataError(f"{where}: {plain!r} is in row {rows[photo] + first_row} already.")
        rows[photo] = place
    return rows


def photo_rows(folder: Path) -> dict[str, int]:
    """The row in the pixel store of every photo of a run, by its path in the photo folder.

    Args:
        folder: `1_images/`.
    """
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        return {line["path"]: int(line["row"]) for line in csv.DictReader(file)}
