"""Which fold a photo belongs to, for out-of-fold predictions."""

import numpy as np

from potstill.data.pixels import PixelStore
from potstill.data.splits import unit_hash


def fold_of(store: PixelStore, rows: np.ndarray, folds: int) -> np.ndarray:
    """(N,) fold of each photo, by its hash; where photos have groups, all of a group are in one fold."""
    if store.groups is not None:
        return _folds_of_groups(store, store.groups, rows, folds)
    return np.array([int(folds * _draw(i)) for i in store.index["id"][rows].tolist()], int)


def _folds_of_groups(store: PixelStore, groups: np.ndarray, rows: np.ndarray, folds: int) -> np.ndarray:
    """(N,) fold of each photo, for `groups` of every photo of the store.

    There may be few groups with labels, so they are dealt in turn, class by class, rather than drawn: a class with two
    groups is in two folds, and no model is trained without it. A group belongs to the class of its first train photo.
    """
    train = store.rows("train")
    first = {int(groups[row]): int(store.index["label"][row]) for row in train[::-1].tolist()}
    order = sorted(first, key=lambda group: (first[group], _draw(group)))
    fold = {group: position % folds for position, group in enumerate(order)}
    return np.array([fold[g] if g in fold else int(folds * _draw(g)) for g in groups[rows].tolist()], int)


def _draw(key: int) -> float:
    return unit_hash(f"{key:016x}", seed=0, purpose="fold")
