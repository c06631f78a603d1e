"""What is to be classified: photo files, folders, patterns such as `*.jpg`, videos, and what standard input gives."""

import difflib
import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.deploy import video
from potstill.deploy.predictor import Photo
from potstill.errors import DataError
from potstill.images.errors import BadPhotoError
from potstill.images.formats import open_photo
from potstill.images.tree import Tree, read_tree
from potstill.wording import counted

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Name:
    """What a photo is called in the output, and the file that it is."""

    text: str
    path: Path | None = None
    """None for the frame of a video, and for a photo from standard input."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Inputs:
    """Photos and videos by name; no photo is opened yet."""

    files: tuple[Path | bytes, ...]
    """Bytes are a photo from standard input."""
    every: float
    """Seconds between the frames of a video; 0 takes all."""
    notes: tuple[str, ...] = ()
    """What was found and is not used, one sentence each."""

    @property
    def videos(self) -> list[Path]:
        return [path for path in self.files if isinstance(path, Path) and video.is_video(path)]

    def count(self) -> int:
        """Photos and, about, frames."""
        videos = self.videos
        return len(self.files) - len(videos) + sum(video.expected_frames(path, self.every) for path in videos)

    def require_files(self) -> None:
        """Raise DataError for what is no photo file, so that it cannot be sorted into folders."""
        if videos := self.videos:
            raise DataError(f"--sort-into sorts photo files; {videos[0]} is a video.")
        if any(isinstance(file, bytes) for file in self.files):
            raise DataError("--sort-into sorts photo files; the bytes of a photo from standard input are none.")

    def photos(self) -> Iterator[tuple[Name, Photo | DataError]]:
        """Every photo and frame in turn; what cannot be read comes as the error that says why."""
        for file in self.files:
            if isinstance(file, bytes):
                yield Name(STANDARD_INPUT), file
            elif video.is_video(file):
                yield from self._frames(file)
            else:
                yield Name(str(file), file), _missing(file) or file

    def _frames(self, path: Path) -> Iterator[tuple[Name, Photo | DataError]]:
        try:
            for seconds, frame in video.frames(path, self.every):
                yield Name(f"{path}#t={seconds:.3f}"), frame
        except DataError as error:
            yield Name(str(path)), error


def collect(words: Sequence[str | Path], read_input: Callable[[], bytes], *, every: float = 1.0) -> Inputs:
    """Find what is meant by the words of a command line.

    Args:
        words: photo files, folders (with all folders in them), patterns that no shell has expanded, videos, and "-" for
            standard input, which is a list of these (a line or a NUL after each), or the bytes of one photo.
        read_input: reads standard input.
        every: seconds between the frames of a video.
    Raises:
        DataError: a folder without photos, a pattern that fits no file, an empty standard input, or a video, and PyAV
            is not installed.
    """
    files: list[Path | bytes] = []
    notes: list[str] = []
    for word in words:
        if str(word) != STANDARD_INPUT:
            files += _found(Path(word), notes, patterns=True)
            continue
        data = read_input()
        if not data.strip():
            raise DataError("Standard input is empty. Pipe paths into it, a line for each, or the bytes of one photo.")
        if _is_photo(data):
            files.append(data)
        else:
            files += [path for line in _lines(data) for path in _found(Path(line), notes, patterns=False)]
    inputs = Inputs(tuple(files), every, tuple(notes))
    for path in inputs.videos:
        video.require_reader(path)
    return inputs


def _found(path: Path, notes: list[str], *, patterns: bool) -> list[Path]:
    """The files that one word means."""
    status = _status(path)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return _photos_of(path, notes)
    if status is not None or not (patterns and glob.has_magic(str(path))):
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  whole paths
    if not found:
        raise DataError(f"No file matches the pattern {path}. To include subfolders: {path.parent / '**' / path.name}")
    return [file for inner in found for file in (_photos_of(inner, notes) if inner.is_dir() else [inner])]


def _photos_of(folder: Path, notes: list[str]) -> list[Path]:
    """All files in a folder, and in the folders in it, that are photos by their names."""
    tree = read_tree(folder)
    photos = list(tree.all_photos())
    others = list(_others(tree))
    if not photos:
        holds = f"It holds {counted(len(others), 'other file')}, such as {others[0]}." if others else "It is empty."
        raise DataError(f"There are no photos in {folder}. {holds}\n  Name a folder with photos, or the files.")
    if videos := [path for path in others if video.is_video(path)]:
        notes.append(
            f"Not used: {counted(len(videos), 'video')} in {folder}, such as {videos[0]}. Name them to use them."
        )
    if rest := [path for path in others if not video.is_video(path)]:
        notes.append(
            f"Not used: {counted(len(rest), 'file')} in {folder}, no photos by their names, such as {rest[0]}."
        )
    return photos


def _others(tree: Tree) -> Iterator[Path]:
    """Files that are no photos by their names, and folders that were not read; none that are hidden."""
    yield from (path for path, _ in (*tree.others, *tree.not_read) if not path.name.startswith("."))
    for folder in tree.folders:
        yield from _others(folder)


def _is_photo(data: bytes) -> bool:
    try:
        open_photo(data)
    except BadPhotoError as error:
        return error.code != "not_image"
    return True


def _lines(data: bytes) -> list[str]:
    """The paths in a list that ends each with a NUL, as `find -print0` does, or with a line end."""
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def _status(path: Path) -> os.stat_result | None:
    """None where there is no such file, or where it may not be looked at."""
    try:
        return path.stat()
    except OSError:
        return None


def _missing(path: Path) -> DataError | None:
    """What to say of a file that is not there; None for others, even where they cannot be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return None
    else:
        return None
    if path.is_symlink():
        return DataError(f"{path} is a link to {path.readlink()}, which is not there.")
    if not path.parent.is_dir():
        return DataError(f"There is no folder {path.parent}, and so no file {path.name} in it.")
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return DataError(f"There is no file {path}." + (f" Did you mean {path.parent / near[0]}?" if near else ""))
