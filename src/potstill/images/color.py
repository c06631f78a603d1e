"""Color profiles: any photo to sRGB, in one place. One that is broken, huge, or for another mode, is ignored."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from potstill.images.png import MAX_PROFILE

_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The modes that profiles are for, by the name of their space."""

_SAME = 1
"""Gray levels that a profile may differ from sRGB and count as sRGB."""

_KEPT = 32
"""Transforms that are kept: a folder has few different profiles."""


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """An RGB, gray or CMYK image in sRGB, as its profile says; unchanged where that is for other modes, broken or sRGB.

    Args:
        profile: what Pillow found in the file: bytes, or None.
    """
    if not isinstance(profile, bytes) or not 0 < len(profile) <= MAX_PROFILE:
        return image
    transform = _transform(profile, image.mode)
    if transform is None and image.mode == "L" and _transform(profile, "RGB"):  # as browsers do it
        return to_srgb(image.convert("RGB"), profile)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@lru_cache(_KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a mode to sRGB; None where nothing is to be done."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(source.profile.xcolor_space) != mode:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _keeps_colors(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _keeps_colors(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 6).astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    converted = ImageCms.applyTransform(Image.fromarray(colors), transform)
    return bool(np.abs(np.asarray(converted).astype(int) - colors).max() <= _SAME)
