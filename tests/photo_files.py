"""Photo files with the metadata that people's photos have, written byte by byte: libraries would write it correctly."""

import struct
import zlib
from typing import Any

import numpy as np


def exif_block(orientation: int, *, kind: int = 3, count: int = 1, order: str = "<", more: bytes = b"") -> bytes:
    """A block of EXIF, without the header "Exif", whose first entry is the orientation.

    Args:
        kind: EXIF's number of the type: 1 BYTE, 2 ASCII, 3 SHORT, 4 LONG.
        count: how many values; all the same, up to what fits into 4 bytes.
        more: entries behind it, 12 bytes each.
    """
    code = {1: "B", 2: "B", 3: "H", 4: "I"}[kind]
    value = orientation + 48 if kind == 2 else orientation
    values = struct.pack(order + code, value) * min(count, 4 // struct.calcsize(order + code))
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + values.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", 1 + len(more) // 12) + entry + more + bytes(4)


def jpeg_with(data: bytes, *, exif: bytes | None = None, xmp: bytes | None = None) -> bytes:
    """A JPEG with metadata behind its start marker."""
    bodies = [b"http://ns.adobe.com/xap/1.0/\0" + xmp] if xmp is not None else []
    bodies += [b"Exif\0\0" + exif] if exif is not None else []
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body for body in bodies) + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(data: bytes, *, exif: bytes | None = None, xmp: bytes | None = None, **chunks: bytes) -> bytes:
    """A PNG with metadata, and chunks by name, behind its header."""
    more = {kind.encode(): body for kind, body in chunks.items()}
    if exif is not None:
        more[b"eXIf"] = exif
    if xmp is not None:
        more[b"iTXt"] = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    return data[:33] + b"".join(png_chunk(kind, body) for kind, body in more.items()) + data[33:]


def webp_with(data: bytes, *, exif: bytes) -> bytes:
    """A lossless WebP with EXIF, in the extended form that this needs."""
    bits = int.from_bytes(data[21:25], "little")
    width, height = bits & 0x3FFF, (bits >> 14) & 0x3FFF  # both less one
    extended = bytes([8, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    chunks = [(b"VP8X", extended), (b"VP8L", data[20 : 20 + int.from_bytes(data[16:20], "little")]), (b"EXIF", exif)]
    body = b"".join(k + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for k, b in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


PRIMARIES: dict[str, Any] = {
    "wide": ([[0.515, 0.292, 0.157], [0.241, 0.692, 0.067], [-0.001, 0.042, 0.784]], 2.2),  # Display P3's
    "gamma 1.0": ([[0.436, 0.385, 0.143], [0.222, 0.717, 0.061], [0.014, 0.097, 0.714]], 1.0),  # sRGB's
}
"""Columns: XYZ of red, green and blue under the profile's white; and the exponent."""


def profile_of(space: str) -> bytes:
    """An ICC profile: "wide", "gamma 1.0", or "gray", the exponent 1.0 for gray photos."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * v)) for v in values)

    def curve(exponent: float) -> bytes:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * exponent)) + bytes(2)

    text = b"test"
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"cprt": b"text\0\0\0\0" + text + b"\0\0\0\0"}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78 + 1)
    if space == "gray":
        tags[b"kTRC"] = curve(1.0)
    else:
        matrix, exponent = PRIMARIES[space]
        for letter, column in zip("rgb", np.array(matrix).T, strict=True):
            tags[f"{letter}XYZ".encode()], tags[f"{letter}TRC".encode()] = xyz(column), curve(exponent)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    head = struct.pack(">II", place + len(body), 0) + struct.pack(">I", 0x02100000) + b"mntr"
    head += (b"GRAY" if space == "gray" else b"RGB ") + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(struct.pack(">i", round(65536 * v)) for v in (0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
