"""Whatever a photo is given as, the model sees the same pixels, or DataError says what is wrong."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.photo_files import exif_block, jpeg_with, profile_of
from tests.support import context_of, draw_photo, make_photos

from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.deploy.predictor import to_pixels
from potstill.errors import DataError
from potstill.images.folder import read_folder
from potstill.images.plan import ImagesPlan
from potstill.images.stage import collect_images
from potstill.run.folder import Run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG that is stored on its side, with a profile."""
    path = tmp_path / "photo.jpg"
    draw_photo("stripes", 7, width=90, height=60).save(path, quality=95, icc_profile=profile_of("wide"))
    path.write_bytes(jpeg_with(path.read_bytes(), exif=exif_block(6)))
    return path


def test_every_way_in_gives_the_same_pixels(photo: Path) -> None:
    wanted, data = to_pixels(photo), photo.read_bytes()
    assert wanted.shape == (90, 60, 3)
    with Image.open(photo) as image, photo.open("rb") as file:
        for given in (str(photo), data, bytearray(data), memoryview(data), io.BytesIO(data), file, image, image.copy()):
            assert (to_pixels(given) == wanted).all(), type(given)  # type: ignore[arg-type]
    assert (to_pixels(wanted) == wanted).all()


def truncated() -> Image.Image:
    buffer = io.BytesIO()
    draw_photo("disc", 1).save(buffer, "JPEG")
    return Image.open(io.BytesIO(buffer.getvalue()[:1500]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (truncated(), "cut off"),
        (Image.new("RGB", (0, 5)), "0 × 5"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((5, 5), np.uint8), r"\(5, 5\)"),
        (np.zeros((5, 5, 3), np.float32), "float32"),
        (b"", "empty"),
        (b"not a photo", "not_image"),
        (io.StringIO("text"), "binary"),
        ([[1, 2], [3, 4]], "not list"),
        (None, "not NoneType"),
        (7, "not int"),
    ],
)
def test_what_is_no_photo_is_a_data_error(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_pixels(given)


def test_a_folder_of_12_bit_photos_keeps_its_depth_and_its_levels_are_told(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", {"train": 6, "val": 3, "test": 3})
    for path in data.rglob("*.png"):
        gray = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(gray.astype(np.uint16) * 16).save(path)
    run = Run(tmp_path / "run")
    run.path.mkdir()
    folder, config = read_folder(data), ImagesConfig()
    collect_images(ImagesPlan(folder, config, 64), context_of(run))
    assert run.gray_levels() == {"integer": [0.0, 4095.0]}
    packed = np.asarray(PixelStore(run.images).photo(0))
    assert packed.max() > 100, "not nearly black"
    dark = np.full((40, 40), 255, np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(dark).save(buffer, "PNG")
    assert to_pixels(buffer.getvalue(), run.gray_levels()).max() == 16
