"""Every kind of photo file becomes the same upright 8-bit RGB; everything else is refused with a stable code."""

import io
import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from potstill.images import color, guard
from potstill.images import decode as module
from potstill.images.decode import decode, decode_file, read_extent, to_rgb
from potstill.images.errors import BadPhotoError
from potstill.images.formats import open_photo
from potstill.images.orientation import entries

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
"""A gray ramp, dark at the left, (48, 64)."""


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, **options: int) -> np.ndarray:
    image = decode(data, **options).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


GRAY = Image.fromarray(RAMP)
DEEP = Image.fromarray(RAMP.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encoded(GRAY), 0),
        (encoded(GRAY.convert("RGB")), 0),
        (encoded(GRAY.convert("RGB"), "BMP"), 0),
        (encoded(GRAY.convert("RGB"), "WEBP", lossless=True), 0),
        (encoded(GRAY, "TIFF"), 0),
        (encoded(GRAY.convert("RGB"), "JPEG", quality=98), 3),
        (encoded(GRAY.convert("CMYK"), "JPEG", quality=98), 4),
        (encoded(GRAY.convert("CMYK"), "TIFF"), 1),
        (encoded(GRAY.convert("P")), 1),
        (encoded(GRAY.convert("P"), "GIF"), 1),
        (encoded(GRAY.convert("LA")), 0),
        (encoded(GRAY.convert("RGBA")), 0),
        (encoded(Image.fromarray(RAMP.astype(np.uint16) * 257)), 1),
        (encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"), 1),
        (encoded(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"), 1),
        (encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"), 1),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), 1),
        (encoded(GRAY.convert("YCbCr"), "TIFF", compression="tiff_lzw"), 2),
    ],
    ids=[
        "gray",
        "rgb",
        "bmp",
        "webp",
        "tiff",
        "jpeg",
        "cmyk-jpeg",
        "cmyk",
        "palette",
        "gif",
        "la",
        "rgba",
        "16-png",
        "16-tiff",
        "32-tiff",
        "unit-float",
        "float",
        "ycc",
    ],
)
def test_every_kind_of_file_shows_the_same_ramp(data: bytes, tolerance: int) -> None:
    expected = np.repeat(RAMP[..., None], 3, -1)
    assert np.abs(pixels(data) - expected).max() <= tolerance


def test_sixteen_bit_photos_do_not_become_white() -> None:
    """Pillow's own convert("RGB") clips 16-bit gray at 255: nearly everything becomes white."""
    dark = Image.fromarray(np.full((40, 40), 20_000, np.uint16))
    assert pixels(encoded(dark)).max() == round(20_000 / 257)


def test_one_bit_pictures_are_black_and_white() -> None:
    found = pixels(encoded(GRAY.convert("1")))
    assert set(np.unique(found)) == {0, 255}


def test_transparent_pixels_show_white_whatever_color_hides_below() -> None:
    array = np.zeros((32, 32, 4), np.uint8)
    array[:, 16:] = (200, 10, 10, 255)
    for data in (encoded(Image.fromarray(array)), encoded(Image.fromarray(array), "WEBP", lossless=True)):
        found = pixels(data)
        assert (found[:, :16] == 255).all()
        assert (found[:, 16:] == (200, 10, 10)).all()


def test_transparent_palette_entry_shows_white() -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (16, 0, 32, 32))
    found = pixels(encoded(image, transparency=0))
    assert (found[:, :16] == 255).all()
    assert (found[:, 16:] == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32] = (250, 0, 0)  # red at the top left
    upright[:24, 32:] = (0, 250, 0)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned; "rotate 90° clockwise to view"
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    result = decode(data)
    assert (result.width, result.height) == (64, 48) == result.image.size
    found = np.asarray(result.image).astype(int)
    assert np.abs(found[10, 10] - (250, 0, 0)).max() < 12
    assert np.abs(found[10, 54] - (0, 250, 0)).max() < 12
    assert found[40, 30].max() < 12


def test_broken_exif_does_not_spoil_a_good_photo() -> None:
    data = encoded(GRAY.convert("RGB"), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff")
    assert decode(data).image.size == (64, 48)


def test_threads_that_decode_at_once_hear_no_warning_and_leave_the_filters_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_inside, second_inside, first_out = (threading.Event() for _ in range(3))
    real = Image.open

    def open_and_warn(file: io.BytesIO, **options: object) -> Image.Image:
        if threading.current_thread().name.startswith("first"):
            first_inside.set()
            assert second_inside.wait(10)
        else:
            second_inside.set()
            assert first_out.wait(10)
        warnings.warn("broken EXIF", UserWarning, stacklevel=1)
        return real(file, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", open_and_warn)
    data, filters = encoded(GRAY), list(warnings.filters)
    with ThreadPoolExecutor(1, "first") as one, ThreadPoolExecutor(1, "second") as other:
        first = one.submit(decode, data)
        assert first_inside.wait(10)
        second = other.submit(decode, data)
        assert first.result(10).image.size == (64, 48)
        first_out.set()
        assert second.result(10).image.size == (64, 48)
    assert warnings.filters == filters


def test_animations_show_their_first_frame() -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue", "green")]
    for kind in ("GIF", "PNG", "WEBP"):
        result = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert result.animated
        assert np.abs(np.asarray(result.image).astype(int) - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("animated", [False, True])
def test_a_file_cut_anywhere_is_refused_or_whole_never_a_crash(kind: str, animated: bool) -> None:
    more = (
        {"save_all": True, "append_images": [GRAY.convert("RGB").rotate(a) for a in (90, 180)]}
        if animated and kind not in ("JPEG", "BMP")
        else {}
    )
    data = encoded(GRAY.convert("RGB"), kind, **more)
    codes = []
    for end in range(0, len(data), max(1, len(data) // 60)):
        try:
            decode(data[:end])
        except BadPhotoError as error:
            codes.append(error.code)
    assert set(codes) <= {"empty", "not_image", "corrupt"}
    assert len(codes) > 15


def test_a_truncated_jpeg_is_corrupt_not_half_gray() -> None:
    data = encoded(Image.effect_noise((200, 200), 80).convert("RGB"), "JPEG")
    with pytest.raises(BadPhotoError, match="corrupt") as caught:
        decode(data[: len(data) // 2])
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "empty", "0 bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_image", "web page"),
        (b'{"error": "not found"}', "not_image", "JSON"),
        (b'<?xml version="1.0"?><svg/>', "not_image", "SVG"),
        (b"%PDF-1.7 ...", "not_image", "PDF"),
        (b"\x00\x01\x02" * 50, "not_image", "Potstill reads: JPEG"),
        (encoded(Image.new("RGB", (31, 400))), "too_small", "31 × 400"),
    ],
)
def test_what_is_not_a_usable_photo_says_what_it_is(data: bytes, code: str, message: str) -> None:
    with pytest.raises(BadPhotoError, match=message) as caught:
        decode(data, min_side=32)
    assert caught.value.code == code


def bomb(side: int) -> bytes:
    """A PNG of side × side pixels in a few bytes of header: its pixel data is missing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 12_000, 30_000])
def test_decompression_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(BadPhotoError) as caught:
        decode(bomb(side))
    assert caught.value.code == "too_large"


def test_files_above_the_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    (tmp_path / "big.png").write_bytes(b"x" * 101)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was read"))
    with pytest.raises(BadPhotoError) as caught:
        decode_file(tmp_path / "big.png")
    assert caught.value.code == "too_large"


def test_a_heavy_photo_is_decoded_the_same_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [encoded(GRAY, "PNG"), encoded(GRAY.convert("RGBA"), "WEBP", lossless=True), encoded(DEEP, "PNG")]
    here = [decode(photo, short_side=20) for photo in photos]
    monkeypatch.setattr(guard, "LIGHT_PIXELS", 10)
    for photo, expected in zip(photos, here, strict=True):
        found = decode(photo, short_side=20)
        assert np.array_equal(np.asarray(found.image), np.asarray(expected.image))
        assert replace(found, image=expected.image) == expected


def test_what_a_heavy_photo_is_rejected_for_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LIGHT_BYTES", 10)
    with pytest.raises(BadPhotoError, match="too_small: 64 × 48 pixels"):
        decode(encoded(GRAY, "PNG"), min_side=60)
    (tmp_path / "deep.png").write_bytes(encoded(DEEP, "PNG"))
    (tmp_path / "flat.png").write_bytes(encoded(GRAY, "PNG"))
    heavy = [read_extent(tmp_path / name) for name in ("deep.png", "flat.png")]
    monkeypatch.undo()
    assert heavy == [read_extent(tmp_path / name) for name in ("deep.png", "flat.png")]
    assert heavy[0] is not None


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("forever", "too_large: decoding it takes more than 1 s of a core"),
        ("memory", "too_large: decoding it takes more than 1,500 MB of memory"),
        ("crash", r"corrupt: its decoder crashed \(signal 11\)"),
    ],
)
def test_time_and_memory_of_a_photo_are_limited(work: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 1)
    monkeypatch.setattr(guard, "_MODULE", "tests.greedy")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with pytest.raises(BadPhotoError, match=reason):
        guard.in_own_process(work, b"", {})


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadPhotoError) as caught:
        decode_file(tmp_path / "none.png")
    assert caught.value.code == "unreadable"


def test_shrinking_keeps_the_shape_and_never_enlarges() -> None:
    large = Image.effect_noise((600, 400), 30).convert("RGB")
    for kind in ("JPEG", "PNG"):
        data = encoded(large, kind)
        assert decode(data, short_side=100).image.size == (150, 100)
        assert decode(data, short_side=1000).image.size == (600, 400)
    assert decode(encoded(large), short_side=100).width == 600, "of the file, before shrinking"


def test_a_jpeg_decoded_at_a_reduced_scale_looks_like_one_decoded_whole() -> None:
    smooth = Image.fromarray(RAMP).resize((1200, 900), Image.Resampling.BICUBIC).convert("RGB")
    data = encoded(smooth, "JPEG", quality=95)
    whole = decode(data).image.resize((120, 90), Image.Resampling.BICUBIC, reducing_gap=3.0)
    assert np.abs(np.asarray(whole).astype(int) - pixels(data, short_side=90)).max() <= 4


def test_to_rgb_takes_pillow_images_of_every_mode() -> None:
    for mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"):
        assert to_rgb(Image.new(mode, (8, 8))).mode == "RGB", mode


def many_segments() -> bytes:
    data = encoded(GRAY, "JPEG")
    return data[:2] + b"\xff\xfe\0\2" * 20_001 + data[2:]


def many_scans() -> bytes:
    data = encoded(GRAY, "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 100 + data[-2:]


def many_restarts() -> bytes:
    data = encoded(GRAY, "JPEG")
    return (
        data[:2]
        + b"\xff\xdd\0\4\0\1"
        + data[2:-2]
        + bytes(b for n in range(64) for b in (255, 0xD0 + n % 8))
        + data[-2:]
    )


def many_chunks() -> bytes:
    data = encoded(GRAY)
    return data[:33] + (struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))) * 100_001 + data[33:]


def many_strips() -> bytes:
    data = bytearray(encoded(GRAY, "TIFF"))
    place = next(place for place, tag in entries(bytes(data)) if tag == 273)
    data[place + 4 : place + 8] = struct.pack("<I", 200_001)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (many_segments, "too_large: more than 20,000 segments"),
        (many_scans, "too_large: more than 100 scans"),
        (many_restarts, r"corrupt: damaged: a marker \(FF D0\)"),
        (many_chunks, "too_large: more than 100,000 parts"),
        (many_strips, "too_large: more than 200,000 strips or tiles"),
    ],
)
def test_files_of_more_pieces_than_a_photo_has_are_refused(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(BadPhotoError, match=reason):
        decode(make())


def test_plain_text_is_heavier_than_bytes() -> None:
    text, packed = b"P2 600 500 9\n" + b"1 " * 300_000, b"P5 600 500 9\n" + bytes(300_000)
    assert [guard.is_light(open_photo(data)) for data in (text, packed)] == [False, True]
    assert guard.is_light(open_photo(b"P2 60 50 9\n" + b"1 " * 3_000))


def test_a_huge_profile_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(color, "_transform", lambda profile, mode: pytest.fail("was read"))
    picture = GRAY.convert("RGB")
    assert color.to_srgb(picture, bytes(5 * 2**20)) is picture
