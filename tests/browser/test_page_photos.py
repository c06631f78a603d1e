"""The exported page reads a photo file to the same pixels as Python: turned, in sRGB, with the same gray levels."""

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.browser.conftest import Watched
from tests.browser.test_web_page import static_host
from tests.photo_files import exif_block, jpeg_with, png_with, profile_of, webp_with
from tests.support import draw_photo

from potstill.export.web import PAGE
from potstill.images.decode import decode
from potstill.images.depth import GrayLevels

READ = """async ([base64, levels]) => {
    const { decode, turn } = await import("/photo.js");
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const { bitmap, orientation } = await decode(new Blob([bytes]), levels);
    const { width, height } = bitmap;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = orientation > 4 ? [height, width] : [width, height];
    const pen = canvas.getContext("2d", { alpha: false });
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    turn(pen, orientation, width, height);
    pen.drawImage(bitmap, 0, 0);
    return [canvas.width, canvas.height, Array.from(pen.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with static_host(PAGE) as url:
        yield url


@pytest.fixture
def in_browser(host: str, open_page: Callable[..., Watched]) -> Callable[..., np.ndarray]:
    """The pixels that the page would show of a file, (H, W, 3)."""
    page = open_page(host + "style.css").page

    def pixels(data: bytes, levels: dict[str, Any] | None = None) -> np.ndarray:
        width, height, values = page.evaluate(READ, [base64.b64encode(data).decode(), levels or {}])
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    return pixels


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PHOTO = draw_photo("stripes", 3, width=96, height=64)
PNG, WEBP = saved(PHOTO, "PNG"), saved(PHOTO, "WEBP", lossless=True)
JPEG = saved(PHOTO, "JPEG", quality=95, subsampling=0)

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

TURNED = {
    **{f"jpeg {n}": jpeg_with(JPEG, exif=exif_block(n)) for n in range(1, 9)},
    **{f"png {n}": png_with(PNG, exif=exif_block(n)) for n in (2, 5, 6, 8)},
    **{f"webp {n}": webp_with(WEBP, exif=exif_block(n)) for n in (3, 6, 7)},
    "as LONG": jpeg_with(JPEG, exif=exif_block(6, kind=4)),
    "as BYTE": jpeg_with(JPEG, exif=exif_block(6, kind=1)),
    "as ASCII": jpeg_with(JPEG, exif=exif_block(6, kind=2)),
    "two values": jpeg_with(JPEG, exif=exif_block(6, count=2)),
    "nine": jpeg_with(JPEG, exif=exif_block(9)),
    "doubled header": jpeg_with(JPEG, exif=b"Exif\0\0" + exif_block(6)),
    "big-endian": jpeg_with(JPEG, exif=exif_block(6, order=">")),
    "xmp": jpeg_with(JPEG, xmp=XMP),
    "xmp and exif": jpeg_with(JPEG, xmp=XMP, exif=exif_block(8)),
    "png xmp": png_with(PNG, xmp=XMP),
}


@pytest.mark.parametrize("name", TURNED)
def test_every_turn_is_the_same(in_browser: Callable[..., np.ndarray], name: str) -> None:
    found, wanted = in_browser(TURNED[name]), np.asarray(decode(TURNED[name]).image)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= (0 if "png" in name or "webp" in name else 6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("space", ["wide", "gamma 1.0"])
def test_a_color_profile_is_followed(in_browser: Callable[..., np.ndarray], kind: str, space: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = saved(PHOTO, kind, icc_profile=profile_of(space), **options)
    found, wanted = in_browser(data).astype(int), np.asarray(decode(data).image).astype(int)
    plain = np.asarray(decode(saved(PHOTO, kind, **options)).image).astype(int)
    assert np.abs(wanted - plain).mean() > 4, "the profile makes a difference"
    assert np.abs(found - wanted).mean() < 1.5


@pytest.mark.parametrize("profile", [b"nonsense", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_a_broken_profile_and_srgb_change_nothing(in_browser: Callable[..., np.ndarray], profile: bytes) -> None:
    data = saved(PHOTO, "PNG", icc_profile=profile)
    assert np.abs(in_browser(data).astype(int) - np.asarray(PHOTO)).max() <= 1
    assert (np.asarray(decode(data).image) == np.asarray(PHOTO)).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("levels", [{}, {"integer": [0, 4095]}])
def test_gray_values_of_more_than_8_bits_are_the_same(
    in_browser: Callable[..., np.ndarray], bits: int, levels: dict[str, Any]
) -> None:
    values = (np.asarray(PHOTO.convert("L")) * ((2**bits - 1) / 255)).astype(np.uint16)
    data = saved(Image.fromarray(values), "PNG")
    wanted = np.asarray(decode(data, gray=GrayLevels.of(levels)).image)
    assert (in_browser(data, levels) == wanted).all()


def test_gamma_and_text_of_a_png_change_nothing(in_browser: Callable[..., np.ndarray]) -> None:
    data = png_with(PNG, gAMA=(30_000).to_bytes(4), tEXt=b"Comment\0" + b"x" * 100)
    assert (in_browser(data) == np.asarray(PHOTO)).all()
    assert (np.asarray(decode(data).image) == np.asarray(PHOTO)).all()
