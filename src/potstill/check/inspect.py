"""Inspects every file of a photo folder, on all cores: what it is, what is wrong with it, and its fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from potstill.images.decode import Decoded, decode_thumbnail, read_bytes
from potstill.images.depth import OWN, GrayLevels
from potstill.images.duplicates import Fingerprint, fingerprint
from potstill.images.errors import BadPhotoError
from potstill.images.levels import folder_levels
from potstill.images.statistics import THUMBNAIL_SIDE, image_statistics, require_usable
from potstill.processes.cores import available_cores
from potstill.processes.pools import process_pool

_CHUNK = 32
_POOL_FROM = 256
"""Fewer files are inspected here in less time than other processes need to start."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is known of one file."""

    path: Path
    sha256: str = ""
    pixels: int = 0
    fault: str = ""
    """A code of reasons.REASONS for which it cannot stay, or empty."""
    detail: str = ""
    notes: tuple[str, ...] = ()
    """Codes that are only listed."""
    marks: Fingerprint | None = None


def inspect(path: Path, *, min_side: int, gray: GrayLevels = OWN) -> Inspected:
    """Read, decode and inspect one file. Never raises for a bad photo."""
    sha256 = ""
    try:
        data = read_bytes(path)
        sha256 = hashlib.sha256(data).hexdigest()
        decoded = decode_thumbnail(data, side=THUMBNAIL_SIDE, min_side=min_side, gray=gray)
        require_usable(data, decoded)
    except BadPhotoError as error:
        return Inspected(path, sha256, fault=error.code, detail=error.reason)
    return Inspected(
        path,
        sha256,
        pixels=decoded.width * decoded.height,
        notes=(*_file_notes(path, decoded), *image_statistics(decoded.image).notes),
        marks=fingerprint(decoded.image),
    )


def inspect_all(paths: Sequence[Path], *, min_side: int) -> Iterator[Inspected]:
    """`inspect` for all, in order, on all cores: processes, because threads share one interpreter."""
    gray = folder_levels(paths)
    if available_cores() == 1 or len(paths) < _POOL_FROM:
        yield from (inspect(path, min_side=min_side, gray=gray) for path in paths)
        return
    chunks = [(paths[start : start + _CHUNK], min_side, gray) for start in range(0, len(paths), _CHUNK)]
    with process_pool() as pool:
        try:
            for found in pool.map(_inspect_chunk, chunks):
                yield from found
        finally:
            pool.shutdown(wait=False, kill_workers=True)


def _inspect_chunk(job: tuple[Iterable[Path], int, GrayLevels]) -> list[Inspected]:
    paths, min_side, gray = job
    return [inspect(path, min_side=min_side, gray=gray) for path in paths]


def _file_notes(path: Path, decoded: Decoded) -> Iterator[str]:
    if decoded.animated and decoded.format != "MPO":
        yield "animated"
    if decoded.mode not in ("RGB", "L"):
        yield "odd_mode"
    if decoded.rotated:
        yield "rotated"
    if path.suffix and path.suffix.lower() not in _suffixes(decoded.format):
        yield "wrong_extension"


@cache
def _suffixes(file_format: str) -> set[str]:
    own = {suffix for suffix, name in Image.registered_extensions().items() if name == file_format}
    return own | ({".jpg", ".jpeg", ".jpe"} if file_format == "MPO" else set())
