"""The report of a run on photos with several labels: mAP where accuracy stands, and every class for itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from potstill.metrics import Interval, percent
from potstill.monitoring.tables import text_table
from potstill.report.page import rendered
from potstill.report.read import RunFiles
from potstill.run.folder import Run
from potstill.run.label_results import DEFINITION, LabelArm, LabelComparison, LabelTeacher, read_label_comparison
from potstill.run.layout import ARMS, comparison_path
from potstill.run.results import Costs
from potstill.wording import counted

FEW_PHOTOS = 30
"""Test photos of a class, and val photos of all, below which a word is said."""
FEW_EPOCHS = 5
BAD_ECE = 0.05


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of the test photos."""

    name: str
    photos: int
    distilled: Interval | None
    alone: Interval | None
    teacher: Interval | None
    f1: Interval | None
    """Of distilled."""


def label_table(comparison: LabelComparison) -> Table:
    """Teacher, then each student distilled and alone, for the terminal."""
    header = ["model", "mAP", "interval", "macro F1", "exact match", "ECE", "agreement", "MMACs", "MB", "ms"]
    models: list[tuple[str, LabelTeacher | LabelArm, Costs]]
    models = [("teacher " + " + ".join(comparison.teacher.models), comparison.teacher, comparison.teacher)]
    models += [(f"{s.name} {arm}", s.arm(arm), s) for s in comparison.students for arm in ARMS]
    rows = [
        [
            name,
            f"{scores.mean_average_precision.value:.1%}",
            f"{100 * scores.mean_average_precision.low:.1f} to {100 * scores.mean_average_precision.high:.1f}",
            f"{scores.macro_f1.value:.1%}",
            f"{scores.exact_match.value:.1%}",
            f"{scores.ece_scaled:.3f}",
            f"{scores.agreement:.1%}" if isinstance(scores, LabelArm) else "",
            f"{costs.macs / 1e6:.0f}",
            f"{costs.bytes / 1e6:.1f}",
            f"{costs.milliseconds:.1f}",
        ]
        for name, scores, costs in models
    ]
    return text_table(header, rows, right=range(1, len(header)))


def label_note(comparison: LabelComparison) -> str:
    """What the numbers of the table are."""
    return (
        f"{counted(comparison.test_photos, 'test photo')}, {counted(comparison.seeds, 'seed')}, "
        f"{percent(comparison.confidence)} intervals over seeds and photos (or groups of them). {DEFINITION}. ECE over "
        "all decisions, after temperature scaling; agreement: share of decisions as the teacher makes them"
    )


def cautions(files: RunFiles, comparison: LabelComparison) -> Iterator[str]:
    """What to know before relying on the numbers, one sentence each."""
    for student in comparison.students:
        epochs = int(student.distilled.recipe["epochs"])
        if epochs < FEW_EPOCHS:
            yield f"{student.name}: {counted(epochs, 'epoch only shows', 'epochs only show')} that everything works."
        if student.distilled.mean_average_precision.value >= comparison.teacher.mean_average_precision.value:
            yield f"{student.name} distilled is no worse than its teacher: a better teacher is the first thing to try."
        if student.distilled.ece_scaled > BAD_ECE + comparison.test_photos**-0.5:
            off = f"{100 * student.distilled.ece_scaled:.1f}"
            yield f"{student.name} distilled: its probabilities are off by {off} points on average."
    if comparison.seeds == 1:
        yield "One seed only: how much the result depends on the random start is not known. Use --seeds 3 or more."
    val = files.image_facts["counts"].get("val", 0)
    if val < 3 * FEW_PHOTOS:
        yield f"{counted(val, 'val photo')} chose settings and thresholds: these choices are noisy."
    small = [n for n, photos in zip(comparison.classes, comparison.test_per_class, strict=True) if photos < FEW_PHOTOS]
    if small:
        yield f"Fewer than {FEW_PHOTOS} test photos of {', '.join(small[:6])}{', …' if len(small) > 6 else ''}."


def render_labels(run: Run) -> str:
    """The page as HTML, without photos and without scripts."""
    files, comparison = RunFiles(run), read_label_comparison(comparison_path(run))
    return rendered("labels.html.jinja", _content(files, comparison))


def _content(files: RunFiles, comparison: LabelComparison) -> dict[str, Any]:
    student = comparison.student(comparison.chosen.name)
    rows = [
        ClassRow(
            name,
            comparison.test_per_class[c],
            student.distilled.average_precision[c],
            student.alone.average_precision[c],
            comparison.teacher.average_precision[c],
            student.distilled.f1[c],
        )
        for c, name in enumerate(comparison.classes)
    ]
    environment = comparison.environment
    return {
        "title": files.run.path.resolve().name,
        "comparison": comparison,
        "teacher": comparison.teacher,
        "chosen": student,
        "drawn": "groups of photos" if comparison.grouped else "photos",
        "rows": rows,
        "cautions": list(cautions(files, comparison)),
        "definition": DEFINITION,
        "counts": files.image_facts["counts"],
        "rejected_total": len(files.rejected),
        "exported": files.exported,
        "command": files.command,
        "config_text": files.config_text,
        "environment": environment,
        "versions": {"python": environment.python, **environment.versions},
    }
