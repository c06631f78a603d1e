"""PNG files: their chunks. Pillow is given only those that the pixels need, so no text hinders them."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""Files with more parts are refused; 200 MiB in the usual 8 KiB have a quarter of that."""
MAX_PROFILE = 4 * 2**20
"""Color profiles that are larger when unpacked are ignored."""

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
_XMP = b"XML:com.adobe.xmp\0\0\0"
"""The start of an iTXt chunk that holds XMP, not compressed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a PNG file."""

    kind: bytes
    start: int
    """Of its 4 bytes of length."""
    end: int
    """Behind its checksum."""

    def body(self, data: bytes) -> bytes:
        """What is in it."""
        return data[self.start + 8 : self.end - 4]

    def is_whole(self, data: bytes) -> bool:
        """Whether its checksum is right."""
        found = zlib.crc32(data[self.start + 4 : self.end - 4])
        return found.to_bytes(4) == data[self.end - 4 : self.end]


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks, as far as they are whole."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            return
        yield Chunk(kind, place, end)
        place = end
        if kind == b"IEND":
            return


def metadata(data: bytes, parts: list[Chunk]) -> tuple[list[bytes], list[bytes]]:
    """EXIF blocks and XMP packets. XMP that is compressed is not read."""
    exif = [part.body(data) for part in parts if part.kind == b"eXIf"]
    texts = (part.start + 8 for part in parts if part.kind == b"iTXt")
    xmp = [data[start:][: 2**20] for start in texts if data.startswith(_XMP, start)]
    return exif, xmp


def only_pixels(data: bytes, parts: list[Chunk]) -> bytes:
    """The file without what the pixels do not need."""
    dropped = [part for part in parts if not _is_needed(part, data)]
    if not dropped:
        return data
    kept, place = [], 0
    for part in dropped:
        kept.append(data[place : part.start])
        place = part.end
    return b"".join([*kept, data[place:]])


def damage(data: bytes, parts: list[Chunk]) -> str | None:
    """What is wrong with the pixels' data, None where nothing is. A wrong checksum of the right pixels is nothing."""
    broken = next((part for part in parts if part.kind in _PIXELS and not part.is_whole(data)), None)
    if broken is not None and not (broken.kind == b"IDAT" and _unpacks(data, parts)):
        return f"damaged: the checksum of its part {broken.kind.decode()}, at byte {broken.start:,}, is wrong"
    return None


def end(data: bytes, parts: list[Chunk]) -> str | None:
    """Where the file is cut off, in words; None where it is not."""
    if parts and parts[-1].kind == b"IEND":
        return None
    start = parts[-1].end if parts else len(SIGNATURE)
    return f"cut off: its part that begins at byte {start:,} is not whole"


def significant_bits(data: bytes, parts: list[Chunk]) -> int | None:
    """How many of the bits of gray values are in use, where the file says so."""
    return next((part.body(data)[0] for part in parts if part.kind == b"sBIT" and part.end - part.start > 12), None)


def _unpacks(data: bytes, parts: list[Chunk]) -> bool:
    """Whether the pixels' data, which has a checksum of its own, is right in spite of what the parts' checksums say."""
    unpacker = zlib.decompressobj()
    try:
        for part in parts:
            if part.kind == b"IDAT":
                unpacker.decompress(part.body(data))
    except zlib.error:
        return False
    return unpacker.eof


def _is_needed(part: Chunk, data: bytes) -> bool:
    if part.kind == b"iCCP":
        return part.is_whole(data) and _is_small_profile(part.body(data))
    return part.kind in _PIXELS


def _is_small_profile(body: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(body.partition(b"\0")[2][1:], MAX_PROFILE)
    except zlib.error:
        return False
    return unpacker.eof
