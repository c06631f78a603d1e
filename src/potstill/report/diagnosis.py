"""What keeps a student from following its teacher: photos, the length of its training, or its size.

Every disagreement with the teacher on new photos is one of two kinds: the student disagrees on photos that it learned
from as well, for want of capacity or training; or it does so on new photos only, for want of photos.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from potstill.report.read import RunFiles
from potstill.run.results import StudentResult

Missing = Literal["nothing", "photos", "length", "size"]

FOLLOWS = 0.95
"""A student that agrees with its teacher on this share of train views has learned what it was shown."""

STANDARD_ERRORS = 2.0

FALLING = 0.02
"""A loss is still falling when it lost this share over the last two measurements, a fifth of the steps."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A student's agreement with its teacher, and what would raise it most."""

    on_train: float
    """Agreement on train views."""
    on_new: float
    """On val and test photos together."""
    missing: Missing


def diagnose(files: RunFiles, student: StudentResult) -> Diagnosis | None:
    """None where the student learned without its teacher, or where its agreement on train views was not measured."""
    recipe, agreement = student.distilled.recipe, student.distilled.agreement
    learned = recipe["distill_weight"] or recipe["feature_weight"]
    if not learned or agreement.train_views is None or agreement.val is None:
        return None
    counts = {"val": files.image_facts["counts"].get("val", 0), "test": files.comparison.test_photos}
    new = sum(counts.values())
    on_new = (counts["val"] * agreement.val + counts["test"] * agreement.test) / new
    missing = what_is_missing(agreement.train_views, files.comparison.train_views, on_new, new)
    if missing == "size":
        curves = [files.curve(student.name, seed, "distilled") for seed in range(files.comparison.seeds)]
        missing = "length" if _still_falling(curves, "val_nll") and _still_falling(curves, "loss") else "size"
    return Diagnosis(agreement.train_views, on_new, missing)


def what_is_missing(on_train: float, train_views: int, on_new: float, new_photos: int) -> Missing:
    """What lowers a student's agreement with its teacher most. Differences within two standard errors count as none.

    Args:
        on_train, on_new: the agreement on train views and on new photos, which are this many.
    """
    error_on_train, error_on_new = _standard_error(on_train, train_views), _standard_error(on_new, new_photos)
    if on_new + STANDARD_ERRORS * error_on_new >= FOLLOWS:
        return "nothing"
    only_on_new = on_train - on_new
    is_clear = only_on_new > STANDARD_ERRORS * math.hypot(error_on_train, error_on_new)
    if is_clear and (on_train >= FOLLOWS or only_on_new > 1 - on_train):
        return "photos"
    return "size" if on_train + STANDARD_ERRORS * error_on_train < FOLLOWS else "nothing"


def _standard_error(share: float, photos: int) -> float:
    """Of a share of so many photos; seeds see the same photos and do not lower it."""
    return math.sqrt(max(share * (1 - share), 1 / photos) / photos)


def _still_falling(curves: list[list[dict[str, float]]], key: str) -> bool:
    """Whether the mean over the seeds fell at each of the last two measurements, and by `FALLING` in all."""
    ends = [[line[key] for line in curve[-3:] if line.get(key) is not None] for curve in curves]
    if not ends or min(map(len, ends)) < 3:
        return False
    before, middle, last = np.mean(ends, axis=0)
    return bool(before > middle > last and before - last > FALLING * before)
