"""Controls: the twin with all labels, and the student that is taught by its own twin."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import TINY, context_of, edit_settings, weight_hashes

import potstill
from potstill import metrics
from potstill.cli import run as command
from potstill.compute.inference import outputs, plain_outputs
from potstill.compute.precision import Precision
from potstill.controls.stage import run_controls
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer
from potstill.errors import DataError, StaleError
from potstill.models.classifier import load
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.layout import control_folder, controls_path, model_folder
from potstill.run.results import Controls, read_controls
from potstill.students import runner as job_runner
from potstill.students.batches import batches, learned_from
from potstill.students.job import train_job
from potstill.students.recipe import Job

NAME = "mobilenetv1_025-32px"
CPU = Precision(torch.device("cpu"))


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on `photos` that used 4 labels per class. Read only."""
    folder = tmp_path_factory.mktemp("few") / "run"
    settings = TINY | {"images.per_class": 4, "twin.length_shares": [0.67]}
    return potstill.distill(photos, settings=settings, run=folder, reporter=Reporter(quiet=True)).run


@pytest.fixture
def few_copy(few: Run, tmp_path: Path) -> Run:
    shutil.copytree(few.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def controlled(few: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Controls]:
    """The same run with its controls. Read only."""
    folder = tmp_path_factory.mktemp("controlled") / "run"
    shutil.copytree(few.path, folder)
    return Run(folder), run_controls(context_of(Run(folder)))


def truth_of(run: Run) -> np.ndarray:
    """(n,) the class of every photo of the run, by the name of its folder."""
    lines = (run.images / "images.csv").read_text("utf-8").splitlines()[1:]
    return np.array([run.classes().index(line.split(",")[1].split("/")[-2]) for line in lines])


def test_both_are_the_arms_but_for_what_they_learn_from(controlled: tuple[Run, Controls]) -> None:
    run, _ = controlled
    folders = ("controls/labels", f"controls/{NAME}/soft_labels")
    for control, arm, targets in zip(("labeled-twin", "self-taught"), ("alone", "distilled"), folders, strict=True):
        for seed in (0, 1):
            ours = Job.read(control_folder(run, NAME, seed, control))
            theirs = Job.read(model_folder(run, NAME, seed, arm))
            assert (ours.model, ours.size, ours.weights, ours.seed) == (theirs.model, 32, "none", seed)
            assert ours.targets == targets
            known = {"soft_labels", "epochs"} if arm == "alone" else {"soft_labels"}
            for name in asdict(ours.recipe).keys() - known:
                assert getattr(ours.recipe, name) == getattr(theirs.recipe, name), name
            assert ours.recipe.epochs == 3, "as long as the student: the twin itself took 2 epochs"


def test_the_labeled_twin_sees_every_photo_with_its_true_class(controlled: tuple[Run, Controls]) -> None:
    run, _ = controlled
    job = Job.read(control_folder(run, NAME, 0, "labeled-twin"))
    store, soft = learned_from(job, run)
    assert (store.labels(np.arange(len(store))) == truth_of(run)).all()
    assert len(PixelStore(run.images).rows("unlabeled")) > 12
    batch = batches(job, run, store, soft)
    for step in range(job.recipe.steps(len(soft.photos))):
        assert torch.allclose(batch(step).targets.sum(-1), torch.ones(8)), "no photo without a label"


def test_the_self_taught_student_gets_the_twins_answers_to_the_very_views(controlled: tuple[Run, Controls]) -> None:
    run, _ = controlled
    job = Job.read(control_folder(run, NAME, 1, "self-taught"))
    store, soft = learned_from(job, run)
    teachers = SoftLabels.open(run)
    assert (soft.photos == teachers.photos).all()
    assert (soft.views == teachers.views).all()
    assert (store.labels(soft.photos) == PixelStore(run.images).labels(soft.photos)).all(), "no label is given away"
    twin = load(model_folder(run, NAME, 0, "alone"))
    photo, view = np.array([0, 5, len(soft.photos) - 1]), np.array([0, 1, 1])
    pixels = Renderer(store, soft.photos, soft.views, 32)(photo, view)
    features, logits = outputs(twin, pixels, CPU)
    assert np.allclose(soft.logits(photo, view), logits, atol=0.02)
    assert np.allclose(soft.features(photo, view), features, atol=0.02)


def test_differences_are_paired_on_the_test_photos(controlled: tuple[Run, Controls]) -> None:
    run, controls = controlled
    assert read_controls(controls_path(run)) == controls
    (student,) = controls.students
    assert (student.name, student.missing) == (NAME, "")
    with np.load(run.comparison / "predictions.npz") as stored:
        answers = dict(stored)
    store = PixelStore(run.images)
    assert student.labeled_twin is not None
    for control, result in (("labeled-twin", student.labeled_twin), ("self-taught", student.self_taught)):
        models = [load(control_folder(run, NAME, seed, control)) for seed in (0, 1)]
        logits = np.stack([plain_outputs(model, store, answers["rows"], CPU)[1] for model in models])
        right = (logits.argmax(-1) == answers["labels"]).astype(float)
        assert result.accuracy_per_seed == pytest.approx(right.mean(-1))
        for arm, found in (("alone", result.to_twin), ("distilled", result.to_distilled)):
            other = answers[f"{NAME}/{arm}"].argmax(-1) == answers["labels"]
            assert found == metrics.bootstrap_mean(right - other, resamples=200, confidence=0.95)


def test_the_command_prints_them_and_the_report_shows_them(
    controlled: tuple[Run, Controls], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, controls = controlled
    monkeypatch.setattr(job_runner, "train_job", lambda *_: pytest.fail("trained again"))
    assert command(["controls", str(run.path)]) == 0
    printed = capsys.readouterr().out
    self_taught = controls.students[0].self_taught
    for text in (f"{NAME} labeled twin", f"{NAME} self-taught", self_taught.to_distilled.points, "7_report"):
        assert text in printed
    page = (run.report / "index.html").read_text("utf-8").replace("\u00a0", " ")
    shown = page.partition("Is it the teacher?")[2].partition("</table>")[0]
    assert f"{100 * self_taught.accuracy.value:.1f} %" in shown
    assert "labeled twin" in shown
    assert read_controls(controls_path(run)) == controls


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the trainings that are begun; the third is interrupted, once."""
    folders: list[str] = []

    def train(job: Job, *others: object) -> None:
        folders.append(f"{job.folder.parent.name}/{job.folder.name}")
        if len(folders) == 3:
            raise KeyboardInterrupt
        train_job(job, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(job_runner, "train_job", train)
    return folders


def test_interrupted_it_goes_on_and_ends_with_the_same_weights(
    few_copy: Run, controlled: tuple[Run, Controls], trained: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_controls(context_of(few_copy))
    assert run_controls(context_of(few_copy)) == controlled[1]
    first = ["seed-0/self-taught", "seed-1/self-taught"]
    rest = ["seed-0/labeled-twin", "seed-1/labeled-twin"]
    assert trained == [*first, rest[0], *rest], "what was finished is kept"
    assert weight_hashes(few_copy.path / "controls") == weight_hashes(controlled[0].path / "controls")


def test_where_a_class_is_not_known_only_the_self_taught_student_is_trained(few_copy: Run, tmp_path: Path) -> None:
    edit_settings(few_copy.path, lambda text: "\n".join([f"data = '{tmp_path / 'moved'}'", *text.splitlines()[1:]]))
    store = PixelStore(few_copy.images)
    pool, truth = store.rows("unlabeled"), truth_of(few_copy)
    lines = (few_copy.images / "images.csv").read_text("utf-8").splitlines()[1:]
    names = [lines[row].split(",")[1].split("/")[-1] for row in pool]
    rows = [f"{name},{few_copy.classes()[truth[row]]}" for name, row in zip(names, pool, strict=True)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,class", "elsewhere.png,disc", *rows[1:]]), "utf-8")
    (student,) = run_controls(context_of(few_copy), labels=table).students
    assert student.labeled_twin is None
    said = (few_copy.path / "log.txt").read_text("utf-8")
    assert f"the true class of 1 of {len(pool)} photos is not known, such as that of train/" in student.missing
    assert f"No labeled twin: {student.missing}" in said
    assert f"1 of {len(pool)} names in {table} stand for no photo of this run" in said
    assert not list(few_copy.path.rglob("labeled-twin"))
    table.write_text("\n".join(["file,class", *rows]), "utf-8")
    assert run_controls(context_of(few_copy), labels=table).students[0].labeled_twin is not None
    wrong = f"{names[0]},{few_copy.classes()[(truth[pool[0]] + 1) % 3]}"
    table.write_text("\n".join(["file,class", wrong, *rows[1:]]), "utf-8")
    with pytest.raises(StaleError, match="the labels of all photos was made from other"):
        run_controls(context_of(few_copy), labels=table)
    again = run_controls(context_of(Run(few_copy.path, redo=True)), labels=table)
    assert again.students[0].labeled_twin is not None


def test_runs_without_need_of_controls_are_refused(tiny_run: "potstill.Result", few_copy: Run) -> None:
    with pytest.raises(DataError, match="no photos without labels"):
        run_controls(context_of(tiny_run.run))
    with pytest.raises(DataError, match=f"no student 'resnet'. It has: {NAME}"):
        run_controls(context_of(few_copy), student="resnet")
    job = model_folder(few_copy, NAME, 0, "distilled") / "job.json"
    values = read_json(job)
    values["recipe"] |= {"distill_weight": 0.0, "feature_weight": 0.0}
    write_json(job, values)
    with pytest.raises(DataError, match="trained without the teacher"):
        run_controls(context_of(few_copy))
