"""What is measured where a photo has one label: accuracy, of each class, too."""

from collections.abc import Iterator, Sequence

import numpy as np

from potstill import metrics
from potstill.evaluation.baseline import Outputs
from potstill.evaluation.result import ClassScore, Measured, Score
from potstill.metrics import Interval

_TINY = 1e-12
"""A probability of 0 has no logarithm."""


def measure_classes(new: Outputs, test: Outputs | None, classes: Sequence[str], confidence: float) -> Measured:
    """Accuracy on the new photos with labels, and on test.

    Args:
        test: None where the model's own test photos are not known.
    """
    known = new.of_known_classes()
    return Measured(
        score=_score(known, confidence),
        test=_score(test, confidence) if test else None,
        difference=_difference(known, test, confidence) if test else None,
        per_class=tuple(_per_class(known, test, classes, confidence)),
        lacking=tuple(name for label, name in enumerate(classes) if label not in known.labels),
    )


def _score(outputs: Outputs, confidence: float) -> Score | None:
    photos = len(outputs.labels)
    if not photos:
        return None
    logits = np.log(np.maximum(outputs.probabilities, _TINY))
    correct = int(np.sum(outputs.correct))
    return Score(
        photos=photos,
        accuracy=Interval(correct / photos, *metrics.wilson_interval(correct, photos, confidence)),
        balanced_accuracy=metrics.balanced_accuracy(logits, outputs.labels),
        nll=metrics.nll(logits, outputs.labels),
        ece=metrics.ece(logits, outputs.labels),
    )


def _difference(new: Outputs, test: Outputs, confidence: float) -> Interval | None:
    """Accuracy on new photos minus that on test, both in the new photos' mix of classes."""
    total, test_total = new.counts(), test.counts()
    both = (total > 0) & (test_total > 0)
    if not both.any():
        return None
    right, test_right = new.counts(new.correct), test.counts(test.correct)
    return metrics.difference_of_shares(right[both], total[both], test_right[both], test_total[both], confidence)


def _per_class(
    outputs: Outputs, test: Outputs | None, classes: Sequence[str], confidence: float
) -> Iterator[ClassScore]:
    """Of the classes that have new photos."""
    predicted = outputs.probabilities.argmax(-1)
    for label, name in enumerate(classes):
        mine = outputs.labels == label
        photos = int(mine.sum())
        if not photos:
            continue
        correct = int(np.sum(predicted[mine] == label))
        wrong = np.bincount(predicted[mine & (predicted != label)], minlength=len(classes))
        own = test.correct[test.labels == label] if test is not None else np.empty(0)
        yield ClassScore(
            name=name,
            photos=photos,
            accuracy=Interval(correct / photos, *metrics.wilson_interval(correct, photos, confidence)),
            test_photos=None if test is None else len(own),
            test_accuracy=float(own.mean()) if len(own) else None,
            mostly_taken_for=classes[int(wrong.argmax())] if wrong.any() else "",
        )
