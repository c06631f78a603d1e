"""Sorting photos into folders by their predicted class. No file is ever written over, and none is seen half written."""

import contextlib
import filecmp
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from potstill.errors import DataError
from potstill.images.folder import check_class_names


class Sorter:
    """Copies or moves photos to `FOLDER/CLASS/NAME`."""

    def __init__(self, folder: Path, classes: Sequence[str], *, move: bool = False) -> None:
        """Raises DataError for a class whose name cannot be a folder, or is a way out of it."""
        check_class_names(classes)
        self.folder, self._move = folder, move

    def place(self, photo: Path, label: str) -> Path:
        """Copy or move a photo into the folder of its class.

        Where another photo has its name there, it gets a number: `cat/1.jpg`, `cat/1-2.jpg`. A copy that is there
        already is not made again, so that the same command can be repeated.

        Returns:
            Where it is now.
        Raises:
            OSError: a full disk, missing rights and the like. The original is still where it was.
        """
        target = self.folder / label
        target.mkdir(parents=True, exist_ok=True)
        placed = self._copied(photo, target)
        if self._move and not _is_same_file(photo, placed):
            photo.unlink()
        return placed

    def _copied(self, photo: Path, target: Path) -> Path:
        with _copy_in(target, photo) as temporary:
            for free in free_names(photo.name):
                place = target / free
                if place.is_file() and filecmp.cmp(temporary, place, shallow=False):
                    return place
                with contextlib.suppress(FileExistsError):
                    _put(temporary, place)
                    return place
            raise AssertionError("names do not end")


def copy_new(photo: Path, place: Path) -> None:
    """Copy a photo to a name that is free. Raises FileExistsError where it is not."""
    with _copy_in(place.parent, photo) as temporary:
        _put(temporary, place)


@contextlib.contextmanager
def _copy_in(folder: Path, photo: Path) -> Iterator[Path]:
    """A copy of a photo under a temporary name in `folder`, on the disk, and gone after the block."""
    handle, name = tempfile.mkstemp(prefix=f".{photo.stem[:60]}.", suffix=".part", dir=folder)
    os.close(handle)
    temporary = Path(name)
    try:
        shutil.copy2(photo, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def require_apart(folder: Path, words: Sequence[str | Path]) -> None:
    """Raise DataError where photos would be sorted into the folder that they come from: a second run would sort the
    copies too."""
    target = folder.resolve()
    for word in words:
        source = Path(word)
        if source.is_dir() and target.is_relative_to(source.resolve()):
            raise DataError(
                f"--sort-into {folder} is in {source}, whose photos are to be sorted; a second run would sort the "
                "copies too.\n  Name a folder outside of it."
            )


def free_names(name: str) -> Iterator[str]:
    """The name, then the name with numbers."""
    yield name
    stem, dot, suffix = name.rpartition(".")
    for number in itertools.count(2):
        yield f"{stem}-{number}.{suffix}" if stem and dot else f"{name}-{number}"


def _put(temporary: Path, place: Path) -> None:
    """Give a finished file its name. Raises FileExistsError where there is a file of that name."""
    try:
        os.link(temporary, place)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as that of memory cards
        place.touch(exist_ok=False)
        temporary.replace(place)


def _is_same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
