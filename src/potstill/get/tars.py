"""Photos inside tar files, read where they lie: nothing is unpacked to a path that an archive names."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from potstill.errors import SourceError
from potstill.images.decode import MAX_BYTES
from potstill.run import files


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar."""

    tar: Path
    name: str
    offset: int
    """Of its first byte, in the tar."""
    size: int

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Its bytes, or some of them. At most MAX_BYTES: a header can claim anything."""
        with self.tar.open("rb") as file:
            file.seek(self.offset + start)
            left = max(0, self.size - start)
            return file.read(min(left if size is None else min(size, left), MAX_BYTES))


def members(tar: Path, *, offset: int = 0, size: int | None = None) -> Iterator[Member]:
    """Regular files of an uncompressed tar, or of a tar that lies inside another.

    Raises:
        SourceError: it is not a tar, or it is truncated.
    """
    try:
        with tar.open("rb") as file:
            inner = cast(BinaryIO, _Window(file, offset, size)) if offset or size is not None else file
            with tarfile.open(fileobj=inner, mode="r:") as archive:
                for item in archive:
                    if item.isreg():
                        yield Member(tar, item.name, offset + item.offset_data, item.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{tar} cannot be read as a tar: {error}") from None


def unzipped(path: Path, max_bytes: int = 40 * 2**30) -> Path:
    """The tar inside a .tar.gz, kept beside it: a compressed one has no random access."""
    target = path.with_suffix("") if path.suffix == ".gz" else path.with_suffix(".tar")
    if not target.is_file():
        files.check_space(path.parent, path.stat().st_size * 1.3, target.name)
        try:
            with gzip.open(path, "rb") as source, files.replacing(target) as temporary, temporary.open("wb") as out:
                left = max_bytes
                while block := source.read(2**20):
                    left -= len(block)
                    if left < 0:
                        raise SourceError(
                            f"{path} unpacks to more than {max_bytes:,} bytes; it looks like a decompression bomb."
                        )
                    out.write(block)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{path} is damaged: {error}. Remove it, and it is downloaded again.") from None
    return target


class _Window(io.RawIOBase):
    """A part of a file that looks like a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int | None) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        self._at = position
        return position

    def read(self, size: int = -1) -> bytes:
        left = 2**62 if self._size is None else max(0, self._size - self._at)
        self._file.seek(self._offset + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data
