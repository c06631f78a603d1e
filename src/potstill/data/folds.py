"""Which fold a photo belongs to, for out-of-fold predictions."""

import numpy as np

from potstill.data.pixels import PixelStore
from potstill.data.splits import unit_hash


def fold_of(store: PixelStore, rows: np.ndarray, folds: int) -> np.ndarray:
    """(N,) fold of each photo, by its hash."""
    return np.array(
        [int(folds * unit_hash(f"{i:016x}", seed=0, purpose="fold")) for i in store.index["id"][rows].tolist()], int
    )
