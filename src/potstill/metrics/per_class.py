"""Recall, precision, macro F1 and balanced accuracy, each with an interval over photos and seeds.

For a model with several seeds, each number is the mean over the seeds of what every seed has. The intervals draw photos
and seeds anew, as `metrics.bootstrap_mean` does; two models with as many seeds are drawn alike, so that their
differences are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill.metrics import Array, Interval, drawn_photos, drawn_shares

_BLOCK = 500


@dataclass(frozen=True, slots=True)
class Rates:
    """Numbers of one model under R weightings of photos and seeds. NaN where there is nothing to divide by."""

    recall: Array
    """(R, C)."""
    precision: Array
    """(R, C)."""
    f1: Array
    """(R, C)."""

    @property
    def balanced_accuracy(self) -> Array:
        """(R,) mean recall of the classes that occur."""
        return _mean(self.recall, axis=-1)

    @property
    def macro_f1(self) -> Array:
        """(R,) mean F1 of the classes that occur or are predicted."""
        return _mean(self.f1, axis=-1)


def measured_rates(predicted: Array, labels: Array, classes: int) -> Rates:
    """Of all photos and seeds as they are, R = 1.

    Args:
        predicted: (S, n) class indices.
        labels: (n,).
    """
    seeds, photos = predicted.shape
    return _rates(predicted, labels, classes, np.full((1, seeds), 1 / seeds), np.ones((1, photos), np.float32))


def resampled_rates(
    predicted: Array, labels: Array, classes: int, *, resamples: int, seed: int = 0, groups: Array | None = None
) -> Rates:
    """Of photos and seeds drawn anew, R = `resamples`; arguments as for `measured_rates` and `bootstrap_mean`."""
    seeds, photos = predicted.shape
    generator, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, _BLOCK):
        drawn = draw(generator, min(_BLOCK, resamples - start), seeds, photos, groups)
        parts.append(_rates(predicted, labels, classes, *drawn))
    return Rates(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("recall", "precision", "f1")))


def draw(
    generator: np.random.Generator, count: int, seeds: int, photos: int, groups: Array | None = None
) -> tuple[Array, Array]:
    """Weights of `count` resamples: (R, S) shares of the seeds, and (R, n) of the photos, of which whole `groups` (n,)
    are drawn where there are any."""
    drawn_seeds = drawn_shares(seeds, count, generator)
    return drawn_seeds, photo_weights(generator, count, photos, groups)


def photo_weights(generator: np.random.Generator, count: int, photos: int, groups: Array | None = None) -> Array:
    """The weights of the photos alone, (R, n) float32."""
    return (photos * drawn_photos(photos, count, generator, groups)).astype(np.float32)


def interval(value: float, sampled: Array, confidence: float) -> Interval | None:
    """A number with the interval of its resamples (R,); None where it is not defined."""
    known = sampled[~np.isnan(sampled)]
    if np.isnan(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high))


def _rates(predicted: Array, labels: Array, classes: int, seeds: Array, photos: Array) -> Rates:
    """Under weights of the seeds (R, S) and of the photos (R, n)."""
    support = summed_by(photos, labels, classes)
    each = []
    for own in predicted:
        right = own == labels
        hits = summed_by(photos[:, right], labels[right], classes)
        given = summed_by(photos, own, classes)
        each.append((_share(hits, support), _share(hits, given), _share(2 * hits, support + given)))
    recall, precision, f1 = (_over_seeds([numbers[i] for numbers in each], seeds) for i in range(3))
    return Rates(recall, precision, f1)


def summed_by(weights: Array, groups: Array, count: int) -> Array:
    """(R, count) sums of the weights (R, n) over the photos of each group (n,)."""
    sums = np.zeros((len(weights), count), np.float64)
    if len(groups):
        order = np.argsort(groups, kind="stable")
        present, starts = np.unique(groups[order], return_index=True)
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _over_seeds(values: Sequence[Array], weights: Array) -> Array:
    """(R, C) mean over the seeds, each (R, C), with weights (R, S), of those that are known."""
    stacked = np.stack(values, axis=1)
    known = ~np.isnan(stacked) * weights[:, :, None]
    return _share((np.nan_to_num(stacked) * known).sum(1), known.sum(1))


def _mean(values: Array, axis: int) -> Array:
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0).sum(axis), known.sum(axis).astype(float))
