"""Pillow's bicubic resizing at a third of its cost: torch's kernel for bytes, which uses the processor's vectors.

Both sum the same window with the same weights in whole numbers; torch's weights have 16 bits, Pillow's 22. Of the
colors of a photo, 0.3 % come out one level higher or lower, as many up as down. Without AVX2 the kernel gives the
same pixels, at twice Pillow's time.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from potstill.data.resize import bicubic

_REDUCED_FROM = 6
"""From this factor on Pillow averages whole pixels first, which is faster still."""


def quick_bicubic(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture as (width, height); runs in the thread that calls."""
    if min(image.width / size[0], image.height / size[1]) >= _REDUCED_FROM:
        return bicubic(image, size)
    # Batched first, then permuted: so torch sees channels last, and the result stands in the order of a picture.
    pixels = torch.from_numpy(np.array(image)).unsqueeze(0).permute(0, 3, 1, 2)
    small = functional.interpolate(pixels, (size[1], size[0]), mode="bicubic", antialias=True)
    return Image.fromarray(small.permute(0, 2, 3, 1)[0].numpy())
