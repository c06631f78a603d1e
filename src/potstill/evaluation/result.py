"""What `potstill evaluate` found, for people and for programs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from potstill.metrics import Interval, percent
from potstill.monitoring.tables import text_table
from potstill.wording import counted

DRIFT_P = 0.01
"""A distribution of outputs that would differ as much by chance in fewer cases than this has changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """The photos of one class."""

    name: str
    photos: int
    accuracy: Interval
    """Share of them that are predicted to be of the class (its recall)."""
    test_photos: int | None
    """None where the model's own test photos are not known."""
    test_accuracy: float | None
    mostly_taken_for: str
    """The class that most of the others are predicted to be; "" where all are correct."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A model on labeled photos."""

    photos: int
    accuracy: Interval
    balanced_accuracy: float
    """The mean over the classes that occur."""
    nll: float
    ece: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelClassScore:
    """One class of photos that may have several."""

    name: str
    photos: int
    """That have it."""
    average_precision: Interval | None
    """None where all photos have the class."""
    f1: Interval | None
    """At the model's threshold."""
    test_photos: int | None
    """None where the model's own test photos are not known."""
    test_average_precision: float | None
    """On them, weighted so that the class is as frequent as among the new photos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScore:
    """A model on photos that may have several labels, over the classes that a new photo has."""

    photos: int
    mean_average_precision: Interval
    """Mean over the classes of the average precision, see `potstill.metrics.multilabel`."""
    macro_f1: Interval
    """Mean F1 of the classes, at the model's thresholds."""
    exact_match: Interval
    """Share of photos of which all labels are right, at these thresholds."""
    nll: float
    """Per decision, as ece."""
    ece: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the labels of new photos tell."""

    score: Score | LabelScore | None
    """None without photos that have a label."""
    test: Score | LabelScore | None
    difference: Interval | None
    per_class: tuple[ClassScore, ...] | tuple[LabelClassScore, ...]
    lacking: tuple[str, ...]
    """Classes without new photos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How the outputs differ from those on the model's own test photos."""

    unsure: Interval
    """Share of the new photos with a confidence below the model's threshold; with several labels per photo, with a mean
    certainty of the decisions below it (`potstill.metrics.multilabel.certainty`)."""
    test_unsure: float
    more_unsure: Interval
    """Difference of the two."""
    distance: float
    """Largest distance between the distribution functions of any class's probability, new against test."""
    p: float
    """Of that distance, by a Kolmogorov-Smirnov test, times the number of classes (Bonferroni)."""

    @property
    def is_less_confident(self) -> bool:
        return self.more_unsure.low > 0

    @property
    def outputs_differ(self) -> bool:
        return self.p < DRIFT_P


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A model on new photos."""

    model: str
    """What was evaluated: an exported file, or the folder of a model."""
    data: str
    """The new photos."""
    confidence: float
    """Of every interval."""
    score: Score | LabelScore | None
    """Accuracy and calibration, or mAP and F1 where photos may have several labels; None without photos that have a
    label."""
    test: Score | LabelScore | None
    """The same model on its own test photos; None where they are not known."""
    difference: Interval | None
    """Accuracy on the new photos minus that on the test photos, in the new photos' mix of classes; of a model for
    several labels mAP, with each class as frequent as in the new photos."""
    per_class: tuple[ClassScore, ...] | tuple[LabelClassScore, ...]
    """Of every class that has new photos with labels."""
    unlabeled: int
    """Photos without a label."""
    unsure: float | None
    """Share of all photos, labeled or not, with a confidence below the model's threshold; None for a teacher, which has
    no threshold, and for models with several labels per photo that an earlier version trained."""
    predicted: dict[str, int]
    """How many photos, labeled or not, are predicted to be of each class, or to have its label."""
    drift: Drift | None
    """How its outputs differ from those on test; None where the model's own test photos are not known."""
    lacking: tuple[str, ...]
    """Classes of the model of which there are no labeled photos."""
    unknown: dict[str, int]
    """Classes that the model does not have, and their photos. These are not scored; where they may have other labels,
    too, by those."""
    learned_from: tuple[str, ...]
    """Photos that show the same picture as one that the model learned from; they are left out."""
    in_test: int
    """Photos that show the same picture as one of its own test photos."""
    failed: dict[str, str]
    """Photos that could not be read, and why."""
    notes: tuple[str, ...]
    """How the photos were read, and what else to know."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def table(self) -> Table | None:
        """Every class, for the terminal; None without labels."""
        if not self.per_class:
            return None
        several = isinstance(self.per_class[0], LabelClassScore)
        measure, last = ("average precision", "F1") if several else ("accuracy", "mostly taken for")
        header = ["class", "photos", measure, f"{percent(self.confidence)} interval", "own test", last]
        return text_table(header, [_cells(one) for one in self.per_class], right=range(1, 6 if several else 5))

    def lines(self) -> list[str]:
        """The result in sentences."""
        return [*self._accuracy(), *self._drift(), *self._left_out(), *self.notes]

    def _accuracy(self) -> Iterator[str]:
        if self.score is None:
            yield f"{counted(self.unlabeled, 'photo')} without labels: the accuracy is not known."
            return
        score, test = self.score, self.test
        value, measure = _main(score), "mAP" if isinstance(score, LabelScore) else "Accuracy"
        span = f"{100 * value.low:.1f} to {100 * value.high:.1f}"
        yield f"{measure} {value.value:.1%} ({span}) on {counted(score.photos, 'new photo')} with labels."
        if isinstance(score, LabelScore):
            yield f"At the thresholds: macro F1 {score.macro_f1.value:.1%}, exact match {score.exact_match.value:.1%}."
        if test is None or self.difference is None:
            yield "Its own test photos are not known, so there is nothing to compare with: name the run folder."
        else:
            how = (
                "with each class as frequent as in the new photos"
                if measure == "mAP"
                else "in the new photos' mix of classes"
            )
            yield (
                f"On its own {counted(test.photos, 'test photo')} it has {_main(test).value:.1%}. "
                f"Difference {how}: {self.difference.points}, {_verdict(self.difference)}."
            )
        before = "" if test is None else f" (own test: NLL {test.nll:.3f}, ECE {test.ece:.3f})"
        yield f"Calibration: NLL {score.nll:.3f}, ECE {score.ece:.3f}{before}."

    def _drift(self) -> Iterator[str]:
        drift = self.drift
        if self.unsure is not None and drift is None:
            yield f"Unsure about {self.unsure:.1%} of all photos."
        if self.unsure is not None and drift is not None:
            text = f"Unsure about {self.unsure:.1%} of all photos, {drift.test_unsure:.1%} of its own test photos"
            if drift.is_less_confident:
                yield f"{text}: {drift.more_unsure.points}. These photos are harder for it, or show something else."
            else:
                yield f"{text}: no more than by chance, {drift.more_unsure.points}."
        if drift is not None and drift.outputs_differ:
            yield (
                f"Its probabilities are distributed otherwise than on test (distance {drift.distance:.2f}, "
                f"p {_p(drift.p)}): another mix of classes, or other pictures."
            )

    def _left_out(self) -> Iterator[str]:
        if self.learned_from:
            yield (
                f"Left out because it learned from the same pictures: {counted(len(self.learned_from), 'photo')}, such "
                f"as {self.learned_from[0]}."
            )
        if self.in_test:
            yield f"The same picture as one of its own test photos: {counted(self.in_test, 'photo')}."
        for name, photos in self.unknown.items():
            what = "the label" if isinstance(self.score, LabelScore) else "the class"
            yield f"Not scored because the model does not have {what} {name!r}: {counted(photos, 'photo')}."
        if self.lacking and self.score is not None:
            yield f"There are no photos of {', '.join(self.lacking)}, so nothing is known of them."
        if self.failed:
            path, why = next(iter(self.failed.items()))
            yield f"Could not be read: {counted(len(self.failed), 'photo')}, such as {path}: {why}"


def _main(score: Score | LabelScore) -> Interval:
    """What counts most of it."""
    return score.mean_average_precision if isinstance(score, LabelScore) else score.accuracy


def _cells(one: ClassScore | LabelClassScore) -> list[str]:
    """A class as a row of the table."""
    if isinstance(one, LabelClassScore):
        value, before = one.average_precision, one.test_average_precision
        last = "" if one.f1 is None else f"{one.f1.value:.1%}"
    else:
        value, before, last = one.accuracy, one.test_accuracy, one.mostly_taken_for
    return [
        one.name,
        f"{one.photos:,}",
        "" if value is None else f"{value.value:.1%}",
        "" if value is None else f"{100 * value.low:.1f} to {100 * value.high:.1f}",
        "" if before is None else f"{before:.1%}",
        last,
    ]


def _verdict(difference: Interval) -> str:
    if difference.high < 0:
        return "worse here"
    return "better here" if difference.low > 0 else "no difference measured"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.4f}"
