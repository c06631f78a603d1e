"""Decides for a whole folder what is black and what is white in gray photos with more than 8 bits."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from potstill.images.decode import read_extent
from potstill.images.depth import GrayLevels, joined
from potstill.images.errors import BadPhotoError
from potstill.images.stored import Stored
from potstill.processes.cores import available_cores

_START = 32
"""Bytes that show whether a file may have more than 8 bits; only such files are decoded for this."""


def folder_levels(paths: Iterable[Path | Stored]) -> GrayLevels:
    """The levels for these files. Those that cannot be read do not count."""
    deep = [path for path in paths if _may_be_deep(path)]
    with ThreadPoolExecutor(available_cores()) as pool:
        return joined(extent for extent in pool.map(read_extent, deep) if extent is not None)


def _may_be_deep(path: Path | Stored) -> bool:
    try:
        if isinstance(path, Path):
            with path.open("rb") as file:
                start = file.read(_START)
        else:
            start = path.read(_START)
    except (OSError, BadPhotoError):
        return False
    if start.startswith(b"\x89PNG"):
        return start[24:26] == b"\x10\0"  # 16 bits, gray
    return start.startswith((b"II", b"MM", b"P2", b"P5", b"Pf", b"\0\0\0\x0cj", b"\xff\x4f\xff\x51"))
