"""ROC and PR curves of one class against all others, and the areas under them."""

from dataclasses import dataclass

import numpy as np

from potstill.metrics import Array
from potstill.metrics.per_class import draw

GRID = np.linspace(0, 1, 101)
"""Where curves are stored: false alarm rates of ROC, recalls of PR."""

RESAMPLES = 2_000
"""At most so many: an area needs the photos in order, once for each class and seed."""

_BLOCK = 250


@dataclass(frozen=True, slots=True)
class Ranking:
    """The photos in the order of a score, the highest first; those with the same score share a place."""

    order: Array
    """(n,)."""
    starts: Array
    """(G,) where each place begins."""
    positive: Array
    """(n,) bool, in that order."""

    @classmethod
    def of(cls, scores: Array, positive: Array) -> "Ranking":
        """Of scores (n,) for whether the photos are `positive` (n,) bool."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        return cls(order, starts, positive[order])

    def counts(self, weights: Array) -> tuple[Array, Array]:
        """(R, G) each: weight of the positive and of the other photos from the top down to every place."""
        ranked = weights[:, self.order]
        hits = np.add.reduceat(np.where(self.positive, ranked, 0), self.starts, axis=1).cumsum(1, dtype=np.float64)
        every = np.add.reduceat(ranked, self.starts, axis=1).cumsum(1, dtype=np.float64)
        return hits, every - hits

    def areas(self, weights: Array) -> tuple[Array, Array]:
        """(R,) each: area under the ROC curve and average precision; NaN where one side has no photo.

        Source: the ROC area is the share of pairs in the right order (Hanley and McNeil 1982), ties count half; the
        area under the PR curve is the sum of precision times the step in recall, without interpolation.
        """
        hits, false = self.counts(weights)
        step_hits, step_false = np.diff(hits, axis=1, prepend=0), np.diff(false, axis=1, prepend=0)
        pairs = hits[:, -1] * false[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            roc = np.where(pairs > 0, (step_false * (hits - step_hits / 2)).sum(1) / pairs, np.nan)
            precision = hits / np.maximum(hits + false, 1e-12)
            pr = np.where(pairs > 0, (step_hits * precision).sum(1) / hits[:, -1], np.nan)
        return roc, pr

    def roc(self) -> Array:
        """Recall at the false alarm rates of GRID."""
        hits, false = self.counts(np.ones((1, len(self.order)), np.float32))
        x, y = np.concatenate([[0], false[0] / false[0, -1]]), np.concatenate([[0], hits[0] / hits[0, -1]])
        return np.interp(GRID, x, np.maximum.accumulate(y))

    def pr(self) -> Array:
        """Precision at the recalls of GRID: the best that has at least this recall."""
        hits, false = self.counts(np.ones((1, len(self.order)), np.float32))
        precision = np.maximum.accumulate((hits[0] / (hits[0] + false[0]))[::-1])[::-1]
        place = np.searchsorted(hits[0] / hits[0, -1], GRID - 1e-12)
        return precision[np.minimum(place, len(precision) - 1)]


def rankings(scores: Array, positive: Array) -> list[Ranking]:
    """One for each seed, of scores (S, n)."""
    return [Ranking.of(own, positive) for own in scores]


def measured_areas(ranked: list[Ranking]) -> tuple[float, float]:
    """Areas under the ROC and the PR curve, means over the seeds."""
    ones = np.ones((1, len(ranked[0].order)), np.float32)
    roc, pr = (float(np.mean(values)) for values in zip(*(own.areas(ones) for own in ranked), strict=True))
    return roc, pr


def resampled_areas(ranked: list[Ranking], *, resamples: int, seed: int = 0, groups: Array | None = None) -> Array:
    """(R, 2) the same of photos and seeds drawn anew."""
    generator, parts = np.random.default_rng(seed), []
    count = min(resamples, RESAMPLES)
    for start in range(0, count, _BLOCK):
        seeds, photos = draw(generator, min(_BLOCK, count - start), len(ranked), len(ranked[0].order), groups)
        each = np.stack([np.stack(own.areas(photos), axis=-1) for own in ranked], axis=1)
        parts.append((each * seeds[:, :, None]).sum(1))
    return np.concatenate(parts)
