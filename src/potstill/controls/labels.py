"""The true labels of photos that a run uses without them: hidden by `images.per_class`, or named in a file."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.errors import DataError
from potstill.images.containers import is_pattern
from potstill.images.folder import plain_name
from potstill.images.source import open_photos
from potstill.run.folder import Run
from potstill.wording import counted


@dataclass(frozen=True, slots=True)
class TrueLabels:
    """What is known of the photos without labels."""

    labels: np.ndarray
    """(n,) class of every photo of the run, in the order of the pixel store; -1 where it is not known."""
    missing: str
    """Why they cannot be trained on; "" where the class of every photo is known."""
    unused: list[str]
    """Names of photos that the run does not have, or has more than once."""


def hidden_labels(data: Path, images: ImagesConfig, runs: Path) -> dict[str, int]:
    """The classes of all photos that have one, by path in the photo folder; none where that is gone."""
    if not data.exists() and not is_pattern(data):
        return {}
    folder = open_photos(data, images, runs=runs)
    return {plain_name(file.path.relative_to(folder.root)): file.label for file in folder.files if file.label >= 0}


def read_labels(path: Path, classes: list[str]) -> dict[str, int]:
    """Classes by path or file name, from a table with the columns path (or file) and class.

    Raises:
        DataError: no such file, a column is missing, or a class that the run does not have.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from None
    found: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        name, label = row.get("path") or row.get("file"), row.get("class")
        if not name or not label:
            raise DataError(f"{path}, line {number}: the columns path (or file) and class are required.")
        if label not in classes:
            raise DataError(f"{path}, line {number}: the run has no class {label!r}. It has: {', '.join(classes)}.")
        if found.setdefault(name, classes.index(label)) != classes.index(label):
            raise DataError(f"{path}, line {number}: {name} has two classes.")
    if not found:
        raise DataError(f"{path} names no photo.")
    return found


def true_labels(run: Run, store: PixelStore, hidden: Mapping[str, int], given: Mapping[str, int]) -> TrueLabels:
    """Complete the run's labels by those that it has hidden, by path, and those that were given, by path or by a file
    name that only one photo has; a given one wins."""
    with (run.images / "images.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    rows = {path: row for row, path in enumerate(paths)}
    names = Counter(path.rpartition("/")[2] for path in paths)
    rows |= {name: row for path, row in rows.items() if names[name := path.rpartition("/")[2]] == 1}
    labels, pool = store.labels(np.arange(len(store))), store.rows("unlabeled")
    true = {rows[name]: label for known in (hidden, given) for name, label in known.items() if name in rows}
    labels[pool] = [true.get(row, -1) for row in pool.tolist()]
    unknown, unused = pool[labels[pool] < 0], [name for name in given if name not in rows]
    if not len(unknown):
        return TrueLabels(labels, "", unused)
    example = paths[unknown[0]]
    missing = (
        f"the true class of {len(unknown):,} of {counted(len(pool), 'photo')} is not known, such as that of {example}"
    )
    return TrueLabels(labels, missing, unused)
