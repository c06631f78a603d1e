"""Runs side by side, when that is fair: the same classes and the very same test photos."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from potstill.errors import DataError
from potstill.metrics import Interval, drawn_photos, drawn_shares, multilabel, percent
from potstill.monitoring.tables import text_table
from potstill.report.read import RunFiles
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.label_results import DEFINITION, LabelArm, LabelComparison, LabelTeacher, read_any_comparison
from potstill.run.layout import ARMS, comparison_path
from potstill.run.results import Agreement, ArmResult, ByClass, Comparison, Costs, OperatingResult, TeacherResult
from potstill.storage.runs import local_run
from potstill.wording import counted

RESAMPLES = 4_000
NAMED = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One model of one run."""

    run: str
    model: str
    arm: str
    seeds: int
    accuracy: Interval
    """What `SideBySide.measure` says."""
    against: Interval | None
    """This minus that of the reference; None for the reference itself."""
    agreement: Agreement | None
    """With its own run's teacher; None for the teacher. Of photos with several labels: share of decisions."""
    megabytes: float
    """This and the next two are 0 where they are not known of a teacher that is a file."""
    mmacs: float
    milliseconds: float
    by_class: ByClass | None
    """None in results from before it was measured."""
    operating_point: str
    """The class and the share of it that the thresholds were placed for; "" without an operating point."""
    operating: OperatingResult | None
    macro_f1: Interval | None = None
    """This and the next, of photos with several labels only: see `LabelScores`."""
    exact_match: Interval | None = None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Every model of the runs. The reference is the first run's first student, distilled."""

    measure: str
    """"accuracy", or "mAP" of photos with several labels."""
    reference: str
    test_photos: int
    classes: list[str]
    confidence: float
    rows: list[Row]
    same_machine: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def several_labels(self) -> bool:
        return self.measure == "mAP"

    def tables(self) -> list[Table]:
        """For the terminal: every model, then the numbers of which there are more than one for each."""
        second = self._label_table() if self.several_labels else self._class_table()
        return [self._table()] + ([second] if second else [])

    def _table(self) -> Table:
        agreement = ["test"] if self.several_labels else ["train views", "test"]
        header = ["run", "model", "", self.measure, "interval", "against reference", *agreement, "MB", "MMACs", "ms"]
        cells = [
            [r.run, r.model, r.arm, f"{r.accuracy.value:.1%}", _span(r.accuracy), _against(r.against),
             *_agreement(r.agreement)[-len(agreement):], f"{r.megabytes:.2f}" if r.megabytes else "–",
             f"{r.mmacs:,.0f}" if r.mmacs else "–", f"{r.milliseconds:.1f}" if r.milliseconds else "–"]
            for r in self.rows
        ]  # fmt: skip
        return text_table(header, cells, right=range(3, len(header)))

    def _class_table(self) -> Table | None:
        """Numbers in which every class counts alike, and those at the operating point."""
        with_point = any(r.operating for r in self.rows)
        header = ["run", "model", "", "balanced accuracy", "macro F1"]
        header += ["operating point", "finds", "false alarms"] if with_point else []
        cells = []
        for r in self.rows:
            numbers = [r.by_class.balanced_accuracy, r.by_class.macro_f1] if r.by_class else [None, None]
            point = [r.operating.recall, r.operating.false_alarms] if r.operating else [None, None]
            cells.append([r.run, r.model, r.arm, *map(_share, numbers)])
            cells[-1] += [r.operating_point or "–", *map(_share, point)] if with_point else []
        return text_table(header, cells, right=range(3, len(header))) if any(r.by_class for r in self.rows) else None

    def _label_table(self) -> Table:
        """What stands on thresholds."""
        header = ["run", "model", "", "macro F1", "exact match"]
        cells = [[r.run, r.model, r.arm, _share(r.macro_f1), _share(r.exact_match)] for r in self.rows]
        return text_table(header, cells, right=range(3, len(header)))

    def notes(self) -> list[str]:
        """What the numbers of the tables are."""
        agreement = (
            f"{DEFINITION}. Test: share of decisions that a model makes as the teacher of its own run does."
            if self.several_labels
            else "Train views and test: share on which a model predicts the class that the teacher of its own run does."
        )
        return [
            f"{counted(self.test_photos, 'test photo')}, the same in all runs; {percent(self.confidence)} intervals "
            f"over seeds and photos (or groups of them). Reference: {self.reference}.",
            agreement,
            *([] if self.same_machine else ["The runs were timed on different machines: do not compare their ms."]),
        ]


@dataclass(frozen=True)
class _Compared:
    """A run that takes part."""

    name: str
    files: RunFiles
    comparison: Comparison | LabelComparison

    @classmethod
    def open(cls, path: Path | str) -> "_Compared":
        files = RunFiles(Run.open(local_run(path, pixels=True)))
        require_whole(files.run.path)
        return cls(Path(path).resolve().name, files, read_any_comparison(comparison_path(files.run)))

    @property
    def several_labels(self) -> bool:
        return isinstance(self.comparison, LabelComparison)

    @property
    def machine(self) -> tuple[str, str | None]:
        return self.comparison.environment.processor, self.comparison.environment.gpu

    def models(self) -> list["_Model"]:
        if isinstance(self.comparison, LabelComparison):
            return _label_models(self.comparison)
        return _models(self.comparison)

    def test_photos(self) -> dict[str, tuple[str, str]]:
        """Class, or labels, and path of each test photo, by the sha256 of its file."""
        return {p["sha256"]: (p["class"], p["path"]) for p in self.files.photos if p["split"] == "test"}

    def row(self, model: "_Model", reference: "_Reference | None") -> Row:
        """One line of the table; `reference` is None for the reference itself."""
        target = None if isinstance(self.comparison, LabelComparison) else self.comparison.operating_point
        return Row(
            run=self.name,
            model=model.name,
            arm=model.arm,
            seeds=1 if model.arm == "teacher" else self.comparison.seeds,
            accuracy=model.score,
            against=reference.subtracted_from(self.files, model.key) if reference else None,
            agreement=model.agreement,
            megabytes=model.costs.bytes / 1e6,
            mmacs=model.costs.macs / 1e6,
            milliseconds=model.costs.milliseconds,
            operating_point=f"{target.class_name} {100 * target.recall:g}%" if target else "",
            **model.more,
        )


def side_by_side(runs: Sequence[Path | str]) -> SideBySide:
    """Compare finished runs.

    Raises:
        DataError: fewer than two runs, or the comparison would be unfair; the message says why.
    """
    if len(runs) < 2:
        raise DataError("There is nothing to compare: name two runs or more.")
    first, *others = compared = [_Compared.open(path) for path in runs]
    for other in others:
        _require_fair(first, other)
    student = first.comparison.students[0].name
    groups = next((found for each in compared if (found := each.files.predictions.groups) is not None), None)
    reference = _Reference(first, f"{student}/distilled", groups)
    rows = [
        each.row(model, None if each is first and model.key == reference.key else reference)
        for each in compared
        for model in each.models()
    ]
    return SideBySide(
        measure="mAP" if first.several_labels else "accuracy",
        reference=f"{student} distilled of {first.name}",
        test_photos=first.comparison.test_photos,
        classes=list(first.comparison.classes),
        confidence=first.comparison.confidence,
        rows=rows,
        same_machine=len({each.machine for each in compared}) == 1,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """A teacher, student or twin of a run."""

    name: str
    arm: str
    key: str
    """Of its logits in predictions.npz."""
    score: Interval
    costs: Costs
    agreement: Agreement | None
    more: dict[str, Any]
    """Further fields of `Row`."""


def _models(comparison: Comparison) -> list[_Model]:
    def more(result: ArmResult | TeacherResult) -> dict[str, Any]:
        return {"by_class": result.by_class, "operating": result.operating}

    teacher = comparison.teacher
    name = " + ".join(teacher.models)
    return [
        _Model(name, "teacher", "teacher", teacher.accuracy, teacher, None, more(teacher)),
        *(
            _Model(s.name, arm, f"{s.name}/{arm}", s.arm(arm).accuracy, s, s.arm(arm).agreement, more(s.arm(arm)))
            for s in comparison.students
            for arm in ARMS
        ),
    ]


def _label_models(comparison: LabelComparison) -> list[_Model]:
    """The same of photos with several labels."""

    def model(name: str, arm: str, scores: LabelArm | LabelTeacher, costs: Costs) -> _Model:
        agreement = (
            Agreement(train_views=None, val=None, test=scores.agreement) if isinstance(scores, LabelArm) else None
        )
        key = "teacher" if arm == "teacher" else f"{name}/{arm}"
        more = {"macro_f1": scores.macro_f1, "exact_match": scores.exact_match, "by_class": None, "operating": None}
        return _Model(name, arm, key, scores.mean_average_precision, costs, agreement, more)

    teacher = comparison.teacher
    return [
        model(" + ".join(teacher.models), "teacher", teacher, teacher),
        *(model(s.name, arm, s.arm(arm), s) for s in comparison.students for arm in ARMS),
    ]


@dataclass(frozen=True)
class _Reference:
    """What all others are compared with."""

    run: _Compared
    key: str
    groups: np.ndarray | None
    """(n,) of the test photos."""

    def subtracted_from(self, files: RunFiles, key: str) -> Interval:
        """Accuracy or mAP of the model `key` of another run, or of the same, minus that of the reference."""
        own, confidence = self.run.files, self.run.comparison.confidence
        if not self.run.several_labels:
            correct, its = correct_predictions(files, key), correct_predictions(own, self.key)
            return difference(correct, its, confidence=confidence, groups=self.groups)
        first, second = files.predictions.logits(key), own.predictions.logits(self.key)
        labels = own.predictions.labels
        measured = [
            np.mean([multilabel.average_precisions(z, labels) for z in logits], axis=0) for logits in (first, second)
        ]
        drawn = multilabel.resampled_differences(first, second, labels, resamples=RESAMPLES, groups=self.groups)
        return multilabel.mean_interval(measured[0] - measured[1], drawn, confidence)


def difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    confidence: float,
    resamples: int = RESAMPLES,
    groups: np.ndarray | None = None,
) -> Interval:
    """Interval of the difference of two accuracies on the same photos, from runs whose seeds have nothing in common.

    Args:
        first, second: (S1, n) and (S2, n) bool, whether each seed's prediction of each photo is correct.
        groups: (n,) the group of each photo, as in `metrics.bootstrap_mean`.
    Source: as `metrics.bootstrap_mean`, with the seeds of each drawn on their own and the photos drawn together.
    """
    generator, photos = np.random.default_rng(0), first.shape[1]
    values = np.empty(resamples)
    for start in range(0, resamples, 200):
        count = min(200, resamples - start)
        drawn = drawn_photos(photos, count, generator, groups)
        means = []
        for correct in (first, second):
            picked = drawn_shares(len(correct), count, generator)
            means.append(np.sum(picked * (drawn @ correct.T.astype(float)), axis=1))
        values[start : start + count] = means[0] - means[1]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def correct_predictions(files: RunFiles, key: str) -> np.ndarray:
    """(S, n) bool: whether each seed of a model predicts each test photo's label."""
    logits, labels = files.predictions.logits(key), files.predictions.labels
    return np.asarray(logits.argmax(-1) == labels)


def _require_fair(first: _Compared, other: _Compared) -> None:
    refused = f"{first.name} and {other.name} cannot be compared"
    if first.several_labels != other.several_labels:
        several = first.name if first.several_labels else other.name
        raise DataError(f"{refused}: only the photos of {several} have several labels each.")
    ours, theirs = list(first.comparison.classes), list(other.comparison.classes)
    if ours != theirs:
        raise DataError(
            f"{refused}: they have other classes.\n  {first.name}: {_some(ours)}\n  {other.name}: {_some(theirs)}\n"
            "  Train both with the same class folders (or the same --images.classes)."
        )
    confidences = [percent(each.comparison.confidence) for each in (first, other)]
    if confidences[0] != confidences[1]:
        raise DataError(
            f"{refused}: the one has {confidences[0]} intervals, the other {confidences[1]}.\n"
            "  Run `potstill distill` on one of them again with the --comparison.confidence of the other; only its "
            "comparison is made again."
        )
    _require_same_photos(first, other, refused)


def _require_same_photos(first: _Compared, other: _Compared, refused: str) -> None:
    ours, theirs = first.test_photos(), other.test_photos()
    only_ours, only_theirs = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if only_ours or only_theirs:
        raise DataError(
            f"{refused}: they were tested on other photos.\n"
            f"  only in {first.name}: {len(only_ours)}, only in {other.name}: {len(only_theirs)}, in both: "
            f"{len(ours.keys() & theirs.keys())}.\n"
            "  Train both on one folder with the same test/, or on a flat folder with the same images.test_share and "
            "images.split_seed."
        )
    moved = [digest for digest in ours if ours[digest][0] != theirs[digest][0]]
    if moved:
        path, label = ours[moved[0]][1], ours[moved[0]][0]
        raise DataError(
            f"{refused}: {counted(len(moved), 'test photo has another label', 'test photos have other labels')}, such "
            f"as {path}: {label} and {theirs[moved[0]][0]}."
        )


def _some(names: list[str]) -> str:
    return f"{counted(len(names), 'class')}: {', '.join(names[:NAMED])}" + (", …" if len(names) > NAMED else "")


def _share(interval: Interval | None) -> str:
    return f"{interval.value:.1%} ({_span(interval)})" if interval else "–"


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _agreement(agreement: Agreement | None) -> tuple[str, str]:
    """On train views and on test."""
    if agreement is None:
        return "", ""
    return "–" if agreement.train_views is None else f"{agreement.train_views:.1%}", f"{agreement.test:.1%}"


def _against(interval: Interval | None) -> str:
    if interval is None:
        return "reference"
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
