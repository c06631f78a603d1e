"""Numbers about predictions of several labels per photo: every class is a decision of its own, yes or no.

Logits (…, C) and labels (…, C) of 0 and 1. mAP is the mean over the classes of the average precision as scikit-learn's
`average_precision_score` defines it: precision summed over the steps in recall, without interpolation. Classes that no
photo has, or all have, are left out of it.
"""

import numpy as np

from potstill.metrics import ECE_BINS, Array, Interval, drawn_shares, fit_temperature
from potstill.metrics.curves import Ranking
from potstill.metrics.per_class import draw, interval, photo_weights

RESAMPLES = 2_000
"""At most so many, as for areas under curves: average precision needs the photos in order, for each class and seed."""

_BLOCK = 250


def sigmoid(logits: Array) -> Array:
    """(…, C) probabilities."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def logits_of(probabilities: Array) -> Array:
    """(…, C) logits whose sigmoids are these probabilities, give or take those of 0 and 1."""
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))


def nll_of_each(logits: Array, labels: Array) -> Array:
    """(…,) negative log-likelihood of a photo's labels in nats, the mean over the classes."""
    return np.asarray((np.logaddexp(0, logits) - labels * logits).mean(-1))


def temperature_of(logits: Array, labels: Array) -> float:
    """The one T for all classes that minimizes the NLL of logits / T, see `metrics.fit_temperature`."""
    return fit_temperature(logits, labels, nll=nll_of_each)


def mean_probability_logits(logits: list[Array]) -> Array:
    """Several models as one: the logits of their mean probabilities. One model: its logits unchanged."""
    if len(logits) == 1:
        return logits[0]
    return logits_of(np.mean([sigmoid(z) for z in logits], axis=0))


def exact_match(logits: Array, labels: Array) -> float:
    """Share of photos of which all labels are right, each present from a probability of 0.5 on: scikit-learn's accuracy
    of several labels."""
    return float(np.mean(((logits >= 0) == (labels > 0)).all(-1)))


def agreement(logits: Array, other: Array) -> float:
    """Share of decisions that both make alike, at a probability of 0.5."""
    return float(np.mean((logits >= 0) == (other >= 0)))


def certainty(probabilities: Array) -> Array:
    """(…,) mean over the classes of the probability of what is more probable, yes or no."""
    return np.asarray(np.maximum(probabilities, 1 - probabilities).mean(-1))


def ece(probabilities: Array, labels: Array, bins: int = ECE_BINS) -> float:
    """Expected calibration error over all decisions: mean gap between the probability of a class and how often photos
    have it, over equal-width bins. Source: Guo et al. 2017, arXiv:1706.04599, section 2, for yes and no."""
    flat, truth = probabilities.ravel(), labels.ravel()
    which = np.minimum((flat * bins).astype(int), bins - 1)
    gaps = np.bincount(which, flat - truth, bins)
    return float(np.abs(gaps).sum() / len(flat))


def average_precisions(logits: Array, labels: Array, shares: Array | None = None) -> Array:
    """(C,) average precision of each class; NaN where no photo has it, or all have.

    Args:
        shares: (C,) of photos with each class for which it is to be measured, see `weights_to_shares`.
    """
    weights = np.ones(labels.shape, np.float32) if shares is None else weights_to_shares(labels, shares)
    ranked = [Ranking.of(logits[:, c], labels[:, c] > 0) for c in range(labels.shape[1])]
    return np.array([own.areas(weights[None, :, c])[1][0] for c, own in enumerate(ranked)])


def weights_to_shares(labels: Array, shares: Array) -> Array:
    """(n, C) weights by which the photos have each class as often as other photos have it.

    Average precision depends on how frequent a class is: among few photos of it, each wrong one ranks before more of
    them. Two sets of photos can be compared only where that is alike. Classes that no photo has, or all have, get 1.

    Args:
        labels: (n, C) of 0 and 1.
        shares: (C,) of the other photos.
    """
    own = labels.mean(0)
    usable = (own > 0) & (own < 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(labels > 0, shares / own, (1 - shares) / (1 - own))
    return np.asarray(np.where(usable, found, 1), np.float32)


def mean_average_precision(logits: Array, labels: Array) -> float:
    """mAP of logits (n, C); 0 where no class can be ranked."""
    return _mean(average_precisions(logits, labels))


def place_thresholds(probabilities: Array, labels: Array) -> tuple[float, ...]:
    """For each class the probability from which on a photo has it: the one with the highest F1.

    Between two photos it lies in the middle, of equals it is the one nearest to 0.5. A class that no photo has, or all
    have, gets 0.5.
    """
    found = []
    for own, truth in zip(probabilities.T.astype(float), labels.T > 0, strict=True):
        if truth.all() or not truth.any():
            found.append(0.5)
            continue
        values = np.unique(own)
        candidates = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
        given = own[None] >= candidates[:, None]
        f1 = 2 * (given & truth).sum(1) / (given.sum(1) + truth.sum())
        best = candidates[np.isclose(f1, f1.max(), atol=1e-12)]
        found.append(float(best[np.abs(best - 0.5).argmin()]))
    return tuple(found)


def resampled_average_precisions(
    logits: Array,
    labels: Array,
    *,
    resamples: int,
    seed: int = 0,
    groups: Array | None = None,
    shares: Array | None = None,
) -> Array:
    """(R, C) average precision of each class over seeds and photos, both drawn anew.

    The same seed draws the same photos and seeds for every model, so that differences are paired.

    Args:
        logits: (S, n, C).
        groups: (n,) as in `metrics.bootstrap_mean`.
        shares: (C,) as in `average_precisions`.
    """
    seeds, photos, _ = logits.shape
    by_class = None if shares is None else weights_to_shares(labels, shares)
    ranked = _rankings(logits, labels)
    generator, parts, count = np.random.default_rng(seed), [], min(resamples, RESAMPLES)
    for start in range(0, count, _BLOCK):
        drawn_seeds, weights = draw(generator, min(_BLOCK, count - start), seeds, photos, groups)
        parts.append(_over_seeds(ranked, drawn_seeds, weights, by_class))
    return np.concatenate(parts)


def resampled_differences(
    first: Array, second: Array, labels: Array, *, resamples: int, groups: Array | None = None
) -> Array:
    """(R, C) average precision of `first` minus that of `second`, of runs whose seeds have nothing in common: each
    draws its own, and both the same photos.

    Args:
        first, second: (S1, n, C) and (S2, n, C) logits.
        groups: (n,) as in `metrics.bootstrap_mean`.
    """
    models, photos = [(_rankings(logits, labels), len(logits)) for logits in (first, second)], len(labels)
    generator, parts, count = np.random.default_rng(0), [], min(resamples, RESAMPLES)
    for start in range(0, count, _BLOCK):
        block = min(_BLOCK, count - start)
        weights = photo_weights(generator, block, photos, groups)
        own, its = (_over_seeds(ranked, drawn_shares(seeds, block, generator), weights) for ranked, seeds in models)
        parts.append(own - its)
    return np.concatenate(parts)


def _rankings(logits: Array, labels: Array) -> list[list[Ranking]]:
    """Of each seed (S, n, C) and class."""
    return [[Ranking.of(z[:, c], labels[:, c] > 0) for c in range(labels.shape[1])] for z in logits]


def _over_seeds(ranked: list[list[Ranking]], seeds: Array, weights: Array, by_class: Array | None = None) -> Array:
    """(R, C) average precision under weights of the seeds (R, S), and of the photos as in `_areas`."""
    each = np.stack([np.stack(_areas(model, weights, by_class), axis=-1) for model in ranked], axis=1)
    return np.asarray((each * seeds[:, :, None]).sum(1))


def _areas(ranked: list[Ranking], weights: Array, by_class: Array | None) -> list[Array]:
    """(R,) average precision of each class under weights (R, n), times those of each class (n, C)."""
    return [own.areas(weights if by_class is None else weights * by_class[:, c])[1] for c, own in enumerate(ranked)]


def f1_scores(given: Array, labels: Array) -> Array:
    """(C,) F1 of each class, mean over the seeds; NaN where a class is neither there nor predicted.

    Args:
        given: (S, n, C) bool.
    """
    seeds, photos, _ = given.shape
    return _f1(given, labels, np.full((1, seeds), 1 / seeds), np.ones((1, photos), np.float32))[0]


def resampled_f1_scores(
    given: Array, labels: Array, *, resamples: int, seed: int = 0, groups: Array | None = None
) -> Array:
    """(R, C) the same over seeds and photos drawn anew, as `resampled_average_precisions` draws them."""
    seeds, photos, _ = given.shape
    generator, parts, count = np.random.default_rng(seed), [], min(resamples, RESAMPLES)
    for start in range(0, count, _BLOCK):
        drawn = draw(generator, min(_BLOCK, count - start), seeds, photos, groups)
        parts.append(_f1(given, labels, *drawn))
    return np.concatenate(parts)


def _f1(given: Array, labels: Array, seeds: Array, photos: Array) -> Array:
    """(R, C) under weights of the seeds (R, S) and of the photos (R, n)."""
    truth = (labels > 0).astype(np.float32)
    each = []
    for own in given.astype(np.float32):
        hits, size = photos @ (own * truth), photos @ (own + truth)
        each.append(np.divide(2 * hits, size, out=np.full(size.shape, np.nan), where=size > 0))
    return np.asarray((np.stack(each, axis=1) * seeds[:, :, None]).sum(1))


def mean_interval(values: Array, resampled: Array, confidence: float) -> Interval:
    """The mean over the classes with its interval.

    Args:
        values: (C,) as measured.
        resampled: (R, C) of photos and seeds drawn anew.
    """
    known = ~np.isnan(values)
    means = np.array([_mean(row) for row in resampled[:, known]])
    found = interval(_mean(values), means, confidence)
    assert found is not None, "there is a test photo"
    return found


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
