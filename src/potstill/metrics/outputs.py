"""Outputs of a classifier that has classes of its own, as logits of others: permuted, or many to one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from potstill.metrics import multilabel, softmax

Kind = Literal["logits", "probabilities"]

SUM_TOLERANCE = 1e-2
"""By which the sum of probabilities may differ from 1: float16 and a few decimals round each of them."""

LEFT_OUT = -1

_LEAST = 1e-8
"""Probabilities are at least this before the logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What a classifier's outputs are, and to which classes they belong."""

    kind: Kind
    classes: int
    """C, of the run."""
    places: tuple[int, ...]
    """(K,) the class of the run that each of the classifier's classes belongs to, or `LEFT_OUT`."""
    several_labels: bool = False
    """Whether a photo may have several labels: each class has a probability of its own then."""

    @property
    def is_one_to_one(self) -> bool:
        """Whether both have the same classes, perhaps in another order."""
        return sorted(self.places) == list(range(self.classes))

    def logits(self, values: np.ndarray) -> np.ndarray:
        """(n, K) outputs → (n, C) float32 logits.

        Logits of the same classes stay as they are. Otherwise the probabilities of the classes that belong to one are
        added, those that are left out are removed, and the rest adds up to 1; where nothing is left, all classes get
        the same. With several labels per photo, a class has the largest probability of those that belong to it.
        """
        places = np.array(self.places)
        if self.kind == "logits" and self.is_one_to_one:
            return np.ascontiguousarray(values[:, np.argsort(places)], np.float32)
        if self.several_labels:
            separate = multilabel.sigmoid(values.astype(np.float64)) if self.kind == "logits" else values
            largest = [separate[:, places == label].max(-1) for label in range(self.classes)]
            return multilabel.logits_of(np.stack(largest, axis=-1)).astype(np.float32)
        probabilities = softmax(values.astype(np.float64)) if self.kind == "logits" else values.astype(np.float64)
        sums = np.zeros((len(values), self.classes))
        for label in range(self.classes):
            sums[:, label] = probabilities[:, places == label].sum(-1)
        total = sums.sum(-1, keepdims=True)
        found = np.where(total > 0, sums / np.maximum(total, np.finfo(np.float64).tiny), 1 / self.classes)
        return np.log(found + _LEAST).astype(np.float32)


def kind_of(values: np.ndarray, *, several_labels: bool = False) -> Kind:
    """Whether (n, K) outputs are probabilities: every row lies in 0…1 and, with one label per photo, adds up to 1."""
    return "logits" if fault_of(values, "probabilities", several_labels=several_labels) else "probabilities"


def fault_of(values: np.ndarray, kind: Kind, *, several_labels: bool = False) -> tuple[int, str] | None:
    """The first row of (n, K) outputs that cannot be what they should be, and why; None where there is none."""
    finite = np.isfinite(values).all(-1)
    if not finite.all():
        row = int(np.argmin(finite))
        bad = values[row][~np.isfinite(values[row])][0]
        return row, f"holds {bad}, which is not a number" if np.isnan(bad) else f"holds {bad}"
    if kind == "logits":
        return None
    lowest, highest, total = values.min(-1), values.max(-1), values.sum(-1, dtype=np.float64)
    if several_labels:
        for row in np.flatnonzero((lowest < 0) | (highest > 1)).tolist():
            bad = lowest[row] if lowest[row] < 0 else highest[row]
            return row, f"holds the probability {bad:g}, which is {'below 0' if bad < 0 else 'above 1'}"
        return None
    for row in np.flatnonzero(
        (lowest < 0) | (highest > 1 + SUM_TOLERANCE) | (np.abs(total - 1) > SUM_TOLERANCE)
    ).tolist():
        if lowest[row] < 0:
            return row, f"holds the probability {lowest[row]:g}, which is below 0"
        return row, f"holds probabilities that add up to {total[row]:.4g}, not to 1"
    return None
