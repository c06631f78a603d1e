"""Arrays on disk that are written row by row, survive being killed, and are read without filling the memory."""

import contextlib
import os
import shutil
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from potstill.errors import DamageError, StaleError
from potstill.run.files import replacing, seal

_SUM = np.dtype("<u4")


class RowWriter:
    """Writes `path` (.npy) one row of the first axis after the other.

    Until `close` the rows stand in `NAME.growing` beside it, and the CRC-32 of each in `NAME.growing.sums`: an
    interrupted writer resumes after the last row that is as it was written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.growing = path.with_name(path.name + ".growing")
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._sums_path = path.with_name(path.name + ".growing.sums")
        self._file, self._sums = _open_to_update(self.growing), _open_to_update(self._sums_path)
        weakref.finalize(self, self._file.close)
        weakref.finalize(self, self._sums.close)
        self.done = self._whole_rows()
        """Rows written so far."""
        self.rewind(self.done)

    def rewind(self, rows: int) -> None:
        """Keep only so many of the rows that are written."""
        self.done = min(rows, self.done)
        for file, row_bytes in ((self._file, self._row_bytes), (self._sums, _SUM.itemsize)):
            file.truncate(self.done * row_bytes)
            file.seek(self.done * row_bytes)

    def _whole_rows(self) -> int:
        """Leading rows that are as they were written."""
        for number in range(self.shape[0]):
            row, stored = self._file.read(self._row_bytes), self._sums.read(_SUM.itemsize)
            if len(row) < self._row_bytes or np.array(zlib.crc32(row), _SUM).tobytes() != stored:
                return number
        return self.shape[0]

    def write(self, rows: np.ndarray) -> None:
        """Append (n, …) rows."""
        assert rows.shape[1:] == self.shape[1:], (rows.shape, self.shape)
        data = [row.tobytes() for row in np.ascontiguousarray(rows, self.dtype)]
        self._file.write(b"".join(data))
        self._file.flush()
        self._sums.write(np.array([zlib.crc32(row) for row in data], _SUM).tobytes())
        self._sums.flush()
        self.done += len(rows)

    def close(self) -> None:
        """Put the header in front, give the file its name, and seal it. All rows must be there."""
        assert self.done == self.shape[0], (self.done, self.shape)
        self._file.close()
        self._sums.close()
        with (
            replacing(self.path) as temporary,
            temporary.open("wb") as target,
            self.growing.open("rb") as source,
        ):
            header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(target, header)
            shutil.copyfileobj(source, target, 1 << 24)
        seal(self.path)
        self.growing.unlink()
        self._sums_path.unlink()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array to a .npy file that is there only when it is whole."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name to an .npz file that is there only when it is whole."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _open_to_update(path: Path) -> BinaryIO:
    return path.open("r+b" if path.exists() else "w+b")


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of an .npz file by name, each read when it is asked for. Raises DamageError where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            yield stored
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DamageError(f"{path} is damaged ({error}). Remove its folder and run again.") from None


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
