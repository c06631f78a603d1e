"""Which photos to label next: numbers in, numbers out.

Doubt alone picks the same few confusions again and again, variety alone picks oddities; so the most doubtful photos are
grouped by what they show, and one is taken of each group.
"""

import numpy as np

CANDIDATES = 10
"""Photos for each one that is chosen: the most doubtful ones, which are grouped."""

ROUNDS = 20
"""Of k-means. It has settled by then, or changes little."""


def doubt(teacher: np.ndarray, student: np.ndarray | None = None) -> np.ndarray:
    """How much is unknown of each photo: 1 − the margin between the two most probable classes.

    With a student, the margin is that of the mean of both models' probabilities, which is small where either model
    hesitates and where both are confident of different classes.

    Args:
        teacher, student: (N, C) probabilities.
    Returns:
        (N,) in [0, 1].
    Source:
        Margin: Scheffer, Decomain, Wrobel 2001, "Active hidden Markov models for information extraction". Mean of a
        committee: Settles 2010, "Active learning literature survey", section 3.2 (query by committee).
    """
    mean = teacher if student is None else (teacher + student) / 2
    top = np.sort(mean, axis=1)[:, -2:]
    return np.asarray(1 - (top[:, 1] - top[:, 0]))


def disagree(teacher: np.ndarray, student: np.ndarray | None) -> np.ndarray:
    """(N,) bool: whether the two models predict different classes."""
    if student is None:
        return np.zeros(len(teacher), bool)
    return np.asarray(teacher.argmax(1) != student.argmax(1))


def label_doubt(teacher: np.ndarray, student: np.ndarray | None = None) -> np.ndarray:
    """How much is unknown of each decision, where a photo may have several labels: the entropy of yes and no in bits.

    With a student it is that of the mean of both models' probabilities, for the same reason as in `doubt`. The doubt of
    a photo is the mean over its classes.

    Args:
        teacher, student: (N, C) probabilities.
    Returns:
        (N, C) in [0, 1].
    Source:
        Entropy: Settles 2010, section 2.1, with each class as a question of its own.
    """
    mean = np.clip(teacher if student is None else (teacher + student) / 2, 1e-7, 1 - 1e-7).astype(float)
    return np.asarray(-(mean * np.log2(mean) + (1 - mean) * np.log2(1 - mean)))


def choose(features: np.ndarray, weights: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Choose photos about which little is known, and that are unlike one another.

    The `CANDIDATES` · count photos of the largest weights are put into `count` groups by k-means, in which each counts
    by its weight. Of each group the photo nearest to the center is chosen.

    Args:
        features: (N, D) of the photos to choose from.
        weights: (N,) ≥ 0, such as their `doubt`.
        count: how many to choose.
    Returns:
        (min(count, N),) positions; those first whose groups have the largest sums of weights.
    Source:
        Zhdanov 2019, "Diverse mini-batch active learning", arXiv:1901.05954, algorithm 1. The first centers are drawn
        as in k-means++ (Arthur and Vassilvitskii 2007), which weights take part in.
    """
    count = min(count, len(features))
    top = np.argsort(-weights, kind="stable")[: CANDIDATES * count]
    vectors, weight = features[top], np.maximum(weights[top], 1e-9)
    centers = vectors[_first_centers(vectors, weight, count, np.random.default_rng(seed))]
    for _ in range(ROUNDS):
        group = _distances(vectors, centers).argmin(axis=1)
        sums = np.bincount(group, weight, minlength=count)
        for number in np.flatnonzero(sums):
            mine = group == number
            centers[number] = weight[mine] @ vectors[mine] / sums[number]
    distances = _distances(vectors, centers)
    sums = np.bincount(distances.argmin(axis=1), weight, minlength=count)
    chosen: list[int] = []
    for number in np.argsort(-sums, kind="stable").tolist():
        distances[chosen, number] = np.inf
        chosen.append(int(distances[:, number].argmin()))
    return np.asarray(top[chosen])


def _first_centers(vectors: np.ndarray, weight: np.ndarray, count: int, random: np.random.Generator) -> list[int]:
    """Positions of `count` different vectors, drawn by weight and squared distance to those drawn before."""
    drawn: list[int] = []
    distance = np.ones(len(vectors))
    for _ in range(count):
        score = weight * np.maximum(distance, 1e-9)
        score[drawn] = 0
        drawn.append(int(random.choice(len(score), p=score / score.sum())))
        distance = np.minimum(distance, _distances(vectors, vectors[drawn[-1:]])[:, 0])
    return drawn


def _distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) squared distances of (N, D) and (M, D)."""
    squares = np.square(vectors).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return np.maximum(squares - 2 * vectors @ others.T, 0)
