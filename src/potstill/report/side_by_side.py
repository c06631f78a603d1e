"""Runs side by side, when that is fair: the same classes and the very same test photos."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from potstill.errors import DataError
from potstill.metrics import Interval, drawn_photos, percent
from potstill.monitoring.tables import text_table
from potstill.report.read import RunFiles
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.layout import ARMS
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
    against: Interval | None
    """Accuracy minus that of the reference; None for the reference itself."""
    agreement: Agreement | None
    """With its own run's teacher; None for the teacher."""
    megabytes: float
    """This and the next two are 0 where they are not known of a teacher that is a file."""
    mmacs: float
    milliseconds: float
    by_class: ByClass | None
    """None in results from before it was measured."""
    operating_point: str
    """The class and the share of it that the thresholds were placed for; "" without an operating point."""
    operating: OperatingResult | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Every model of the runs. The reference is the first run's first student, distilled."""

    reference: str
    test_photos: int
    classes: list[str]
    confidence: float
    rows: list[Row]
    same_machine: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Table:
        """For the terminal."""
        header = [
            "run",
            "model",
            "",
            "accuracy",
            "interval",
            "against reference",
            "train views",
            "test",
            "MB",
            "MMACs",
            "ms",
        ]
        cells = [
            [r.run, r.model, r.arm, f"{r.accuracy.value:.1%}", _span(r.accuracy), _against(r.against),
             *_agreement(r.agreement), f"{r.megabytes:.2f}" if r.megabytes else "–",
             f"{r.mmacs:,.0f}" if r.mmacs else "–", f"{r.milliseconds:.1f}" if r.milliseconds else "–"]
            for r in self.rows
        ]  # fmt: skip
        return text_table(header, cells, right=range(3, len(header)))

    def class_table(self) -> Table | None:
        """Numbers in which every class counts alike, and those at the operating point, for the terminal."""
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

    def notes(self) -> list[str]:
        """What the numbers of the table are."""
        return [
            f"{counted(self.test_photos, 'test photo')}, the same in all runs; {percent(self.confidence)} intervals "
            f"over seeds and photos (or groups of them). Reference: {self.reference}.",
            "Train views and test: share on which a model predicts the class that the teacher of its own run does.",
            *([] if self.same_machine else ["The runs were timed on different machines: do not compare their ms."]),
        ]


def side_by_side(runs: Sequence[Path | str]) -> SideBySide:
    """Compare finished runs.

    Raises:
        DataError: fewer than two runs, or the comparison would be unfair; the message says why.
    """
    if len(runs) < 2:
        raise DataError("There is nothing to compare: name two runs or more.")
    files = [RunFiles(Run.open(local_run(path, pixels=True))) for path in runs]
    for file in files:
        require_whole(file.run.path)
    names = [Path(path).resolve().name for path in runs]
    for other, name in zip(files[1:], names[1:], strict=True):
        _require_fair(files[0], names[0], other, name)
    comparison = files[0].comparison
    reference = f"{comparison.students[0].name}/distilled"
    correct = correct_predictions(files[0], reference)
    groups = next((found for file in files if (found := file.predictions.groups) is not None), None)
    rows: list[Row] = []
    for run, name in zip(files, names, strict=True):
        for model in _models(run.comparison):
            is_reference = run is files[0] and model.key == reference
            rows.append(_row(run, name, model, None if is_reference else correct, groups))
    machines = {(run.environment.processor, run.environment.gpu) for run in files}
    return SideBySide(
        reference=f"{comparison.students[0].name} distilled of {names[0]}",
        test_photos=comparison.test_photos,
        classes=files[0].classes,
        confidence=comparison.confidence,
        rows=rows,
        same_machine=len(machines) == 1,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """A teacher, student or twin of a run."""

    name: str
    arm: str
    key: str
    """Of its logits in predictions.npz."""
    accuracy: Interval
    costs: Costs
    agreement: Agreement | None
    result: ArmResult | TeacherResult


def _models(comparison: Comparison) -> list[_Model]:
    teacher = comparison.teacher
    return [
        _Model(" + ".join(teacher.models), "teacher", "teacher", teacher.accuracy, teacher, None, teacher),
        *(
            _Model(s.name, arm, f"{s.name}/{arm}", s.arm(arm).accuracy, s, s.arm(arm).agreement, s.arm(arm))
            for s in comparison.students
            for arm in ARMS
        ),
    ]


def _row(files: RunFiles, run: str, model: _Model, reference: np.ndarray | None, groups: np.ndarray | None) -> Row:
    """One line of the table. `reference`: (S, n) bool, None for the reference itself."""
    correct, confidence = correct_predictions(files, model.key), files.comparison.confidence
    target = files.comparison.operating_point
    return Row(
        run=run,
        model=model.name,
        arm=model.arm,
        seeds=len(correct),
        accuracy=model.accuracy,
        against=None if reference is None else difference(correct, reference, confidence=confidence, groups=groups),
        agreement=model.agreement,
        megabytes=model.costs.bytes / 1e6,
        mmacs=model.costs.macs / 1e6,
        milliseconds=model.costs.milliseconds,
        by_class=model.result.by_class,
        operating_point=f"{target.class_name} {100 * target.recall:g}%" if target else "",
        operating=model.result.operating,
    )


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
            seeds = len(correct)
            picked = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
            means.append(np.sum(picked * (drawn @ correct.T.astype(float)), axis=1))
        values[start : start + count] = means[0] - means[1]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def correct_predictions(files: RunFiles, key: str) -> np.ndarray:
    """(S, n) bool: whether each seed of a model predicts each test photo's label."""
    logits, labels = files.predictions.logits(key), files.predictions.labels
    return np.asarray(logits.argmax(-1) == labels)


def _require_fair(first: RunFiles, first_name: str, other: RunFiles, name: str) -> None:
    if first.classes != other.classes:
        raise DataError(
            f"{first_name} and {name} cannot be compared: they have other classes.\n"
            f"  {first_name}: {_some(first.classes)}\n  {name}: {_some(other.classes)}\n"
            "  Train both with the same class folders (or the same --images.classes)."
        )
    confidences = [percent(files.comparison.confidence) for files in (first, other)]
    if confidences[0] != confidences[1]:
        raise DataError(
            f"{first_name} and {name} cannot be compared: the one has {confidences[0]} intervals, the other "
            f"{confidences[1]}.\n  Run `potstill distill` on one of them again with the --comparison.confidence of the "
            "other; only its comparison is made again."
        )
    ours, theirs = _test_photos(first), _test_photos(other)
    only_ours, only_theirs = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if only_ours or only_theirs:
        raise DataError(
            f"{first_name} and {name} cannot be compared: they were tested on other photos.\n"
            f"  only in {first_name}: {len(only_ours)}, only in {name}: {len(only_theirs)}, in both: "
            f"{len(ours.keys() & theirs.keys())}.\n"
            "  Train both on one folder with the same test/, or on a flat folder with the same images.test_share and "
            "images.split_seed."
        )
    moved = [digest for digest in ours if ours[digest][0] != theirs[digest][0]]
    if moved:
        path, label = ours[moved[0]][1], ours[moved[0]][0]
        raise DataError(
            f"{first_name} and {name} cannot be compared: "
            f"{counted(len(moved), 'test photo has another label', 'test photos have other labels')}, such as {path}: "
            f"{label} and {theirs[moved[0]][0]}."
        )


def _test_photos(files: RunFiles) -> dict[str, tuple[str, str]]:
    """Class and path of each test photo, by the sha256 of its file."""
    return {p["sha256"]: (p["class"], p["path"]) for p in files.photos if p["split"] == "test"}


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
