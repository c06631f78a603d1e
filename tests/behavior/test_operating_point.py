"""An operating point reaches all that classifies photos, and a finished run gets another one without training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.reports import edit
from tests.support import TINY, draw_photo, unseal, weight_hashes
from tests.unit.test_students import _training

import potstill
from potstill import metrics
from potstill.cli import run as run_command
from potstill.deploy.predictor import load_predictor
from potstill.deploy.serve import classify, load_models
from potstill.errors import DataError
from potstill.export.manifest import Manifest, read_manifest
from potstill.export.reference import Reference
from potstill.metrics.choice import Metric
from potstill.monitoring.progress import Reporter
from potstill.report.page import render
from potstill.report.read import RunFiles
from potstill.report.side_by_side import side_by_side
from potstill.report.table import class_table, operating_lines, operating_table
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.integrity import damages
from potstill.run.layout import model_folder
from potstill.run.results import read_comparison
from potstill.run.trained import read_trained
from potstill.students import operating_point
from potstill.students.operating_point import place_operating_points

STUDENT = "mobilenetv1_025-32px"
POINT = {"operating_point": "recall:disc=0.6"}


@pytest.fixture(scope="module")
def pointed(photos: Path, tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> "potstill.Result":
    """The tiny run, finished without an operating point, and then given one."""
    folder = tmp_path_factory.mktemp("pointed") / "run"
    shutil.copytree(tiny_run.path, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("train_job", "render_views"):
            module = "students.runner" if name == "train_job" else "students.stage"
            patch.setattr(f"potstill.{module}.{name}", _nothing_to_do)
        return potstill.distill(photos, settings={**TINY, **POINT}, run=folder, reporter=Reporter(quiet=True))


def _nothing_to_do(*arguments: object, **named: object) -> None:
    raise AssertionError("everything is trained")


def test_a_finished_run_gets_it_without_training_anything(
    pointed: "potstill.Result", tiny_run: "potstill.Result"
) -> None:
    assert weight_hashes(pointed.path) == weight_hashes(tiny_run.path)
    assert list(damages(pointed.path)) == []
    before = tiny_run.comparison
    assert (before.operating_point, before.teacher.operating) == (None, None)
    assert pointed.comparison.students[0].distilled.accuracy == before.students[0].distilled.accuracy


def test_the_threshold_is_placed_on_val_and_what_it_finds_is_counted_on_test(pointed: "potstill.Result") -> None:
    run, comparison = pointed.run, pointed.comparison
    label = comparison.classes.index("disc")
    found = comparison.students[0].distilled.operating
    assert found is not None
    shares = []
    with np.load(run.comparison / "predictions.npz") as stored:
        labels, logits = stored["labels"], stored[f"{STUDENT}/distilled"]
    for seed in range(2):
        folder = model_folder(run, STUDENT, seed, "distilled")
        trained = read_trained(folder)
        assert trained.operating_point is not None
        assert trained.operating_point.threshold == found.thresholds[seed]
        with np.load(folder / "val_predictions.npz") as stored:
            on_val = metrics.softmax(stored["logits"] / trained.temperature)[stored["labels"] == label, label]
        assert np.mean(on_val >= found.thresholds[seed]) >= 0.6
        flagged = metrics.softmax(logits[seed] / trained.temperature)[:, label] >= found.thresholds[seed]
        shares.append((np.mean(flagged[labels == label]), np.mean(flagged[labels != label])))
    assert (found.recall.value, found.false_alarms.value) == pytest.approx(tuple(np.mean(shares, axis=0)))
    assert comparison.operating_point is not None
    assert comparison.operating_point.val_photos == len(on_val)


def test_predict_serve_and_the_twin_use_it(pointed: "potstill.Result", tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw_photo("frame", 5).save(path)
    served = {model.arm: model for model in load_models(pointed.run)}
    for arm in ("distilled", "alone", "teacher"):
        predictor = load_predictor(pointed.path, arm=arm)
        point, found = predictor.operating_point, predictor.predict(path)
        assert point is not None
        flagged = found.probabilities["disc"] >= point.threshold
        others = {name: p for name, p in found.probabilities.items() if name != "disc"}
        assert found.label == ("disc" if flagged else max(others, key=lambda name: others[name]))
        assert served[arm].predictors[0].operating_point == point
        (column,) = classify([served[arm]], path.read_bytes())["predictions"]
        assert column["label"] == found.label
        assert column["operating_point"] == {"class_name": "disc", "recall": 0.6, "threshold": point.threshold}
    teacher = pointed.comparison.teacher.operating
    assert teacher is not None
    assert load_predictor(pointed.path, arm="teacher").operating_point.threshold == teacher.thresholds[0]  # type: ignore[union-attr]


def test_exported_files_carry_it(pointed: "potstill.Result", tmp_path: Path) -> None:
    folder = model_folder(pointed.run, STUDENT, 0, "distilled")
    reference = Reference.of(pointed.run, STUDENT, folder)
    point = read_trained(folder).operating_point
    assert point is not None
    assert json.loads(reference.metadata()["operating_point"]) == {
        "class_name": "disc", "recall": 0.6, "threshold": point.threshold
    }  # fmt: skip
    assert reference.facts()["operating_point"] == point
    Manifest(
        student=STUDENT, fingerprint="0", labels=("a",), size=32, threshold=0.5, operating_point=point, files={}
    ).write(tmp_path)
    assert read_manifest(tmp_path).operating_point == point
    edit(tmp_path / "manifest.json", lambda values: values.pop("operating_point"))
    assert read_manifest(tmp_path).operating_point is None, "a manifest from before there was one"


def test_the_report_and_the_tables_lead_with_it(pointed: "potstill.Result", tiny_run: "potstill.Result") -> None:
    page, comparison = render(RunFiles(pointed.run)).replace("\u00a0", " "), pointed.comparison
    found = comparison.students[0].distilled.operating
    assert found is not None
    head = f"finds {100 * found.recall.value:.1f} % of disc, at {100 * found.false_alarms.value:.1f} % false alarms"
    assert f"<h1>{STUDENT}: {head}</h1>" in page
    first = page.partition("<nav")[0]
    assert f"Finds {100 * found.recall.value:.1f} % of disc" in first
    assert ">finds disc</th>" in first
    assert ">false alarms</th>" in first
    assert 'id="operating-point"' in page
    assert "ROC curve, disc" in page
    assert operating_table(comparison) is not None
    assert f"{STUDENT} finds {found.recall.value:.1%}" in operating_lines(comparison)[0]
    assert operating_table(tiny_run.comparison) is None
    assert operating_lines(tiny_run.comparison) == []
    assert class_table(tiny_run.comparison) is None, "classes of equal size, by accuracy"
    beside = side_by_side([tiny_run.path, pointed.path])
    table = beside.tables()[1]
    assert [column.header for column in table.columns][-3:] == ["operating point", "finds", "false alarms"]
    assert beside.to_json()["rows"][4]["operating"]["recall"]["value"] == found.recall.value


def test_another_class_and_too_few_val_photos_are_refused(
    pointed: "potstill.Result", photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(photos), "--run", str(pointed.path), "--operating-point", "recall:disk=0.6"]
    assert run_command(words) == 2
    assert "operating_point: there is no class 'disk'. Did you mean 'disc'?" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"val has 4 photos of disc.*takes 19 or more"):
        potstill.distill(
            photos, settings={**TINY, "operating_point": "recall:disc=0.95"}, run=pointed.path,
            reporter=Reporter(quiet=True),
        )  # fmt: skip


def test_killed_while_it_is_put_in_the_next_command_does_it_again(
    pointed: "potstill.Result", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shutil.copytree(pointed.path, tmp_path / "run"))
    plan = _training(tmp_path, {"seeds": 2}).plan
    student = plan.students[0]
    student = replace(student, shared=replace(student.shared, operating_point="recall:frame=0.5"))
    plan = replace(plan, students=(student,))
    write, written = operating_point.write_json, []

    def dying(path: Path, value: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(operating_point, "write_json", dying)
    with pytest.raises(KeyboardInterrupt):
        place_operating_points(run, [STUDENT], plan)
    assert list(damages(run.path)) == []
    monkeypatch.setattr(operating_point, "write_json", write)
    place_operating_points(run, [STUDENT], plan)
    assert list(damages(run.path)) == []
    for path in run.students.glob(f"{STUDENT}/seed-*/*/model.json"):
        assert str(read_trained(path.parent).operating_point) == "recall:frame=0.5"
        assert "model.json" in read_json(path.parent / "done.json")["files"]


def test_a_comparison_from_before_it_was_measured_is_still_read(run_copy: Run) -> None:
    path = run_copy.comparison / "comparison.json"
    values = read_json(path)
    values["format"] = 2
    del values["metric"], values["operating_point"]
    for key in ("by_class", "operating", "logit_shift"):
        del values["teacher"][key]
    for student in values["students"]:
        del student["class_differences"]
        for arm in ("distilled", "alone"):
            del student[arm]["by_class"], student[arm]["operating"]
    write_json(path, values)
    unseal(run_copy.path)
    assert read_comparison(path).teacher.by_class is None
    page = render(RunFiles(run_copy))
    assert "were not measured when this comparison was made" in page
    assert len(side_by_side([run_copy.path, run_copy.path]).tables()) == 1


def test_by_another_metric_the_whole_job_is_done_and_says_what_was_chosen_by(photos: Path, tmp_path: Path) -> None:
    settings = {**TINY, "metric": "balanced", "class_balance": "logit-adjusted", "student.epochs": 2, "seeds": 1}
    result = potstill.distill(photos, settings=settings, run=tmp_path / "run", reporter=Reporter(quiet=True))
    comparison = result.comparison
    assert comparison.metric == "balanced"
    assert len(comparison.teacher.logit_shift) == 3
    assert comparison.students[0].distilled.recipe["class_balance"] == "logit-adjusted"
    assert comparison.students[0].alone.recipe["metric"] == "balanced"
    for arm in ("distilled", "alone"):
        folder = model_folder(result.run, STUDENT, 0, arm)
        with np.load(folder / "val_predictions.npz") as stored:
            logits, labels = stored["logits"], stored["labels"]
        done, metric = read_json(folder / "done.json"), Metric.of("balanced", comparison.classes)
        assert (done["val_metric"], done["val_loss"]) == (metric.value(logits, labels), metric.loss(logits, labels))
        assert read_trained(folder).temperature == metric.temperature(logits, labels)
    assert "balanced accuracy" in render(RunFiles(result.run))
    assert class_table(comparison) is not None
