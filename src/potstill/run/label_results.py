"""What a run on photos with several labels measured: its comparison.json as types."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from potstill.metrics import Interval
from potstill.run.files import write_json
from potstill.run.results import (
    Chosen,
    Comparison,
    Costs,
    Environment,
    read_comparison,
    read_formatted,
    require_comparison,
    several_labels_in,
)

FORMAT = 1
"""Of comparison.json, beside `several_labels`."""

DEFINITION = (
    "mAP is the mean over the classes of the average precision (scikit-learn's average_precision_score). F1 and exact "
    "match are at thresholds that val chose, one per class"
)
"""Of the scores, for reports."""


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """What one model does on the test photos, means over the seeds. Tuples are in the order of the classes; None stands
    for what is not defined, such as the average precision of a class that no photo has."""

    mean_average_precision: Interval
    """Mean over the classes of the average precision, see `potstill.metrics.multilabel`."""
    macro_f1: Interval
    """Mean F1 of the classes, at the thresholds that val chose."""
    exact_match: Interval
    """Share of photos of which all labels are right, at these thresholds."""
    average_precision: tuple[Interval | None, ...]
    f1: tuple[Interval | None, ...]
    nll: float
    """Per decision, as ece; both as they are, and after temperature scaling."""
    ece: float
    nll_scaled: float
    ece_scaled: float
    temperature: float
    """Fitted on val."""


@dataclass(frozen=True, kw_only=True)
class LabelTeacher(LabelScores, Costs):
    """The teacher."""

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    """Input side of each model, in pixels."""
    thresholds: tuple[float, ...] = ()
    """Of each class, placed on val; earlier versions did not store them."""


@dataclass(frozen=True, kw_only=True)
class LabelArm(LabelScores):
    """A student trained with the teacher (distilled) or without (alone), over all seeds."""

    map_per_seed: tuple[float, ...]
    agreement: float
    """Share of decisions on the test photos that it makes as its teacher does, at a probability of 0.5."""
    recipe: dict[str, Any]
    """The settings it was trained with."""
    seconds_per_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LabelStudent(Costs):
    """One student, distilled and alone."""

    name: str
    model: str
    size: int
    pretrained: bool
    distilled: LabelArm
    alone: LabelArm
    difference: Interval
    """mAP of distilled minus alone, paired."""
    f1_difference: Interval
    """The same of the macro F1."""
    to_teacher: Interval
    """mAP of distilled minus the teacher's, paired."""
    verdict: str

    def arm(self, name: str) -> LabelArm:
        """The result of "distilled" or "alone"."""
        return {"distilled": self.distilled, "alone": self.alone}[name]


@dataclass(frozen=True, kw_only=True)
class LabelComparison:
    """Teacher, students and twins on test photos with several labels: the content of comparison.json."""

    several_labels: bool = True
    classes: tuple[str, ...]
    test_photos: int
    test_per_class: tuple[int, ...]
    test_of_none: int
    """Test photos that show none of the classes."""
    seeds: int
    confidence: float
    """Of every interval."""
    grouped: bool
    """Whether intervals draw whole groups of photos."""
    teacher: LabelTeacher
    students: tuple[LabelStudent, ...]
    chosen: Chosen
    environment: Environment

    def student(self, name: str) -> LabelStudent:
        """The student of this name. Raises StopIteration where there is none."""
        return next(student for student in self.students if student.name == name)


def write_label_comparison(path: Path, comparison: LabelComparison) -> None:
    """Write comparison.json."""
    write_json(path, {"format": FORMAT, **asdict(comparison)})


def read_label_comparison(path: Path) -> LabelComparison:
    """Read comparison.json of a run on photos with several labels.

    Raises:
        DataError: it was written by another version of Potstill, or it is damaged.
        PotstillError: there is none, since nothing was compared yet.
    """
    require_comparison(path)
    advice = "Delete its folder and run `potstill distill` again; the trained models are kept."
    return read_formatted(LabelComparison, path, (FORMAT,), advice)


def read_any_comparison(path: Path) -> Comparison | LabelComparison:
    """Read comparison.json, of photos with one label each or with several. Raises as `read_label_comparison` does."""
    require_comparison(path)
    return read_label_comparison(path) if several_labels_in(path) else read_comparison(path)
