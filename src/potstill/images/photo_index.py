"""Which photos a large file holds, where they are in it, and how they are labeled: listed by one pass, kept on disk.

As arrays, a million photos take some 60 MB.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from potstill.data.arrays import open_arrays, save_arrays
from potstill.errors import DamageError
from potstill.images.stored import Container
from potstill.run.files import write_text

ROW = np.dtype([("offset", "<i8"), ("size", "<i8"), ("name", "<i8"), ("label", "<i4")])
"""One photo. In a tar: offset and bytes, and the end of its name among the names. In a parquet file: its row group, and
its row in that. The label is an index into the labels of the file."""

EMPTY, ABSENT = -1, -2
"""Labels of photos that are said to have none, and of photos of which nothing says the label."""

_VERSION = 1


@dataclass(slots=True)
class Facts:
    """What else is known of the file."""

    labels: list[int | str] = field(default_factory=list)
    """All different labels: names, or numbers of classes."""
    names: list[str] = field(default_factory=list)
    """Of the classes by number, where the file itself has them."""
    column: str = ""
    """Of a parquet file: the one with the photos."""
    used: list[str] = field(default_factory=list)
    """Where the labels come from, for people: KEY.cls, the column label."""
    others: int = 0
    """Members that are no photos and no labels."""
    other: str = ""
    """One of them; for a parquet file, the columns that are not used."""
    lone: int = 0
    """Labels without a photo."""
    lone_one: str = ""
    special: int = 0
    """Links and other special files."""
    special_one: str = ""


@dataclass(frozen=True, slots=True)
class PhotoIndex:
    """The photos of one file."""

    rows: np.ndarray
    """(N,) ROW."""
    names: np.ndarray
    """(bytes,) uint8: the names of a tar's photos one after the other; empty for a parquet file."""
    facts: Facts

    def name(self, row: int) -> str:
        """Of a photo, in its file: the member of a tar, or "#" and the row of a parquet file, from 0."""
        if not len(self.names):
            return f"#{row}"
        start = int(self.rows["name"][row - 1]) if row else 0
        return self.names[start : int(self.rows["name"][row])].tobytes().decode("utf-8", "surrogateescape")


def kept_index(container: Container, how: str, folder: Path, make: Callable[[Container], PhotoIndex]) -> PhotoIndex:
    """The index of a file: the one that is kept in `folder`, or a new one, which is kept there.

    Args:
        how: what else the index depends on.
    """
    stamp = f"{_VERSION}\0{container.path.resolve()}\0{container.size}\0{container.mtime_ns}\0{how}"
    path = folder / f"{hashlib.sha256(stamp.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            with open_arrays(path) as stored:
                facts = Facts(**json.loads(stored["facts"].tobytes()))
                return PhotoIndex(stored["rows"], stored["names"], facts)
        except DamageError:
            path.unlink()
    index = make(container)
    write_ignore(folder)
    text = json.dumps(dataclasses.asdict(index.facts)).encode()
    save_arrays(path, rows=index.rows, names=index.names, facts=np.frombuffer(text, np.uint8))
    return index


def write_ignore(folder: Path) -> None:
    """Make the folder, and keep it out of git."""
    if not (folder / ".gitignore").is_file():
        write_text(folder / ".gitignore", "*\n")
