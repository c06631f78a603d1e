"""Arrays on disk that are written row by row, survive being killed, and are read without filling the memory."""

import os
import shutil
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np

from potstill.errors import StaleError


class RowWriter:
    """Writes `path` (.npy) one row of the first axis after the other.

    Until `close` the rows stand in `NAME.growing` beside it, and the number of whole rows in its length: an
    interrupted writer resumes after the last whole row.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.growing = path.with_name(path.name + ".growing")
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._file: BinaryIO = self.growing.open("r+b" if self.growing.exists() else "w+b")
        weakref.finalize(self, self._file.close)
        self.done = min(self.growing.stat().st_size // max(self._row_bytes, 1), shape[0])
        """Whole rows written so far."""
        self._file.truncate(self.done * self._row_bytes)
        self._file.seek(self.done * self._row_bytes)

    def write(self, rows: np.ndarray) -> None:
        """Append (n, …) rows."""
        assert rows.shape[1:] == self.shape[1:], (rows.shape, self.shape)
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self._file.flush()
        self.done += len(rows)

    def close(self) -> None:
        """Put the header in front and give the file its name. All rows must be there."""
        assert self.done == self.shape[0], (self.done, self.shape)
        self._file.close()
        temporary = self.path.with_name(self.path.name + ".part")
        with temporary.open("wb") as target, self.growing.open("rb") as source:
            header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(target, header)
            shutil.copyfileobj(source, target, 1 << 24)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(self.path)
        self.growing.unlink()


class RowReader:
    """Reads chosen rows of a .npy file by position. Safe to share between threads; holds nothing in memory."""

    def __init__(self, path: Path, *, leading: int = 1) -> None:
        """`leading`: how many of the first axes make a row number, (photo, view) being 2."""
        self._file: BinaryIO = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        version = np.lib.format.read_magic(self._file)
        if version != (1, 0):
            raise StaleError(f"{path} is not a .npy file that Potstill wrote.")
        self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(self._file)
        self._start = self._file.tell()
        self._row_shape = self.shape[leading:]
        self._row_bytes = int(np.prod(self._row_shape, dtype=np.int64)) * self.dtype.itemsize
        size = path.stat().st_size
        if size != self._start + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize:
            raise StaleError(
                f"{path} is damaged: {size:,} bytes do not hold an array of {self.shape}. Remove its folder."
            )

    def __call__(self, *positions: np.ndarray) -> np.ndarray:
        """(B, …) the rows at these positions, one array (B,) for each leading axis."""
        numbers = np.ravel_multi_index(positions, self.shape[: len(positions)])
        out = np.empty((len(numbers), *self._row_shape), self.dtype)
        flat = out.reshape(len(numbers), -1).view(np.uint8)
        for row, number in enumerate(numbers.tolist()):
            data = os.pread(self._file.fileno(), self._row_bytes, self._start + number * self._row_bytes)
            flat[row] = np.frombuffer(data, np.uint8)
        return out
