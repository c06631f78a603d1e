"""Thresholds: from which probability on a photo counts as one of a class, so that a given share of them is found.

The threshold is placed by the val photos of the class: it lets through as many of them as leave the expected recall on
new photos at least as high as asked for. Of m val photos, ⌊(1 − recall) · (m + 1)⌋ may lie at or below it (split
conformal prediction, Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv:2107.07511, section 1). What such a threshold
finds of new photos varies with the val photos that it was placed by, as a Beta distribution says.
"""

import math

import numpy as np

from potstill.metrics import Array

_ROUNDING = 1e-9
"""0.05 · 20 is to be 1."""

_BELOW = 1e-3
"""The threshold lies this share below the photo that is the last to be found: other runtimes round differently."""


def least_photos(recall: float) -> int:
    """The number of val photos of a class that are needed to place a threshold for this recall."""
    return math.ceil(1 / (1 - recall) - _ROUNDING) - 1


def highest_recall(photos: int) -> float:
    """The highest recall that so many val photos can place a threshold for, in whole percent."""
    return math.floor(100 * photos / (photos + 1)) / 100


def place_threshold(probabilities: Array, recall: float) -> float:
    """The probability from which on a photo counts as one of the class.

    Args:
        probabilities: (m,) that the val photos of the class are given for it; at least `least_photos(recall)`.
        recall: the share to find, between 0 and 1.
    """
    place = _place(len(probabilities), recall)
    assert place >= 1, "too few photos: see least_photos"
    ordered = np.sort(probabilities.astype(float))
    own, below = ordered[place - 1], ordered[place - 2] if place > 1 else 0.0
    return float(max((own + below) / 2, own * (1 - _BELOW)))


def recall_range(photos: int, recall: float, confidence: float) -> tuple[float, float]:
    """Between which shares the recall of a threshold lies that was placed by so many val photos, in (0, 1]."""
    place = _place(photos, recall)
    low, high = ((1 - confidence) / 2, (1 + confidence) / 2)
    return _beta_quantile(low, photos + 1 - place, place), _beta_quantile(high, photos + 1 - place, place)


def _place(photos: int, recall: float) -> int:
    """Which of the val photos, counted from the lowest probability, the threshold lies just below; 0: too few."""
    return math.floor((1 - recall) * (photos + 1) + _ROUNDING)


def _beta_quantile(p: float, a: int, b: int) -> float:
    """By bisection: Beta(a, b) is at most x as often as a + b − 1 trials with probability x succeed a times or more."""
    n, low, high = a + b - 1, 0.0, 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    for _ in range(50):
        x = (low + high) / 2
        at_least = sum(math.exp(logs[k] + k * math.log(x) + (n - k) * math.log1p(-x)) for k in range(a, n + 1))
        low, high = (low, x) if at_least > p else (x, high)
    return (low + high) / 2
