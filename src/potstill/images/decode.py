"""One way to turn any photo into upright 8-bit RGB pixels in sRGB. Nothing else in Potstill opens a photo.

Training, checking, predicting and serving all see the same picture. `formats` says what is read, `jpeg` and `png` look
at the files themselves, `orientation`, `depth` and `color` turn and convert the pixels.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageFile

from potstill.data.resize import bicubic
from potstill.images import guard
from potstill.images.color import to_srgb
from potstill.images.depth import OWN, Extent, GrayLevels, extent_of, is_deep, to_8_bit
from potstill.images.errors import BadPhotoError
from potstill.images.formats import Opened, open_photo, text_of
from potstill.images.orientation import orientation_of_image, turned
from potstill.images.stored import Stored

MAX_PIXELS = 64_000_000
"""Photos above 64 megapixels are refused before they are decoded: decompression bombs would exhaust the memory. A JPEG
is decoded at a half, a quarter or an eighth of its size instead."""

MAX_JPEG_PIXELS = 256_000_000
"""JPEGs above 256 megapixels are refused: phones take photos of up to 200."""

MAX_BYTES = 200 * 2**20
"""Files above 200 MiB are refused before they are read."""

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NEARLY_WHITE = 248
"""A picture with transparent parts that is nowhere darker than this on white, such as a white icon, is put on black."""

Resize = Callable[[Image.Image, tuple[int, int]], Image.Image]
"""Makes an RGB picture of (width, height) from a larger one."""

assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated photo must be an error, never a gray rectangle"


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture, and what the file was before."""

    image: Image.Image
    format: str
    mode: str
    width: int
    """Of the upright photo, in pixels, before any shrinking."""
    height: int
    animated: bool
    """Whether there are several frames, of which this is the first."""
    rotated: bool = False
    """Whether it was stored turned or mirrored, and its metadata said so."""


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
    gray: GrayLevels = OWN,
    resize: Resize = bicubic,
) -> Decoded:
    """Decode the bytes of a photo file to upright 8-bit RGB.

    Args:
        data: the whole file.
        short_side: shrink so that the shorter side has this many pixels; never enlarges. JPEG is decoded at a
            reduced scale where that is still at least twice as large, which is several times faster.
        min_side: photos with a shorter side below this many pixels are refused.
        max_pixels: photos with more pixels are refused, and a JPEG is decoded at a reduced scale.
        gray: black and white of gray photos with more than 8 bits.
        resize: how to shrink.
    Raises:
        BadPhotoError: code `empty`, `not_image`, `needs_extra`, `too_large`, `too_small`, `corrupt`. A photo that takes
            more than `guard.SECONDS` or `guard.MEGABYTES` to decode is `too_large`.
    """
    draft_side = None if short_side is None else 2 * short_side
    shrink_to = short_side if resize is bicubic else None  # then no large picture leaves a process of its own
    options = {"min_side": min_side, "max_pixels": max_pixels, "draft_side": draft_side, "shrink_to": shrink_to}
    decoded = _decoded(data, gray, **options)
    return replace(decoded, image=shrink(decoded.image, short_side, resize))


def decode_thumbnail(data: bytes, *, side: int, min_side: int = 1, gray: GrayLevels = OWN) -> Decoded:
    """Decode a photo to upright RGB with a shorter side between `side` and twice that, by whole factors only.

    For statistics of a photo, not for training on it: twice as fast as `decode`, and the file is still decoded to its
    last byte. Raises as `decode` does.
    """
    return _decoded(data, gray, min_side=min_side, max_pixels=MAX_PIXELS, draft_side=side, reduce_to=side)


def _decoded(data: bytes, gray: GrayLevels, **options: Any) -> Decoded:
    """What `decode_here` gives, from a process of its own where that may take long or much memory."""
    if len(data) > MAX_BYTES:
        raise BadPhotoError("too_large", f"{len(data):,} bytes, limit {MAX_BYTES:,}")
    try:
        if len(data) <= guard.LIGHT_BYTES:
            return decode_here(data, gray=gray, light=True, **options)
    except _HeavyPhotoError:
        pass
    facts, image = guard.in_own_process("decoded", data, {"gray": gray.as_dict(), **options})
    assert image is not None
    return Decoded(image, **facts)


class _HeavyPhotoError(Exception):
    """Decoding this photo may take long, or much memory."""


def decode_here(
    data: bytes,
    *,
    gray: GrayLevels,
    min_side: int,
    max_pixels: int,
    draft_side: int | None,
    reduce_to: int | None = None,
    shrink_to: int | None = None,
    light: bool = False,
) -> Decoded:
    """Decode in this process.

    Args:
        gray, min_side, max_pixels: as of `decode`.
        draft_side: see `_draft`.
        reduce_to: see `_load`.
        shrink_to: shrink, by `bicubic`, so that the shorter side has this many pixels.
        light: raise _HeavyPhotoError for a photo that may take long, or much memory.
    """
    with _SILENCE:
        opened = _open(data, min_side=min_side, max_pixels=max_pixels)
        if light and not guard.is_light(opened):
            raise _HeavyPhotoError
        loaded = _load(opened, gray, draft_side=draft_side, max_pixels=max_pixels, reduce_to=reduce_to)
        return replace(loaded, image=shrink(loaded.image, shrink_to))


def normalize(image: Image.Image, *, gray: GrayLevels = OWN) -> Image.Image:
    """A Pillow image as upright 8-bit RGB, as `decode` does it with a file.

    Raises:
        BadPhotoError: code `empty` without pixels, `corrupt` where Pillow cannot load them.
    """
    if 0 in image.size:
        raise BadPhotoError("empty", f"it has {image.width} × {image.height} pixels")
    with _SILENCE:
        try:
            image.load()
            return to_rgb(turned(image, orientation_of_image(image)), gray)
        except Exception as error:
            raise BadPhotoError("corrupt", text_of(error)) from None


def _open(data: bytes, *, min_side: int, max_pixels: int) -> Opened:
    """Read the header of a photo file and check its size; no pixel is decoded."""
    if not data:
        raise BadPhotoError("empty", "the file has 0 bytes")
    opened = open_photo(data)
    width, height = opened.image.size
    limit = max(max_pixels, MAX_JPEG_PIXELS) if opened.segments else max_pixels
    if width * height > limit:
        what = "a JPEG" if opened.segments else f"{opened.image.format} (a JPEG may have {MAX_JPEG_PIXELS / 1e6:.0f})"
        raise BadPhotoError(
            "too_large", f"{width} × {height} pixels, limit {limit / 1e6:.0f} Mpx for {what}; save a smaller copy"
        )
    if min(width, height) < min_side:
        raise BadPhotoError("too_small", f"{width} × {height} pixels, shorter side below {min_side}")
    return opened


def _draft(image: Image.Image, side: int | None, max_pixels: int) -> None:
    """Have a JPEG decoded at a reduced scale, if it then has a shorter side of at least `side`, or has more than
    `max_pixels`."""
    if image.format not in ("JPEG", "MPO"):
        return
    width, height = image.size
    ratio = 1.0 if side is None else side / min(width, height)
    if ratio < 1:
        width, height = int(width * ratio) + 1, int(height * ratio) + 1
    while width * height > max_pixels:
        width, height = width // 2, height // 2
    if (width, height) != image.size:
        image.draft("RGB", (width, height))


def _load(
    opened: Opened,
    gray: GrayLevels,
    *,
    draft_side: int | None,
    max_pixels: int = MAX_PIXELS,
    reduce_to: int | None = None,
) -> Decoded:
    """Decode the pixels, upright and in RGB.

    Args:
        draft_side, max_pixels: see `_draft`.
        reduce_to: average blocks of pixels while the shorter side stays at least this long.
    """
    image, size = opened.image, opened.image.size
    file_format, mode = image.format or "?", image.mode
    try:
        animated = getattr(image, "is_animated", False)  # not n_frames, which reads all of the file
        _draft(image, draft_side, max_pixels)
        image.load()
        fault = opened.damage()
    except MemoryError:
        raise
    except Exception as error:
        raise BadPhotoError("corrupt", opened.place_of_error() or text_of(error)) from None
    if fault:
        raise BadPhotoError("corrupt", fault)
    try:
        if reduce_to is not None and (factor := min(image.size) // reduce_to) > 1:
            image = _reduce(image, factor)
        image = to_rgb(turned(image, opened.orientation), gray, opened.white)
    except MemoryError:
        raise
    except Exception as error:
        raise BadPhotoError("corrupt", text_of(error)) from None
    width, height = size[::-1] if opened.orientation > 4 else size
    return Decoded(image, file_format, mode, width, height, animated, opened.orientation > 1)


def decode_file(
    path: Path,
    *,
    short_side: int | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    gray: GrayLevels = OWN,
) -> Decoded:
    """`decode` for a path. Raises BadPhotoError, code `unreadable`, where the file cannot be read."""
    return decode(read_bytes(path), short_side=short_side, min_side=min_side, max_pixels=max_pixels, gray=gray)


def read_extent(path: Path | Stored) -> Extent | None:
    """The gray values of a photo with more than 8 bits; None for other photos, and for files that are not usable."""
    try:
        data = read_bytes(path)
        if len(data) <= guard.LIGHT_BYTES:
            return extent_here(data, light=True)
    except BadPhotoError:
        return None
    except _HeavyPhotoError:
        pass
    try:
        facts, _ = guard.in_own_process("extent", data, {})
    except BadPhotoError:
        return None
    return Extent(**facts) if facts else None


def extent_here(data: bytes, *, light: bool = False) -> Extent | None:
    """The gray values of a file, read in this process; arguments as of `decode_here`."""
    with _SILENCE:
        opened = _open(data, min_side=1, max_pixels=MAX_PIXELS)
        if not is_deep(opened.image.mode):
            return None
        if light and not guard.is_light(opened):
            raise _HeavyPhotoError
        try:
            opened.image.load()
        except (OSError, ValueError, SyntaxError):
            return None
        return extent_of(opened.image, opened.white)


def read_bytes(path: Path | Stored) -> bytes:
    """The bytes of a photo file, or of one inside of a large file, refused before reading when it is too large."""
    if not isinstance(path, Path):
        if path.size > MAX_BYTES:
            raise BadPhotoError("too_large", f"{path.size:,} bytes, limit {MAX_BYTES:,}")
        return path.read()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadPhotoError("too_large", f"{path.stat().st_size:,} bytes, limit {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadPhotoError("unreadable", error.strerror or str(error)) from None


def to_rgb(image: Image.Image, gray: GrayLevels = OWN, white: float = 0) -> Image.Image:
    """Any Pillow mode to RGB in sRGB. More than 8 bits are scaled, not clipped; transparent parts become white.

    Args:
        gray: black and white of gray photos with more than 8 bits.
        white: the largest gray value that the file declares, where it does.
    """
    profile = image.info.get("icc_profile")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if is_deep(image.mode):
        image = to_8_bit(image, gray, white)
    elif has_alpha:
        return _on_background(image, profile)
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image = to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def shrink(image: Image.Image, short_side: int | None, resize: Resize = bicubic) -> Image.Image:
    """Make the shorter side `short_side` pixels, keeping the shape. Small photos stay as they are."""
    if short_side is None or min(image.size) <= short_side:
        return image
    scale = short_side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return resize(image, size)


def _on_background(image: Image.Image, profile: object) -> Image.Image:
    """What is transparent becomes white; where nothing would show on white, black."""
    size, rgba = image.size, image if image.mode == "RGBA" else image.convert("RGBA")
    colors, alpha = to_srgb(rgba.convert("RGB"), profile), rgba.getchannel("A")
    del image, rgba  # large photos: one copy less
    white = Image.new("RGB", size, WHITE)
    white.paste(colors, mask=alpha)
    if min(low for low, _ in _extremes(white)) < NEARLY_WHITE:
        return white
    black = Image.new("RGB", size, BLACK)
    black.paste(colors, mask=alpha)
    return black if any(high for _, high in _extremes(black)) else white


def _extremes(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The smallest and the largest value of each channel of an RGB picture; needs no copy of it."""
    return cast(tuple[tuple[int, int], ...], image.getextrema())


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    """`Image.reduce`, keeping what to_rgb reads. Modes that cannot be averaged stay large."""
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr", "LAB") or "transparency" in image.info:
        return image
    small = image.reduce(factor)
    small.info = image.info
    return small
