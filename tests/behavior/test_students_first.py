"""Without twins nothing is compared, and no test photo is seen; with them, the same command has its usual result."""

import json
import shutil
from pathlib import Path

import pytest
from tests.support import CLASSES, TINY, draw_photo, flags, weight_hashes

import potstill
from potstill.cli import run as command
from potstill.errors import PotstillError
from potstill.export.stage import export
from potstill.export.tolerance import Tolerance
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.students import stage

NAME = "mobilenetv1_025-32px"


@pytest.fixture
def taught(run_copy: Run) -> Run:
    """A run with a teacher and soft labels, and no student yet."""
    for folder in (run_copy.students, run_copy.comparison, run_copy.report):
        shutil.rmtree(folder)
    return run_copy


def distill(photos: Path, run: Run, **more: object) -> "potstill.Result":
    return potstill.distill(photos, settings=TINY, run=run.path, reporter=Reporter(quiet=True), **more)


def test_students_come_first_and_the_twins_are_added_later(
    photos: Path, taught: Run, tiny_run: "potstill.Result", tmp_path: Path
) -> None:
    first = distill(photos, taught, twin=False)
    alone = weight_hashes(taught.students)
    assert sorted(alone) == [f"{NAME}/seed-{seed}/distilled" for seed in (0, 1)]
    assert not taught.comparison.exists(), "no test photo was looked at"
    assert not taught.report.exists()
    assert not first.is_compared
    assert first.verdicts() == [f"{NAME}: nothing was compared, because its twin is not trained."]
    assert "nothing was compared" in first._repr_html_()
    with pytest.raises(PotstillError, match=r"(?s)Nothing was compared in .* without --no-twin"):
        _ = first.comparison
    draw_photo("disc", 7).save(tmp_path / "photo.png")
    assert first.student.predict(tmp_path / "photo.png").label in CLASSES
    before = {path: path.stat().st_mtime_ns for path in taught.students.rglob("distilled/model.safetensors")}
    second = distill(photos, taught)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "students are not trained again"
    assert weight_hashes(taught.students) == weight_hashes(tiny_run.run.students)
    ours, whole = (result.comparison.students[0] for result in (second, tiny_run))
    assert ours.difference == whole.difference
    assert ours.verdict == whole.verdict


def test_a_student_that_learns_without_the_teacher_comes_first_too(
    photos: Path, taught: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where val says that the teacher does not help, the student gets the twin's recipe and length."""
    monkeypatch.setattr(stage._Training, "doubts_teacher", lambda self, pilots: True)
    monkeypatch.setattr(stage._Training, "_twin_leads", lambda self, tried: True)
    distill(photos, taught, twin=False)
    folder = taught.students / NAME
    first = {name: digest for name, digest in weight_hashes(folder).items() if name.startswith("seed-")}
    assert sorted(first) == [f"seed-{seed}/distilled" for seed in (0, 1)]
    result = distill(photos, taught)
    both = weight_hashes(folder)
    assert all(both[name] == both[name.replace("distilled", "alone")] == first[name] for name in first)
    assert result.comparison.students[0].difference.value == 0


def test_the_command_says_that_nothing_was_compared(
    photos: Path, taught: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["distill", str(photos), "--run", str(taught.path), "--no-twin", *flags(TINY)]) == 0
    said = capsys.readouterr().out
    assert "accuracy on val" in said
    assert f"{NAME}: nothing was compared, because its twin is not trained." in said
    for words in (["report"], ["open", "--no-browser"], ["compare", str(taught.path)]):
        assert command([words[0], str(taught.path), *words[1:]]) == 2
        assert "Nothing was compared in" in capsys.readouterr().err, words
    assert command(["status", str(taught.path), "--json"]) == 0
    (student,) = json.loads(capsys.readouterr().out)["students"]
    assert (student["arm"], student["usable"]) == ("distilled", True)
    assert command(["predict", str(taught.path), str(next(photos.rglob("*.png"))), "--arm", "alone"]) == 2
    assert "has no finished alone model" in capsys.readouterr().err


def test_the_card_says_that_nothing_was_compared(photos: Path, taught: Run) -> None:
    distill(photos, taught, twin=False)
    lenient = Tolerance(max_loss=0.05, min_agreement=0.9)  # one photo of the few is 4 points
    export(taught, ["torch"], ["float32"], tolerance=lenient, reporter=Reporter(quiet=True))
    card = (taught.export / NAME / "README.md").read_text("utf-8")
    assert "**Nothing was compared**" in card
    assert "24 test photos" in card
