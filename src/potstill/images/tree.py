"""The files and folders below a photo folder, listed once; no file is opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from potstill.errors import DataError
from potstill.images.ignored import CHECK_REPORTS, is_other_file, is_system_folder

_DEEPEST = 60
"""Folders in folders: what lies deeper is not read. Python's own limit is near a thousand."""


@dataclass(frozen=True)
class Tree:
    """One folder."""

    path: Path
    photos: tuple[Path, ...]
    """Files in it that may be photos, sorted."""
    folders: tuple["Tree", ...]
    """Folders in it, by name, without those of the system."""
    others: tuple[tuple[Path, int], ...]
    """Files in it that are no photos by their names, and folders of the system with their number of files."""
    not_read: tuple[tuple[Path, str], ...] = ()
    """Folders that were not followed, and why."""

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def total(self) -> int:
        """Photos in it and in all folders below."""
        return len(self.photos) + sum(folder.total for folder in self.folders)

    @cached_property
    def files(self) -> int:
        """All files in it and in all folders below."""
        own = len(self.photos) + sum(count for _, count in self.others)
        return own + sum(folder.files for folder in self.folders)

    @cached_property
    def filled(self) -> tuple["Tree", ...]:
        """The folders in it that have photos at any depth."""
        return tuple(folder for folder in self.folders if folder.total)

    def all_photos(self) -> Iterator[Path]:
        """The photos in it and in all folders below."""
        yield from self.photos
        for folder in self.folders:
            yield from folder.all_photos()


def read_tree(root: Path) -> Tree:
    """List everything below a folder. Links to folders are followed, each target once.

    Raises:
        DataError: a folder that the operating system does not let us read.
    """
    return _Reader().read(root, above=(), linked=False)


class _Reader:
    def __init__(self) -> None:
        self._linked: set[tuple[int, int]] = set()
        """Folders that were reached through a link: with two links that lead to each other's parents, following every
        one would take for ever."""

    def read(self, path: Path, above: tuple[tuple[int, int], ...], *, linked: bool) -> Tree:
        try:
            status = path.stat()
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"The folder {path} cannot be read: {error.strerror}.\n  Allow reading it, or move it away."
            ) from None
        own = (status.st_dev, status.st_ino)
        if linked:
            self._linked.add(own)
        photos: list[Path] = []
        folders: list[Tree] = []
        others: list[tuple[Path, int]] = []
        not_read: list[tuple[Path, str]] = []
        if {entry.name for entry in entries}.issuperset(CHECK_REPORTS):
            entries = [entry for entry in entries if entry.name not in CHECK_REPORTS]
        for entry in entries:
            inner = path / entry.name
            if not _is_folder(entry):
                # Neither a file nor a folder: a broken link, a pipe. Opening a pipe would wait for ever.
                if is_other_file(entry.name) or not inner.is_file():
                    others.append((inner, 1))
                else:
                    photos.append(inner)
            elif is_system_folder(entry.name):
                others.append((inner, _count_files(inner)))
            elif reason := self._reason_not_to_read(entry, (*above, own)):
                not_read.append((inner, reason))
            else:
                folders.append(self.read(inner, (*above, own), linked=entry.is_symlink()))
        return Tree(path, tuple(photos), tuple(folders), tuple(others), tuple(not_read))

    def _reason_not_to_read(self, entry: "os.DirEntry[str]", above: tuple[tuple[int, int], ...]) -> str:
        if len(above) > _DEEPEST:
            return f"more than {_DEEPEST} folders deep"
        if not entry.is_symlink():
            return ""
        status = entry.stat()
        target = (status.st_dev, status.st_ino)
        if target in above:
            return "a link to a folder that it lies in"
        return "a second link to the same folder" if target in self._linked else ""


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
