"""How far the predictions of a file are from the torch student's, and how far they may be."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from potstill.export.reference import SplitPredictions
from potstill.export.score import Score
from potstill.wording import counted

MAX_LOSS = 0.01
MIN_AGREEMENT = 0.99
MIN_ROUNDED_AGREEMENT = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """What an export may lose. One photo is always allowed: with few test photos there is no finer step."""

    max_loss: float = MAX_LOSS
    """Accuracy, as a share of the test photos."""
    min_agreement: float = MIN_AGREEMENT
    """Share of test photos with the same class as the torch student."""
    min_rounded_agreement: float = MIN_ROUNDED_AGREEMENT
    """The same for int8: the candidate nearest on val is kept although it misses `min_agreement`."""

    def for_rounded(self) -> "Tolerance":
        """The tolerance for the best int8 candidate."""
        return replace(self, min_agreement=min(self.min_agreement, self.min_rounded_agreement))

    def broken_by(
        self, lost: int, different: int, photos: int, split: str = "test", *, measure: str = "accuracy"
    ) -> str:
        """Why a file is outside the tolerance; empty when it is inside.

        Args:
            lost: how many fewer photos it classifies correctly than the torch student.
            different: photos with another class than the torch student's.
            photos: how many there are in the split.
            measure: what is lost: accuracy, or with several labels per photo mAP.
        """
        some = counted(photos, f"{split} photo")
        if lost > max(1, self.max_loss * photos):
            return f"loses {100 * lost / photos:.1f} points of {measure} ({lost} of {some})"
        if different > max(1, (1 - self.min_agreement) * photos):
            return f"agrees with the torch student on {1 - different / photos:.1%} of {some} only"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A file's predictions compared with the torch student's, in numbers of photos."""

    photos: int
    right: int
    lost: int
    """How many fewer photos are classified correctly than by the torch student."""
    different: int
    max_difference: float
    distance: float
    """Mean total variation: how much probability the file gives to other classes than the student does. It tells two
    files apart even on a few hundred photos, where their classes differ only on photos that were nearly undecided."""
    wrong: str
    """What no tolerance allows; empty when nothing is wrong."""

    @property
    def agreement(self) -> float:
        """Share of photos with the same class."""
        return 1 - self.different / self.photos


def compare(score: Score, reference: SplitPredictions, classes: Sequence[str]) -> Comparison:
    """Compare the predictions of a file with the torch student's.

    Args:
        classes: of the student; the file must name the same.
    """
    wrong = ""
    if json.loads(score.metadata.get("labels", "[]")) != list(classes):
        wrong = "the labels in the file are not the student's"
    if not are_probabilities(score.probabilities, several_labels=bool(reference.thresholds)):
        wrong = "its outputs are not probabilities: below 0, above 1, or a sum that is not 1"
    right = reference.right(score.probabilities)
    apart = np.abs(score.probabilities - reference.probabilities)
    return Comparison(
        photos=len(reference.labels),
        right=right,
        lost=reference.right(reference.probabilities) - right,
        different=reference.different(score.probabilities),
        max_difference=float(apart.max()),
        distance=float(apart.sum(-1).mean() / 2),
        wrong=wrong,
    )


def are_probabilities(values: np.ndarray, *, several_labels: bool = False) -> bool:
    """Whether every row of (n, C) is one, give or take the rounding of 8 bits per class; where photos may have several
    labels, whether every value is."""
    sums = np.ones(len(values)) if several_labels else values.sum(-1, dtype=np.float64)
    slack = max(0.02, values.shape[1] / 512)
    return bool(
        np.all(np.isfinite(values)) and values.min() >= 0 and values.max() <= 1.001 and np.all(abs(sums - 1) < slack)
    )
