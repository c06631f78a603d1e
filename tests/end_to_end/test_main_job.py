"""The main job as users call it: from Python and from the command line, on a finished tiny run."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support import CLASSES, TINY, draw_photo, flags
from tests.support import potstill as command

import potstill
from potstill import pipeline
from potstill.cli import run
from potstill.errors import DataError, ModelError, PotstillError
from potstill.monitoring.progress import Reporter
from potstill.run.folder import STAGES, Run

FILES = (
    *("README.md", "run.json", "config.toml", "environment.json", "log.txt"),
    *(f"1_images/{name}" for name in ("images.csv", "classes.txt", "rejected.csv", "pixels.bin", "index.npy")),
    *(f"2_teacher/{name}" for name in ("model.safetensors", "model.json", "metrics.jsonl", "features.npy")),
    "2_teacher/fold_heads.safetensors",
    *(f"3_soft_labels/{name}" for name in ("logits.npy", "features.npy", "views.npy", "photos.npy", "meta.json")),
    *(
        "5_comparison/comparison.json",
        "5_comparison/predictions.npz",
        "5_comparison/train_views.npz",
        "7_report/index.html",
    ),
)
"""What the README promises of a run folder, but for the students."""


def test_the_run_folder_is_what_the_readme_promises(tiny_run: "potstill.Result") -> None:
    folder = tiny_run.path
    for name in FILES:
        assert (folder / name).is_file(), name
    for seed in (0, 1):
        for arm in ("distilled", "alone"):
            trained = folder / "4_students" / tiny_run.students[0] / f"seed-{seed}" / arm
            for name in ("model.safetensors", "model.json", "metrics.jsonl", "val_predictions.npz"):
                assert (trained / name).is_file(), trained / name
    assert {p.name for p in folder.iterdir() if p.is_dir()} <= set(STAGES), "and no other folders"
    assert not list(folder.rglob("*.pkl")) + list(folder.rglob("*.pt")) + list(folder.rglob("*.pth"))
    for path in folder.rglob("*.np[yz]"):
        np.load(path, allow_pickle=False)


def test_python_gives_verdicts_and_every_number(tiny_run: "potstill.Result") -> None:
    assert len(tiny_run.verdicts()) == len(tiny_run.students) == 1
    assert "24 test photos, 2 seeds" in tiny_run.verdicts()[0]
    student = tiny_run.comparison.students[0]
    assert student.name == tiny_run.students[0]
    for numbers in (tiny_run.comparison.teacher, student.distilled, student.alone):
        assert 0 <= numbers.accuracy.low <= numbers.accuracy.value <= numbers.accuracy.high <= 1
        assert numbers.nll > 0
        assert 0 <= numbers.ece <= 1
    assert min(student.parameters, student.macs, student.bytes, student.milliseconds) > 0
    assert student.difference.low <= student.difference.value <= student.difference.high
    for arm in ("distilled", "alone"):
        agreement = student.arm(arm).agreement
        assert all(0 <= share <= 1 for share in (agreement.train_views, agreement.val, agreement.test))
    assert all(0.5 <= crop <= 1 for arm in ("distilled", "alone") for crop in student.arm(arm).crop_per_seed)
    assert len(student.mcnemar) == tiny_run.comparison.seeds == 2
    assert tiny_run.report.is_file()


def test_predict_takes_paths_pictures_and_arrays(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    photo = draw_photo("disc", 12345)
    photo.save(tmp_path / "a.png")
    answers = [
        tiny_run.student.predict(p) for p in (tmp_path / "a.png", str(tmp_path / "a.png"), photo, np.asarray(photo))
    ]
    assert len({(a.label, a.probability) for a in answers}) == 1
    answer = answers[0]
    assert answer.label in CLASSES
    assert tuple(answer.probabilities) == CLASSES
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert answer.probability == max(answer.probabilities.values())
    for one in tiny_run.student.predict_many([photo, photo]):  # a batch is rounded otherwise
        assert one.label == answer.label
        assert one.probabilities == pytest.approx(answer.probabilities, abs=1e-3)
    with pytest.raises(DataError, match="not a usable photo"):
        tiny_run.student.predict(__file__)
    with pytest.raises(DataError, match="uint8 RGB"):
        tiny_run.student.predict(np.zeros((8, 8), np.float32))


def test_load_takes_a_run_or_any_model_folder(tiny_run: "potstill.Result") -> None:
    photo = draw_photo("frame", 777)
    chosen = potstill.load(tiny_run.path)
    assert chosen.classes == CLASSES
    assert potstill.load(chosen.folder).predict(photo) == chosen.predict(photo)
    assert potstill.load(str(tiny_run.path)).predict(photo) == tiny_run.student.predict(photo)
    assert potstill.load(tiny_run.path, arm="alone", seed=1).folder.parts[-2:] == ("seed-1", "alone")
    assert potstill.load(tiny_run.path, arm="teacher").info.name == "efficientnet_lite0"


def test_models_that_are_not_there_are_named(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no trained student 'resnet'\. Trained are: mobilenetv1_025"):
        potstill.load(tiny_run.path, student="resnet")
    with pytest.raises(ModelError, match=r"no seed 7\. It has: 0, 1"):
        potstill.load(tiny_run.path, seed=7)
    with pytest.raises(PotstillError, match="is not a run folder"):
        potstill.load(tmp_path)


def test_a_model_file_that_was_swapped_is_refused(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(potstill.load(tiny_run.path).folder, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="sha256 differs"):
        potstill.load(folder)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step of any training is an AssertionError, whoever imported `fit` under whatever name."""

    def step(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def _made(folder: Path) -> dict[Path, int]:
    """When the files of the long stages were written."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".safetensors", ".npy", ".npz", ".bin")}


@pytest.mark.usefixtures("no_training")
def test_a_finished_run_is_found_again_and_nothing_is_made_twice(
    photos: Path, tiny_run: "potstill.Result", in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.students.stage.render_views", lambda *_: pytest.fail("views are for trainings"))
    name = pipeline.new_run_name(photos, "efficientnet_lite0")
    shutil.copytree(tiny_run.path, in_folder / "runs" / name)
    before = _made(in_folder / "runs" / name)
    again = potstill.distill(photos, settings=TINY, reporter=Reporter(quiet=True))
    assert again.path == Path("runs") / name
    assert before == _made(in_folder / "runs" / name)
    assert again.verdicts() == tiny_run.verdicts()


@pytest.mark.parametrize("lost", ["2_teacher", "4_students/mobilenetv1_025-32px/seed-1/alone"])
@pytest.mark.usefixtures("no_training")
def test_a_training_of_anything_would_have_been_noticed(
    lost: str, photos: Path, run_copy: "potstill.run.folder.Run"
) -> None:
    for name in ("done.json", "model.json"):
        (run_copy.path / lost / name).unlink()
    with pytest.raises(AssertionError, match="something was trained"):
        potstill.distill(photos, settings=TINY, run=run_copy.path, reporter=Reporter(quiet=True))


def test_dry_run_says_time_and_disk_and_makes_nothing(
    photos: Path, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["distill", str(photos), "--dry-run", *flags(TINY)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Folder")
    start = next(number for number, line in enumerate(lines) if "66 files in 3 classes" in line)
    plan, time, disk = lines[start : start + 4], lines[start + 5], lines[-1]
    assert [line.partition(":")[0] for line in plan] == ["Photos", "Teacher", "Soft labels", "Student"]
    assert "mobilenetv1_025 at 32 px, from scratch, 3 epochs in batches of" in plan[3]
    assert time.startswith("About ")
    assert all(part in time for part in ("photos", "teacher", "students"))
    assert " GB of disk (" in disk
    assert all(part in disk for part in ("photos", "soft labels", "rendered views"))
    assert list(in_folder.iterdir()) == []


def test_dry_run_of_a_learning_curve_has_a_plan_for_each_number_of_labels(
    photos: Path, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["curve", str(photos), "--per-class", "6,4", "--dry-run", *flags(TINY)]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [number for number, line in enumerate(lines) if line.endswith("labels per class")]
    assert [lines[number] for number in titles] == ["4 labels per class", "6 labels per class"]
    for first, last in pairwise([*titles, len(lines)]):
        assert any(line.startswith("About ") for line in lines[first:last])
    assert list(in_folder.iterdir()) == []
    assert run(["curve", str(photos), "--per-class", "1", "--dry-run"]) == 2


def test_a_comparison_that_was_deleted_is_made_again(photos: Path, tiny_run: "potstill.Result", run_copy: Run) -> None:
    path = run_copy.comparison / "comparison.json"
    path.unlink()
    result = potstill.distill(photos, settings=TINY, run=run_copy.path, reporter=Reporter(quiet=True))
    assert path.is_file()
    assert result.verdicts() == tiny_run.verdicts()


def test_the_command_line_prints_table_verdict_and_plain_lines(
    photos: Path, tiny_run: "potstill.Result", run_copy: "potstill.run.folder.Run", capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run_copy.path / "5_comparison")
    done = command("distill", photos, "--run", run_copy.path, *flags(TINY))
    assert done.returncode == 0, done.stderr
    assert tiny_run.verdicts()[0] in done.stdout
    assert f"Report: {run_copy.path / '7_report' / 'index.html'}" in done.stdout
    assert f"Resuming {run_copy.path}" in done.stderr
    assert "Scoring on the test photos: 3 models in" in done.stderr, "teacher, distilled and alone"
    assert "\x1b" not in done.stdout + done.stderr, "no colors or bars where no terminal is"
    assert json.loads((run_copy.path / "timings.json").read_text("utf-8")).keys() >= {"2_teacher", "4_students"}
    photo = next((photos / "test").rglob("*.png"))
    assert run(["predict", str(run_copy.path), str(photo), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] == tiny_run.student.predict(photo).label
    assert list(answer["probabilities"]) == list(CLASSES)


def test_a_photo_that_pillow_opens_in_another_mode_is_the_same_photo(tiny_run: "potstill.Result") -> None:
    gray = draw_photo("stripes", 5).convert("L")
    assert tiny_run.student.predict(gray) == tiny_run.student.predict(gray.convert("RGB"))
    assert tiny_run.student.predict(Image.new("RGBA", (40, 30), (9, 9, 9, 0))).label in CLASSES
