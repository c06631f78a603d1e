"""Several labels per photo, through every stage: one tiny run, and all that uses it or refuses it."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import CLASSES, SEVERAL, flags

import potstill
from potstill.cli import run as run_command
from potstill.deploy.predictor import LabelsPrediction
from potstill.errors import ConfigError
from potstill.export.load import load_exported
from potstill.export.results import exported_student
from potstill.metrics import multilabel
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import model_folder

STUDENT = "mobilenetv1_025-32px"
FROM_FILE = {**SEVERAL, "teacher.model": "file:teacher.csv"}


@pytest.fixture(scope="module")
def exported(labels_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with an ONNX file."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(labels_run.path, folder)
    assert run_command(["export", str(folder), "--to", "onnx", "--precision", "float32,int8"]) == 0
    return folder


def test_the_numbers_are_those_of_the_stored_predictions(labels_run: "potstill.Result") -> None:
    scores = labels_run.scores
    assert scores.classes == CLASSES
    assert (scores.test_photos, scores.test_of_none, scores.seeds) == (20, 2, 2)
    student = scores.students[0]
    with np.load(labels_run.run.comparison / "predictions.npz") as stored:
        labels, logits = stored["labels"], {arm: stored[f"{STUDENT}/{arm}"] for arm in ("distilled", "alone")}
    assert labels.sum(0).tolist() == list(scores.test_per_class) == [9, 9, 9]
    for arm, found in logits.items():
        expected = np.mean([multilabel.mean_average_precision(z, labels) for z in found])
        assert student.arm(arm).mean_average_precision.value == pytest.approx(expected)
        low, high = student.arm(arm).mean_average_precision.low, student.arm(arm).mean_average_precision.high
        assert low <= expected <= high
    means = [student.arm(arm).mean_average_precision.value for arm in ("distilled", "alone")]
    assert student.difference.value == pytest.approx(means[0] - means[1])
    assert scores.teacher.mean_average_precision.value > 0.9  # it learns the drawn photos, so labels are the right ones
    assert scores.teacher.macro_f1.value > 0.8
    assert "mAP" in student.verdict
    assert labels_run.verdicts() == [student.verdict]


def test_student_and_twin_have_sigmoids_and_thresholds_that_val_chose(labels_run: "potstill.Result") -> None:
    for arm in ("distilled", "alone"):
        folder = model_folder(labels_run.run, STUDENT, 0, arm)
        described, done = read_json(folder / "model.json"), read_json(folder / "done.json")
        assert described["several_labels"] is True
        with np.load(folder / "val_predictions.npz") as stored:
            probabilities = multilabel.sigmoid(stored["logits"] / described["trained"]["temperature"])
            assert described["trained"]["thresholds"] == list(
                multilabel.place_thresholds(probabilities, stored["labels"])
            )
            assert done["val_metric"] == multilabel.mean_average_precision(stored["logits"], stored["labels"])
        assert described["trained"]["recipe"]["metric"] == "mAP"


def test_runs_with_one_label_per_photo_say_nothing_of_it(tiny_run: "potstill.Result") -> None:
    described = read_json(model_folder(tiny_run.run, STUDENT, 0, "distilled") / "model.json")
    assert "several_labels" not in described
    assert "thresholds" not in described["trained"]
    assert not (tiny_run.run.images / "labels.npy").exists()
    assert "several_labels" not in (tiny_run.run.comparison / "comparison.json").read_text()


def test_the_report_has_map_where_accuracy_stands(labels_run: "potstill.Result") -> None:
    page = (labels_run.path / "7_report" / "index.html").read_text("utf-8")
    assert "average_precision_score" in page
    assert "Accuracy" not in page
    for name in CLASSES:
        assert page.count(name) >= 1
    assert "mAP, distilled − alone" in page


def predicted(capsys: pytest.CaptureFixture[str], run: Path, photos: Sequence[Path], *words: str) -> str:
    assert run_command(["predict", str(run), *map(str, photos), *words]) == 0
    return capsys.readouterr().out


def test_predictions_name_the_labels_above_their_thresholds(
    labels_run: "potstill.Result", pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [pairs / "1.png", pairs / "2.png"]
    found = labels_run.student.predict(photos[0])
    assert isinstance(found, LabelsPrediction)
    thresholds = dict(zip(labels_run.student.classes, labels_run.student.thresholds, strict=True))
    expected = {name for name, p in found.probabilities.items() if p >= thresholds[name]}
    assert set(found.labels) == expected
    capsys.readouterr()
    lines = [json.loads(line) for line in predicted(capsys, labels_run.path, photos, "--json").splitlines()]
    assert [set(line) for line in lines] == [{"photo", "labels", "probabilities"}] * 2
    assert set(lines[0]["labels"]) == expected
    rows = list(csv.DictReader(predicted(capsys, labels_run.path, photos, "--csv").splitlines()))
    assert list(rows[0]) == ["photo", "labels", "error", *(f"p_{name}" for name in CLASSES)]
    assert set(filter(None, rows[0]["labels"].split("|"))) == expected
    text = predicted(capsys, labels_run.path, photos[:1], "--arm", "teacher")
    assert "disc" in text or "frame" in text or "stripes" in text


def test_exported_files_have_sigmoid_and_thresholds_and_are_scored_again(exported: Path, pairs: Path) -> None:
    run = Run(exported)
    student = exported_student(run, STUDENT)
    by_name = {(file.format, file.precision): file for file in student.files}
    file = by_name["onnx", "float32"]
    assert (file.status, file.metric) == ("ok", "mAP")
    assert file.accuracy == pytest.approx(student.accuracy.value, abs=0.02)
    assert file.max_difference is not None
    assert file.max_difference < 1e-3
    assert by_name["onnx", "int8"].status == "unsupported"
    predictor = load_exported(exported / "6_export" / STUDENT / "student.onnx")
    metadata = predictor.format.read_metadata(predictor.path)
    assert json.loads(metadata["thresholds"]) == list(student.thresholds) == list(predictor.thresholds)
    assert "sigmoid" in metadata["input"]
    plain, own = (
        potstill.load(model_folder(run, STUDENT, student.seed, "distilled")),
        predictor.predict(pairs / "1.png"),
    )
    for name, value in plain.predict(pairs / "1.png").probabilities.items():
        assert own.probabilities[name] == pytest.approx(value, abs=1e-3)
    card = (exported / "6_export" / STUDENT / "README.md").read_text("utf-8")
    assert "mean_average_precision" in card
    assert "accuracy" not in card.lower()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "RUN", "PAIRS"], "`potstill evaluate` is for photos with one label each"),
        (["serve", "RUN", "--port", "0"], "`potstill serve` is for photos with one label each"),
        (["update", "RUN", "PAIRS"], "`potstill update` is for photos with one label each"),
        (["suggest", "RUN"], "`potstill suggest` is for photos with one label each"),
        (["controls", "RUN"], "for photos with one label each"),
        (["forecast", "RUN"], "for photos with one label each"),
        (["compare", "RUN", "RUN"], "for photos with one label each"),
        (["export", "RUN", "--to", "web"], "the web page is for photos with one label each"),
        (["predict", "RUN", "PAIRS", "--sort-into", "SORTED"], "--sort-into puts a photo into one folder"),
        (["curve", "PAIRS", "--per-class", "2", *flags(SEVERAL)], "per_class counts photos that have one label"),
        (["distill", "PAIRS", *flags(FROM_FILE)], "A teacher from a file is for photos with one label each"),
        (["distill", "PAIRS", *flags(SEVERAL), "--metric", "balanced"], "is for photos with one label each"),
        (["distill", "PAIRS", *flags(SEVERAL), "--operating-point", "recall:disc=0.8"], "operating_point"),
        (["distill", "PAIRS", *flags(SEVERAL), "--class-balance", "weighted"], "class_balance"),
        (["distill", "PAIRS", *flags(SEVERAL), "--student.method", "logit_mse"], "there is: kl"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_early(
    labels_run: "potstill.Result",
    pairs: Path,
    in_folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    stands_for: dict[str, Any] = {"RUN": labels_run.path, "PAIRS": pairs, "SORTED": in_folder / "sorted"}
    assert run_command([str(stands_for.get(word, word)) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert list(in_folder.iterdir()) == []


def test_map_is_no_metric_of_photos_with_one_label(photos: Path) -> None:
    with pytest.raises(ConfigError, match="metric must be accuracy"):
        potstill.distill(photos, settings={"metric": "mAP"})
