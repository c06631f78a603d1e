"""Packs the decoded photos of a folder, in order, into `pixels.bin`. A killed run resumes by its journal.

They are decoded on all cores of this machine, or on the nodes of a cluster (`potstill.images.shards`).
"""

import functools
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from PIL import Image

from potstill.data.pixels import encode
from potstill.images.decode import Resize, decode, read_bytes
from potstill.images.depth import OWN, GrayLevels
from potstill.images.duplicates import fingerprint
from potstill.images.errors import BadPhotoError
from potstill.images.folder import Folder, PhotoFile
from potstill.images.known import KnownPhotos
from potstill.images.statistics import require_usable
from potstill.images.stored import Stored
from potstill.monitoring.progress import Reporter
from potstill.processes.cores import available_cores
from potstill.processes.pools import in_order
from potstill.run.files import replacing, write_bytes

JOURNAL = "pack.jsonl"
"""One line per file that has been decoded, each behind its CRC-32; removed once the stage is finished."""
_CHUNK = 8
"""Photos decoded per task: handing over each alone costs a third of the time that decoding a small one takes."""
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
    crc: int = 0
    """CRC-32 of the bytes in `pixels.bin`."""
    group: str = ""
    labels: tuple[int, ...] = ()
    """As in `PhotoFile`."""


@dataclass(frozen=True, slots=True)
class PackFormat:
    """How photos are packed."""

    short_side: int
    min_side: int
    jpeg: bool
    resize: Resize
    gray: GrayLevels = OWN
    """Black and white of gray photos with more than 8 bits."""


def estimated_bytes(photos: int, short_side: int, *, jpeg: bool = False) -> float:
    """Expected size of the store, for photos with sides 4 : 3."""
    return photos * short_side**2 * (4 / 3) * (0.6 if jpeg else 3)


class Decode(Protocol):
    """Decodes photos, wherever that is done."""

    def __call__(self, folder: Folder, start: int, store: "Store") -> None:
        """Add the folder's photos from the one at `start` on, in order."""
        ...


def pack(folder: Folder, decode: Decode, target: Path, reporter: Reporter, *, first: int = 0) -> list[Packed]:
    """Decode every file into `pixels.bin`, in order; after an interruption, from the last journaled photo on.

    Args:
        first: photos that `begin_with` has put there, which the folder does not hold.
    Returns:
        These photos, and all files of the folder.
    """
    with reporter.bar("Decoding photos", len(folder.files), unit="photo", part="photos") as update:
        with Store(target, lambda files: update(files - first)) as store:
            decode(folder, len(store.entries) - first, store)
        return store.entries


def begin_with(entries: Sequence[Packed], pixels: Path, target: Path) -> None:
    """Put photos that are packed already, in another `pixels.bin`, before those that `pack` will add; nothing where an
    interrupted run has begun with them."""
    journal, own = target / JOURNAL, target / "pixels.bin"
    if own.is_file():
        with own.open("rb") as file:
            if list(_as_written(_read_journal(journal), file))[: len(entries)] == list(entries):
                return
    journal.unlink(missing_ok=True)
    with replacing(own) as temporary:
        shutil.copyfile(pixels, temporary)
    write_bytes(journal, b"".join(map(_line, entries)))


class Store:
    """`pixels.bin` and its journal, both only appended to. Use as a context manager."""

    def __init__(self, target: Path, watch: Callable[[int], None] = lambda files: None) -> None:
        """`watch` is told how many files there are, whenever one is added."""
        self._watch = watch
        pixels = target / "pixels.bin"
        self._pixels = pixels.open("r+b" if pixels.exists() else "w+b")
        self.entries = list(_as_written(_read_journal(target / JOURNAL), self._pixels))
        """Of every file so far, in order."""
        write_bytes(target / JOURNAL, b"".join(map(_line, self.entries)))
        self._end = max((e.offset + e.bytes for e in self.entries), default=0)
        self._waiting: list[Packed] = []
        self._pixels.truncate(self._end)  # pixels that the journal does not know
        self._pixels.seek(self._end)
        self._journal = (target / JOURNAL).open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._pixels, self._journal:
            if kind is None:
                self.flush()

    def add(self, entry: Packed, data: bytes) -> None:
        """Append a photo, or a rejected file, which has no bytes."""
        entry = replace(entry, offset=self._end)
        self._pixels.write(data)
        self._end += len(data)
        self.entries.append(entry)
        self._waiting.append(entry)
        if len(self._waiting) == _JOURNAL_EVERY:
            self.flush()
        self._watch(len(self.entries))

    def flush(self) -> None:
        """Keep what was added so far, even where this process is killed.

        Pixels first: the journal only lists what is on the disk.
        """
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        self._journal.writelines(map(_line, self._waiting))
        self._journal.flush()
        self._waiting.clear()


def _line(entry: Packed) -> bytes:
    text = json.dumps(values_of(entry)).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_journal(path: Path) -> Iterator[Packed]:
    """The entries up to the first line that is not as it was written."""
    for line in path.read_bytes().splitlines() if path.exists() else []:
        crc, _, text = line.partition(b" ")
        if crc != b"%08x" % zlib.crc32(text):
            return
        yield entry_of(json.loads(text))


def values_of(entry: Packed) -> dict[str, Any]:
    """An entry as JSON. Not asdict: it copies the values, which takes longer than writing them."""
    return {name: getattr(entry, name) for name in Packed.__slots__}


def entry_of(values: Mapping[str, Any]) -> Packed:
    """The entry of which `values_of` was told."""
    return Packed(**{**values, "labels": tuple(values.get("labels", ()))})


def stored(target: Path) -> Iterator[tuple[Packed, bytes]]:
    """What `Store` has written into a folder, as far as it is whole."""
    with (target / "pixels.bin").open("rb") as file:
        for entry in _as_written(_read_journal(target / JOURNAL), file):
            yield entry, os.pread(file.fileno(), entry.bytes, entry.offset)


def _as_written(entries: Iterator[Packed], pixels: BinaryIO) -> Iterator[Packed]:
    """The entries up to the first one whose pixels are not as they were written."""
    for entry in entries:
        if zlib.crc32(os.pread(pixels.fileno(), entry.bytes, entry.offset)) != entry.crc:
            return
        yield entry


def decode_here(
    folder: Folder, start: int, store: Store, *, pack_format: PackFormat, known: KnownPhotos | None
) -> None:
    """Decode on all cores of this machine. See `Decode`.

    Args:
        known: photos that were packed in this very format before, and need not be decoded.
    """
    files = folder.files[start:]
    unread = ((unread_entry(folder, file), file.source) for file in files)  # one by one: there may be millions
    many = len(files) >= PROCESSES_FROM and available_cores() > 2 and known is None  # it would be sent with each task
    for entry, data in decoded(unread, pack_format, known=known, processes=many):
        store.add(entry, data)


def unread_entry(folder: Folder, file: PhotoFile) -> Packed:
    """What is known of a file by its name."""
    return Packed(folder.listed(file), file.split, file.label, group=file.group, labels=file.labels)


def decoded(
    photos: Iterable[tuple[Packed, Path | Stored]],
    pack_format: PackFormat,
    *,
    known: KnownPhotos | None = None,
    processes: bool = False,
    threads: int = 0,
) -> Iterator[tuple[Packed, bytes]]:
    """Photos of which the names are known, with all that their files say, and their pixels, in order."""
    work = functools.partial(_decode_chunk, pack_format=pack_format, known=known)
    return in_order(work, photos, chunk=_CHUNK, processes=processes, threads=threads)


def _decode_chunk(
    photos: Sequence[tuple[Packed, Path | Stored]], pack_format: PackFormat, known: KnownPhotos | None
) -> list[tuple[Packed, bytes]]:
    return [_decode_one(entry, source, pack_format, known) for entry, source in photos]


def _decode_one(
    entry: Packed, source: Path | Stored, pack_format: PackFormat, known: KnownPhotos | None
) -> tuple[Packed, bytes]:
    try:
        raw = read_bytes(source)
        entry = replace(entry, sha256=hashlib.sha256(raw).hexdigest())
        if known and (found := known.find(entry.sha256)):
            image, line = found
            width, height = int(line["width"]), int(line["height"])
            entry = replace(entry, format=line["format"], mode=line["mode"], width=width, height=height)
            return _packed(entry, image, jpeg=False)
        photo = decode(
            raw,
            short_side=pack_format.short_side,
            min_side=pack_format.min_side,
            gray=pack_format.gray,
            resize=pack_format.resize,
        )
        require_usable(raw, photo)
    except BadPhotoError as error:
        return replace(entry, code=error.code, reason=error.reason), b""
    entry = replace(entry, format=photo.format, mode=photo.mode, width=photo.width, height=photo.height)
    return _packed(entry, photo.image, jpeg=pack_format.jpeg)


def _packed(entry: Packed, image: Image.Image, *, jpeg: bool) -> tuple[Packed, bytes]:
    """The entry with what is known of the pixels to store, and their bytes."""
    data, prints = encode(image, jpeg=jpeg), fingerprint(image)
    return (
        replace(
            entry,
            stored_width=image.width,
            stored_height=image.height,
            bytes=len(data),
            crc=zlib.crc32(data),
            jpeg=jpeg,
            hash=prints.hash,
            mirrored=prints.mirrored,
            thumb=prints.thumb.tobytes().hex(),
        ),
        data,
    )
