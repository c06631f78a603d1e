"""Which way up a photo is, and turning it. One rule, here and in the exported page (`export/web/page/photo.js`).

The orientation is the first whole number from 1 to 8 that is found: first in the EXIF blocks of a JPEG, PNG or WebP,
then in its XMP. In an EXIF block only the first orientation entry of the first directory is read. It may be stored as
BYTE, SHORT, LONG or as an ASCII digit; of several values the first one counts. Everything else in EXIF is left alone,
however broken it is. AVIF, HEIC and JPEG XL have an orientation of their own, which their decoders follow; what EXIF
says there is ignored, as these formats demand.
"""

import re
import struct
from collections.abc import Iterable

from PIL import Image

_ORIENTATION = 0x0112
_HEADER = b"Exif\0"
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}
"""Codes for `struct`, by EXIF's number of the type."""
_ASCII = 2

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(exif: Iterable[bytes], xmp: Iterable[bytes] = ()) -> int:
    """The orientation, 1 to 8; 1, upright, where nothing says otherwise. Never raises.

    Args:
        exif: blocks of EXIF, with or without the header "Exif" in front.
        xmp: packets of XMP.
    """
    for block in exif:
        if (found := _from_exif(block)) is not None:
            return found
    for packet in xmp:
        if (match := _XMP.search(packet)) is not None:
            return int(match[1])
    return 1


def orientation_of_image(image: Image.Image) -> int:
    """The orientation of a Pillow image, from what Pillow keeps of its file."""
    info = image.info
    texts = [info.get("xmp"), info.get("XML:com.adobe.xmp")]
    xmp = [text.encode() if isinstance(text, str) else text for text in texts]
    # Pillow turns a TIFF itself when it loads the pixels, and reads XMP then, too.
    packets = [] if image.format == "TIFF" else [packet for packet in xmp if isinstance(packet, bytes)]
    exif = info.get("exif")
    return orientation_of([exif] if isinstance(exif, bytes) else [], packets)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright."""
    turn = _TURNS.get(orientation)
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = image.info
    return upright


def orientation_entry(block: bytes) -> int | None:
    """Where the first orientation entry of a TIFF file or EXIF block begins."""
    return next((place for place, tag in entries(block) if tag == _ORIENTATION), None)


def entries(block: bytes) -> Iterable[tuple[int, int]]:
    """(place, tag) of the entries of the first directory, as far as there are bytes."""
    order = byte_order(block)
    if order is None or len(block) < 8:
        return
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return
    (count,) = struct.unpack_from(order + "H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        yield place, struct.unpack_from(order + "H", block, place)[0]


def byte_order(block: bytes) -> str | None:
    """The order's sign for `struct`; None where this is neither EXIF nor TIFF."""
    return {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])


def _from_exif(block: bytes) -> int | None:
    while block.startswith(_HEADER):  # some programs write it twice
        block = block[6:]
    place, order = orientation_entry(block), byte_order(block)
    if place is None or order is None:
        return None
    kind, count, where = struct.unpack_from(order + "HII", block, place + 2)
    code = "c" if kind == _ASCII else _FORMATS.get(kind)
    if code is None or count == 0:
        return None
    size = struct.calcsize(order + code)
    start = place + 8 if size * count <= 4 else where
    if start + size > len(block):
        return None
    (value,) = struct.unpack_from(order + code, block, start)
    if kind == _ASCII:
        value = int(value) if value.isdigit() else 0
    return value if 1 <= value <= 8 else None
