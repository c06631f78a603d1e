"""Which labels are probably wrong, by the confident-learning rule, from a teacher's out-of-fold outputs.

`out_of_fold.npz` of a run's teacher holds them for its training photos: `row` (N,) in the pixel store, `logits`
(N, C), each row by a head that was not trained on this photo, `labels` (N,). `images.csv` of the run names the file of
each row. Source: Northcutt, Jiang, Chuang 2021, "Confident learning: estimating uncertainty in dataset labels",
arXiv:1911.00068, section 3.
"""

import csv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.arrays import open_arrays
from potstill.errors import DataError
from potstill.run.folder import Run

FILE = "out_of_fold.npz"

MIN_PHOTOS = 100
"""That the share of wrong labels is estimated from: the surest third."""

NOISY = 0.07
"""From this estimated share of wrong labels on, teachers and students do not rely on them."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A photo whose label is probably wrong."""

    sha256: str
    likely: str
    """The class that it probably shows."""
    probability: float
    """That the teacher gives to its label. Lists are sorted by it, smallest first."""


def check_labels(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find likely wrong labels.

    A class is plausible for a photo when its probability reaches the threshold of the class: the mean probability of
    the class over all photos with that label. A photo is suspect when another class is plausible and more probable than
    its label.

    Args:
        probabilities: (N, C) float, rows sum to 1, out of sample.
        labels: (N,) int, in [0, C).
    Returns:
        indices: (K,) int, the suspects, the least probable label first.
        likely: (K,) int, the class that each of them probably shows.
    """
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    sums = np.bincount(labels, own, minlength=classes)
    thresholds = sums / np.maximum(np.bincount(labels, minlength=classes), 1)
    thresholds[np.bincount(labels, minlength=classes) == 0] = np.inf  # nothing is known of an unused class
    plausible = np.where(probabilities >= thresholds, probabilities, -np.inf)
    likely = plausible.argmax(axis=1)
    suspect = np.flatnonzero((plausible.max(axis=1) > own) & (likely != labels))
    order = suspect[np.argsort(own[suspect], kind="stable")]
    return order, likely[order]


def can_estimate_noise(photos: int) -> bool:
    """Whether so many labeled photos are enough for `label_noise`."""
    return photos // 3 >= MIN_PHOTOS


def label_noise(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of wrong labels: how often the label is another class among the third of the photos that the teacher is
    most certain of.

    There, nearly all disagreement is the labels' fault. On photos that are hard to tell apart a teacher errs too, so
    the disagreement over all photos says nothing about labels.

    Args:
        probabilities: (N, C) out of sample.
        labels: (N,) int.
    Returns:
        0 with fewer than `MIN_PHOTOS` of these photos, among which a few errors would look like many.
    """
    if not can_estimate_noise(len(labels)):
        return 0.0
    certain = np.argsort(-probabilities.max(axis=1), kind="stable")[: len(labels) // 3]
    return float(np.mean(probabilities[certain].argmax(axis=1) != labels[certain]))


def estimated_label_noise(run: Run) -> float:
    """`label_noise` of a run's train photos; 0 where its teacher has no out-of-fold outputs."""
    paths = sorted(run.teacher.glob(f"**/{FILE}"))
    if not paths:
        return 0.0
    with open_arrays(paths[0]) as stored:
        labels = stored["labels"]
    return label_noise(np.mean([_member(path)[1] for path in paths], axis=0), labels)


def suspects(run: Path, labels: Mapping[str, str]) -> list[Suspect]:
    """The likely wrong labels among the training photos of a run. The probabilities of several teachers are averaged.

    Args:
        run: the run folder.
        labels: the present class name of every photo, by the sha256 of its file.
    Raises:
        DataError: the run has no out-of-fold outputs, they are damaged, or its photos or classes are others.
    """
    hashes, classes, probabilities = _out_of_fold(Run.open(run))
    rows = [i for i, sha in enumerate(hashes) if labels.get(sha) in classes]
    if not rows:
        raise DataError(f"{run} was trained on other photos or classes than this folder holds.")
    given = np.array([classes.index(labels[hashes[i]]) for i in rows])
    found, likely = check_labels(probabilities[rows], given)
    return [
        Suspect(hashes[rows[i]], classes[other], float(probabilities[rows[i], given[i]]))
        for i, other in zip(found, likely, strict=True)
    ]


def _out_of_fold(run: Run) -> tuple[list[str], list[str], np.ndarray]:
    """sha256 of each training photo, class names, and the teacher's probabilities (N, C) float64."""
    paths = sorted(run.teacher.glob(f"**/{FILE}"))
    if not paths:
        raise DataError(
            f"{run.teacher / FILE} is missing, so likely wrong labels cannot be found.\n"
            "  `potstill distill` writes it when teacher.folds is at least 2, or, if the teacher was fine-tuned, "
            "teacher.finetune_folds."
        )
    try:
        with (run.images / "images.csv").open(encoding="utf-8", newline="") as file:
            by_row = {int(line["row"]): line["sha256"] for line in csv.DictReader(file)}
        classes = run.classes()
        members = [_member(path) for path in paths]
        rows = members[0][0]
        if any(not np.array_equal(other, rows) for other, _ in members):
            raise ValueError("the teachers were trained on different photos")
        hashes = [by_row[row] for row in rows.tolist()]
        probabilities = np.mean([each for _, each in members], axis=0)
        if probabilities.shape != (len(hashes), len(classes)):
            raise ValueError(f"{probabilities.shape} for {len(hashes)} photos, {len(classes)} classes")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{paths[0]}, or {run.images}, is damaged: {error}. Run `potstill distill` again.") from None
    return hashes, classes, probabilities


def _member(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) and probabilities (N, C) of one teacher."""
    with open_arrays(path) as stored:
        rows, logits = stored["row"], stored["logits"].astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return rows, shifted / shifted.sum(axis=-1, keepdims=True)
