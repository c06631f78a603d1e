"""The candidates for an int8 file: ways to round a student. The one that comes nearest to it on val is kept."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, plain_pixels
from potstill.models.classifier import ModelInfo
from potstill.run.folder import Run

CALIBRATION_PHOTOS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to an int8 file."""

    name: str
    plain_photos: bool = False
    """Calibrate on plain training photos, not on the views that the student learned from."""
    percentile: bool = False
    float_layers: bool = False
    """Leave the most sensitive layers in float."""
    aware: bool = False
    """Train on with rounding first."""


CANDIDATES = (
    Candidate(name="training views"),
    Candidate(name="plain photos, 99.999th percentile", plain_photos=True, percentile=True),
    Candidate(name="sensitive layers in float", plain_photos=True, percentile=True, float_layers=True),
    Candidate(name="quantization-aware distillation", float_layers=True, aware=True),
)


def calibration_photos(run: Run, info: ModelInfo, *, plain: bool, most: int = CALIBRATION_PHOTOS) -> np.ndarray:
    """(N, S, S, 3) uint8: training photos, evenly spread over the classes, as the network sees them."""
    store = PixelStore(run.images)
    soft = None if plain else SoftLabels.open(run)
    rows = store.rows("train") if soft is None else soft.photos
    # The store is ordered by photo id, a hash, so that evenly spaced photos are a random sample of all classes.
    picked = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
    if soft is None:
        return plain_pixels(store, rows[picked], info.size, info.crop_pct)
    views = np.asarray(soft.views)
    return Renderer(store, rows, views, info.size)(picked, np.arange(len(picked)) % views.shape[1])


def write_calibration(run: Run, info: ModelInfo, candidate: Candidate, folder: Path) -> Path:
    """The candidate's photos as a file for `Conversion.calibration`."""
    path = folder / f"calibration-{'plain' if candidate.plain_photos else 'views'}.npy"
    if not path.is_file():
        np.save(path, calibration_photos(run, info, plain=candidate.plain_photos))
    return path
