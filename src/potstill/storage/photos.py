"""Photos in storage: a tree of files is copied as a whole, large files one by one as they are read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from potstill.errors import SpaceError, StorageError
from potstill.run.files import check_space
from potstill.storage.addresses import Address
from potstill.storage.cache import LIMIT, RemoteFile, copies, is_here, limit_bytes, local_path, used_bytes
from potstill.storage.client import StoredObject, download, listed
from potstill.wording import counted

_AT_ONCE = 16
"""Small files that are copied at the same time: each waits for the network most of the time."""


@dataclass(frozen=True, slots=True)
class RemoteTree:
    """All objects at or below an address, as they were listed."""

    address: Address
    objects: tuple[StoredObject, ...]

    @classmethod
    def of(cls, address: Address, *, missing_ok: bool = False) -> "RemoteTree":
        """Raises StorageError where it cannot be listed, there is nothing, or a name that no folder can hold."""
        objects = tuple(sorted(listed(address, missing_ok=missing_ok), key=lambda found: found.name))
        for found in objects:
            parts = found.name.split("/")
            if found.name and (any(part in ("", ".", "..") for part in parts) or "\0" in found.name):
                raise StorageError(f"{address} has an object whose name is not that of a file: {found.name!r}.")
        return cls(address, objects)

    @property
    def is_file(self) -> bool:
        """Whether the address is that of a single object."""
        return len(self.objects) == 1 and not self.objects[0].name

    @property
    def root(self) -> Path:
        """Of the copies."""
        return local_path(self.address)

    def large_file(self, found: StoredObject) -> RemoteFile:
        """One of the objects, to be copied when it is read."""
        return RemoteFile(self._at(found), found.size, found.mtime_ns)

    def copy(self, say: Callable[[str], None] = lambda text: None) -> Path:
        """Copy all objects that are not here yet, and remove copies of those that are there no more.

        Returns:
            The folder of the copies, or the copy of the single object. Files have the times of their objects.
        Raises:
            StorageError: an object cannot be read.
            SpaceError: they do not fit.
        """
        missing = [found for found in self.objects if not is_here(self._place(found), found.size, found.mtime_ns)]
        needed = sum(found.size for found in missing)
        if needed:
            self._require_room(needed)
            files = counted(len(missing), "file")
            say(f"Copying {files} ({needed / 1e9:.2f} GB) from {self.address} to {self.root}")
        if not self.is_file:
            self._remove_others()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tasks = [pool.submit(download, self._at(found), self._place(found), found) for found in missing]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return self.root

    def _at(self, found: StoredObject) -> Address:
        return self.address / found.name if found.name else self.address

    def _place(self, found: StoredObject) -> Path:
        return self.root.joinpath(*PurePosixPath(found.name).parts)

    def _require_room(self, needed: int) -> None:
        limit, used = limit_bytes(), used_bytes()
        if used + needed > limit:
            raise SpaceError(
                f"{self.address} needs {needed / 1e9:.2f} GB more in {copies()}, which has {used / 1e9:.2f} GB and may "
                f"have {limit / 1e9:g}.\n  Delete what you no longer need there, set {LIMIT} to a larger number, or "
                "write the photos to tar shards, of which only a few are copied at a time."
            )
        check_space(copies(), needed, f"A copy of {self.address}")

    def _remove_others(self) -> None:
        if not self.root.is_dir():
            self.root.unlink(missing_ok=True)
            return
        names = {self._place(found) for found in self.objects}
        for path in self.root.rglob("*"):
            if path.is_file() and path not in names and path.suffix != ".part":
                path.unlink()
