"""hypothesis: any picture in any mode, format, size and orientation, whole or cut, is upright RGB or refused."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from potstill.data.pixels import encode
from potstill.images.decode import decode
from potstill.images.depth import GrayLevels
from potstill.images.errors import BadPhotoError

CODES = {"empty", "not_image", "too_large", "too_small", "corrupt"}
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
WRITES = {
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "TIFF": {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"},
    "JPEG": {"L", "RGB", "CMYK", "YCbCr"},
    "WEBP": {"L", "RGB", "RGBA"},
    "GIF": {"1", "L", "P"},
    "BMP": {"1", "L", "P", "RGB", "RGBA"},
    "PPM": {"1", "L", "RGB"},
}
LOSSY = {"JPEG", "WEBP"}

sides = st.one_of(st.just(1), st.integers(1, 5), st.integers(1, 70))
"""Widths and heights, thin ones often."""


def drawn(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """Noise in this mode, transparency included."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return Image.fromarray(noise[..., 0].astype(np.int32 if mode == "I" else np.float32))
    rgba = Image.fromarray(noise)
    if mode == "P":
        return rgba.convert("RGB").quantize(16)
    if mode == "PA":
        return rgba.convert("RGB").quantize(16).convert("PA")
    return (rgba if mode in ("RGBA", "LA") else rgba.convert("RGB")).convert(mode)


@st.composite
def files(draw: st.DrawFn) -> tuple[Image.Image, str, bytes]:
    """(the picture, the format, the file's bytes)."""
    kind = draw(st.sampled_from(sorted(WRITES)))
    mode = draw(st.sampled_from([m for m in MODES if m in WRITES[kind]]))
    image = drawn(mode, draw(sides), draw(sides), draw(st.integers(0, 1000)))
    options: dict[str, Any] = (
        {"transparency": draw(st.integers(0, 15))} if mode == "P" and kind in ("PNG", "GIF") else {}
    )
    if mode == "YCbCr" and kind == "TIFF":
        options = {"compression": "tiff_lzw"}  # without, Pillow cannot read back what it wrote
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return image, kind, buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(file=files(), short_side=st.one_of(st.none(), st.integers(1, 80)))
def test_whole_files_of_any_kind_are_read(file: tuple[Image.Image, str, bytes], short_side: int | None) -> None:
    image, kind, data = file
    photo = decode(data, short_side=short_side)
    assert photo.image.mode == "RGB"
    assert (photo.width, photo.height) == image.size
    assert min(photo.image.size) == min(*image.size, short_side or 10**6)
    assert max(photo.image.size) <= max(image.size)
    shape = photo.image.width / photo.image.height, image.width / image.height
    assert abs(shape[0] - shape[1]) <= max(shape) / min(photo.image.size), "the shape is kept, up to whole pixels"
    assert len(encode(photo.image, jpeg=False)) == 3 * photo.image.width * photo.image.height
    assert not photo.animated
    if short_side is None and kind not in LOSSY and image.mode in ("1", "L", "RGB"):
        assert (np.asarray(photo.image) == np.asarray(image.convert("RGB"))).all()


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides, mode=st.sampled_from(["P", "RGBA", "LA"]), seed=st.integers(0, 100))
def test_what_is_transparent_is_white_or_where_all_is_white_black(
    width: int, height: int, mode: str, seed: int
) -> None:
    image = drawn(mode, width, height, seed)
    if mode == "P":
        hidden = np.asarray(image) == 0
        options = {"transparency": 0}
    else:
        image.putalpha(Image.fromarray(np.asarray(image.getchannel("A")) // 128 * 255))
        hidden = np.asarray(image.getchannel("A")) == 0
        options = {}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    pixels = np.asarray(decode(buffer.getvalue()).image)
    assert (pixels[hidden] == 255).all() or (pixels[hidden] == 0).all()
    shown = np.asarray(image.convert("RGBA").convert("RGB"))[~hidden]
    assert (pixels[~hidden] == shown).all()


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, low=st.integers(0, 200), span=st.integers(1, 55))
def test_sixteen_bits_keep_their_order(width: int, height: int, low: int, span: int) -> None:
    values = (np.arange(width * height).reshape(height, width) % (span + 1) + low).astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, kind)
        pixels = np.asarray(decode(buffer.getvalue(), gray=GrayLevels(integer=(0, 65535))).image)
        assert (pixels == (values // 257)[..., None]).all(), "scaled to 8 bits, neither clipped to white nor wrapped"


TURNS = {  # what EXIF says of a stored photo → how the upright one comes from it
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@settings(max_examples=80, deadline=None)
@given(
    width=sides,
    height=sides,
    orientation=st.one_of(st.sampled_from(sorted(TURNS)), st.integers(0, 65535)),
    kind=st.sampled_from(["PNG", "TIFF", "WEBP"]),
    mode=st.sampled_from(["RGB", "L", "I;16", "RGBA"]),
)
def test_every_orientation_is_undone(width: int, height: int, orientation: int, kind: str, mode: str) -> None:
    mode = mode if mode in WRITES[kind] else "RGB"
    image = drawn(mode, width, height, 1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    plain, turned = io.BytesIO(), io.BytesIO()
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image.save(plain, kind, **options)
    image.save(turned, kind, exif=exif, **options)
    stored = np.asarray(decode(plain.getvalue()).image)
    photo = decode(turned.getvalue())
    expected = TURNS.get(orientation, TURNS[1])(stored)
    assert (np.asarray(photo.image) == expected).all()
    assert (photo.height, photo.width) == expected.shape[:2]


@settings(max_examples=120, deadline=None)
@given(file=files(), cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
def test_spoiled_files_are_refused_with_a_known_code_or_read(
    file: tuple[Image.Image, str, bytes], cut: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(file[2][: round(cut * len(file[2]))])
    for place, value in flips:
        if data:
            data[min(len(data) - 1, int(place * len(data)))] = value
    _read_or_refused(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"II*\0", b"BM", b"P6 "]
    ),
    rest=st.binary(max_size=200),
)
def test_bytes_that_only_begin_like_a_photo_are_refused(start: bytes, rest: bytes) -> None:
    _read_or_refused(start + rest)


def _read_or_refused(data: bytes) -> None:
    try:
        photo = decode(data, short_side=16, max_pixels=1_000_000)
    except BadPhotoError as error:
        refused = error
    else:
        assert photo.image.mode == "RGB"
        assert photo.image.width * photo.image.height > 0
        return
    assert refused.code in CODES
    assert refused.reason
    assert "\n" not in refused.reason


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_photo_of_one_pixels_width_stays_one(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), short_side=224).image.size == size
    with pytest.raises(BadPhotoError, match="too_small"):
        decode(buffer.getvalue(), min_side=32)


def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding() -> None:
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 10**9, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    with pytest.raises(BadPhotoError, match="too_large"):
        decode(header)
