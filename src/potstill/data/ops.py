"""Stronger changes of a view, after RandAugment (Cubuk et al. 2020, arXiv:1909.13719): which, and how strong, is drawn
once and stored with the view, so that the teacher labels the changed picture and not the original.

All are smooth, and written for pictures of any size: an angle, a share of the side, a curve of gray levels. So a view
that is rendered small looks like the view that the teacher saw large. RandAugment's posterize, solarize, equalize and
autocontrast jump between gray levels: shrunk and then posterized is another picture than posterized and then shrunk.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Op = Callable[[Image.Image, float], Image.Image]
"""Of a picture of any size and a strength in [-1, 1], 0 for no change: the changed picture, of the same size."""

PER_VIEW = 2
"""Changes of a view that has any."""
FILL = (128, 128, 128)
"""What turning and shearing lay bare."""


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=FILL)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0.3 * strength, -0.15 * strength * image.height, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * strength, 1, -0.15 * strength * image.width))


def _affine(image: Image.Image, numbers: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=FILL)


def _gamma(image: Image.Image, strength: float) -> Image.Image:
    curve = np.round(255 * (np.arange(256) / 255) ** (2.0**strength)).astype(int)
    return image.point(curve.tolist() * 3)


def _blur(image: Image.Image, strength: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.015 * abs(strength) * image.width))


def _tint(image: Image.Image, strength: float) -> Image.Image:
    """Warmer or colder light."""
    factors = (1 + 0.3 * strength, 1.0, 1 - 0.3 * strength)
    levels = np.arange(256)
    return image.point([int(v) for f in factors for v in np.clip(np.round(f * levels), 0, 255)])


OPS: list[Op] = [_rotate, _shear_x, _shear_y, _gamma, _blur, _tint]
"""By number, as stored in a view plus one: 0 there is no change. New ones go to the end, so that stored views keep
their meaning; which op a new view gets depends on how many there are."""


def draw_ops(share: float, strength: float, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which changes, and how strong.

    Args:
        share: of the views that are changed.
        strength: the largest, in (0, 1].
        numbers: (N, V, 1 + 2 · PER_VIEW) uniform.
    Returns:
        (N, V, PER_VIEW) uint8, positions in OPS plus one, 0 for none; and (N, V, PER_VIEW) float32 in ± strength.
    """
    changed = numbers[..., :1] < share
    which = 1 + np.floor(numbers[..., 1 : 1 + PER_VIEW] * len(OPS)).astype(np.uint8)
    how = strength * (2 * numbers[..., 1 + PER_VIEW :] - 1)
    return np.where(changed, which, 0).astype(np.uint8), np.where(changed, how, 0.0).astype(np.float32)


def apply_ops(image: Image.Image, ops: np.ndarray, strengths: np.ndarray) -> Image.Image:
    """Change the picture, one op after the other."""
    for op, strength in zip(ops.tolist(), strengths.tolist(), strict=True):
        if op:
            image = OPS[op - 1](image, strength)
    return image
