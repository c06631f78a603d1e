"""Learning from a part of the training photos, for learning curves: which photos, and which of their views."""

import numpy as np

_STREAM = 0x5B5E7
"""Keeps the draw apart from other random choices with the same seed."""


def draw_photos(labels: np.ndarray, labeled_share: float, unlabeled_share: float, seed: int) -> np.ndarray:
    """(N,) bool: a random share of the photos of each class and of those without a label, at least one of each.

    The photos of a smaller share are among those of a larger one with the same seed.

    Args:
        labels: (N,) -1 for photos without one.
    """
    order = np.random.default_rng([seed, _STREAM]).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        photos = order[labels[order] == label]
        share = unlabeled_share if label < 0 else labeled_share
        chosen[photos[: max(1, round(share * len(photos)))]] = True
    return chosen


def views_within(views: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, V) the numbers of the views of each photo that show chosen photos only, repeated until there are V.

    A view that is blended with a photo outside would bring its pixels and its label. Photos that are not chosen, or
    have no such view, get -1.

    Args:
        views: (N, V) of VIEW.
        rows: (N,) the photos' rows of the pixel store.
        chosen: (N,) bool.
    """
    count = views.shape[1]
    usable = ((views["partner"] < 0) | np.isin(views["partner"], rows[chosen])) & chosen[:, None]
    first = np.argsort(~usable, axis=1, kind="stable")
    found = usable.sum(1, keepdims=True)
    repeated = np.take_along_axis(first, np.arange(count) % np.maximum(found, 1), axis=1)
    return np.where(found > 0, repeated, -1)
