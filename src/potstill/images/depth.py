"""Gray photos with more than 8 bits: what is black and what is white in them.

Microscopes and inspection cameras store 10 or 12 bits in 16. Each photo brightened by itself would lose how bright it
is compared with the others, so the levels are decided once for a folder, and travel with the model
(`Trained.gray_levels`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

BITS = (8, 10, 12, 14, 16, 24, 32)
"""Depths of integers: the smallest that holds the largest value is taken."""

_BAND_PIXELS = 2**20
"""Converted at a time."""

Levels = tuple[float, float]
"""What is shown as black, and as white."""


@dataclass(frozen=True, slots=True)
class GrayLevels:
    """Black and white of gray photos with more than 8 bits. None: every photo by its own values."""

    integer: Levels | None = None
    """Of whole numbers."""
    real: Levels | None = None
    """Of floating-point numbers."""

    @classmethod
    def of(cls, values: Mapping[str, Sequence[float]] | None) -> "GrayLevels":
        """From plain values, as `as_dict` gives them."""
        found = {kind: (float(black), float(white)) for kind, (black, white) in (values or {}).items()}
        return cls(**found)

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values, for JSON; empty where there are none."""
        return {kind: list(levels) for kind, levels in asdict(self).items() if levels is not None}

    def __str__(self) -> str:
        kinds = {"integer": self.integer, "floating-point": self.real}
        return ", ".join(f"{kind} {levels[0]:g} to {levels[1]:g}" for kind, levels in kinds.items() if levels)


OWN = GrayLevels()
"""Every photo by its own values."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The smallest and the largest value of a photo, or of many, and the depth that their files declare."""

    is_real: bool
    low: float
    high: float
    declared: float = 0
    """The largest value that a file says it may have; 0 where none says so."""

    def levels(self) -> Levels:
        """What is black and what is white among such values."""
        if self.low < 0:
            return self.low, max(self.high, self.low + 1)
        if self.is_real:
            return 0.0, 1.0 if self.high <= 1 else max(255.0, self.high)
        if self.declared >= self.high > 0:
            return 0.0, self.declared
        return 0.0, float(2 ** next((bits for bits in BITS if self.high < 2**bits), BITS[-1]) - 1)


def is_deep(mode: str) -> bool:
    """Whether a Pillow mode has gray values of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def extent_of(image: Image.Image, declared: float = 0) -> Extent:
    """Of one photo in a deep mode. Values that are not finite do not count."""
    values = np.asarray(image)
    is_real = image.mode == "F"
    if is_real:
        values = values[np.isfinite(values)]
    if values.size == 0:
        return Extent(is_real, 0.0, 0.0, declared)
    return Extent(is_real, float(values.min()), float(values.max()), declared)


def joined(extents: Iterable[Extent]) -> GrayLevels:
    """The levels for many photos. A declared depth counts only where it holds the values of all."""
    found = list(extents)
    levels: list[Levels | None] = []
    for is_real in (False, True):
        kind = [extent for extent in found if extent.is_real == is_real]
        if not kind:
            levels.append(None)
            continue
        low, high = min(extent.low for extent in kind), max(extent.high for extent in kind)
        levels.append(Extent(is_real, low, high, max(extent.declared for extent in kind)).levels())
    return GrayLevels(*levels)


def to_8_bit(image: Image.Image, levels: GrayLevels, declared: float = 0) -> Image.Image:
    """A photo in a deep mode as 8-bit gray. Infinite is white or black, and what is not a number is black."""
    own = levels.real if image.mode == "F" else levels.integer
    black, white = own or extent_of(image, declared).levels()
    stored = np.asarray(image)
    shown = np.empty(stored.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // image.width)
    for start in range(0, image.height, rows):  # a large photo as floating-point numbers would fill the memory
        band = stored[start : start + rows].astype(np.float64)
        values = np.nan_to_num(band, nan=black, posinf=white, neginf=black)
        shown[start : start + rows] = np.clip((values - black) * (255 / (white - black)) + 0.5, 0, 255)
    return Image.fromarray(shown)
