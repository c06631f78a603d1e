"""Copies of what is in storage, on this machine: `storage/` in the cache folder, laid out as the addresses are."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from potstill.errors import ConfigError, SpaceError
from potstill.run.cache import cache_folder
from potstill.storage.addresses import Address
from potstill.storage.client import StoredObject, download

LIMIT = "POTSTILL_CACHE_GB"
"""The environment variable for the most that copies of photos may take."""

_DEFAULT_GB = 50.0
_KEPT = 2
"""Large files that are never removed for another one: threads that read in order are up to one file apart."""

_lock = threading.Lock()
"""Threads that wait for one file do not copy it several times."""


def limit_bytes() -> float:
    """The most that copies of photos may take. Raises ConfigError where the variable is not a number."""
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text or _DEFAULT_GB)
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise ConfigError(f"{LIMIT} is {text!r}; it is a number of gigabytes above 0, such as 20.")
    return limit * 1e9


def copies() -> Path:
    """The folder of all copies."""
    return cache_folder() / "storage"


def local_path(address: Address) -> Path:
    """Where the copy of an object, or of all below an address, has its place."""
    return copies() / address.scheme / address.key


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A large file in storage, copied when it is read, and removed when others need its room."""

    address: Address
    size: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        """Of its copy."""
        return local_path(self.address)

    def fetch(self) -> None:
        """Copy it here, unless it is here.

        Raises:
            StorageError: it cannot be read, or has changed since it was listed.
            SpaceError: it is larger than the limit of the cache.
        """
        with _lock:
            if not is_here(self.path, self.size, self.mtime_ns):
                _make_room(self.size, self.address)
                download(self.address, self.path, StoredObject("", self.size, self.mtime_ns))

    def opened(self) -> BinaryIO:
        """The copy, to be read. Raises as `fetch` does."""
        while True:
            try:
                return self.path.open("rb", buffering=0)
            except FileNotFoundError:  # not copied yet, or removed for another one
                self.fetch()


def is_here(path: Path, size: int, mtime_ns: int) -> bool:
    """Whether a file is the copy of an object with this size and time."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (status.st_size, status.st_mtime_ns) == (size, mtime_ns)


def _make_room(needed: int, what: Address) -> None:
    """Remove copies of large files, the oldest ones first, until there is room for another one.

    Raises:
        SpaceError: there is no room, although nothing is left that may be removed.
    """
    limit, used = limit_bytes(), used_bytes()
    large = [path for path in copies().rglob("*") if path.suffix.lower() in (".tar", ".parquet") and path.is_file()]
    large.sort(key=lambda path: path.stat().st_ctime_ns)
    for path in large[: max(0, len(large) - _KEPT + 1)]:
        if used + needed <= limit:
            break
        used -= path.stat().st_size
        path.unlink()
    if used + needed > limit and not large:
        raise SpaceError(
            f"{what} has {needed / 1e9:.2f} GB, but {copies()} has {used / 1e9:.2f} GB and may have {limit / 1e9:g}.\n"
            f"  Delete what you no longer need there, or set {LIMIT} to a larger number."
        )


def used_bytes() -> int:
    """What all copies take."""
    total = 0
    for folder, _, names in os.walk(copies()):
        total += sum(os.stat(os.path.join(folder, name)).st_size for name in names)  # noqa: PTH116, PTH118  fast
    return total
