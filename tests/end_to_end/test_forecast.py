"""`potstill forecast`: a tiny run's forecast end to end, resumed, drawn, and refused where it cannot be made."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.reports import edit
from tests.support import TINY, make_photos

import potstill
from potstill.cli import run as command
from potstill.errors import ConfigError, DataError, PotstillError
from potstill.metrics import Interval
from potstill.monitoring.progress import Reporter
from potstill.report.page import render
from potstill.report.read import RunFiles
from potstill.run.files import write_json
from potstill.run.folder import Run
from potstill.run.forecast import forecast_path, read_forecast
from potstill.run.layout import model_folder
from potstill.tools.forecast import conclude, open_run, plan_forecast


def test_a_forecast_is_made_drawn_and_not_trained_twice(run_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["forecast", str(run_copy.path), "--shares", "0.5,0.75", "--seeds", "1", "--photos", "30", "--jobs", "1"]
    assert command([*words, "--dry-run"]) == 0
    assert re.search(r"^4 trainings, .* 1\.0 times what", capsys.readouterr().out)
    assert not (run_copy.path / "forecast").exists()
    assert command(words) == 0
    printed = capsys.readouterr().out
    assert "error on val" in printed
    found = read_forecast(run_copy)
    assert found is not None
    assert [(curve.kind, curve.arm) for curve in found.curves] == [("labeled", "distilled"), ("labeled", "alone")]
    for curve in found.curves:
        name = tiny_name(run_copy)
        assert [point.photos for point in curve.points] == sorted(point.photos for point in curve.points)
        with np.load(model_folder(run_copy, name, 0, curve.arm) / "val_predictions.npz") as stored:
            error = float(np.mean(stored["logits"].argmax(1) != stored["labels"]))
        assert curve.points[-1].error == pytest.approx(error), "the run's own training is the last point"
        trained = curve.points[-1].photos
        assert [gain.more for gain in curve.gains] == sorted({trained // 2, trained, 30})
        assert all(gain.fewer_errors.low <= gain.fewer_errors.high for gain in curve.gains)
        assert all(gain.conclusion in printed for gain in curve.gains)
    page = render(RunFiles(run_copy))
    assert "Error on val over labeled photos" in page
    made = {path: path.stat().st_mtime_ns for path in (run_copy.path / "forecast").rglob("model.safetensors")}
    assert len(made) == 4
    shutil.rmtree(run_copy.path / "forecast" / tiny_name(run_copy) / "labeled-0.5" / "seed-0" / "alone")
    assert command(words) == 0
    after = {path: path.stat().st_mtime_ns for path in (run_copy.path / "forecast").rglob("model.safetensors")}
    assert sum(made[path] == after[path] for path in made) == 3, "only what was missing was trained"


def test_a_stale_or_foreign_forecast_is_not_shown(run_copy: Run) -> None:
    forecast_path(run_copy).parent.mkdir()
    values = {"student": tiny_name(run_copy), "soft_labels": run_copy.stage("3_soft_labels").digest(), "seeds": 1}
    values |= {"format": 1, "val_photos": 9, "confidence": 0.95, "curves": []}
    write_json(forecast_path(run_copy), values)
    assert RunFiles(run_copy).forecast is not None
    edit(forecast_path(run_copy), lambda v: v.update(soft_labels="others"))
    assert RunFiles(run_copy).forecast is None
    edit(forecast_path(run_copy), lambda v: v.update(format=0))
    assert RunFiles(run_copy).forecast is None
    with pytest.raises(DataError, match=r"another version of Potstill \(format 0, this version reads 1\)"):
        read_forecast(run_copy)
    assert "potstill forecast RUN" in render(RunFiles(run_copy))


def test_photos_without_labels_have_a_curve_of_the_student(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", {"train": 8, "test": 4, "unlabeled": 6})
    result = potstill.distill(data, settings={**TINY, "seeds": 1}, run=tmp_path / "run", reporter=Reporter(quiet=True))
    plan = plan_forecast(open_run(result.path), shares=[0.5, 0.75])
    assert {(group.kind, group.arm) for group in plan.groups} == {
        *(("labeled", arm) for arm in ("distilled", "alone")),
        ("unlabeled", "distilled"),
    }
    growing = [plan.photos(group) for group in plan.groups if group.kind == "unlabeled"]
    labeled = int(np.sum(plan.labels >= 0))
    assert growing[0] > labeled
    assert growing[-1] == labeled + 18


def tiny_name(run: Run) -> str:
    return RunFiles(run).students[0].name


def test_what_cannot_work_is_refused_before_anything_is_trained(run_copy: Run, tmp_path: Path) -> None:
    name = tiny_name(run_copy)
    with pytest.raises(DataError, match=rf"no student '{name[:-1]}'\. The run has: {name}\. Did you mean '{name}'"):
        plan_forecast(run_copy, student=name[:-1])
    for shares in ([0.5], [0.0, 0.5], [0.5, 1.0]):
        with pytest.raises(ConfigError, match="two shares or more, all between 0 and 1"):
            plan_forecast(run_copy, shares=shares)
    with pytest.raises(ConfigError, match=r"--seeds 3: .* was trained with 2"):
        plan_forecast(run_copy, seeds=3)
    with pytest.raises(DataError, match="too few to train on"):
        plan_forecast(run_copy, shares=[0.02, 0.5])
    with pytest.raises(PotstillError, match="There is no run folder"):
        open_run(tmp_path / "nothing")
    (run_copy.comparison / "done.json").unlink()
    with pytest.raises(PotstillError, match=r"5_comparison is not finished\. Run `potstill distill`"):
        plan_forecast(run_copy)
    assert not (run_copy.path / "forecast").exists()


@pytest.mark.parametrize("words", [["--photos", "0"], ["--shares", "half"]])
def test_wrong_words_are_refused(run_copy: Run, words: list[str]) -> None:
    assert command(["forecast", str(run_copy.path), *words]) == 2


@pytest.mark.parametrize(
    ("fewer", "times", "expected"),
    [
        (Interval(0.018, 0.009, 0.026), 1.5, "500 more labeled photos ≈ -1.8 points of error (0.9 to 2.6)."),
        (Interval(0.001, 0.0, 0.004), 2.0, "500 more labeled photos: the curve is flat, less than 0.5 points"),
        (Interval(0.01, 0.0, 0.03), 2.0, "500 more labeled photos: cannot be told, the interval .* too wide"),
        (Interval(0.018, 0.009, 0.026), 5.0, "500 more labeled photos: too far beyond"),
    ],
)
def test_a_forecast_is_claimed_only_where_the_curve_shows_one(fewer: Interval, times: float, expected: str) -> None:
    found = conclude("500 more labeled photos", fewer, times)
    assert re.match(expected.replace("(0.9 to 2.6).", r"\(0\.9 to 2\.6\)\.$"), found), found
