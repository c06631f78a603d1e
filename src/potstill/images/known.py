"""Photos that an earlier run has packed already, in the same way: their pixels are copied instead of decoded again.

A photo is the same by the sha256 of its file, wherever it lies by now: one that got its label, and a folder for it, has
the pixels that it had without.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from potstill.data.pixels import PixelStore
from potstill.errors import PotstillError
from potstill.images.depth import GrayLevels
from potstill.run.folder import Stage
from potstill.run.integrity import damages


@dataclass(frozen=True, slots=True)
class KnownPhotos:
    """The packed photos of one run."""

    store: PixelStore
    lines: Mapping[str, Mapping[str, str]]
    """Of images.csv, by sha256."""

    def find(self, sha256: str) -> tuple[Image.Image, Mapping[str, str]] | None:
        """The packed photo of a file and its line of images.csv; None for a file that is not known."""
        line = self.lines.get(sha256)
        return (self.store.photo(int(line["row"])), line) if line else None


def known_photos(stage: Stage, short_side: int, min_side: int, gray: GrayLevels) -> KnownPhotos | None:
    """Those of the first earlier run that has packed photos like this; None where there is none.

    Args:
        stage: the one that is being made.
        short_side, min_side, gray: as it packs photos, without JPEG compression.
    """
    wanted = (short_side, min_side, gray.as_dict(), False)
    for run in stage.earlier.runs if stage.earlier else ():
        earlier = Stage(run / stage.name, stage.name)
        try:
            facts = earlier.facts()
            inputs = facts["inputs"]
            as_packed = (inputs["short_side"], inputs["settings"]["min_side"], facts["gray_levels"], facts["jpeg"])
            if as_packed == wanted and next(damages(earlier.path), None) is None:
                return KnownPhotos(PixelStore(earlier.path), _lines(earlier.path))
        except (PotstillError, KeyError, TypeError, OSError):  # unfinished, removed meanwhile, or of another version
            continue
    return None


def _lines(images: Path) -> dict[str, Mapping[str, str]]:
    with (images / "images.csv").open(encoding="utf-8", newline="") as file:
        return {line["sha256"]: line for line in csv.DictReader(file)}
