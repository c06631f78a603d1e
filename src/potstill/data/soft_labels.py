"""Reading what finished stages stored, for the stages after them: the teacher's models and the soft labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.arrays import RowReader, open_arrays
from potstill.data.views import VIEW
from potstill.errors import StaleError
from potstill.run.files import read_json
from potstill.run.folder import Run, Stage


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Read access to a finished stage 3."""

    photos: np.ndarray
    """(N,) rows of the pixel store."""
    views: np.ndarray
    """(N, V) of VIEW."""
    logits: RowReader
    features: RowReader
    feature_mean: np.ndarray
    feature_std: np.ndarray
    meta: dict[str, Any]

    @classmethod
    def open(cls, run: Run, folder: Path | None = None) -> "SoftLabels":
        """Those of stage 3, or those in another folder. Raises StaleError when the stored arrays do not belong to this
        run's photos."""
        folder = folder or run.soft_labels
        made_from = Stage(folder, folder.name).facts()["inputs"]
        if made_from["images"] != run.stage("1_images").digest():
            raise StaleError(f"{folder} was made from other photos than 1_images holds. Run with --redo.")
        with open_arrays(folder / "statistics.npz") as statistics:
            mean, std = statistics["mean"], statistics["std"]
        views = np.load(folder / "views.npy", mmap_mode="r", allow_pickle=False)
        if views.dtype != VIEW:
            raise StaleError(f"{folder}/views.npy was written by another version. Run with --redo.")
        return cls(
            np.load(folder / "photos.npy", allow_pickle=False),
            views,
            RowReader(folder / "logits.npy", leading=2),
            RowReader(folder / "features.npy", leading=2),
            mean,
            std,
            read_json(folder / "meta.json"),
        )
