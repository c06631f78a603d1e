"""A student whose trainings are finished can be used while others are still being trained."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support import CLASSES, TINY, draw_photo
from tests.support import potstill as command

import potstill
from potstill.errors import ModelError
from potstill.export.stage import export
from potstill.monitoring.progress import Reporter
from potstill.monitoring.status import read_status
from potstill.run.folder import Run
from potstill.students.recipe import Job
from potstill.students.runner import JobRunner

FIRST, SECOND = "mobilenetv1_025-32px", "mobilenetv1_025-48px"


class _StopError(Exception):
    pass


@pytest.fixture(scope="module")
def between(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was stopped when the second of two students was to be trained."""
    run, train = tmp_path_factory.mktemp("runs") / "between", JobRunner.run

    def stop(self: JobRunner, jobs: Sequence[Job], label: str, threads: int, *, part: str = "") -> None:
        if SECOND in label:
            raise _StopError("the power failed")
        train(self, jobs, label, threads, part=part)

    settings = {**TINY, "student.models": ["mobilenetv1_025@32", "mobilenetv1_025@48"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobRunner, "run", stop)
        with pytest.raises(_StopError):
            potstill.distill(photos, settings=settings, run=run, reporter=Reporter(quiet=True))
    return Run(run)


def test_predict_takes_it_with_the_seed_that_is_best_on_val(between: Run, tmp_path: Path) -> None:
    predictor = potstill.load(between.path, student=FIRST)
    assert predictor.folder.parent.parent == between.students / FIRST
    assert potstill.load(between.path).folder == predictor.folder, "the only one that is trained"
    draw_photo("disc", 7).save(tmp_path / "photo.png")
    done = command("predict", between.path, tmp_path / "photo.png", "--student", FIRST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[1] in CLASSES
    with pytest.raises(ModelError, match=f"no trained student '{SECOND}'. Trained are: {FIRST}"):
        potstill.load(between.path, student=SECOND)


def test_export_takes_it_and_scores_it(between: Run) -> None:
    with between.only_here():  # as while the others are trained
        (result,) = export(between, ["onnx"], ["float32"], student=FIRST, reporter=Reporter(quiet=True))
    assert result.status == "ok", result.reason
    assert (between.export / result.file).is_file()


def test_the_status_says_where_it_stopped_and_what_can_be_used(between: Run) -> None:
    status = read_status(between.path)
    assert (status.state, status.stage) == ("stopped", "4_students")
    assert "_StopError: the power failed" in status.lines()[0]
    assert [(s.name, s.usable) for s in status.students] == [(FIRST, True), (FIRST, True)]
    parts = {part for part in status.stages if status.stages[part]}
    assert {"1_images", "2_teacher", "3_soft_labels"} <= parts
