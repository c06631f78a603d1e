"""The packed pixel store: photos decoded once, row after row in one file, read by position.

    pixels.bin   for each photo (height, width, 3) uint8, or a JPEG of it where raw pixels would take too much disk
    index.npy    one `PHOTO` record per photo, ordered by split and id
    labels.npy   where a photo may have several labels: (N, C) int8, see `PixelStore.labels`
    groups.npy   where photos have groups: (N,) uint64, equal for photos of one group; a photo's id where it has none

No file is opened and no JPEG is decoded while a model trains, and memory does not grow with the number of photos.
"""

import io
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from potstill.data.splits import SPLITS, Split
from potstill.errors import DamageError, StaleError
from potstill.run.layout import LABELS

PHOTO = np.dtype(
    [
        ("offset", "<u8"),  # of the first byte in pixels.bin
        ("bytes", "<u4"),
        ("height", "<u2"),
        ("width", "<u2"),
        ("jpeg", "?"),
        ("split", "u1"),  # index into SPLITS
        ("label", "<i4"),  # index into the classes, the first of several; C for a photo of none, -1 for unlabeled ones
        ("id", "<u8"),  # first 64 bits of the file's sha256
    ]
)

JPEG_QUALITY = 95
GROUPS = "groups.npy"


class PixelStore:
    """Read access to the photos of a run. Cheap to open, safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """`folder` is `1_images/`. Raises StaleError where index and pixels do not belong together."""
        self.folder = Path(folder)
        self.index: np.ndarray = np.load(self.folder / "index.npy", allow_pickle=False)
        if self.index.dtype != PHOTO:
            raise StaleError(f"{self.folder}/index.npy was written by another version. Remove {self.folder} and rerun.")
        end = int((self.index["offset"] + self.index["bytes"]).max(initial=0))
        size = (self.folder / "pixels.bin").stat().st_size
        if size < end:
            raise StaleError(
                f"{self.folder}/pixels.bin has {size:,} bytes, the index needs {end:,}. Remove {self.folder} and rerun."
            )

    @cached_property
    def _file(self) -> BinaryIO:
        file = (self.folder / "pixels.bin").open("rb", buffering=0)
        weakref.finalize(self, file.close)
        return file

    @cached_property
    def groups(self) -> np.ndarray | None:
        """(N,) uint64 of each photo's group; None where photos have no groups."""
        path = self.folder / GROUPS
        return np.load(path, allow_pickle=False) if path.is_file() else None

    @cached_property
    def _label_matrix(self) -> np.ndarray | None:
        path = self.folder / LABELS
        return np.load(path, allow_pickle=False) if path.is_file() else None

    @property
    def several_labels(self) -> bool:
        """Whether a photo may have several labels."""
        return self._label_matrix is not None

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """(n,) uint64 group of each of these photos; None where no two of them are of one group."""
        if self.groups is None or len(np.unique(self.groups[rows])) == len(rows):
            return None
        return np.asarray(self.groups[rows])

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, *splits: Split) -> np.ndarray:
        """(n,) positions in the index of the photos of these splits, in order."""
        return np.flatnonzero(np.isin(self.index["split"], [SPLITS.index(split) for split in splits]))

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 class indices, -1 for unlabeled photos; or where a photo may have several labels, (n, C) int64 of
        0 and 1, with rows of -1 for unlabeled photos."""
        if self._label_matrix is not None:
            return self._label_matrix[rows].astype(np.int64)
        return self.index["label"][rows].astype(np.int64)

    def is_labeled(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: whether it is known what these photos show."""
        return np.asarray(self.index["label"][rows] >= 0)

    def targets(self, rows: np.ndarray, classes: int) -> np.ndarray:
        """(…, C) float32 for rows (…): 1 for the label of a photo, all 0 for unlabeled ones; where a photo may have
        several labels 1 for each, and NaN for unlabeled photos, since 0 says that a class is absent."""
        if self._label_matrix is None:
            labels = self.index["label"][rows].astype(np.int64)
            return (labels[..., None] == np.arange(classes)).astype(np.float32)
        found = self._label_matrix[rows].astype(np.float32)
        return np.where(found < 0, np.float32(np.nan), found)

    def relabeled(self, labels: np.ndarray) -> "PixelStore":
        """The same photos with other labels (n,)."""
        other = PixelStore(self.folder)
        other.index["label"] = labels
        return other

    def read(self, row: int) -> bytes:
        """The stored bytes of photo `row`."""
        record = self.index[row]
        # Read by position, not by memory map: pages of a map would count as this process's memory.
        return os.pread(self._file.fileno(), int(record["bytes"]), int(record["offset"]))

    def photo(self, row: int) -> Image.Image:
        """Photo `row` as an RGB image."""
        record, data = self.index[row], self.read(row)
        try:
            if record["jpeg"]:
                return Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB")
            return Image.frombuffer("RGB", (int(record["width"]), int(record["height"])), data, "raw", "RGB", 0, 1)
        except (OSError, ValueError) as error:
            raise DamageError(f"{self.folder}/pixels.bin is damaged at photo {row}: {error}. Run again.") from None


def encode(image: Image.Image, *, jpeg: bool) -> bytes:
    """The bytes of one photo as the store keeps them."""
    if not jpeg:
        return image.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
