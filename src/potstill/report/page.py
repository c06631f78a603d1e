"""The report's content, put together from the files of a run, and rendered."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from potstill import metrics
from potstill.monitoring.progress import duration
from potstill.report import figures
from potstill.report.answers import answers, at_operating_point, columns, headline
from potstill.report.findings import TITLES, Finding, find
from potstill.report.input_size import input_size_notes
from potstill.report.photos import PhotoLists, Photos, choose, wrong_labels
from potstill.report.read import ModelPredictions, RunFiles, model_predictions
from potstill.run.folder import STAGES
from potstill.run.layout import ARMS
from potstill.run.private import without_owner
from potstill.run.results import ArmResult, StudentResult, TeacherResult
from potstill.wording import counted

MANY_CLASSES = 30
"""Tables per class are folded away above this."""

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
"""The page's content security policy: no script, no request, and no style but its own."""

REJECTED_SHOWN = 200
PAIRS_SHOWN = 10
CURVES_SHOWN = 6
"""Classes whose ROC and PR curves are drawn."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A true class and what it was taken for."""

    truth: str
    predicted: str
    photos: int
    teacher: float
    distilled: float
    alone: float


@dataclass(frozen=True, slots=True)
class StudentSection:
    """The details of one student."""

    letter: str
    numbers: StudentResult
    classes: Markup
    confusions: list[tuple[str, Markup]]
    pairs: list[Pair]
    reliabilities: list[tuple[str, Markup, float, float]]
    curves: list[tuple[str, Markup]]
    rankings: list[tuple[str, Markup, Markup]]
    """Classes with their ROC and PR curves."""
    photos: PhotoLists | None
    """For the chosen student only: the one that `predict` takes."""


def render(files: RunFiles, photos: Photos = "all") -> str:
    """The page as HTML. Nothing in it names folders, the user or the machine, and no script can run in it.

    Args:
        photos: what it shows of the photos; without them it does not name their files either.
    """
    return rendered("page.html.jinja", content(files, photos))


def rendered(template: str, values: dict[str, Any]) -> str:
    """A page of the report with its style."""
    style = (Path(__file__).parent / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _environment().get_template(template)
    return page.render(values, style=Markup(style), policy=POLICY.format(style=digest))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("potstill.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_public,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pct"] = lambda value, digits=1: f"{100 * value:.{digits}f}\u00a0%"
    environment.filters["confidence"] = lambda value: metrics.percent(value).replace("%", "\u00a0%")
    environment.filters["whole"] = lambda text: text.replace(" %", "\u00a0%").replace(" points", "\u00a0points")
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
    environment.filters["tenths"] = lambda value: f"{round(value, 1):g}"
    environment.filters["counted"] = counted
    environment.filters["duration"] = duration
    return environment


def _public(value: Any) -> Any:
    """What the template prints, without what only the owner of the run should know."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.startswith("data:image/"):
        return value
    return without_owner(value)


def content(files: RunFiles, photos: Photos = "all") -> dict[str, Any]:
    """What the template fills in."""
    predictions = files.predictions
    teacher = model_predictions(*predictions.teacher(), predictions.labels)
    sections, doubtful = [], 0
    for number, student in enumerate(files.students):
        arms = {arm: model_predictions(*predictions.arm(student.name, arm), predictions.labels) for arm in ARMS}
        sections.append(_section(files, number, student, teacher, arms, photos))
        if student.name == files.chosen.name:
            doubtful = len(wrong_labels(teacher, arms["distilled"], predictions.labels))
    comparison = files.comparison
    found = find(files, doubtful)
    return {
        "title": files.run.path.resolve().name,
        "drawn": "photos" if files.predictions.groups is None else "groups of photos",
        "comparison": comparison,
        "teacher": comparison.teacher,
        "teacher_name": " + ".join(comparison.teacher.models),
        "students": files.students,
        "chosen": files.chosen,
        "photos": next(section.photos for section in sections if section.photos),
        "shown": photos,
        "letters": [figures.letter(number) for number in range(len(files.students))],
        "answers": answers(comparison, found),
        "headline": headline(comparison),
        "columns": columns(comparison),
        "points": [at_operating_point(comparison, student) for student in files.students],
        "findings": found,
        "differences": Markup(figures.differences(files.students, comparison.confidence)),
        "costs": [Markup(figures.costs(comparison, *cost)) for cost in figures.COSTS],
        "input_sizes": input_size_notes(files),
        "sections": sections,
        "many_classes": len(files.classes) > MANY_CLASSES,
        **_forecast(files),
        **_data(files),
        **_cost_of_the_run(files),
        **_reproduction(files),
        "exported": files.exported,
        "controls": files.controls,
        "titles": TITLES,
        "Finding": Finding,
    }


def _section(
    files: RunFiles,
    number: int,
    student: StudentResult,
    teacher: ModelPredictions,
    arms: dict[str, ModelPredictions],
    photos: Photos,
) -> StudentSection:
    seeds = range(files.comparison.seeds)
    lines = {arm: [files.curve(student.name, seed, arm) for seed in seeds] for arm in ARMS}
    by_name = {"alone": arms["alone"], "distilled": arms["distilled"], "teacher": teacher}
    curves = [
        ("Accuracy on val", figures.curves(lines, "val_accuracy", "Accuracy on val", share=True)),
        ("NLL on val", figures.curves(lines, "val_nll", "NLL on val", share=False)),
    ]
    for arm in ARMS:
        title = f"Training loss, {arm}"
        terms = figures.loss_terms(lines[arm], arm)
        curves.append((title, terms or figures.curves({arm: lines[arm]}, "loss", title, share=False)))
    return StudentSection(
        letter=figures.letter(number),
        numbers=student,
        classes=Markup(figures.classes(student.per_class)),
        confusions=[
            (who, Markup(figures.confusion(model.confusion, files.classes, who))) for who, model in by_name.items()
        ],
        pairs=_pairs(files.classes, teacher, arms),
        reliabilities=[
            (who, Markup(figures.reliability(m.before, m.after, who)), m.before.ece, m.after.ece)
            for who, m in by_name.items()
        ],
        curves=[(title, Markup(drawing)) for title, drawing in curves if drawing],
        rankings=_rankings(files, student),
        photos=choose(files, teacher, arms["distilled"], arms["alone"], photos)
        if student.name == files.chosen.name
        else None,
    )


def _rankings(files: RunFiles, student: StudentResult) -> list[tuple[str, Markup, Markup]]:
    """ROC and PR curves of the classes that have any, those that the student ranks worst first."""
    models: dict[str, ArmResult | TeacherResult]
    models = {"alone": student.alone, "distilled": student.distilled, "teacher": files.comparison.teacher}
    by_class = {who: model.by_class for who, model in models.items() if model.by_class is not None}
    if len(by_class) < len(models):
        return []
    point = at_operating_point(files.comparison, student)
    areas = {label: a.value for label, a in enumerate(by_class["distilled"].roc_area) if a is not None}
    found = []
    for label in sorted(areas, key=lambda label: areas[label])[:CURVES_SHOWN]:
        name = files.classes[label]
        mine = point if point and point.target.class_name == name else None
        drawings = figures.roc(name, label, by_class, mine), figures.pr(name, label, by_class)
        found.append((name, Markup(drawings[0]), Markup(drawings[1])))
    return found


def _pairs(classes: list[str], teacher: ModelPredictions, arms: dict[str, ModelPredictions]) -> list[Pair]:
    """The classes that are most often mistaken for each other, by what the distilled student does."""
    counts = {who: model.confusion / model.seeds for who, model in arms.items()} | {"teacher": teacher.confusion}
    wrong = counts["distilled"] + counts["alone"]
    np.fill_diagonal(wrong, 0)
    photos = teacher.confusion.sum(1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS_SHOWN]
    return [
        Pair(
            classes[i], classes[j], int(photos[i]), *(float(counts[w][i, j]) for w in ("teacher", "distilled", "alone"))
        )
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j] > 0
    ]


def _forecast(files: RunFiles) -> dict[str, Any]:
    """The forecast, and one figure for each kind of photos."""
    found = files.forecast
    kinds = ("labeled", "unlabeled") if found else ()
    by_kind = {kind: [curve for curve in found.curves if curve.kind == kind] for kind in kinds} if found else {}
    return {
        "forecast": found,
        "forecasts": [(kind, Markup(figures.forecast(curves))) for kind, curves in by_kind.items() if curves],
    }


def _data(files: RunFiles) -> dict[str, Any]:
    counts = files.counts()
    codes = Counter(row["code"] for row in files.rejected)
    licenses = Counter((row.get("license") or "not stated", row.get("source", "")) for row in files.attribution)
    return {
        "splits": {split: sum(by_class.values()) for split, by_class in counts.items()},
        "class_counts": [
            (name, [counts.get(split, Counter())[name] for split in ("train", "val", "test")]) for name in files.classes
        ],
        "unlike_total": len(files.unlike),
        "codes": codes.most_common(),
        "rejected": files.rejected[:REJECTED_SHOWN],
        "rejected_total": len(files.rejected),
        "licenses": licenses.most_common(20),
        "attribution_text": files.attribution_text,
    }


def _cost_of_the_run(files: RunFiles) -> dict[str, Any]:
    rows = [
        (name[2:].replace("_", " "), seconds, duration(seconds)) for name, seconds in files.seconds.items() if seconds
    ]
    trainings = []
    photos = files.run.stage("3_soft_labels").facts()["photos"]
    for s in files.students:
        for arm in ARMS:
            seconds = s.arm(arm).seconds_per_seed
            seen = s.arm(arm).epochs * photos
            trainings.append((s.name, arm, seconds, seen / max(float(np.mean(seconds)), 0.1)))
    return {
        "stage_seconds": rows,
        "stage_bars": Markup(figures.bars(rows, "Time per stage")) if rows else "",
        "total_seconds": sum(seconds for _, seconds, _ in rows),
        "trainings": trainings,
    }


def _reproduction(files: RunFiles) -> dict[str, Any]:
    environment = files.environment
    return {
        "command": files.command,
        "config_text": files.config_text,
        "versions": {"python": environment.python, **environment.versions},
        "environment": environment,
        "models": files.models(),
        "stages": STAGES,
    }
