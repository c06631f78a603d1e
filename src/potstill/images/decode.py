"""One way to turn any photo file into upright 8-bit RGB pixels. Nothing else in Potstill opens a photo.

Gray, palette, alpha, CMYK, 16-bit, EXIF rotation and animations are normalized here, so that training,
checking, predicting and serving all see the same picture.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from potstill.data.resize import bicubic
from potstill.errors import DataError

MAX_PIXELS = 64_000_000
"""Photos above 64 megapixels are refused before they are decoded: decompression bombs would exhaust the memory."""

MAX_BYTES = 200 * 2**20
"""Files above 200 MiB are refused before they are read."""

BACKGROUND = (255, 255, 255)
"""The color behind transparent pixels."""

Resize = Callable[[Image.Image, tuple[int, int]], Image.Image]
"""Makes an RGB picture of (width, height) from a larger one."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated photo must be an error, never a gray rectangle"


class BadPhotoError(DataError):
    """This file is not a usable photo. `code` is a short stable word for tables."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture, and what the file was before."""

    image: Image.Image
    format: str
    mode: str
    width: int
    """Of the upright photo, in pixels, before any shrinking."""
    height: int
    frames: int
    rotated: bool = False
    """Whether it was stored on its side and an EXIF tag said so."""


class _Silence:
    """No warnings (of broken EXIF and the like) while any thread is inside.

    `warnings.catch_warnings` alone is not thread-safe: the first thread to leave would let the others warn, the last
    one would leave all warnings off for good.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings(action="ignore"))
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.close()


_SILENCE = _Silence()


def decode(
    data: bytes,
    *,
    short_side: int | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    resize: Resize = bicubic,
) -> Decoded:
    """Decode the bytes of a photo file to upright 8-bit RGB.

    Args:
        data: the whole file.
        short_side: shrink so that the shorter side has this many pixels; never enlarges. JPEG is decoded at a
            reduced scale where that is still at least twice as large, which is several times faster.
        min_side: photos with a shorter side below this many pixels are refused.
        max_pixels: photos with more pixels are refused.
        resize: how to shrink.
    Raises:
        BadPhotoError: code `empty`, `not_image`, `too_large`, `too_small`, `corrupt`.
    """
    with _SILENCE:
        image = _open(data, min_side=min_side, max_pixels=max_pixels)
        decoded = _load(image, draft_side=None if short_side is None else 2 * short_side)
        return replace(decoded, image=shrink(decoded.image, short_side, resize))


def decode_thumbnail(data: bytes, *, side: int, min_side: int = 1) -> Decoded:
    """Decode a photo to upright RGB with a shorter side between `side` and twice that, by whole factors only.

    For statistics of a photo, not for training on it: twice as fast as `decode`, and the file is still decoded to its
    last byte. Raises as `decode` does.
    """
    with _SILENCE:
        return _load(_open(data, min_side=min_side), draft_side=side, reduce_to=side)


def _open(data: bytes, *, min_side: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header of a photo file and check its size; no pixel is decoded."""
    if not data:
        raise BadPhotoError("empty", "the file has 0 bytes")
    if len(data) > MAX_BYTES:
        raise BadPhotoError("too_large", f"{len(data):,} bytes, limit {MAX_BYTES:,}")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise BadPhotoError("not_image", _what_it_is(data)) from None
    except Image.DecompressionBombError as error:  # Pillow's limit is higher than ours, but checked earlier
        raise BadPhotoError("too_large", _text(error)) from None
    except Exception as error:
        raise BadPhotoError("corrupt", _text(error)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadPhotoError("too_large", f"{width} × {height} pixels, limit {max_pixels / 1e6:.0f} Mpx")
    if min(width, height) < min_side:
        raise BadPhotoError("too_small", f"{width} × {height} pixels, shorter side below {min_side}")
    return image


def _load(image: Image.Image, *, draft_side: int | None, reduce_to: int | None = None) -> Decoded:
    """Decode the pixels, upright and in RGB.

    Args:
        draft_side: a JPEG may be decoded at a reduced scale with a shorter side of at least this many pixels.
        reduce_to: average blocks of pixels while the shorter side stays at least this long.
    """
    width, height = image.size
    file_format, mode = image.format or "?", image.mode
    try:
        frames = getattr(image, "n_frames", 1)  # reads on through the file
        if draft_side is not None and (ratio := draft_side / min(width, height)) < 1:
            image.draft("RGB", (int(width * ratio) + 1, int(height * ratio) + 1))
        image.load()
        if reduce_to is not None and (factor := min(image.size) // reduce_to) > 1:
            image = _reduce(image, factor)
        rotated = image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
        if rotated:
            ImageOps.exif_transpose(image, in_place=True)
        image = to_rgb(image)
    except Exception as error:
        raise BadPhotoError("corrupt", _text(error)) from None
    if (image.width > image.height and width < height) or (image.width < image.height and width > height):
        width, height = height, width
    return Decoded(image, file_format, mode, width, height, frames, rotated)


def decode_file(
    path: Path, *, short_side: int | None = None, min_side: int = 1, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """`decode` for a path. Raises BadPhotoError, code `unreadable`, where the file cannot be read."""
    return decode(read_bytes(path), short_side=short_side, min_side=min_side, max_pixels=max_pixels)


def read_bytes(path: Path) -> bytes:
    """The bytes of a photo file, refused before reading when it is too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadPhotoError("too_large", f"{path.stat().st_size:,} bytes, limit {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadPhotoError("unreadable", error.strerror or str(error)) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB. 16-bit and float are scaled, not clipped; transparency gets a white background."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT or image.mode in ("I", "F"):
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, BACKGROUND)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


def shrink(image: Image.Image, short_side: int | None, resize: Resize = bicubic) -> Image.Image:
    """Make the shorter side `short_side` pixels, keeping the shape. Small photos stay as they are."""
    if short_side is None or min(image.size) <= short_side:
        return image
    scale = short_side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return resize(image, size)


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    """`Image.reduce`, keeping what exif_transpose and to_rgb read. Modes that cannot be averaged stay large."""
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr", "LAB"):
        return image
    small = image.reduce(factor)
    small.info = image.info
    return small


@cache
def _formats() -> tuple[str, ...]:
    """All formats that Pillow reads, except those that start programs (EPS: Ghostscript) or draw a page (WMF)."""
    Image.init()
    return tuple(name for name in Image.ID if name not in ("EPS", "WMF"))


def _to_8_bit(pixels: np.ndarray, mode: str) -> np.ndarray:
    values = pixels.astype(np.float64)
    if mode == "F":
        top = 1.0 if values.max(initial=0) <= 1.0 else max(255.0, values.max())
    elif mode == "I":  # 32-bit integers; Pillow opens some 16-bit files this way
        top = 255.0 if values.max(initial=0) <= 255 else max(65535.0, values.max())
    else:
        top = 65535.0
    return np.clip(np.nan_to_num(values) * (255.0 / top) + 0.5, 0, 255).astype(np.uint8)


def _what_it_is(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not a photo"
    if start.startswith((b"{", b"[")):
        return "this is JSON text, not a photo"
    if start.startswith((b"<svg", b"<?xml")):
        return "this is SVG or XML, not a photo"
    if start.startswith(b"%pdf"):
        return "this is a PDF, not a photo"
    return "not an image format that Pillow can read"


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
