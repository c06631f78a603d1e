"""The intervals of exported files are the run's: of its confidence, and said to be."""

import shutil
from pathlib import Path

import pytest
from tests.export.conftest import STUDENT, quiet
from tests.support import TINY

import potstill
from potstill import metrics
from potstill.export import export
from potstill.export.results import open_results, read_results
from potstill.export.web import PAGE, describe
from potstill.run.folder import Run

CONFIDENCE = 0.8


def test_files_of_a_run_with_another_confidence(taught_copy: Run, photos: Path) -> None:
    shutil.rmtree(taught_copy.export, ignore_errors=True)
    settings = {**TINY, "comparison.confidence": CONFIDENCE}
    potstill.distill(photos, settings=settings, run=taught_copy.path, reporter=quiet())
    (file,) = export(taught_copy, ["torch"], ["float32"], reporter=quiet())
    facts = read_results(taught_copy)["students"][STUDENT]
    assert facts["confidence"] == CONFIDENCE
    for accuracy, low, high in (
        (facts["accuracy"]["value"], facts["accuracy"]["low"], facts["accuracy"]["high"]),
        (file.accuracy, file.low, file.high),
    ):
        right = round(accuracy * facts["test_photos"])
        assert (low, high) == pytest.approx(metrics.wilson_interval(right, facts["test_photos"], CONFIDENCE))
    card = (taught_copy.export / STUDENT / "README.md").read_text("utf-8")
    assert "intervals are 80%." in card
    assert describe(taught_copy, STUDENT, facts)["confidence"] == CONFIDENCE
    assert "model.confidence" in (PAGE / "app.js").read_text("utf-8")


@pytest.mark.parametrize(("confidence", "kept"), [(0.95, 5), (CONFIDENCE, 0)])
def test_results_of_another_confidence_do_not_stay(exported_copy: Run, confidence: float, kept: int) -> None:
    before = read_results(exported_copy)["students"][STUDENT]
    facts = {name: value for name, value in before.items() if name != "files"}
    open_results(exported_copy, STUDENT, {**facts, "confidence": confidence})
    files = read_results(exported_copy)["students"][STUDENT]["files"]
    assert len([f for f in files if f["status"] == "ok"]) == kept
