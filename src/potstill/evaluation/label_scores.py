"""What is measured where a photo may have several labels: mAP, F1 at the model's thresholds, each class for itself.

Classes that no new photo has are left out of every number, since a table may say nothing of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from potstill import metrics
from potstill.evaluation.baseline import Outputs
from potstill.evaluation.result import LabelClassScore, LabelScore, Measured
from potstill.metrics import Interval, multilabel
from potstill.metrics.per_class import interval


@dataclass(frozen=True)
class _Measure:
    """A model on labeled photos, in the classes (K,) that the new photos have."""

    outputs: Outputs
    thresholds: np.ndarray
    """(K,)."""
    seed: int
    """By which photos are drawn anew."""
    shares: np.ndarray | None = None
    """(K,) of photos with each class for which the average precision is measured; as they are when None."""

    @property
    def labels(self) -> np.ndarray:
        """(n, K)."""
        return self.outputs.labels

    @property
    def given(self) -> np.ndarray:
        """(1, n, K) bool: the labels that the model gives."""
        return np.asarray(self.outputs.probabilities >= self.thresholds)[None]

    @cached_property
    def precision(self) -> tuple[np.ndarray, np.ndarray]:
        """Average precision of each class: (K,) as measured, and (R, K) of photos drawn anew."""
        values, labels, shares = self.outputs.probabilities, self.labels, self.shares
        drawn = multilabel.resampled_average_precisions(
            values[None], labels, resamples=multilabel.RESAMPLES, seed=self.seed, shares=shares
        )
        return multilabel.average_precisions(values, labels, shares), drawn

    @cached_property
    def f1(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of F1, at the thresholds."""
        resamples = multilabel.RESAMPLES
        drawn = multilabel.resampled_f1_scores(self.given, self.labels, resamples=resamples, seed=self.seed)
        return multilabel.f1_scores(self.given, self.labels), drawn

    def score(self, confidence: float) -> LabelScore:
        right = (self.given[0] == (self.labels > 0)).all(-1)
        values = self.outputs.probabilities.astype(float)
        return LabelScore(
            photos=len(self.labels),
            mean_average_precision=multilabel.mean_interval(*self.precision, confidence),
            macro_f1=multilabel.mean_interval(*self.f1, confidence),
            exact_match=metrics.accuracy_interval(right, confidence=confidence),
            nll=float(multilabel.nll_of_each(multilabel.logits_of(values), self.labels).mean()),
            ece=multilabel.ece(values, self.labels),
        )


def measure_labels(
    new: Outputs, test: Outputs | None, classes: Sequence[str], thresholds: Sequence[float], confidence: float
) -> Measured:
    """mAP on the new photos with labels, and on test.

    Args:
        test: None where the model's own test photos are not known.
        thresholds: (C,) of the model.
    """
    known = new[~new.unlabeled]
    there = np.asarray(known.labels.any(0))
    names = [name for name, is_there in zip(classes, there, strict=True) if is_there]
    if not names:
        return Measured(score=None, test=None, difference=None, per_class=(), lacking=tuple(classes))
    least = np.array(thresholds)[there]
    here = _Measure(_in_classes(known, there), least, seed=0)
    before = at_shares = None
    if test is not None:
        before = _Measure(_in_classes(test, there), least, seed=1)
        at_shares = replace(before, shares=here.labels.mean(0))
    return Measured(
        score=here.score(confidence),
        test=before.score(confidence) if before else None,
        difference=_difference(here, at_shares, confidence) if at_shares else None,
        per_class=tuple(_per_class(here, at_shares, names, confidence)),
        lacking=tuple(name for name in classes if name not in names),
    )


def _in_classes(outputs: Outputs, which: np.ndarray) -> Outputs:
    """Of some of the classes, `which` (C,) bool."""
    return Outputs(outputs.labels[:, which], outputs.probabilities[:, which])


def _difference(new: _Measure, test: _Measure, confidence: float) -> Interval | None:
    """mAP on new photos minus that on test, each class as frequent as in the new ones. They are different photos, so
    each side is drawn for itself."""
    (own, drawn), (before, drawn_before) = new.precision, test.precision
    if np.isnan(own - before).all():
        return None
    return multilabel.mean_interval(own - before, drawn - drawn_before, confidence)


def _per_class(
    new: _Measure, test: _Measure | None, names: Sequence[str], confidence: float
) -> Iterator[LabelClassScore]:
    (precision, drawn), (f1, drawn_f1) = new.precision, new.f1
    for place, name in enumerate(names):
        before = np.nan if test is None else float(test.precision[0][place])
        yield LabelClassScore(
            name=name,
            photos=int(new.labels[:, place].sum()),
            average_precision=interval(float(precision[place]), drawn[:, place], confidence),
            f1=interval(float(f1[place]), drawn_f1[:, place], confidence),
            test_photos=None if test is None else int(test.labels[:, place].sum()),
            test_average_precision=None if np.isnan(before) else before,
        )
