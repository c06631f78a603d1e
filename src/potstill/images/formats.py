"""Which kinds of files are read, and opening them: a written list, two extras, and a name for what is none of them."""

import importlib
import io
import itertools
import struct
from dataclasses import dataclass, field, replace
from functools import cache

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from potstill.images import jpeg, png
from potstill.images.depth import is_deep
from potstill.images.errors import BadPhotoError
from potstill.images.jpeg import Structure
from potstill.images.orientation import byte_order, entries, orientation_entry, orientation_of, orientation_of_image
from potstill.images.png import Chunk

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO")
"""What Pillow may open, by its names. It knows many more, which nobody keeps photos in; each could be attacked."""

JPEG_MAGIC = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class Extra:
    """A format that another package reads."""

    format: str
    """Pillow's name for it."""
    title: str
    name: str
    """Of Potstill's extra."""
    module: str
    """To import."""
    register: str = ""
    """The function of the module that tells Pillow about the format; where it is empty, importing does."""


HEIF = Extra("HEIF", "a HEIC photo, as iPhones take them", "heif", "pillow_heif", "register_heif_opener")
JXL = Extra("JXL", "a JPEG XL photo", "jxl", "pillow_jxl")

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_JXL_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
MAX_PIECES = 200_000
"""Strips or tiles of a TIFF; with a strip for each row, photos have as many as rows."""
_TIFF_PIECES = (273, 279, 324, 325)
"""Tags with an entry for each strip or tile."""
_TIFF_DIRECTORIES = (0x8769, 0x8825)
"""Tags of a TIFF that lead to EXIF and GPS."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A photo file whose header was read."""

    image: Image.Image
    """Not loaded yet."""
    data: bytes
    """The file, to which `segments` and `chunks` refer."""
    orientation: int = 1
    white: float = 0
    """The largest gray value, where there are more than 8 bits and the file declares how many."""
    segments: Structure | None = None
    """Of a JPEG."""
    chunks: list[Chunk] = field(default_factory=list)
    """Of a PNG."""

    def damage(self) -> str | None:
        """What is wrong with the pixels that were loaded, None where nothing is."""
        if self.segments is not None:
            return jpeg.damage(self.data, self.segments, self.image)
        return png.damage(self.data, self.chunks) if self.chunks else None

    def place_of_error(self) -> str | None:
        """What is wrong with the file of pixels that could not be loaded, None where it is not known."""
        if not self.chunks:
            return None
        return png.damage(self.data, self.chunks) or png.end(self.data, self.chunks)


def open_photo(data: bytes) -> Opened:
    """Read the header of a photo file; no pixel is decoded.

    Raises:
        BadPhotoError: code `not_image`, `needs_extra`, `too_large`, `corrupt`.
    """
    try:
        if data.startswith(JPEG_MAGIC):
            return _open_jpeg(data)
        if data.startswith(png.SIGNATURE):
            return _open_png(data)
        if data.startswith((b"II", b"MM")):
            return _open_tiff(data)
        if _is_boxed(data):
            return _open_boxed(data)
        if data.startswith(_JXL_MAGIC):
            return _with_extra(data, JXL)
        opened = Opened(Image.open(io.BytesIO(data), formats=FORMATS), data)
        if opened.image.format == "WEBP":
            return replace(opened, orientation=orientation_of(*_webp_metadata(data)))
        return replace(opened, white=65535 if opened.image.format in ("PPM", "JPEG2000") else 0)
    except (BadPhotoError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadPhotoError("not_image", what_it_is(data)) from None
    except Image.DecompressionBombError as error:  # Pillow's limit is higher than ours, but checked earlier
        raise BadPhotoError("too_large", text_of(error)) from None
    except Exception as error:
        raise BadPhotoError("corrupt", text_of(error)) from None


def what_it_is(data: bytes) -> str:
    """The kind of a file that is no photo, in words."""
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not a photo"
    if start.startswith((b"{", b"[")):
        return "this is JSON text, not a photo"
    if start.startswith((b"<svg", b"<?xml")):
        return "this is SVG or XML, not a photo"
    if start.startswith(b"%pdf"):
        return "this is a PDF, not a photo"
    return "not an image format that Potstill reads: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PPM, JPEG 2000 or ICO"


def text_of(error: Exception) -> str:
    """An error of a decoder, in one line."""
    if "truncated" in str(error):
        return "cut off: the file ends before the picture does"
    return " ".join(str(error).split()) or type(error).__name__


def _open_jpeg(data: bytes) -> Opened:
    found = jpeg.structure(data)
    if found.segments > jpeg.MAX_SEGMENTS:
        raise BadPhotoError("too_large", f"more than {jpeg.MAX_SEGMENTS:,} segments")
    if len(found.scans) > jpeg.MAX_SCANS:
        raise BadPhotoError("too_large", f"more than {jpeg.MAX_SCANS} scans")
    # Not Image.open: its limit on pixels does not know that a JPEG can be decoded at a reduced scale. Without its EXIF,
    # because Pillow reads more of that than the pixels need.
    image = JpegImagePlugin.jpeg_factory(io.BytesIO(found.without_app1))
    return Opened(image, data, orientation_of(found.exif, found.xmp), segments=found)


def _open_png(data: bytes) -> Opened:
    parts = list(itertools.islice(png.chunks(data), png.MAX_CHUNKS + 1))
    if len(parts) > png.MAX_CHUNKS:
        raise BadPhotoError("too_large", f"more than {png.MAX_CHUNKS:,} parts")
    pixels = png.only_pixels(data, parts)
    orientation, bits = orientation_of(*png.metadata(data, parts)), png.significant_bits(data, parts)
    parts = parts if pixels is data else list(png.chunks(pixels))
    try:
        image = Image.open(io.BytesIO(pixels), formats=("PNG",))
    except UnidentifiedImageError:
        reason = png.damage(pixels, parts) or png.end(pixels, parts) or "damaged: its header is not that of a PNG"
        raise BadPhotoError("corrupt", reason) from None
    # The standard wants values scaled to all 16 bits; some cameras store them as they are.
    white = 2.0**bits - 1 if bits and is_deep(image.mode) else 0
    return Opened(image, pixels, orientation, white, chunks=parts)


def _open_tiff(data: bytes) -> Opened:
    orientation = orientation_of([data])
    if (order := byte_order(data)) is not None:
        for place, tag in entries(data):
            if tag in _TIFF_PIECES and struct.unpack_from(f"{order}I", data, place + 4)[0] > MAX_PIECES:
                raise BadPhotoError("too_large", f"more than {MAX_PIECES:,} strips or tiles")
        data = _without_tags(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    tags = getattr(image, "tag_v2", {})
    bits, largest = tags.get(258, (16,))[0], tags.get(281, 0)
    declared = largest[0] if isinstance(largest, tuple) else largest
    white = 2.0**bits - 1 if bits not in (16, 32) else float(declared)
    return Opened(image, data, orientation, white if is_deep(image.mode) else 0)


def _without_tags(data: bytes) -> bytes:
    """A TIFF that says it is upright, and nothing of EXIF: Pillow would turn some itself, and stumble over others."""
    changed = bytearray(data)
    order = byte_order(data)
    upright = orientation_entry(data)
    for place, tag in entries(data):
        if place == upright:
            changed[place : place + 12] = struct.pack(f"{order}HHIHH", tag, 3, 1, 1, 0)
        elif tag in _TIFF_DIRECTORIES:
            changed[place : place + 12] = struct.pack(f"{order}HHIHH", 65000, 3, 1, 1, 0)
    return bytes(changed)


def _is_boxed(data: bytes) -> bool:
    """Whether this is one of the formats that are made of boxes: AVIF, HEIC and their relatives."""
    return data[4:8] == b"ftyp" and bool(_brands(data) & (_AVIF_BRANDS | _HEIF_BRANDS))


def _brands(data: bytes) -> set[bytes]:
    end = min(int.from_bytes(data[:4]), len(data))
    return {data[8:12]} | {data[place : place + 4] for place in range(16, end - 3, 4)}


def _open_boxed(data: bytes) -> Opened:
    data = _without_exif_item(data)
    if not _brands(data) & _AVIF_BRANDS:
        return _with_extra(data, HEIF)
    image = Image.open(io.BytesIO(data), formats=("AVIF",))
    return Opened(image, data, orientation_of_image(image))


def _without_exif_item(data: bytes) -> bytes:
    """The file with its EXIF under another name: decoders try to read it, and may fail, though it does not count."""
    place = int.from_bytes(data[:4])
    if data[place + 4 : place + 8] != b"meta":
        return data
    end = place + int.from_bytes(data[place : place + 4])
    return data[:place] + data[place:end].replace(b"Exif\0", b"none\0") + data[end:]


def _with_extra(data: bytes, extra: Extra) -> Opened:
    if not _registered(extra):
        raise BadPhotoError("needs_extra", f"this is {extra.title}; to read it: pip install 'potstill[{extra.name}]'")
    try:
        image = Image.open(io.BytesIO(data), formats=(extra.format,))
    except UnidentifiedImageError:
        raise BadPhotoError("corrupt", f"this should be {extra.title}, but it is damaged") from None
    return Opened(image, data)


@cache
def _registered(extra: Extra) -> bool:
    try:
        module = importlib.import_module(extra.module)
    except ImportError:
        return False
    if extra.register:
        getattr(module, extra.register)()
    return True


def _webp_metadata(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """EXIF blocks and XMP packets."""
    found: dict[bytes, list[bytes]] = {b"EXIF": [], b"XMP ": []}
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        kind, body = data[place : place + 4], place + 8
        if kind in found:
            found[kind].append(data[body : body + length])
        place = body + length + length % 2
    return found[b"EXIF"], found[b"XMP "]
