"""Several labels per photo, through every stage: one tiny run, and all that uses it or refuses it."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports import slim_copy
from tests.support import CLASSES, SEVERAL, context_of, draw_pair, flags, label, make_pairs, teach

import potstill
from potstill.cli import run as run_command
from potstill.compute.inference import plain_outputs
from potstill.compute.precision import Precision
from potstill.config.load import from_mapping
from potstill.data.pixels import PixelStore
from potstill.deploy.predictor import LabelsPrediction, load_predictor
from potstill.deploy.serve import classify, load_models
from potstill.errors import ConfigError
from potstill.evaluation.result import LabelScore
from potstill.export.int8 import aware
from potstill.export.int8.candidates import CANDIDATES
from potstill.export.load import load_exported
from potstill.export.results import exported_student
from potstill.export.web import describe
from potstill.images.plan import ImagesPlan
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.metrics import multilabel
from potstill.models.classifier import load
from potstill.monitoring.progress import Reporter
from potstill.pipeline import _config_text as config_text
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import model_folder
from potstill.suggest.choice import label_doubt
from potstill.suggest.pool import RunPhotos, read_pool
from potstill.suggest.suggestions import _why_labels

STUDENT = "mobilenetv1_025-32px"


@pytest.fixture(scope="module")
def exported(labels_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with two ONNX files. The int8 one has a single candidate, that with sensitive layers."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(labels_run.path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("potstill.export.files.CANDIDATES", CANDIDATES[2:3])
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


def test_runs_are_compared_by_map(
    labels_run: "potstill.Result", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = slim_copy(labels_run.path, tmp_path / "again").path
    assert run_command(["compare", str(labels_run.path), str(again), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measure"] == "mAP"
    teacher, reference, twin, *others = found["rows"]
    scores, student = labels_run.scores, labels_run.scores.students[0]
    assert reference["against"] is None
    assert twin["against"]["value"] == pytest.approx(-student.difference.value)
    assert teacher["accuracy"]["value"] == scores.teacher.mean_average_precision.value
    assert teacher["against"]["value"] == pytest.approx(-student.to_teacher.value)
    assert twin["exact_match"] == asdict(student.alone.exact_match)
    assert [row["accuracy"] for row in others] == [row["accuracy"] for row in found["rows"][:3]]
    assert others[1]["against"]["value"] == 0
    assert others[1]["against"]["low"] < 0 < others[1]["against"]["high"], "its seeds may have been others"
    assert run_command(["compare", str(labels_run.path), str(again)]) == 0
    shown = capsys.readouterr().out
    assert "mAP" in shown
    assert "exact match" in shown
    assert "train views" not in shown


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
    rounded = by_name["onnx", "int8"]
    assert (rounded.status, rounded.metric) == ("ok", "mAP")
    assert rounded.bytes < 0.5 * file.bytes
    assert rounded.max_difference > file.max_difference, "it is rounded"
    assert rounded.max_difference < 0.1
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


def test_a_rounded_student_is_taught_every_label_for_itself(
    labels_run: "potstill.Result", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aware, "STEPS", 3)
    folder = model_folder(labels_run.run, STUDENT, 0, "distilled")
    aware.distill_rounded(folder, labels_run.run, tmp_path, Reporter(quiet=True), aware.Grid(weight_steps=127))
    before, after = load(folder), load(tmp_path)
    assert after.info.several_labels
    assert after.info.trained.quantization_aware == {"steps": 3, "lr": aware.LR, "weight_steps": 127}
    store = PixelStore(labels_run.run.images)
    logits = [plain_outputs(model, store, store.rows("test"), Precision.on("cpu"))[1] for model in (before, after)]
    apart = np.abs(multilabel.sigmoid(logits[0]) - multilabel.sigmoid(logits[1]))
    assert 0 < apart.max() < 0.1, "three small steps, towards its own probabilities"


@pytest.fixture(scope="module")
def new_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 photos with one label, with two, or with none, none of which looks like one of the run; and their table."""
    root = tmp_path_factory.mktemp("new") / "camera"
    root.mkdir()
    kinds = [[name] for name in CLASSES] + [[a, b] for a in CLASSES for b in CLASSES if a < b] + [[]]
    lines = ["path,labels"]
    for number in range(900, 935):
        labels = kinds[number % len(kinds)]
        draw_pair(labels, number).save(root / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(labels)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def rows_of(data: Path) -> list[tuple[Path, set[str]]]:
    with (data / "labels.csv").open(newline="") as file:
        return [(data / row["path"], set(filter(None, row["labels"].split(";")))) for row in csv.DictReader(file)]


def test_its_numbers_on_new_photos_can_be_counted(labels_run: "potstill.Result", new_pairs: Path) -> None:
    found = potstill.evaluate(
        labels_run.path, new_pairs, settings={"images.without_label": "none"}, reporter=Reporter(quiet=True)
    )
    rows = rows_of(new_pairs)
    predictions = labels_run.student.predict_many([path for path, _ in rows])
    truth = np.array([[int(name in labels) for name in CLASSES] for _, labels in rows])
    values = np.array([[p.probabilities[name] for name in CLASSES] for p in predictions])
    assert isinstance(found.score, LabelScore)
    assert (found.score.photos, found.unlabeled) == (35, 0)
    assert found.score.mean_average_precision.value == pytest.approx(multilabel.mean_average_precision(values, truth))
    right = [set(p.labels) == labels for p, (_, labels) in zip(predictions, rows, strict=True)]
    assert found.score.exact_match.value == pytest.approx(np.mean(right))
    expected = -np.mean(truth * np.log(values) + (1 - truth) * np.log(1 - values))
    assert found.score.nll == pytest.approx(expected, abs=1e-5)
    assert found.predicted == {name: sum(name in p.labels for p in predictions) for name in CLASSES}
    assert [(one.name, one.photos) for one in found.per_class] == [(name, 15) for name in CLASSES]
    store = PixelStore(labels_run.run.images)
    tested = store.rows("test")
    own = labels_run.student.predict_many([np.array(store.photo(int(row))) for row in tested])
    values = np.array([[p.probabilities[name] for name in CLASSES] for p in own])
    assert isinstance(found.test, LabelScore)
    assert found.test.mean_average_precision.value == pytest.approx(
        multilabel.mean_average_precision(values, store.labels(tested))
    )
    assert found.difference is not None
    assert found.difference.low < found.difference.value < found.difference.high
    assert found.unsure is not None


def test_classes_and_labels_that_are_lacking_or_unknown_are_said(
    labels_run: "potstill.Result", new_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(new_pairs, tmp_path / "data"))
    lines = ["path,labels"]
    for path, labels in rows_of(new_pairs):
        lines.append(f"{path.name},{';'.join(sorted(labels - {'stripes'} | {'moon'}))}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    assert run_command(["evaluate", str(labels_run.path), str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["per_class"]] == ["disc", "frame"]
    assert (found["lacking"], found["unknown"]) == (["stripes"], {"moon": 35})
    (data / "labels.csv").unlink()
    assert run_command(["evaluate", str(labels_run.path), str(data)]) == 0
    printed = capsys.readouterr().out
    assert "35 photos without labels" in printed
    assert "of its own test photos" in printed, "drift needs no labels"


def test_an_exported_file_is_evaluated_as_its_student(exported: Path, new_pairs: Path) -> None:
    settings = {"images.without_label": "none"}
    file, model = (
        potstill.evaluate(path, new_pairs, settings=settings, arm=arm, reporter=Reporter(quiet=True))
        for path, arm in ((exported / "6_export" / STUDENT / "student.onnx", "distilled"), (exported, "distilled"))
    )
    assert isinstance(file.score, LabelScore)
    assert isinstance(model.score, LabelScore)
    assert file.score.mean_average_precision.value == pytest.approx(model.score.mean_average_precision.value, abs=0.02)
    assert file.test is not None


def test_the_page_is_given_every_class_with_its_threshold(labels_run: "potstill.Result", pairs: Path) -> None:
    photo = pairs / "1.png"
    predictions = classify(load_models(labels_run.run), photo.read_bytes())["predictions"]
    assert [found["arm"] for found in predictions] == ["distilled", "alone", "teacher"]
    for found in predictions:
        model = load_predictor(labels_run.path, arm=found["arm"])
        wanted = model.predict(photo)
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)
        assert tuple(found["labels"]) == wanted.labels
        assert found["thresholds"] == dict(zip(CLASSES, model.thresholds, strict=True))
        assert "known" not in found
    assert predictions[2]["thresholds"] == dict(zip(CLASSES, labels_run.scores.teacher.thresholds, strict=True))
    assert "refused" in classify(load_models(labels_run.run), b"just text")


def test_the_page_in_the_browser_is_given_the_thresholds(exported: Path) -> None:
    facts = describe(Run(exported), STUDENT, exported_student(Run(exported), STUDENT))
    assert facts["thresholds"] == exported_student(Run(exported), STUDENT).thresholds
    assert len(facts["thresholds"]) == len(facts["classes"]) == 3


@pytest.fixture(scope="module")
def pool(labels_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with 12 photos without labels, up to its soft labels, with the students of the other run."""
    data = make_pairs(tmp_path_factory.mktemp("pool") / "photos", {"train": 4, "val": 1, "test": 1})
    (data / "unlabeled").mkdir()
    for number in range(500, 512):
        draw_pair([[CLASSES[0]], CLASSES[:2], []][number % 3], number).save(data / "unlabeled" / f"{number}.png")
    run = Run(data.parent / "runs" / "first")
    config = from_mapping({**SEVERAL, "teacher.unlike": "keep"})
    run.create("", config_text(data, config))
    context = context_of(run)
    collect_images(ImagesPlan(open_photos(data, config.images, runs=run.path.parent), config.images, 80), context)
    teach(config.teacher, config.views, context, metric="mAP")
    label(config.teacher, config.views, 2, context)
    shutil.copytree(labels_run.path / "4_students", run.students)
    return run


def test_photos_to_label_next_are_those_with_the_most_uncertain_labels(
    pool: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["suggest", str(pool.path), "--count", "5"]) == 0
    printed = capsys.readouterr().out
    assert "write the labels into the table" in printed
    assert "--label" not in printed
    with (pool.path / "suggest" / "suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    known = {*CLASSES, "(none of them)"}
    photos = read_pool(pool, RunPhotos.of(pool))
    assert photos.student is not None
    doubts = label_doubt(photos.teacher, photos.student).mean(1).round(4)
    for row in rows:
        assert row["path"].startswith("unlabeled/")
        assert set(row["suggested_class"].split("|")) <= known
        assert float(row["doubt"]) in doubts
        assert row["why"]
    assert len({row["path"] for row in rows}) == 5
    page = (pool.path / "suggest" / "index.html").read_text("utf-8")
    assert page.count("<img") == 5
    assert run_command(["suggest", str(pool.path), "--label"]) == 2
    assert "may have several labels, which stand in a table" in capsys.readouterr().err


def test_doubt_is_that_of_each_label_and_put_into_words() -> None:
    teacher, student = np.array([[0.5, 0.99, 0.02]]), np.array([[0.5, 0.01, 0.02]])
    alone, both = label_doubt(teacher)[0], label_doubt(teacher, student)[0]
    assert alone[0] == pytest.approx(1)
    assert alone[1] < 0.1
    assert both[1] == pytest.approx(1), "each is confident, of opposites"
    assert _why_labels(teacher[0], student[0], CLASSES) == "frame? teacher: 99 %, student: 1 %"
    assert _why_labels(np.array([0.9, 0.4, 0.02]), None, CLASSES) == "frame (40 %)?"
    assert _why_labels(np.array([0.9, 0.0, 0.02]), np.array([0.9, 0.4, 0.02]), CLASSES) == "frame (20 %)?"
    assert _why_labels(np.array([0.97, 0.98, 0.02]), None, CLASSES) == "probably frame and disc; for variety"
    assert _why_labels(np.array([0.02, 0.01, 0.02]), None, CLASSES) == "probably none of the classes; for variety"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "RUN", "PAIRS"], "--images.without-label none: it shows none of the classes"),
        (["evaluate", "RUN", "SHAPES"], "name one class of each photo. The model gives a photo several labels"),
        (["update", "RUN", "PAIRS"], "`potstill update` is for photos with one label each"),
        (["suggest", "RUN"], "has no photos without labels"),
        (["controls", "RUN"], "for photos with one label each"),
        (["forecast", "RUN"], "for photos with one label each"),
        (["compare", "RUN", "TINY"], "only the photos of labels have several labels each"),
        (["predict", "RUN", "PAIRS", "--sort-into", "SORTED"], "--sort-into puts a photo into one folder"),
        (["curve", "PAIRS", "--per-class", "2", *flags(SEVERAL)], "per_class counts photos that have one label"),
        (["distill", "PAIRS", *flags(SEVERAL), "--metric", "balanced"], "is for photos with one label each"),
        (["distill", "PAIRS", *flags(SEVERAL), "--operating-point", "recall:disc=0.8"], "operating_point"),
        (["distill", "PAIRS", *flags(SEVERAL), "--class-balance", "weighted"], "class_balance"),
        (["distill", "PAIRS", *flags(SEVERAL), "--student.method", "logit_mse"], "there is: kl"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_early(
    labels_run: "potstill.Result",
    tiny_run: "potstill.Result",
    pairs: Path,
    photos: Path,
    in_folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    stands_for: dict[str, Any] = {
        "RUN": labels_run.path,
        "TINY": tiny_run.path,
        "PAIRS": pairs,
        "SHAPES": photos,
        "SORTED": in_folder / "sorted",
    }
    assert run_command([str(stands_for.get(word, word)) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert list(in_folder.iterdir()) == []


def test_map_is_no_metric_of_photos_with_one_label(photos: Path) -> None:
    with pytest.raises(ConfigError, match="metric must be accuracy"):
        potstill.distill(photos, settings={"metric": "mAP"})
