"""What a run measured: comparison.json and done.json of a training as types, with one writer and one reader each."""

import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from potstill.errors import DataError, PotstillError
from potstill.metrics import Interval
from potstill.run.files import read_json, write_json
from potstill.wording import counted

FORMAT = 3
"""Of comparison.json. Files written before there was a number count as 0."""

READABLE = (2, 3)
"""Formats of comparison.json that can be read. Files of format 2 know nothing of recall, precision and curves."""

CONTROLS_FORMAT = 1
"""Of controls.json."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model costs; of an ensemble, the sum over its models. 0 stands for what is not known of a teacher that is
    a file."""

    parameters: int
    macs: int
    """Multiply-accumulates per photo."""
    bytes: int
    """Of the stored weights."""
    milliseconds: float
    """Per photo, in torch on one thread."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """NLL and calibration error on the test photos, before and after temperature scaling; means over the seeds."""

    nll: float
    ece: float
    nll_scaled: float
    ece_scaled: float
    temperature: float
    """Fitted on val."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByClass:
    """What one model does with each class of the test photos, means over the seeds. Tuples are in the order of the
    classes; None stands for what is not defined, such as the precision of a class that is never predicted."""

    balanced_accuracy: Interval
    """Mean recall of the classes."""
    macro_f1: Interval
    recall: tuple[Interval | None, ...]
    precision: tuple[Interval | None, ...]
    roc_area: tuple[Interval | None, ...]
    """Area under the ROC curve of the class against all others; of two classes for the positive one only. None, too,
    where there are very many classes."""
    pr_area: tuple[Interval | None, ...]
    """Average precision."""
    roc: tuple[tuple[float, ...], ...]
    """Recall at the false alarm rates 0, 0.01, …, 1; empty where there is no area."""
    pr: tuple[tuple[float, ...], ...]
    """Precision at the recalls 0, 0.01, …, 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingResult:
    """What the thresholds of an operating point do on the test photos, means over the seeds."""

    thresholds: tuple[float, ...]
    """One per seed, placed on val."""
    recall: Interval
    """Share of the photos of the class that are found."""
    false_alarms: Interval
    """Share of the photos of other classes that are taken for it."""
    precision: Interval | None
    """Share of what is taken for the class that is of the class; None where nothing is."""


@dataclass(frozen=True, kw_only=True)
class TeacherResult(Calibration, Costs):
    """The teacher on the test photos."""

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    """Input side of each model, in pixels; none for soft labels from a file."""
    method: tuple[str | None, ...]
    """How each model was trained: probe, finetune or probe+finetune, the mean of both; onnx or file where the teacher
    is a file and was not."""
    networks: tuple[int, ...]
    """Networks of each model: the probe, one per fold where it was fine-tuned, or all of these."""
    accuracy: Interval
    by_class: ByClass | None = None
    """None in results from before it was measured."""
    operating: OperatingResult | None = None
    logit_shift: tuple[float, ...] = ()
    """Added to its logits where it predicts classes as if all were equally frequent; its soft labels are without."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Share of photos on which a student predicts its teacher's class, mean over the seeds."""

    train_views: float | None
    """On unmixed views of photos that students learn from, where the teacher's class is that of the stored soft labels;
    None where every view is mixed, and in results from before it was measured."""
    val: float | None
    """None in results from before it was measured."""
    test: float


@dataclass(frozen=True, kw_only=True)
class ArmResult(Calibration):
    """A student trained with the teacher (distilled) or without (alone), over all seeds."""

    accuracy: Interval
    accuracy_per_seed: tuple[float, ...]
    agreement: Agreement
    recipe: dict[str, Any]
    """The settings it was trained with."""
    crop_per_seed: tuple[float, ...]
    seconds_per_seed: tuple[float, ...]
    by_class: ByClass | None = None
    """None in results from before it was measured."""
    operating: OperatingResult | None = None

    @property
    def epochs(self) -> int:
        return int(self.recipe["epochs"])


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test of one seed's distilled and alone."""

    seed: int
    only_distilled: int
    """Test photos that only the distilled student classifies correctly."""
    only_alone: int
    p: float


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Accuracy on the test photos of one class, mean over the seeds."""

    name: str
    photos: int
    teacher: float
    distilled: float
    alone: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassDifferences:
    """Distilled minus alone, paired, as in `ByClass`."""

    balanced_accuracy: Interval
    macro_f1: Interval
    recall: tuple[Interval | None, ...]
    false_alarms: Interval | None
    """At the operating point, each with its own thresholds; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class StudentResult(Costs):
    """One student, distilled and alone."""

    name: str
    model: str
    size: int
    pretrained: bool
    pretrained_size: int | None
    """Input side that the model's published weights were trained at; None in results from before it was kept."""
    distilled: ArmResult
    alone: ArmResult
    difference: Interval
    """Accuracy of distilled minus alone, paired."""
    to_teacher: Interval | None
    """Accuracy of distilled minus the teacher's, paired; None in results from before it was measured."""
    agreement_difference: Interval | None
    """Agreement with the teacher on test, distilled minus alone, paired; None as above."""
    relative_error_reduction: float | None
    """None where the twin makes no errors."""
    mcnemar: tuple[McNemar, ...]
    smallest_visible_difference: float
    per_class: tuple[ClassAccuracy, ...]
    verdict: str
    class_differences: ClassDifferences | None = None
    """None in results from before it was measured."""

    @property
    def twin_length(self) -> float:
        """Length of the twin's training, chosen on val, as a share of the student's."""
        return self.alone.epochs / self.distilled.epochs

    def arm(self, name: str) -> ArmResult:
        """The result of "distilled" or "alone"."""
        return {"distilled": self.distilled, "alone": self.alone}[name]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The student to deploy, chosen on val."""

    name: str
    reason: str
    val_accuracy: dict[str, float]
    """Of every student, mean over the seeds; the metric on val where that is another one."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine that measured, see `potstill.compute.device.environment`."""

    machine: dict[str, Any]
    processor: str
    system: str
    python: str
    versions: dict[str, str]
    gpu: str | None
    cpu_capability: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingTarget:
    """The operating point that was asked for, and how well val can place it."""

    class_name: str
    recall: float
    val_photos: int
    """Photos of the class in val, which place the thresholds."""
    low: float
    high: float
    """A threshold that is placed by so many photos has a recall in this range, with the confidence of all intervals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The students of two runs on the same test photos, over the seeds that both have."""

    photos: int
    before: Interval
    """Accuracy of the earlier run's student."""
    after: Interval
    difference: Interval
    """After minus before, paired."""
    only_after: tuple[int, ...]
    """Photos that only the later student classifies correctly, for each seed."""
    only_before: tuple[int, ...]

    @property
    def is_better(self) -> bool:
        return self.difference.low > 0

    @property
    def is_worse(self) -> bool:
        return self.difference.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateResult:
    """What adding photos to an earlier run brought: its chosen student, distilled, against that of this run."""

    run: str
    """Name of the earlier run's folder."""
    before: str
    """Name of its student."""
    after: str
    seeds: int
    """That are compared, each with the same one of the other run."""
    learned_before: int
    """Photos that the earlier student learned from, labeled or not."""
    learned_after: int
    warm: bool
    """Whether this run's trainings started from the earlier run's students."""
    on_old: Change
    """On the test photos of the earlier run."""
    on_new: Change | None
    """On test photos that were added; None where there are none."""

    @property
    def changes(self) -> tuple[Change, ...]:
        return (self.on_old, self.on_new) if self.on_new else (self.on_old,)

    @property
    def take_new(self) -> bool:
        """Whether the later student is the one to use: better on some of the photos, and worse on none."""
        return any(c.is_better for c in self.changes) and not any(c.is_worse for c in self.changes)

    @property
    def verdict(self) -> str:
        """What it brought, in a sentence for each kind of photos."""
        kinds = ("test photo of {}", "test photos of {}"), ("added test photo", "added test photos")
        sentences = []
        for change, kind in zip(self.changes, kinds, strict=False):
            photos = counted(change.photos, *(words.format(self.run) for words in kind))
            sentences.append(
                f"{_changed(change)} on {photos}: {change.difference.points}, from {change.before.value:.1%} to "
                f"{change.after.value:.1%}, {counted(self.seeds, 'seed')}."
            )
        return " ".join(sentences)

    @property
    def advice(self) -> str:
        """Which of the two students to use, and why."""
        if self.take_new:
            return "Use the updated student."
        if any(change.is_worse for change in self.changes):
            return f"Keep using the student of {self.run}: the updated one is worse."
        return f"Keep using the student of {self.run}: nothing shows that the updated one is better."


def _changed(change: Change) -> str:
    return "Better" if change.is_better else "Worse" if change.is_worse else "No difference measured"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Teacher, students and twins on the test photos: the content of comparison.json."""

    classes: tuple[str, ...]
    test_photos: int
    test_per_class: tuple[int, ...]
    train_views: int
    """Views on which the agreement on train views was measured, one of each photo; 0 where it was not."""
    seeds: int
    confidence: float
    """Of every interval."""
    teacher: TeacherResult
    students: tuple[StudentResult, ...]
    chosen: Chosen
    environment: Environment
    metric: str = "accuracy"
    """What was chosen by on val."""
    operating_point: OperatingTarget | None = None
    update: UpdateResult | None = None
    """Where photos were added to an earlier run."""

    def student(self, name: str) -> StudentResult:
        """The student of this name. Raises StopIteration where there is none."""
        return next(student for student in self.students if student.name == name)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlResult:
    """A control on the test photos, over all seeds."""

    accuracy: Interval
    accuracy_per_seed: tuple[float, ...]
    to_twin: Interval
    """Accuracy minus the twin's, paired."""
    to_distilled: Interval
    """Accuracy minus the distilled student's, paired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentControls:
    """What else could have made one student better."""

    name: str
    labeled_twin: ControlResult | None
    """A twin with the true labels of all photos; None where they are not known."""
    missing: str
    """Why there is no labeled twin; "" where there is one."""
    self_taught: ControlResult
    """A student that learned from the soft labels of its own twin."""

    def results(self) -> list[tuple[str, ControlResult]]:
        """The controls that there are, by what they are called."""
        labeled = [("labeled twin", self.labeled_twin)] if self.labeled_twin else []
        return [*labeled, ("self-taught", self.self_taught)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """The content of controls.json."""

    comparison: str
    """Digest of the comparison whose student and twin they are compared with."""
    seeds: int
    confidence: float
    """Of every interval."""
    students: tuple[StudentControls, ...]


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """What is known of a finished training of a student: done.json of its folder."""

    val_accuracy: float
    val_nll_scaled: float
    """On val, after temperature scaling."""
    steps: int
    seconds: float
    val_metric: float | None = None
    val_loss: float | None = None
    """The metric, and the loss in its place; None where the metric is accuracy."""
    several_labels: bool = False
    """Whether photos may have several labels: the metric is mAP then, and accuracy asks for all labels of a photo."""

    @property
    def val_map(self) -> float | None:
        """mAP on val; None where photos have one label each."""
        return self.val_metric if self.several_labels else None

    @property
    def rank(self) -> float:
        """By what the best seed is taken; lower is better."""
        return self.val_nll_scaled if self.val_loss is None else self.val_loss


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write comparison.json."""
    write_json(path, {"format": FORMAT, **asdict(comparison)})


def read_comparison(path: Path) -> Comparison:
    """Read comparison.json.

    Raises:
        DataError: it was written by another version of Potstill, it is damaged, or of photos with several labels.
        PotstillError: there is none, since nothing was compared yet.
    """
    require_comparison(path)
    require_one_label(path)
    advice = "Delete its folder and run `potstill distill` again; the trained models are kept."
    return read_formatted(Comparison, path, READABLE, advice)


def require_one_label(path: Path) -> None:
    """Raise DataError where comparison.json is of photos with several labels, which other numbers are measured of."""
    if several_labels_in(path):
        raise DataError(
            f"{path.parent.parent} is a run on photos with several labels. This is for photos with one label each; "
            "what there is for several: `potstill open`, `predict`, `evaluate`, `compare`, `suggest`, `serve` and "
            "`export`."
        )


def several_labels_in(path: Path) -> bool:
    """Whether a comparison.json is of photos with several labels. Raises PotstillError where it is damaged."""
    values = read_json(path)
    return isinstance(values, dict) and bool(values.get("several_labels"))


def read_chosen(path: Path) -> Chosen:
    """The student to deploy, of any comparison.json. Raises as `read_comparison` does."""
    if several_labels_in(path):
        return as_type(Chosen, read_json(path).get("chosen"), path)
    return read_comparison(path).chosen


def require_comparison(path: Path) -> None:
    """Raise PotstillError where there is no comparison.json yet."""
    if not path.is_file():
        raise PotstillError(
            f"Nothing was compared in {path.parent.parent}: its twins are not trained, or it is not finished.\n"
            "  `potstill distill` with the same photos and settings, and without --no-twin, adds what is missing."
        )


def write_controls(path: Path, controls: Controls) -> None:
    """Write controls.json."""
    write_json(path, {"format": CONTROLS_FORMAT, **asdict(controls)})


def read_controls(path: Path) -> Controls:
    """Read controls.json.

    Raises:
        DataError: it was written by another version of Potstill, or it is damaged.
    """
    advice = "Delete it and run `potstill controls` again; trained models are kept."
    return read_formatted(Controls, path, (CONTROLS_FORMAT,), advice)


def read_formatted(kind: type[T], path: Path, readable: Sequence[int], advice: str) -> T:
    """The dataclass that was stored with a format number.

    Args:
        readable: the numbers that this version reads, today's last.
        advice: what to do where it cannot be read.
    Raises:
        DataError: it was written by another version of Potstill, or it is damaged.
    """
    values = read_json(path)
    found = values.pop("format", 0) if isinstance(values, dict) else None
    if found not in readable:
        raise DataError(
            f"{path} was written by another version of Potstill (format {found}, this version reads "
            f"{' and '.join(map(str, readable))}), or is "
            f"damaged. {advice}"
        )
    return as_type(kind, values, path)


def read_training(folder: Path) -> TrainingFacts:
    """Read done.json of a finished training.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "done.json"
    values = read_json(path)
    return as_type(TrainingFacts, {f.name: values[f.name] for f in fields(TrainingFacts) if f.name in values}, path)


def as_type(kind: type[T], values: Any, path: Path) -> T:
    """Plain values, read from `path`, as a dataclass. Raises DataError where they do not fit."""
    try:
        return typing.cast(T, _typed(kind, values))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged, or another version of Potstill wrote it ({type(error).__name__}: {error}).\n"
            "  Use that version, or delete the folder of the file and run again."
        ) from None


def _has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _typed(kind: Any, value: Any) -> Any:
    """A JSON value as the dataclass, tuple, dict or plain value that the annotation names."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        unknown = value.keys() - hints.keys()
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        needed = {item.name for item in fields(kind) if not _has_default(item)}
        return kind(
            **{name: _typed(hint, value[name]) for name, hint in hints.items() if name in value.keys() | needed}
        )
    origin = typing.get_origin(kind)
    if origin is UnionType:  # of one kind and None
        return None if value is None else _typed(typing.get_args(kind)[0], value)
    if origin is tuple:
        return tuple(_typed(typing.get_args(kind)[0], item) for item in value)
    return value
