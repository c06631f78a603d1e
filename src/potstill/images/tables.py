"""The tables of `1_images/`: the index of the packed pixels, the photos, the rejected files, the classes."""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.arrays import save_array
from potstill.data.pixels import GROUPS, PHOTO
from potstill.data.splits import SPLITS, Split
from potstill.images.folder import Folder, label_text
from potstill.images.pack import Packed
from potstill.run.files import write_text
from potstill.run.layout import LABELS


def write_tables(kept: list[Packed], rejected: list[Packed], folder: Folder, target: Path) -> None:
    """Write index.npy, images.csv, rejected.csv and classes.txt; with groups, groups.npy as well, and with several
    labels per photo labels.npy. Sorts `kept` by split and hash."""
    split_number = {split: number for number, split in enumerate(SPLITS)}
    kept.sort(key=lambda photo: (split_number[_known(photo)], photo.sha256))
    index = np.zeros(len(kept), PHOTO)
    for row, photo in enumerate(kept):
        index[row] = (
            photo.offset,
            photo.bytes,
            photo.stored_height,
            photo.stored_width,
            photo.jpeg,
            split_number[_known(photo)],
            photo.label,
            int(photo.sha256[:16], 16),
        )
    save_array(target / "index.npy", index)
    if folder.several_labels:
        save_array(target / LABELS, _label_matrix(kept, len(folder.classes)))
    columns = ["row", "path", "split", "class", "sha256", "width", "height", "format", "mode"]
    rows: list[list[Any]] = [
        [row, p.path, p.split, label_text(p, folder.classes), p.sha256, p.width, p.height, p.format, p.mode]
        for row, p in enumerate(kept)
    ]
    if any(photo.group for photo in kept):
        columns.append("group")
        rows = [[*row, photo.group] for row, photo in zip(rows, kept, strict=True)]
        groups = np.array([_group_id(photo) for photo in kept], np.uint64)
        save_array(target / GROUPS, groups)
    write_text(target / "images.csv", _csv(columns, rows))
    left_out: list[list[Any]] = [
        [p.path, p.split or "", label_text(p, folder.classes), p.code, p.reason, p.sha256] for p in rejected
    ]
    write_text(target / "rejected.csv", _csv(["path", "split", "class", "code", "reason", "sha256"], left_out))
    write_text(target / "classes.txt", "".join(f"{name}\n" for name in folder.classes))


def _label_matrix(photos: list[Packed], classes: int) -> np.ndarray:
    """(N, C) int8, see `PixelStore.labels`."""
    matrix = np.zeros((len(photos), classes), np.int8)
    for row, photo in enumerate(photos):
        matrix[row, list(photo.labels)] = 1
        if photo.label < 0:
            matrix[row] = -1
    return matrix


def packed_hashes(target: Path) -> dict[str, str]:
    """By path the sha256 of every file that was packed or rejected, as far as it could be read then."""
    found: dict[str, str] = {}
    for name in ("images.csv", "rejected.csv"):
        with (target / name).open(encoding="utf-8", newline="") as file:
            found |= {row["path"]: row.get("sha256") or "" for row in csv.DictReader(file)}
    return found


def packed_hashes_by_split(target: Path) -> dict[str, str]:
    """The split of every packed photo, by its sha256."""
    with (target / "images.csv").open(encoding="utf-8", newline="") as file:
        return {row["sha256"]: row["split"] for row in csv.DictReader(file)}


def joined_attribution(tables: Sequence[Path], folder: Folder) -> str:
    """ATTRIBUTION.csv of several places as one: the paths of the folder's photos begin with its name, as in
    images.csv."""
    columns: dict[str, None] = {}
    rows: list[dict[str, str]] = []
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns |= dict.fromkeys(reader.fieldnames or ())
            for row in reader:
                prefix = f"{folder.root.name}/" if path.parent == folder.root and "path" in row else ""
                rows.append({**row, "path": prefix + row.get("path", "")})
    return _csv(list(columns), [[row.get(name) or "" for name in columns] for row in rows])


def _group_id(photo: Packed) -> int:
    """Of the photo's group, or its own where it has none."""
    digest = hashlib.sha256(f"group:{photo.group}".encode()).hexdigest() if photo.group else photo.sha256
    return int(digest[:16], 16)


def _known(photo: Packed) -> Split:
    assert photo.split in SPLITS
    return photo.split


def _csv(columns: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
