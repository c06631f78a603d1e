"""Which photos to label next: numbers in, numbers out.

A label helps where the teacher does not know what a photo shows, and where there is no label of anything like it. Doubt
alone picks the same few confusions again and again, variety alone picks oddities, so both count.
"""

import numpy as np

DENSITY_NEIGHBORS = 10
"""Photos that a photo must have near it to stand for others."""


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


def choose(features: np.ndarray, weights: np.ndarray, labeled: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Draw photos that are uncertain and unlike one another and the labeled ones.

    One after the other is drawn, with a probability proportional to its weight times its squared distance to the
    nearest photo that is labeled or drawn already.

    Args:
        features: (N, D) of the photos to choose from, of length 1.
        weights: (N,) ≥ 0, such as their `doubt`.
        labeled: (M, D) of the photos with labels; M may be 0.
        count: how many to draw, at most N.
    Returns:
        (count,) positions, in the order in which they were drawn.
    Source:
        The drawing of k-means++ (Arthur and Vassilvitskii 2007), which BADGE does in the space of the last layer's
        gradients, whose length is the model's doubt (Ash et al. 2020, arXiv:1906.03671). Here doubt and features are
        two factors, so that features of any length, and a committee's doubt, can take part.
    """
    generator, drawn = np.random.default_rng(seed), list[int]()
    distance = _to_nearest(features, labeled) if len(labeled) else np.ones(len(features))
    for _ in range(min(count, len(features))):
        score = np.maximum(weights, 1e-9) * np.maximum(distance, 1e-9)
        score[drawn] = 0
        drawn.append(int(generator.choice(len(score), p=score / score.sum())))
        distance = np.minimum(distance, _to_nearest(features, features[drawn[-1:]]))
    return np.array(drawn, int)


def _to_nearest(features: np.ndarray, others: np.ndarray, block: int = 1024) -> np.ndarray:
    """(N,) squared distance of each vector of length 1 to the nearest of the others, of length 1 too."""
    parts = [features[start : start + block] @ others.T for start in range(0, len(features), block)]
    return np.asarray(2 - 2 * np.concatenate([part.max(axis=1) for part in parts]).clip(-1, 1))
