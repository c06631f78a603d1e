"""The numbers of a run are what the stored answers say: val fits temperatures and thresholds, test only reports."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.reports import edit
from tests.support import TINY, draw_photo, unseal

import potstill
from potstill import metrics
from potstill.data.pixels import PixelStore
from potstill.deploy.predictor import Prediction, load_predictor
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.run.results import Comparison
from potstill.students.job import UNSURE_SHARE

CONFIDENCE = 0.8


@pytest.fixture
def planted(run_copy: Run, photos: Path) -> tuple[Comparison, dict[str, np.ndarray], Run]:
    """comparison.json of drawn answers at 80 % confidence, these answers, and the run.

    The untrained students of the tiny run hardly differ; a comparison scores no model again whose answers are stored.
    """
    path = run_copy.comparison / "predictions.npz"
    with np.load(path) as stored:
        answers = dict(stored)
    generator = np.random.default_rng(3)
    for key, right in (("teacher", 2.0), ("mobilenetv1_025-32px/distilled", 1.2), ("mobilenetv1_025-32px/alone", 0.8)):
        answers[key] = generator.normal(0, 1, answers[key].shape) + right * np.eye(3)[answers["labels"]]
    np.savez(path, **answers)
    unseal(run_copy.path)
    settings = {**TINY, "comparison.confidence": CONFIDENCE}
    result = potstill.distill(photos, settings=settings, run=run_copy.path, reporter=Reporter(quiet=True))
    return result.comparison, answers, run_copy


def test_intervals_are_paired_over_photos_and_seeds_and_of_the_set_confidence(
    planted: tuple[Comparison, dict[str, np.ndarray], Run],
) -> None:
    comparison, answers, _ = planted
    (student,) = comparison.students
    labels = answers["labels"]
    right = {arm: answers[f"{student.name}/{arm}"].argmax(-1) == labels for arm in ("distilled", "alone")}
    teacher_right = answers["teacher"].argmax(-1) == labels
    assert comparison.confidence == CONFIDENCE
    low, high = metrics.wilson_interval(int(teacher_right.sum()), len(labels), CONFIDENCE)
    assert asdict(comparison.teacher.accuracy) == pytest.approx(
        {"value": teacher_right.mean(), "low": low, "high": high}
    )

    def interval(values: np.ndarray) -> dict[str, float]:
        found = metrics.bootstrap_mean(values, resamples=200, confidence=CONFIDENCE)
        return pytest.approx({"value": found.value, "low": found.low, "high": found.high})

    for arm, hits in right.items():
        assert asdict(student.arm(arm).accuracy) == interval(hits.astype(float))
    assert asdict(student.difference) == interval(right["distilled"].astype(float) - right["alone"])
    assert asdict(student.to_teacher) == interval(right["distilled"].astype(float) - teacher_right)


def test_calibration_uses_the_temperature_of_val(planted: tuple[Comparison, dict[str, np.ndarray], Run]) -> None:
    comparison, answers, run = planted
    labels = answers["labels"]
    meta = json.loads((run.soft_labels / "meta.json").read_text("utf-8"))
    val_logits = np.load(run.soft_labels / "val_logits.npy")
    val_labels = np.load(run.students / "mobilenetv1_025-32px/seed-0/alone/val_predictions.npz")["labels"]
    assert meta["val_temperature"] == pytest.approx(metrics.fit_temperature(val_logits, val_labels))
    teacher = comparison.teacher
    assert teacher.temperature == meta["val_temperature"]
    assert teacher.nll_scaled == pytest.approx(metrics.nll(answers["teacher"] / meta["val_temperature"], labels))
    (student,) = comparison.students
    for arm in ("distilled", "alone"):
        folders = [run.students / student.name / f"seed-{seed}" / arm for seed in (0, 1)]
        found = [json.loads((f / "model.json").read_text("utf-8"))["trained"]["temperature"] for f in folders]
        assert student.arm(arm).temperature == pytest.approx(np.mean(found))
        logits = answers[f"{student.name}/{arm}"]
        scaled = [metrics.nll(z / t, labels) for z, t in zip(logits, found, strict=True)]
        assert student.arm(arm).nll_scaled == pytest.approx(np.mean(scaled))


def test_each_training_fits_temperature_and_threshold_on_val(tiny_run: "potstill.Result") -> None:
    folders = sorted(path.parent for path in tiny_run.run.students.rglob("val_predictions.npz"))
    assert len(folders) == 4
    for folder in folders:
        trained = json.loads((folder / "model.json").read_text("utf-8"))["trained"]
        done = json.loads((folder / "done.json").read_text("utf-8"))
        with np.load(folder / "val_predictions.npz") as stored:
            logits, labels = stored["logits"], stored["labels"]
        assert trained["temperature"] == pytest.approx(metrics.fit_temperature(logits, labels), rel=1e-3)
        scaled = logits / trained["temperature"]
        assert done["val_nll_scaled"] == pytest.approx(metrics.nll(scaled, labels), rel=1e-4)
        tops = metrics.softmax(scaled).max(-1)
        assert trained["threshold"] == pytest.approx(np.quantile(tops, UNSURE_SHARE), rel=1e-4)
    assert UNSURE_SHARE == 0.05, "what the docs say"


@pytest.mark.parametrize("best", [0, 1])
def test_the_seed_that_is_deployed_is_the_surest_on_val(run_copy: Run, best: int) -> None:
    for seed in (0, 1):
        path = run_copy.students / "mobilenetv1_025-32px" / f"seed-{seed}" / "distilled" / "done.json"
        edit(path, lambda done, seed=seed: done.update(val_nll_scaled=0.1 if seed == best else 0.2))
    assert load_predictor(run_copy.path).folder.parent.name == f"seed-{best}"


def test_an_answer_below_the_threshold_is_unknown() -> None:
    values = np.array([0.6, 0.4])
    assert Prediction.of(values, ["a", "b"], 0.6).known
    assert not Prediction.of(values, ["a", "b"], 0.61).known


def test_predict_uses_threshold_and_temperature_of_the_model(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    answers = {}
    for temperature, threshold in ((1.0, 0.0), (4.0, 1.0)):
        folder = tmp_path / str(temperature)
        shutil.copytree(tiny_run.student.folder, folder)
        new = {"temperature": temperature, "threshold": threshold}
        edit(folder / "model.json", lambda described, new=new: described["trained"].update(new))
        answers[temperature] = load_predictor(folder).predict(draw_photo("disc", 4321))
    assert answers[1.0].known
    assert not answers[4.0].known
    sharp, soft = (np.log(list(answers[t].probabilities.values())) for t in (1.0, 4.0))
    assert sharp - sharp.mean() == pytest.approx(4 * (soft - soft.mean()), abs=1e-4)
    assert np.ptp(sharp) > 1e-3


def test_student_and_twin_differ_in_the_teachers_share_only(tiny_run: "potstill.Result") -> None:
    (student,) = tiny_run.comparison.students
    ours, theirs = (student.arm(arm).recipe for arm in ("distilled", "alone"))
    taught = {"method", "temperature", "distill_weight", "feature_weight", "task_weight"}
    chosen = {"label_smoothing", "lr"}
    for name in ours.keys() - taught - chosen:
        assert ours[name] == theirs[name], name
    assert (theirs["distill_weight"], theirs["feature_weight"], theirs["task_weight"]) == (0, 0, 1)


def test_the_comparison_scores_what_predict_says(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    """Photos are cropped and shrunk in one way, for the numbers of the report as for a deployed model."""
    run = tiny_run.run
    with np.load(run.comparison / "predictions.npz") as stored:
        rows, logits = stored["rows"], stored["mobilenetv1_025-32px/distilled"][1]
    model = load_predictor(run.path, student="mobilenetv1_025-32px", seed=1)
    store = PixelStore(run.images)
    for row, one in zip(rows.tolist(), logits, strict=True):
        store.photo(row).save(tmp_path / "photo.png")
        found = model.predict(tmp_path / "photo.png")
        assert isinstance(found, Prediction)
        expected = dict(zip(run.classes(), metrics.softmax(one / model.info.trained.temperature).tolist(), strict=True))
        assert found.probabilities == pytest.approx(expected, abs=1e-5)
