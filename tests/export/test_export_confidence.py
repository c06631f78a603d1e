"""The intervals of exported files have the confidence of the run, and are labeled with it."""

import shutil
from pathlib import Path

import pytest
from tests.export.conftest import STUDENT, quiet
from tests.support import TINY

import potstill
from potstill import metrics
from potstill.export import export
from potstill.export.results import exported_student
from potstill.export.web import PAGE, describe
from potstill.run.folder import Run

CONFIDENCE = 0.8


@pytest.mark.long
def test_files_of_a_run_with_another_confidence(taught_copy: Run, photos: Path) -> None:
    shutil.rmtree(taught_copy.export, ignore_errors=True)
    settings = {**TINY, "comparison.confidence": CONFIDENCE}
    potstill.distill(photos, settings=settings, run=taught_copy.path, reporter=quiet())
    (file,) = export(taught_copy, ["torch"], ["float32"], reporter=quiet())
    student = exported_student(taught_copy, STUDENT)
    assert student.confidence == CONFIDENCE
    for accuracy, low, high in (
        (student.accuracy.value, student.accuracy.low, student.accuracy.high),
        (file.accuracy or 0.0, file.low, file.high),
    ):
        correct = round(accuracy * student.test_photos)
        assert (low, high) == pytest.approx(metrics.wilson_interval(correct, student.test_photos, CONFIDENCE))
    card = (taught_copy.export / STUDENT / "README.md").read_text("utf-8")
    assert "80% intervals" in card
    assert describe(taught_copy, STUDENT, student)["confidence"] == CONFIDENCE
    assert "model.confidence" in (PAGE / "app.js").read_text("utf-8")
