"""Decodes the photos of a folder, in order and on all cores, into `pixels.bin`. A killed run resumes by its journal."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.data.pixels import encode
from potstill.images.decode import BadPhotoError, Resize, decode, read_bytes
from potstill.images.duplicates import fingerprint
from potstill.images.folder import Folder, PhotoFile, plain_name
from potstill.images.statistics import require_usable
from potstill.monitoring.progress import Reporter
from potstill.processes.cores import available_cores
from potstill.processes.pools import process_pool
from potstill.run.files import write_bytes

JOURNAL = "pack.jsonl"
"""One line per file that has been decoded; removed once the stage is finished."""
_CHUNK = 8
"""Photos decoded per task: handing over each alone costs a third of the time that decoding a small one takes."""
_CHUNKS_AHEAD = 8
"""Chunks decoded ahead of the writer: enough to keep the threads busy, few enough to keep memory flat."""
PROCESSES_FROM = 10_000
"""From this many photos on, processes decode instead of threads, where there are more than two cores."""

_JOURNAL_EVERY = 256


@dataclass(frozen=True, slots=True)
class Packed:
    """One line of the packing journal: a photo that was written, or a file that was rejected."""

    path: str
    split: str | None
    label: int
    code: str = ""
    reason: str = ""
    sha256: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    stored_width: int = 0
    stored_height: int = 0
    offset: int = 0
    bytes: int = 0
    jpeg: bool = False
    hash: int = 0
    mirrored: int = 0
    thumb: str = ""


@dataclass(frozen=True, slots=True)
class PackFormat:
    """How photos are packed."""

    short_side: int
    min_side: int
    jpeg: bool
    resize: Resize


def estimated_bytes(photos: int, short_side: int, *, jpeg: bool = False) -> float:
    """Expected size of the store, for photos with sides 4 : 3."""
    return photos * short_side**2 * (4 / 3) * (0.6 if jpeg else 3)


def pack(folder: Folder, form: PackFormat, target: Path, reporter: Reporter) -> list[Packed]:
    """Decode every file into pixels.bin, in order; go on after the last journalled photo of an interrupted attempt."""
    journal = target / "pack.jsonl"
    entries = _read_journal(journal)
    end = max((e.offset + e.bytes for e in entries), default=0)
    pixels_path = target / "pixels.bin"
    with pixels_path.open("r+b" if pixels_path.exists() else "w+b") as pixels, journal.open("a") as lines:
        pixels.truncate(end)
        pixels.seek(end)
        waiting: list[Packed] = []

        def flush() -> None:
            pixels.flush()
            os.fsync(pixels.fileno())
            # Not asdict: it copies the values, which takes longer than writing them.
            lines.writelines(json.dumps({name: getattr(e, name) for name in Packed.__slots__}) + "\n" for e in waiting)
            lines.flush()
            waiting.clear()

        with reporter.bar("Decoding photos", len(folder.files), unit="photos") as update:
            todo = folder.files[len(entries) :]
            for entry, data in _decoded(todo, folder.root, form):
                entry = replace(entry, offset=end)
                pixels.write(data)
                end += len(data)
                entries.append(entry)
                waiting.append(entry)
                if len(waiting) == _JOURNAL_EVERY:
                    flush()
                update(len(entries))
            flush()
    return entries


def _read_journal(path: Path) -> list[Packed]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    whole = lines[:-1]  # what follows the last line break was cut off
    write_bytes(path, b"".join(line + b"\n" for line in whole))
    return [Packed(**json.loads(line)) for line in whole]


def _decoded(files: Sequence[PhotoFile], root: Path, form: PackFormat) -> Iterator[tuple[Packed, bytes]]:
    """Decode on all cores, results in order."""
    # What threads share, the interpreter, is what small photos wait for. Processes take seconds to start, and handing
    # over the pixels costs what a second one gains.
    cores = available_cores()
    many = len(files) >= PROCESSES_FROM and cores > 2
    with process_pool() if many else ThreadPoolExecutor(cores) as pool:
        ahead: deque[Future[list[tuple[Packed, bytes]]]] = deque()
        most = max(_CHUNKS_AHEAD, 2 * cores)
        for start in range(0, len(files), _CHUNK):
            ahead.append(pool.submit(_decode_some, files[start : start + _CHUNK], root, form))
            if len(ahead) >= most:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _decode_some(files: Sequence[PhotoFile], root: Path, form: PackFormat) -> list[tuple[Packed, bytes]]:
    return [_decode_one(file, root, form) for file in files]


def _decode_one(file: PhotoFile, root: Path, form: PackFormat) -> tuple[Packed, bytes]:
    entry = Packed(plain_name(file.path.relative_to(root)), file.split, file.label)
    try:
        raw = read_bytes(file.path)
        entry = replace(entry, sha256=hashlib.sha256(raw).hexdigest())
        photo = decode(raw, short_side=form.short_side, min_side=form.min_side, resize=form.resize)
        require_usable(raw, photo)
    except BadPhotoError as error:
        return replace(entry, code=error.code, reason=error.reason), b""
    data = encode(photo.image, jpeg=form.jpeg)
    prints = fingerprint(photo.image)
    return (
        replace(
            entry,
            format=photo.format,
            mode=photo.mode,
            width=photo.width,
            height=photo.height,
            stored_width=photo.image.width,
            stored_height=photo.image.height,
            bytes=len(data),
            jpeg=form.jpeg,
            hash=prints.hash,
            mirrored=prints.mirrored,
            thumb=prints.thumb.tobytes().hex(),
        ),
        data,
    )
