"""Photos inside of large files: in a tar shard by offset, in a parquet file by row. Nothing is unpacked."""

import functools
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from potstill.errors import DataError
from potstill.images.errors import BadPhotoError
from potstill.storage.cache import RemoteFile

MAX_GROUP_BYTES = 512 * 2**20
"""Of the photos of one row group of a parquet file, which is read as a whole. `datasets` writes 100 photos to each."""

_GROUPS_KEPT = 4
"""Row groups in memory: photos are read in order, by several threads, some of which are a group behind."""


@dataclass(frozen=True, slots=True)
class Container:
    """A large file as it was when its photos were listed."""

    path: Path
    size: int
    """In bytes."""
    mtime_ns: int
    remote: RemoteFile | None = None
    """Where it is in storage; `path` is its copy, which is made when the file is read."""

    @classmethod
    def of(cls, path: Path) -> "Container":
        """The file as it is now. Raises DataError where the system does not let us read it."""
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        return cls(path, status.st_size, status.st_mtime_ns)

    @classmethod
    def in_storage(cls, remote: RemoteFile) -> "Container":
        """A file in storage, as it was listed."""
        return cls(remote.path, remote.size, remote.mtime_ns, remote)

    def fetch(self) -> None:
        """Copy it here where it is in storage. Raises StorageError, SpaceError."""
        if self.remote is not None:
            self.remote.fetch()

    def opened(self) -> BinaryIO:
        """The file, to be read. Raises OSError; StorageError and SpaceError where it is in storage."""
        return self.path.open("rb", buffering=0) if self.remote is None else self.remote.opened()

    def require_unchanged(self, file: BinaryIO) -> None:
        """Raise DataError where it is another file now: what its list says would be bytes of other photos."""
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise DataError(f"{self.path} has changed since its photos were listed. Run again.")


@dataclass(frozen=True, slots=True)
class TarPhoto:
    """A photo in a tar."""

    container: Container
    offset: int
    """Of its first byte, in the tar."""
    size: int
    """In bytes."""

    def read(self, most: int | None = None) -> bytes:
        """Its bytes, or the first of them. Raises BadPhotoError, code `unreadable`."""
        try:
            with self.container.opened() as file:
                self.container.require_unchanged(file)
                count = self.size if most is None else min(most, self.size)
                data = os.pread(file.fileno(), count, self.offset)
        except OSError as error:
            raise BadPhotoError("unreadable", error.strerror or str(error)) from None
        if len(data) < count:
            raise BadPhotoError("unreadable", f"only {len(data):,} of its {count:,} bytes could be read")
        return data

    @property
    def place(self) -> str:
        """Where it is, for the fingerprint of the photos."""
        return f"{self.offset}+{self.size}"


@dataclass(frozen=True, slots=True)
class ParquetPhoto:
    """A photo in a row of a parquet file."""

    container: Container
    column: str
    group: int
    """The row group."""
    row: int
    """In the row group."""

    size = 0
    """Not known before it is read."""

    def read(self, most: int | None = None) -> bytes:
        """Its bytes, or the first of them. Raises BadPhotoError: code `empty` where the row has none, `unreadable`."""
        with _lock:
            rows = _row_group(self.container, self.column, self.group)
        value = rows[self.row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise BadPhotoError("empty", "the row has no bytes of a photo")
        return bytes(data[:most])

    @property
    def place(self) -> str:
        """Where it is, for the fingerprint of the photos."""
        return f"{self.column}:{self.group}:{self.row}"


Stored = TarPhoto | ParquetPhoto


def to_json(photo: Path | Stored) -> dict[str, Any]:
    """Where a photo is, in a file of this machine, for another process."""
    if isinstance(photo, Path):
        return {"path": _text(photo)}
    container = photo.container
    assert container.remote is None, "each process would copy it"
    values = {name: getattr(photo, name) for name in type(photo).__slots__ if name != "container"}
    return {"path": _text(container.path), "is": [container.size, container.mtime_ns], "place": values}


def from_json(values: Mapping[str, Any]) -> Path | Stored:
    """The photo of which `to_json` was told."""
    path = Path(os.fsdecode(values["path"].encode("latin-1")))
    if "place" not in values:
        return path
    kind = TarPhoto if "offset" in values["place"] else ParquetPhoto
    return kind(Container(path, *values["is"]), **values["place"])


def _text(path: Path) -> str:
    """The bytes of a path, each as a character: some are no UTF-8."""
    return os.fsencode(path).decode("latin-1")


_lock = threading.Lock()
"""Threads that wait for one row group do not read it several times."""


@functools.lru_cache(maxsize=_GROUPS_KEPT)
def _row_group(container: Container, column: str, group: int) -> Any:
    """The photos of a row group, as an Arrow array of bytes, or of structs with bytes."""
    from pyarrow import ArrowException, parquet, types

    try:
        with container.opened() as raw:
            container.require_unchanged(raw)
            with parquet.ParquetFile(raw) as file:
                is_struct = types.is_struct(file.schema_arrow.field(column).type)
                leaf = f"{column}.bytes" if is_struct else column
                return file.read_row_group(group, columns=[leaf], use_threads=False).column(0)
    except (ArrowException, OSError) as error:
        raise BadPhotoError("unreadable", f"row group {group} cannot be read: {error}") from None
