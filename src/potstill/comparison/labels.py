"""Stage 5 for photos with several labels: mAP where accuracy stands, F1 at the thresholds of val, all with intervals.

Photos and seeds are drawn alike for every model, so that distilled and alone, and distilled and teacher, are paired.
What stands on one label per photo is left out: confusions, McNemar's test, operating points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from potstill import metrics
from potstill.comparison.plan import ComparisonPlan
from potstill.comparison.stage import (
    NO_COSTS,
    Scores,
    against_twin,
    choose,
    costs_of,
    inputs_of,
    known_logits,
    score_all,
    tested_on,
    val_of,
)
from potstill.compute.device import environment
from potstill.context import Context
from potstill.metrics import Interval, multilabel
from potstill.metrics.choice import Metric
from potstill.metrics.per_class import interval
from potstill.models.classifier import load, load_info
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.label_results import (
    LabelArm,
    LabelComparison,
    LabelStudent,
    LabelTeacher,
    write_label_comparison,
)
from potstill.run.layout import ARMS, comparison_path, model_folder, student_names, teacher_networks
from potstill.run.results import Environment, read_training


@dataclass(frozen=True)
class _Model:
    """What a teacher, student or twin gives the test photos."""

    logits: np.ndarray
    """(S, n, C)."""
    temperatures: Sequence[float]
    """One per seed."""
    thresholds: np.ndarray
    """(S, C)."""
    scores: Scores
    plan: ComparisonPlan

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(S, n, C)."""
        return np.stack([multilabel.sigmoid(z / t) for z, t in zip(self.logits, self.temperatures, strict=True)])

    @cached_property
    def given(self) -> np.ndarray:
        """(S, n, C) bool: the labels that it gives."""
        return np.asarray(self.probabilities >= self.thresholds[:, None])

    @cached_property
    def precisions(self) -> tuple[np.ndarray, np.ndarray]:
        """Average precision (C,) as measured, mean over the seeds, and (R, C) resampled."""
        labels = self.scores.labels
        measured = np.mean([multilabel.average_precisions(z, labels) for z in self.logits], axis=0)
        return measured, multilabel.resampled_average_precisions(self.logits, labels, **self._draws)

    @cached_property
    def f1(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of F1."""
        labels = self.scores.labels
        return multilabel.f1_scores(self.given, labels), multilabel.resampled_f1_scores(
            self.given, labels, **self._draws
        )

    @property
    def _draws(self) -> dict[str, Any]:
        return {"resamples": self.plan.config.resamples, "groups": self.scores.groups}

    def measured(self) -> dict[str, Any]:
        """The fields of `LabelScores`."""
        config, labels = self.plan.config, self.scores.labels
        right = (self.given == (labels > 0)).all(-1).astype(float)
        per_seed = [
            {
                "nll": float(multilabel.nll_of_each(z, labels).mean()),
                "ece": multilabel.ece(multilabel.sigmoid(z), labels),
                "nll_scaled": float(multilabel.nll_of_each(z / t, labels).mean()),
                "ece_scaled": multilabel.ece(multilabel.sigmoid(z / t), labels),
                "temperature": t,
            }
            for z, t in zip(self.logits, self.temperatures, strict=True)
        ]
        return {
            "mean_average_precision": multilabel.mean_interval(*self.precisions, config.confidence),
            "macro_f1": multilabel.mean_interval(*self.f1, config.confidence),
            "exact_match": metrics.bootstrap_mean(
                right, resamples=config.resamples, confidence=config.confidence, groups=self.scores.groups
            ),
            "average_precision": self._each(*self.precisions),
            "f1": self._each(*self.f1),
            **{key: float(np.mean([numbers[key] for numbers in per_seed])) for key in per_seed[0]},
        }

    def _each(self, values: np.ndarray, drawn: np.ndarray) -> tuple[Interval | None, ...]:
        confidence = self.plan.config.confidence
        return tuple(interval(float(value), drawn[:, c], confidence) for c, value in enumerate(values))

    def minus(self, other: "_Model", what: str) -> Interval:
        """The difference of the means over the classes of "precisions" or "f1", paired."""
        (own, own_drawn), (its, its_drawn) = getattr(self, what), getattr(other, what)
        return multilabel.mean_interval(own - its, own_drawn - its_drawn, self.plan.config.confidence)


def compare_labels(plan: ComparisonPlan, context: Context) -> None:
    """Measure teacher, students and twins on the test photos and write `5_comparison/`."""
    run = context.run
    names, stage = student_names(run), run.stage("5_comparison")
    inputs = {**inputs_of(run, plan, names), "several_labels": True}
    known = known_logits(run, inputs, "predictions.npz")
    if stage.is_done and stage.facts()["inputs"] != inputs:
        stage.reopen()  # cheap to make again, and never made from anything but finished models
    if not stage.begin(inputs):
        return
    scores = score_all(plan, context, names, known, np.zeros(len(run.classes()), np.float32))
    teacher_model = _teacher(run, plan, scores)
    folders = [folder for group in teacher_networks(run.teacher, plan.teacher) for folder in group]
    costs = [costs_of(load(folder), folder) for folder in folders] or [NO_COSTS]
    teacher = LabelTeacher(
        models=tuple(plan.teacher),
        sizes=tuple(load_info(folder).size for folder in folders),
        thresholds=tuple(teacher_model.thresholds[0].tolist()),
        **teacher_model.measured(),
        **{key: sum(cost[key] for cost in costs) for key in costs[0]},
    )
    students = tuple(_student(name, plan, scores, run, teacher_model) for name in names)
    metric = Metric.of(plan.metric, scores.classes)
    comparison = LabelComparison(
        classes=tuple(scores.classes),
        test_photos=len(scores.labels),
        test_per_class=tuple(scores.labels.sum(0).tolist()),
        test_of_none=int(np.sum(~scores.labels.any(1))),
        seeds=plan.seeds,
        confidence=plan.config.confidence,
        grouped=scores.groups is not None,
        teacher=teacher,
        students=students,
        chosen=choose(run, {student.name: student.macs for student in students}, plan.seeds, metric),
        environment=Environment(**environment(context.machine)),
    )
    write_label_comparison(comparison_path(run), comparison)
    stage.finish()


def _teacher(run: Run, plan: ComparisonPlan, scores: Scores) -> _Model:
    val_logits, val_labels = val_of(run)
    temperature = read_json(run.soft_labels / "meta.json")["val_temperature"]
    thresholds = multilabel.place_thresholds(multilabel.sigmoid(val_logits / temperature), val_labels)
    return _Model(scores.logits["teacher"][None], (temperature,), np.array([thresholds]), scores, plan)


def _student(name: str, plan: ComparisonPlan, scores: Scores, run: Run, teacher: _Model) -> LabelStudent:
    folder = model_folder(run, name, 0, "distilled")
    model = load(folder)
    models = {arm: _arm_model(name, arm, plan, scores, run) for arm in ARMS}
    difference = models["distilled"].minus(models["alone"], "precisions")
    results = {arm: _arm(name, arm, models[arm], teacher, run) for arm in ARMS}
    to_teacher = models["distilled"].minus(teacher, "precisions")
    return LabelStudent(
        name=name,
        model=model.info.name,
        size=model.info.size,
        pretrained=model.info.weights.get("source") != "none",
        **costs_of(model, folder),
        distilled=results["distilled"],
        alone=results["alone"],
        difference=difference,
        f1_difference=models["distilled"].minus(models["alone"], "f1"),
        to_teacher=to_teacher,
        verdict=against_twin(name, difference, tested_on(scores), plan.seeds, measure="mAP "),
    )


def _arm_model(name: str, arm: str, plan: ComparisonPlan, scores: Scores, run: Run) -> _Model:
    trained = [load_info(model_folder(run, name, seed, arm)).trained for seed in range(plan.seeds)]
    thresholds = np.array([each.thresholds for each in trained])
    return _Model(scores.logits[f"{name}/{arm}"], [each.temperature for each in trained], thresholds, scores, plan)


def _arm(name: str, arm: str, model: _Model, teacher: _Model, run: Run) -> LabelArm:
    folders = [model_folder(run, name, seed, arm) for seed in range(len(model.logits))]
    labels = model.scores.labels
    return LabelArm(
        **model.measured(),
        map_per_seed=tuple(multilabel.mean_average_precision(z, labels) for z in model.logits),
        agreement=float(np.mean([multilabel.agreement(z, teacher.logits[0]) for z in model.logits])),
        recipe=dict(load_info(folders[0]).trained.recipe),
        seconds_per_seed=tuple(read_training(folder).seconds for folder in folders),
    )
