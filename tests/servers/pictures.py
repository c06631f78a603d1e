"""Pictures that are all different, made from a number: random color fields with a little noise, as JPEG."""

import functools
import io

import numpy as np
from PIL import Image


@functools.cache
def jpeg(number: int, *, width: int = 160, height: int = 120, tint: int = -1) -> bytes:
    """The bytes of picture `number`. `tint` 0, 1 or 2 makes red, green or blue stand out, for classifiers to learn."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    if tint >= 0:
        others = [channel for channel in range(3) if channel != tint]
        small[..., others] //= 3
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    image = Image.fromarray(np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
