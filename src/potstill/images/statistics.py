"""Plain statistics of a decoded photo, from a small copy: whether it is blank, dark, gray, blurred or stretched."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from potstill.images.decode import Decoded
from potstill.images.errors import BadPhotoError

THUMBNAIL_SIDE = 64
"""Shorter side of the copy, in pixels: JPEG decodes to it at a fraction of the cost, yet to its last byte."""

MAX_ASPECT = 4.0
"""Longer photos are strips and banners; a crop or a squeezed copy of them is useless."""

BLANK_SPAN = 8
"""A picture whose values lie within this is one flat color."""

_SIDE = 16
_FLICKR_NOTICE_BYTES = 2051
"""The length of Flickr's "photo unavailable" picture, 11 % of ImageNet's addresses once (jetson-inference#124)."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of an RGB picture, in gray levels out of 255."""

    span: int
    """Largest minus smallest value, of the channel where that is most, in a 16 × 16 copy."""
    low: float
    """5th percentile of brightness."""
    high: float
    """95th percentile of brightness."""
    color: float
    """Mean difference between the largest and the smallest channel of a pixel."""
    edges: float
    """Mean absolute difference of neighbors, relative to `span`."""

    @property
    def notes(self) -> list[str]:
        """Codes of reasons.REASONS that are worth reviewing; none of them is a fault in itself."""
        found = {
            "dark": self.high < 40,
            "bright": self.low > 225,
            "gray": self.color < 2,
            "blurred": self.edges < 0.012,
        }
        return [code for code, holds in found.items() if holds]


def image_statistics(image: Image.Image) -> Statistics:
    """The statistics of an RGB picture of any size, from a copy of about THUMBNAIL_SIDE pixels."""
    image = _small(image)
    tiny = _tiny(image)
    # Channels first: numpy is several times slower along an axis of length 3.
    channels = np.ascontiguousarray(np.asarray(tiny).reshape(-1, 3).T, np.int16)
    red, green, blue = channels
    span = _span(tiny)
    brightness = np.sort(red + green + blue)
    color = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    fine = np.asarray(image.convert("L"))[::2].astype(np.int16)
    steps = np.abs(fine[:, 1:] - fine[:, :-1])
    return Statistics(
        span=span,
        low=float(brightness[len(brightness) // 20] / 3),
        high=float(brightness[-1 - len(brightness) // 20] / 3),
        color=float(color.sum()) / color.size,
        edges=float(steps.sum()) / max(steps.size, 1) / max(span, 1),
    )


def require_usable(data: bytes, decoded: Decoded) -> None:
    """Refuse pictures that no model can learn from, in `check`, `get` and `distill` alike.

    Args:
        data: the whole file.
        decoded: what `decode` made of it, of about THUMBNAIL_SIDE pixels or larger.
    Raises:
        BadPhotoError: code `thin`, `blank` or `placeholder`.
    """
    if max(decoded.width, decoded.height) > MAX_ASPECT * min(decoded.width, decoded.height):
        raise BadPhotoError("thin", f"{decoded.width} × {decoded.height} pixels")
    if _span(_tiny(_small(decoded.image))) < BLANK_SPAN:
        raise BadPhotoError("blank", "one flat color")
    if len(data) == _FLICKR_NOTICE_BYTES and decoded.format == "PNG":
        raise BadPhotoError("placeholder", f"a PNG of {len(data)} bytes, as Flickr sends for missing photos")


def _small(image: Image.Image) -> Image.Image:
    factor = min(image.size) // THUMBNAIL_SIDE
    return image.reduce(factor) if factor > 1 else image


def _tiny(image: Image.Image) -> Image.Image:
    return image.resize((_SIDE, _SIDE), Image.Resampling.BOX)


def _span(tiny: Image.Image) -> int:
    low, high = np.array(tiny.getextrema()).T
    return int((high - low).max())
