"""Files as people have them: odd metadata, profiles, depths and damage. One test for each kind."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw
from tests.photo_files import exif_block, jpeg_with, png_chunk, png_with, profile_of
from tests.support import draw_photo

from potstill.images import formats
from potstill.images.decode import decode, decode_thumbnail, normalize
from potstill.images.depth import GrayLevels
from potstill.images.errors import BadPhotoError
from potstill.images.levels import folder_levels
from potstill.images.orientation import orientation_of
from potstill.images.statistics import require_usable


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, **options: Any) -> np.ndarray:
    return np.asarray(decode(data, **options).image).astype(int)


def reason(data: bytes) -> str:
    with pytest.raises(BadPhotoError) as caught:
        decode(data)
    assert caught.value.code == "corrupt"
    return caught.value.reason


PHOTO = draw_photo("stripes", 3, width=160, height=120)
PNG, JPEG = saved(PHOTO, "PNG"), saved(PHOTO, "JPEG", quality=90)
GRAY = np.tile(np.linspace(0, 255, 160).round().astype(np.uint8), (120, 1))
XMP = b"<rdf:Description tiff:Orientation='6'/>"


# Turns


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (exif_block(6), 6),
        (exif_block(6, order=">"), 6),
        (exif_block(6, kind=4), 6),
        (exif_block(6, kind=4, order=">"), 6),
        (exif_block(6, kind=1), 6),
        (exif_block(6, kind=2), 6),
        (exif_block(6, count=2), 6),
        (exif_block(6) + b"garbage", 6),
        (b"Exif\0\0" + exif_block(6), 6),
        (b"Exif\0\0Exif\0\0" + exif_block(6), 6),
        (exif_block(8, more=exif_block(3)[10:22]), 8),
        (exif_block(9), 1),
        (exif_block(0), 1),
        (exif_block(6, count=0), 1),
        (exif_block(6, count=1000), 1),
        (exif_block(6)[:20], 1),
        (exif_block(6)[:7], 1),
        (b"", 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"nothing of the kind", 1),
    ],
)
def test_the_orientation_is_the_first_whole_number_in_the_first_entry(exif: bytes, expected: int) -> None:
    assert orientation_of([exif]) == expected
    assert decode(jpeg_with(JPEG, exif=exif)).rotated == (expected > 1)
    assert decode(png_with(PNG, exif=exif)).rotated == (expected > 1)


def test_xmp_counts_only_where_exif_says_nothing() -> None:
    assert orientation_of([], [XMP]) == 6
    assert orientation_of([], [b"<tiff:Orientation>8</tiff:Orientation>"]) == 8
    assert orientation_of([exif_block(3)], [XMP]) == 3
    assert orientation_of([exif_block(9)], [XMP]) == 6
    assert decode(jpeg_with(JPEG, xmp=XMP)).image.size == (120, 160)
    assert decode(png_with(PNG, xmp=XMP)).image.size == (120, 160)


entry = st.tuples(
    st.integers(0, 65535), st.integers(0, 20), st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=4)
)


@settings(max_examples=150, deadline=None)
@given(
    entries=st.lists(entry, max_size=6),
    spoiled=st.lists(st.tuples(st.integers(8, 90), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 120),
    kind=st.sampled_from(["JPEG", "PNG", "TIFF"]),
)
def test_no_exif_makes_a_photo_unusable(
    entries: list[tuple[int, int, int, bytes]], spoiled: list[tuple[int, int]], cut: int, kind: str
) -> None:
    more = b"".join(struct.pack("<HHI", tag, code, count) + value for tag, code, count, value in entries)
    block = bytearray(exif_block(6, more=more))
    for place, value in spoiled:
        block[min(place, len(block) - 1)] = value
    if kind == "TIFF":  # its own directory, with one entry that leads to all that
        data = tiff_with_exif(bytes(block))
    else:
        exif = bytes(block[: len(block) - cut % len(block)])
        data = jpeg_with(JPEG, exif=exif) if kind == "JPEG" else png_with(PNG, exif=exif)
    assert np.array_equal(np.sort(pixels(data).ravel()), np.sort(pixels(JPEG if kind == "JPEG" else PNG).ravel()))


def tiff_with_exif(block: bytes) -> bytes:
    """A TIFF whose tag for EXIF points to a block of anything."""
    data = bytearray(saved(PHOTO, "TIFF", tiffinfo={0x8769: 0x01010101}))
    data += bytes(len(data) % 2) + block
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_pillow_image_is_the_same_as_its_file(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    PHOTO.save(tmp_path / "photo", kind, exif=exif, icc_profile=profile_of("wide"))
    data = (tmp_path / "photo").read_bytes()
    assert decode(data).image.size == (120, 160)
    with Image.open(tmp_path / "photo") as image:
        assert (np.asarray(normalize(image)) == pixels(data)).all()


def test_avif_is_turned_by_its_own_orientation_and_not_by_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(PHOTO, "AVIF", exif=exif)  # Pillow stores it as the format's own
    assert decode(data).image.size == (120, 160)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    assert decode(saved(PHOTO, "AVIF", exif=exif)).image.size == (160, 120)


# Colors


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_followed(kind: str) -> None:
    image = Image.new("RGB", (64, 64), (200, 60, 60))
    found = pixels(saved(image, kind, icc_profile=profile_of("wide")))[32, 32]
    wanted = ImageCms.profileToProfile(
        image, io.BytesIO(profile_of("wide")), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert wanted is not None
    assert np.abs(found - wanted.getpixel((0, 0))).max() <= 4
    assert found[0] > 212, "a red of Display P3 is more than that red of sRGB"


def test_gray_photos_follow_profiles_and_colored_ones_no_gray_profile() -> None:
    gray = Image.new("L", (64, 64), 55)
    assert pixels(saved(gray, "PNG", icc_profile=profile_of("gray"))).max() > 110, "linear light is darker"
    wide = pixels(saved(gray, "PNG", icc_profile=profile_of("wide")))
    assert (wide == pixels(saved(gray.convert("RGB"), "PNG", icc_profile=profile_of("wide")))).all()
    color = saved(gray.convert("RGB"), "JPEG", icc_profile=profile_of("gray"))
    assert pixels(color).max() == 55


@pytest.mark.parametrize("profile", [b"", b"no profile", profile_of("wide")[:200], bytes(3000)])
def test_broken_profiles_are_ignored(profile: bytes) -> None:
    assert (pixels(saved(PHOTO, "PNG", icc_profile=profile)) == np.asarray(PHOTO)).all()


def test_transparent_photos_follow_their_profile_too() -> None:
    rgba = Image.new("RGBA", (64, 64), (200, 60, 60, 255))
    opaque = pixels(saved(rgba.convert("RGB"), "PNG", icc_profile=profile_of("wide")))
    assert (pixels(saved(rgba, "PNG", icc_profile=profile_of("wide"))) == opaque).all()


# Gray levels


def deep(bits: int, kind: str = "PNG") -> bytes:
    return saved(Image.fromarray((GRAY * ((2**bits - 1) / 255)).round().astype(np.uint16)), kind)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_depth_is_the_smallest_that_holds_the_values(bits: int, kind: str) -> None:
    found = pixels(deep(bits, kind))
    assert np.abs(found - GRAY[..., None]).max() <= 1
    require_usable(b"", decode(deep(bits, kind)))  # not blank


def test_a_declared_depth_comes_first() -> None:
    dark = Image.fromarray(GRAY.astype(np.uint16))
    assert pixels(png_with(saved(dark, "PNG"), sBIT=b"\x0c")).max() == 16
    tiff = saved(dark, "TIFF", tiffinfo={281: 4095})
    assert pixels(tiff).max() == 16


def test_a_folder_has_one_depth(tmp_path: Path) -> None:
    dark, light = Image.fromarray(GRAY.astype(np.uint16)), Image.fromarray(GRAY.astype(np.uint16) * 16)
    dark.save(tmp_path / "dark.png")
    light.save(tmp_path / "light.tif")
    PHOTO.save(tmp_path / "color.jpg")
    (tmp_path / "cut.png").write_bytes(saved(light, "PNG")[:100])
    levels = folder_levels([*sorted(tmp_path.iterdir()), tmp_path / "none.png"])
    assert levels == GrayLevels(integer=(0, 4095))
    assert GrayLevels.of(levels.as_dict()) == levels
    assert "0 to 4095" in str(levels)
    assert pixels((tmp_path / "dark.png").read_bytes(), gray=levels).max() == 16
    assert folder_levels([tmp_path / "color.jpg"]) == GrayLevels()


def test_signed_and_floating_values_go_from_their_smallest_to_their_largest() -> None:
    ramp = np.linspace(-1000, 1000, 64 * 64).reshape(64, 64)
    for array in (ramp.astype(np.int32), ramp.astype(np.float32)):
        found = pixels(saved(Image.fromarray(array), "TIFF"))
        assert found.min() == 0
        assert found.max() == 255
        assert abs(found.mean() - 127.5) < 1


def test_values_that_are_not_finite_spoil_nothing() -> None:
    array = GRAY.astype(np.float32) / 255
    array[0, :3] = (np.inf, -np.inf, np.nan)
    found = pixels(saved(Image.fromarray(array), "TIFF"))[..., 0]
    assert found[0, :3].tolist() == [255, 0, 0]
    assert np.abs(found[1:] - GRAY[1:]).max() <= 1


# Damage

LARGE = draw_photo("disc", 5, width=640, height=480)


def scan_of(data: bytes) -> tuple[int, int]:
    start = data.rfind(b"\xff\xda")
    return start + 14, len(data) - 2


@pytest.mark.parametrize("share", [0.2, 0.65, 0.95])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_was_cut_and_closed_is_found(share: float, mode: str) -> None:
    data = saved(LARGE.convert(mode), "JPEG", quality=88)
    start, end = scan_of(data)
    cut = data[: start + round(share * (end - start))].rstrip(b"\xff") + b"\xff\xd9"
    assert "cut off" in reason(cut)
    for side in (32, 100):
        with pytest.raises(BadPhotoError, match="cut off"):
            decode(cut, short_side=side)
    with pytest.raises(BadPhotoError, match="cut off"):
        decode_thumbnail(cut, side=64)


def test_a_progressive_jpeg_without_its_last_scans_is_found() -> None:
    data = saved(LARGE, "JPEG", quality=88, progressive=True)
    assert "scans" in reason(data[: round(0.2 * len(data))].rstrip(b"\xff") + b"\xff\xd9")


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_a_hole_in_a_jpeg_is_found(filling: str, restarts: int) -> None:
    data = saved(LARGE, "JPEG", quality=92, restart_marker_rows=restarts)
    start, end = scan_of(data)
    place, size = start + (end - start) // 3, 4096
    hole = bytes(size) if filling == "zeros" else np.random.default_rng(1).bytes(size)
    text = reason(data[:place] + hole + data[place + size :])
    assert "damaged" in text or "cut off" in text


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_good_jpegs_with_large_flat_parts_are_kept(level: int, options: dict[str, Any]) -> None:
    """The decoder's gray, and long runs of zeros, occur in good photos, too."""
    for size in ((640, 480), (641, 479)):
        image = Image.new("RGB", size, (level, level, level))
        image.paste(PHOTO)
        decode(saved(image, "JPEG", quality=90, **options))


def test_what_a_png_says_beside_its_pixels_does_not_matter() -> None:
    big = b"Comment\0" + b"x" * 2**21
    for kind in ("tEXt", "iTXt", "zTXt", "iCCP", "eXIf"):
        assert (pixels(png_with(PNG, **{kind: big})) == np.asarray(PHOTO)).all(), kind
    text = bytearray(png_with(PNG, tEXt=b"Comment\0hello"))
    text[45] ^= 1
    assert (pixels(bytes(text)) == np.asarray(PHOTO)).all()
    assert (pixels(PNG[:-12] + png_chunk(b"tEXt", big) + PNG[-12:]) == np.asarray(PHOTO)).all()


def test_a_damaged_png_says_which_part_it_is() -> None:
    header = bytearray(PNG)
    header[20] ^= 1
    assert "IHDR" in reason(bytes(header))
    data = bytearray(PNG)
    data[PNG.find(b"IDAT") + 500] ^= 0x40
    assert "IDAT" in reason(bytes(data))
    assert "cut off" in reason(PNG[: len(PNG) // 2])
    checksum = bytearray(PNG)
    checksum[-13] ^= 1  # of the last IDAT: the pixels are right
    assert (pixels(bytes(checksum)) == np.asarray(PHOTO)).all()


# Formats and sizes


def test_a_photo_of_an_iphone_is_read() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(PHOTO, "HEIF", quality=95, exif=exif.tobytes(), icc_profile=profile_of("wide"))
    found = decode(data)
    assert found.format == "HEIF"
    assert found.image.size == (120, 160)
    wanted = pixels(saved(PHOTO.transpose(Image.Transpose.ROTATE_270), "PNG", icc_profile=profile_of("wide")))
    assert np.abs(np.asarray(found.image) - wanted).mean() < 12, "noise is lost, but not the colors"


@pytest.mark.parametrize(
    ("start", "extra"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heif"),
        (b"\xff\x0a\x00\x00", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    ],
)
def test_without_its_extra_a_format_names_it(monkeypatch: pytest.MonkeyPatch, start: bytes, extra: str) -> None:
    monkeypatch.setattr(formats, "_registered", lambda extra: False)
    with pytest.raises(BadPhotoError, match=rf"pip install 'potstill\[{extra}\]'") as caught:
        decode(start + bytes(100))
    assert caught.value.code == "needs_extra"


def test_formats_that_are_not_listed_are_not_read() -> None:
    for kind in ("TGA", "PCX", "SGI", "DDS"):
        with pytest.raises(BadPhotoError, match="that Potstill reads"):
            decode(saved(PHOTO, kind))


def test_a_photo_of_108_megapixels_is_read_at_a_reduced_scale() -> None:
    data = saved(Image.new("L", (12_000, 9_000), 99), "JPEG")
    found = decode(data, short_side=64)
    assert (found.width, found.height) == (12_000, 9_000)
    assert min(found.image.size) == 64
    assert decode(data).image.size == (6_000, 4_500)
    assert decode(data, max_pixels=10_000_000).image.size == (3_000, 2_250)


def test_a_white_icon_is_shown_on_black() -> None:
    icon = Image.new("RGBA", (96, 96), (255, 255, 255, 0))
    ImageDraw.Draw(icon).ellipse((20, 20, 76, 76), fill=(255, 255, 255, 255))
    found = decode(saved(icon, "PNG"))
    assert np.unique(np.asarray(found.image)).tolist() == [0, 255]
    require_usable(b"", found)
    hidden = decode(saved(Image.new("RGBA", (96, 96), (255, 255, 255, 0)), "PNG"))
    with pytest.raises(BadPhotoError, match="blank"):
        require_usable(b"", hidden)
