"""How long the twin is trained is chosen on val: tried once, with seed 0, beside the students."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import TINY, weight_hashes

import potstill
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.config.load import from_mapping
from potstill.errors import StaleError
from potstill.estimate import TRAINING_FACTOR, TRAINING_SECONDS, estimate
from potstill.images.folder import read_folder
from potstill.monitoring.progress import Reporter
from potstill.planning import make_plan
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.results import read_training
from potstill.students import runner as job_runner
from potstill.students import stage as students_stage
from potstill.students.job import train_job
from potstill.students.recipe import Job
from potstill.students.stage import _Training

NAME = "mobilenetv1_025-32px"
SPEEDS = {"float32": 100.0}
LENGTHS = {**TINY, "twin.length_shares": [1.0, 0.67, 0.33]}


@pytest.fixture
def taught(run_copy: Run) -> Run:
    """A run whose soft labels are stored, and whose students are not trained."""
    for folder in (run_copy.students, run_copy.comparison, run_copy.report):
        shutil.rmtree(folder)
    return run_copy


@pytest.fixture
def prefer(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let val prefer a number of epochs."""

    def install(epochs: int) -> None:
        def losses(training: Any, folder: Path) -> np.ndarray:
            return np.full(4, abs(read_json(folder / "model.json")["trained"]["recipe"]["epochs"] - epochs))

        monkeypatch.setattr(students_stage._Training, "_val_losses", losses)

    return install


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the trainings that are run."""
    folders: list[str] = []
    monkeypatch.setattr(
        job_runner, "train_job", lambda job, *others: (folders.append(job.folder.name), train_job(job, *others))
    )
    return folders


def distill(photos: Path, run: Run, *, redo: bool = False) -> "potstill.Result":
    return potstill.distill(photos, settings=LENGTHS, run=run.path, redo=redo, reporter=Reporter(quiet=True))


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_every_seed_of_the_twin_has_the_length_that_val_prefers(
    photos: Path, taught: Run, prefer: Callable[[int], None], trained: list[str], epochs: int
) -> None:
    prefer(epochs)
    result = distill(photos, taught)
    lengths = ["alone-3-epochs", "alone-2-epochs", "alone-1-epochs"]
    assert trained == ["distilled", "distilled", *lengths, "alone"], "seed 0 is not trained again"
    folder = taught.students / NAME
    same = weight_hashes(folder)
    assert same["seed-0/alone"] == same[f"pilots/alone-{epochs}-epochs"]
    assert len({same[f"pilots/{name}"] for name in lengths}) == 3
    full = read_training(folder / "seed-0" / "distilled").steps
    for seed in (0, 1):
        assert read_training(folder / f"seed-{seed}" / "alone").steps == full * epochs // 3
    assert result.comparison.students[0].twin_length == pytest.approx(epochs / 3)
    page = result.report.read_text("utf-8").replace("\u00a0", " ")
    assert ("of the steps" in page) == (epochs < 3)
    assert (f"{epochs / 3:.0%}".replace("%", " %") + " of the steps" in page) == (epochs < 3)
    distill(photos, taught)
    assert len(trained) == 6, "a finished run is left as it is"


@pytest.fixture
def harmful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pilots and trainings in full say that the teacher hurts."""
    monkeypatch.setattr(_Training, "doubts_teacher", lambda self, pilots: True)
    monkeypatch.setattr(_Training, "_twin_leads", lambda self, tried: True)


@pytest.mark.usefixtures("harmful")
def test_a_student_without_a_teacher_is_as_long_as_its_twin_and_the_same(
    photos: Path, taught: Run, prefer: Callable[[int], None], trained: list[str]
) -> None:
    prefer(1)
    comparison = distill(photos, taught).comparison
    assert trained == ["distilled-final-0", "alone-3-epochs", "alone-2-epochs", "alone-1-epochs", "distilled"]
    hashes = weight_hashes(taught.students / NAME)
    for seed in (0, 1):
        assert hashes[f"seed-{seed}/distilled"] == hashes[f"seed-{seed}/alone"]
    assert comparison.students[0].twin_length == 1
    assert comparison.students[0].difference.value == 0


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_every_seed_of_the_student_has_the_loss_weights_that_val_prefers(
    photos: Path, taught: Run, trained: list[str], monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """Two of them are trained in full, with seed 0, and with twins or without the same ones are chosen."""
    settings = TINY | {"student.pilot_share": 0.34, "student.lr_factors": [1.0], "twin.label_smoothing": [0.0]}

    def losses(training: Any, folder: Path) -> np.ndarray:
        return np.full(4, abs(read_json(folder / "model.json")["trained"]["recipe"]["distill_weight"] - weight))

    monkeypatch.setattr(students_stage._Training, "_val_losses", losses)
    how: dict[str, Any] = {"settings": settings, "run": taught.path, "reporter": Reporter(quiet=True)}
    potstill.distill(photos, **how, twin=False)
    assert trained == ["distilled-final-0", "distilled-final-1", "distilled"], "seed 0 is not trained again"
    result = potstill.distill(photos, **how)
    assert trained[3:] == ["alone", "alone"]
    same = weight_hashes(taught.students / NAME)
    assert same["seed-0/distilled"] == same[f"pilots/distilled-final-{0 if weight == 1 else 1}"]
    assert same["pilots/distilled-final-0"] != same["pilots/distilled-final-1"]
    for seed in (0, 1):
        recipe = read_json(taught.students / NAME / f"seed-{seed}" / "distilled" / "model.json")["trained"]["recipe"]
        assert (recipe["distill_weight"], recipe["task_weight"]) == ((1.0, 0.3) if weight == 1 else (0.5, 1.0))
    assert result.comparison.students[0].twin_length == 1


@pytest.mark.parametrize(
    ("labels_per_class", "twin"), [(0, True), (0, False), (8, True)], ids=["labeled", "without twin", "pool"]
)
def test_the_estimate_expects_the_trainings_that_are_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels_per_class: int, twin: bool
) -> None:
    """As many in each part, of the same length in all."""
    settings = TINY | {
        "images.per_class": labels_per_class,
        "student.pilot_share": 0.34,
        "student.lr_factors": [1.0, 0.5],
        "twin.length_shares": [1.0, 0.67, 0.33],
    }
    run_jobs, trained = job_runner.JobRunner.run, dict[str, list[int]]()

    def run(runner: job_runner.JobRunner, jobs: Any, label: str, threads: int, *, part: str = "") -> None:
        epochs = trained.setdefault(part, [])

        def train(job: Job, *others: Any) -> None:
            epochs.append(job.recipe.epochs)
            train_job(job, *others)

        with monkeypatch.context() as patch:
            patch.setattr(job_runner, "train_job", train)
            run_jobs(runner, jobs, label, threads, part=part)

    def losses(training: Any, folder: Path) -> np.ndarray:
        return np.full(4, 1 - read_json(folder / "model.json")["trained"]["recipe"]["distill_weight"])

    monkeypatch.setattr(job_runner.JobRunner, "run", run)
    monkeypatch.setattr(students_stage._Training, "_val_losses", losses)
    monkeypatch.setattr("potstill.estimate.fastest_precision", lambda *_, **__: (Precision.on("cpu"), SPEEDS))
    how: dict[str, Any] = {"settings": settings, "run": tmp_path / "run", "reporter": Reporter(quiet=True)}
    potstill.distill(photos, **how, twin=twin)
    plan = make_plan(read_folder(photos), from_mapping(settings), twins=twin)
    expected = {part.name: part.seconds for part in estimate(plan, Machine("cpu", 1, 1)).parts}
    epoch = TRAINING_FACTOR * plan.train_photos / SPEEDS["float32"]
    for part in ("pilots", "finals", "trainings"):
        seconds = len(trained[part]) * TRAINING_SECONDS + sum(trained[part]) * epoch
        assert expected[part] == pytest.approx(seconds, rel=0.01), part


def test_a_run_from_before_lengths_were_tried_is_kept_or_refused(
    photos: Path, run_copy: Run, prefer: Callable[[int], None], trained: list[str]
) -> None:
    before = weight_hashes(run_copy.students)
    prefer(1)
    with pytest.raises(StaleError, match=r"seed-0/alone was made from other settings[^$]*epochs: 3 → 1[^$]*--redo"):
        distill(photos, run_copy)
    assert trained == ["alone-3-epochs", "alone-2-epochs", "alone-1-epochs"]
    prefer(3)
    distill(photos, run_copy)
    after = weight_hashes(run_copy.students)
    assert {name: after[name] for name in before} == before, "val prefers the length that the run has"
    prefer(2)
    assert distill(photos, run_copy, redo=True).comparison.students[0].twin_length == pytest.approx(2 / 3)
    assert trained[3:] == ["alone"], "students and lengths are not trained again"
