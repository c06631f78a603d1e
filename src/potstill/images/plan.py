"""What the photos' stage is to do, decided before it starts."""

from dataclasses import dataclass

from potstill.config.schema import ImagesConfig
from potstill.images.folder import Folder


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
        """Of packed photos, in pixels."""
        return round(self.config.margin * self.largest_size)
