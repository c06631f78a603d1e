"""What the photos' stage is to do, decided before it starts."""

from dataclasses import dataclass

from potstill.config.schema import ImagesConfig
from potstill.images.folder import Folder
from potstill.images.pack import estimated_bytes


@dataclass(frozen=True, slots=True)
class ImagesPlan:
    """Which photos are packed, and how large."""

    folder: Folder
    """The photos by name, read once for the whole run."""
    config: ImagesConfig
    largest_size: int
    """The largest input side, in pixels, of any model of the run."""

    @property
    def short_side(self) -> int:
        """Of packed photos, in pixels: for the largest model, or as those that others are added to."""
        if self.folder.earlier:
            return self.folder.earlier.short_side
        return round(self.config.margin * self.largest_size)

    def bytes(self, *, jpeg: bool = False) -> float:
        """That the packed photos take."""
        before = self.folder.earlier.facts["bytes"] if self.folder.earlier else 0.0
        return float(before) + estimated_bytes(len(self.folder.files), self.short_side, jpeg=jpeg)
