"""Which photos without labels are used: all but those that resemble none of the labeled photos.

The teacher's stage finds them (`potstill.teacher.unlike`); `unlike.csv` of its folder lists them, the least similar
first. Where there is no such file, nothing was looked for.
"""

import csv
import io
from dataclasses import dataclass, fields

import numpy as np

from potstill.data.pixels import PixelStore
from potstill.errors import DataError
from potstill.run.files import seal, write_text
from potstill.run.folder import Run
from potstill.run.layout import unlike_path


@dataclass(frozen=True, slots=True)
class Unlike:
    """A photo without a label that resembles none of the labeled photos."""

    row: int
    """In the pixel store."""
    path: str
    """As in images.csv."""
    similarity: float
    """To the labeled photos."""


def write_unlike(run: Run, rows: np.ndarray, similarity: np.ndarray) -> None:
    """Write unlike.csv: the photos `rows` (K,) of the store, with the similarity of each."""
    with (run.images / "images.csv").open(encoding="utf-8", newline="") as file:
        paths = [line["path"] for line in csv.DictReader(file)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(Unlike)])
    for row, value in zip(rows.tolist(), similarity.tolist(), strict=True):
        writer.writerow([row, paths[row], f"{value:.4f}"])
    write_text(unlike_path(run), buffer.getvalue())
    seal(unlike_path(run))


def read_unlike(run: Run) -> list[Unlike]:
    """The photos that were left out of a run; none where none were looked for.

    Raises:
        DataError: the list is damaged.
    """
    path = unlike_path(run)
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [Unlike(int(line["row"]), line["path"], float(line["similarity"])) for line in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged: {error}. Remove its folder and run again.") from None


def used_rows(run: Run, store: PixelStore) -> np.ndarray:
    """(N,) rows of the store of the photos to train on: train, then those without labels that are used."""
    pool = store.rows("unlabeled")
    left_out = [photo.row for photo in read_unlike(run)]
    return np.concatenate([store.rows("train"), pool[~np.isin(pool, left_out)]])
