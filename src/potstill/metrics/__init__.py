"""Numbers about predictions: accuracy, NLL, calibration error, agreement, and the intervals and tests around them.

Everything is numpy, works on logits (n, C) and labels (n,), and is the same for teacher, student and twin. `choice` has
what is chosen by on val, `per_class` numbers about classes of unequal size, `curves` the ROC and PR curves,
`operating_point` thresholds, `multilabel` numbers about photos with several labels, and `classification` tells the two
kinds of photos apart. Imports `errors` and `config`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

ECE_BINS = 15


def log_softmax(logits: Array) -> Array:
    """(…, C) log-probabilities."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(logits: Array) -> Array:
    """(…, C) probabilities."""
    return np.exp(log_softmax(logits))


def logits_of(probabilities: Array) -> Array:
    """(…, C) logits whose softmax are these probabilities, give or take one of 0."""
    return np.asarray(np.log(probabilities + 1e-8))


def accuracy(logits: Array, labels: Array) -> float:
    """Share of photos whose largest logit is the label's."""
    return float(np.mean(logits.argmax(-1) == labels))


def balanced_accuracy(logits: Array, labels: Array) -> float:
    """Mean over the classes that occur of the share of their photos whose largest logit is the label's."""
    right = logits.argmax(-1) == labels
    return float(np.mean([np.mean(right[labels == label]) for label in np.unique(labels)]))


def nll(logits: Array, labels: Array) -> float:
    """Mean negative log-likelihood of the label, in nats."""
    return float(np.mean(nll_of_each(logits, labels)))


def nll_of_each(logits: Array, labels: Array) -> Array:
    """(…,) negative log-likelihood of each photo's label, in nats."""
    return -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]


def ece(logits: Array, labels: Array, bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean gap between top probability and accuracy over equal-width bins.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    probabilities = softmax(logits)
    top, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    which = np.minimum((top * bins).astype(int), bins - 1)
    gaps = [abs(np.sum(right[which == b]) - np.sum(top[which == b])) for b in range(bins)]
    return float(sum(gaps) / len(labels))


def agreement(logits: Array, other: Array) -> float:
    """Share of photos on which both give the same class."""
    return float(np.mean(logits.argmax(-1) == other.argmax(-1)))


def fit_temperature(
    logits: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    nll: Callable[[Array, Array], Array] = nll_of_each,
) -> float:
    """The T in [0.05, 20] that minimizes the NLL of logits / T: one number that repairs most over-confidence.

    A prior that weighs as much as one photo draws T to 1. Without it the temperature of a model that is right on every
    photo, as happens with twenty of them, falls without limit, and its first error on other photos costs 10 and more.

    NLL and prior are convex in 1 / T, so a ternary search finds the minimum.

    Args:
        weights: (n,) how much each photo counts; all alike when None.
        nll: (n,) of logits and labels.
    Source: Guo et al. 2017, section 4.2.
    """

    def loss(temperature: float) -> float:
        values = nll(logits / temperature, labels)
        # Minus the logarithm of a gamma density of 1 / T with its mode at 1.
        prior = (1 / temperature - 1 + math.log(temperature)) / len(labels)
        return float(np.mean(values if weights is None else weights * values)) + prior

    low, high = math.log(0.05), math.log(20)
    while high - low > 1e-4:
        third = (high - low) / 3
        left, right = low + third, high - third
        if loss(math.exp(left)) < loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def nll_scaled(logits: Array, labels: Array) -> float:
    """The NLL after temperature scaling: what is left when over-confidence is repaired."""
    return nll(logits / fit_temperature(logits, labels), labels)


def mean_probability_logits(logits: list[Array]) -> Array:
    """Several models as one: the logarithm of their mean probabilities. One model: its logits unchanged."""
    if len(logits) == 1:
        return logits[0]
    return np.log(np.mean([softmax(z) for z in logits], axis=0) + 1e-8)


def confusion(logits: Array, labels: Array) -> Array:
    """(C, C) counts: rows are the true classes, columns the predicted ones."""
    classes = logits.shape[-1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(-1)), 1)
    return counts


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share. Source: Wilson 1927; good at small counts and near 1."""
    z = _normal_quantile((1 + confidence) / 2)
    share = right / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, center - half), min(1.0, center + half)


def difference_of_shares(
    right: Array, total: Array, other_right: Array, other_total: Array, confidence: float = 0.95
) -> "Interval":
    """The difference of two shares that were counted on different photos, in the first one's mix of classes.

    The shares of each class are compared, and the differences are averaged by how many photos the class has among the
    first. With a single class this is the plain difference.

    Args:
        right, total: (K,) counts of each class; `total` above 0.
        other_right, other_total: (K,) the same on the other photos.
    Source: Newcombe 1998, method 10 (Wilson intervals of both shares); averaged as by Zou and Donner 2008 (MOVER).
    """
    weights = total / total.sum()
    one, other = right / total, other_right / other_total
    ends = np.array([wilson_interval(int(k), int(n), confidence) for k, n in zip(right, total, strict=True)])
    others = np.array(
        [wilson_interval(int(k), int(n), confidence) for k, n in zip(other_right, other_total, strict=True)]
    )
    below = np.sum(weights**2 * ((one - ends[:, 0]) ** 2 + (others[:, 1] - other) ** 2))
    above = np.sum(weights**2 * ((ends[:, 1] - one) ** 2 + (other - others[:, 0]) ** 2))
    value = float(np.sum(weights * (one - other)))
    return Interval(value, value - math.sqrt(below), value + math.sqrt(above))


def kolmogorov_smirnov(first: Array, second: Array) -> tuple[float, float]:
    """The largest distance of two samples' distribution functions, and its p-value.

    Args:
        first, second: (n,) and (m,) numbers.
    Source: the two-sample test with the asymptotic distribution and Stephens' correction (Stephens 1970).
    """
    values = np.sort(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    distance = float(np.abs(below[0] - below[1]).max())
    root = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the sum converges slowly, and the p-value is 1 to twelve digits
        return distance, 1.0
    tail = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return distance, min(max(tail, 0.0), 1.0)


def percent(confidence: float) -> str:
    """The confidence of an interval in words: `95%`, `97.5%`."""
    return f"{100 * confidence:g}%"


def mcnemar(first_right: Array, second_right: Array) -> tuple[int, int, float]:
    """Exact McNemar test of two models on the same photos.

    Args:
        first_right, second_right: (n,) bool.
    Returns:
        Photos only the first got right, photos only the second got right, two-sided p.
    Source: McNemar 1947; the exact binomial form.
    """
    b = int(np.sum(first_right & ~second_right))
    c = int(np.sum(~first_right & second_right))
    n = b + c
    if n == 0:
        return 0, 0, 1.0
    tail = sum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(min(b, c) + 1))
    return b, c, min(1.0, 2 * tail)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def points(self) -> str:
        """A difference of shares in words: `+1.0 points (-0.5 to +2.5)`."""
        return f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def accuracy_interval(right: Array, *, confidence: float, groups: Array | None = None) -> Interval:
    """Accuracy of one model with its interval: Wilson's, or where photos have groups, a bootstrap over groups.

    Args:
        right: (n,) bool.
        groups: (n,) the group of each photo; None where photos are independent of each other.
    """
    if groups is not None:
        return bootstrap_mean(right[None].astype(float), resamples=10_000, confidence=confidence, groups=groups)
    return Interval(float(right.mean()), *wilson_interval(int(right.sum()), len(right), confidence))


def bootstrap_mean(
    right: Array, *, resamples: int, confidence: float = 0.95, seed: int = 0, groups: Array | None = None
) -> Interval:
    """Interval of a mean over seeds and photos, both drawn anew.

    Args:
        right: (S, n) one number per seed and photo: rightness, or the difference of two models' rightness (paired).
        groups: (n,) the group of each photo, such as a person; whole groups are drawn then. None: single photos.
    Source: Efron and Tibshirani 1993, percentile interval; two-level resampling of seeds and photos. Groups: the
        cluster bootstrap, Davison and Hinkley 1997, section 3.8.
    """
    means = resampled_means(right[None], resamples=resamples, seed=seed, groups=groups)[:, 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(right.mean()), float(low), float(high))


def resampled_means(values: Array, *, resamples: int, seed: int = 0, groups: Array | None = None) -> Array:
    """(R, K) means over seeds and photos, both drawn anew, the same ones for all K.

    Args:
        values: (K, S, n) one number per seed and photo.
        groups: as in `bootstrap_mean`.
    """
    kinds, seeds, photos = values.shape
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, kinds))
    for start in range(0, resamples, 500):
        count = min(500, resamples - start)
        picked_seeds = drawn_shares(seeds, count, generator)
        picked_photos = drawn_photos(photos, count, generator, groups)
        for kind in range(kinds):
            means[start : start + count, kind] = np.einsum(
                "rs,sn,rn->r", picked_seeds, values[kind], picked_photos, optimize=True
            )
    return means


def drawn_shares(number: int, count: int, generator: np.random.Generator) -> Array:
    """(R, number) the share of each, such as a seed, in so many samples of the same size, drawn with replacement."""
    return generator.multinomial(number, np.full(number, 1 / number), size=count) / number


def drawn_photos(photos: int, count: int, generator: np.random.Generator, groups: Array | None = None) -> Array:
    """(R, n) the share of each photo in so many samples of the same size, drawn with replacement.

    Args:
        groups: as in `bootstrap_mean`. There are as many groups in a sample as in all; its number of photos may differ.
    """
    if groups is None:
        return drawn_shares(photos, count, generator)
    names, group_of = np.unique(groups, return_inverse=True)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)[:, group_of]
    return np.asarray(drawn / drawn.sum(1, keepdims=True))


def design_effect(values: Array, groups: Array | None) -> float:
    """How many times more photos are needed for the same certainty because photos of a group are alike; 1 at least.

    Args:
        values: (n,) one number per photo.
        groups: as in `bootstrap_mean`.
    Source: Kish 1965; the variance of the mean by groups over that by photos.
    """
    if groups is None:
        return 1.0
    apart = values - values.mean()
    by_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights=apart)
    return max(1.0, float(np.sum(by_group**2) / max(np.sum(apart**2), 1e-12)))


def smallest_visible_difference(discordant_share: float, photos: int) -> float:
    """The difference in accuracy that this many photos would show with 80 % power at 5 %.

    Args:
        discordant_share: share of photos on which exactly one of the two models is right.
    Source: normal approximation of McNemar's test: (1.96 + 0.84) · sqrt(discordant / n).
    """
    return 2.8 * math.sqrt(max(discordant_share, 1 / photos) / photos)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
