"""What files say beside the torch student: how far off they are, what of that is forgiven, and which one is nearest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill.export.reference import Told
from potstill.export.results import FileResult
from potstill.export.score import Answers

MAX_LOSS = 0.01
MIN_AGREEMENT = 0.99
MIN_ROUNDED_AGREEMENT = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """What an export may lose. One photo is always forgiven: few test photos know no finer step."""

    max_loss: float = MAX_LOSS
    """Accuracy, as a share of the test photos."""
    min_agreement: float = MIN_AGREEMENT
    """Share of test photos with the same class as the torch student."""
    min_rounded_agreement: float = MIN_ROUNDED_AGREEMENT
    """The same for int8: the rung that comes nearest on val is kept although it misses `min_agreement`."""

    def for_rounded(self) -> "Tolerance":
        """What the best of all rungs is held to."""
        return replace(self, min_agreement=min(self.min_agreement, self.min_rounded_agreement))

    def broken_by(self, lost: int, different: int, photos: int, split: str = "test") -> str:
        """Why a file is not right any more; empty when it is.

        Args:
            lost: right answers less than the torch student's.
            different: photos with another class than the torch student's.
            photos: how many there are in the split.
        """
        if lost > max(1, self.max_loss * photos):
            return f"loses {100 * lost / photos:.1f} points of accuracy ({lost} of {photos} {split} photos)"
        if different > max(1, (1 - self.min_agreement) * photos):
            return f"agrees with the torch student on {1 - different / photos:.1%} of {photos} {split} photos only"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A file's answers beside the torch student's, in numbers of photos."""

    photos: int
    right: int
    lost: int
    """Right answers less than the torch student's."""
    different: int
    max_difference: float
    distance: float
    """Mean total variation: how much probability the file gives to other classes than the student does. Even a few
    hundred photos tell two files apart by it; of their answers only those count that were nearly undecided."""
    wrong: str
    """What no tolerance allows; empty when nothing is."""

    @property
    def agreement(self) -> float:
        """Share of photos with the same class."""
        return 1 - self.different / self.photos


def compare(answers: Answers, told: Told, classes: Sequence[str]) -> Comparison:
    """The answers of a file beside what the torch student said.

    Args:
        classes: of the student; the file must name the same.
    """
    wrong = ""
    if json.loads(answers.metadata.get("labels", "[]")) != list(classes):
        wrong = "the labels in the file are not the student's"
    if not are_probabilities(answers.probabilities):
        wrong = "its answers are no probabilities: below 0, above 1, or not of sum 1"
    right = answers.probabilities.argmax(-1) == told.labels
    apart = np.abs(answers.probabilities - told.probabilities)
    return Comparison(
        photos=len(right),
        right=int(right.sum()),
        lost=int(np.sum(told.probabilities.argmax(-1) == told.labels) - right.sum()),
        different=int(np.sum(answers.probabilities.argmax(-1) != told.probabilities.argmax(-1))),
        max_difference=float(apart.max()),
        distance=float(apart.sum(-1).mean() / 2),
        wrong=wrong,
    )


def are_probabilities(values: np.ndarray) -> bool:
    """Whether every row of (n, C) is one, give or take the rounding of 8 bits per class."""
    sums = values.sum(-1, dtype=np.float64)
    slack = max(0.02, values.shape[1] / 512)
    return bool(
        np.all(np.isfinite(values)) and values.min() >= 0 and values.max() <= 1.001 and np.all(abs(sums - 1) < slack)
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to a file: the file, still in the work folder, and for int8 what the val photos say of it."""

    result: FileResult
    path: Path
    reason: str = ""
    """Why it is not right; empty when it is."""
    val: Comparison | None = None

    def seen(self, found: Comparison, tolerance: Tolerance) -> "Attempt":
        """The attempt with what the val photos say of it."""
        reason = found.wrong or tolerance.broken_by(found.lost, found.different, found.photos, "val")
        return replace(self, reason=reason, val=found)

    def rank(self) -> tuple[bool, float]:
        """Higher is better: a file that can be right at all, then the nearest. Answers to a few hundred val photos that
        were lost or won are luck, so they do not count here."""
        return bool(self.val and not self.val.wrong), -self.val.distance if self.val else -1.0

    def facts(self) -> dict[str, Any]:
        """For `FileResult.tries`."""
        return {
            "calibration": self.result.calibration,
            "accuracy": self.val and self.val.right / self.val.photos,
            "agreement": self.val and self.val.agreement,
            "distance": self.val and self.val.distance,
            "reason": self.reason,
        }
