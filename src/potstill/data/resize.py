"""How a photo becomes the input of a network, without torch: for files that take one size only."""

import numpy as np
from PIL import Image

ROUND_UP_FROM = 0.5037
"""Gray levels are rounded up from this fraction on, not from a half. Resizing to a half or a quarter makes many values
that end in exactly .5; runtimes sum them in different order, so each would round another part of them up, and small
networks notice that."""


def crop_side(shorter: int, crop: float) -> int:
    """Side of the square that a model is given, in pixels of the photo: `crop` times the shorter side, rounded up.

    In whole numbers, and without a conditional: exporters call it with symbols.
    """
    return (shorter * round(1000 * crop) + 999) // 1000


def fit(image: Image.Image, size: int, crop: float = 1.0) -> np.ndarray:
    """(size, size, 3) uint8: what `Deployable.prepare` makes of the photo, by Pillow.

    The channels are resized as floats. On bytes Pillow rounds twice, after the rows and after the columns, which
    changed the predicted class of 1.5 % of our test photos.
    """
    side = crop_side(min(image.size), crop)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = np.asarray(image.crop((left, top, left + side, top + side)), np.float32)
    channels = [
        np.asarray(Image.fromarray(square[..., c]).resize((size, size), Image.Resampling.BILINEAR)) for c in range(3)
    ]
    return np.clip(np.floor(np.stack(channels, -1) + (1 - ROUND_UP_FROM)), 0, 255).astype(np.uint8)


def bicubic(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Pillow's bicubic resizing."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
