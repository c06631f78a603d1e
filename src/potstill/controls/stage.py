"""Two more trainings for every seed of a student, to tell what made it better: `controls/`.

controls.json             accuracy on the test photos, with paired differences from the twin and the student
labels/                   labels.npy (n,): the classes of all photos, for the labeled twin
NAME/soft_labels/         the twin's soft labels, made as the teacher's are, for the self-taught student
NAME/seed-N/labeled-twin/ a twin that is given the true labels of all photos, for as many steps as the student takes
NAME/seed-N/self-taught/  a student that learns from the twin in the teacher's place
"""

import tomllib
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from potstill import metrics
from potstill.compute.inference import plain_outputs
from potstill.compute.measured import Measured
from potstill.compute.precision import Precision
from potstill.config.load import read_toml
from potstill.config.schema import Config
from potstill.context import Context
from potstill.controls.labels import TrueLabels, hidden_labels, read_labels, true_labels
from potstill.data.arrays import open_arrays, save_array
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.errors import DataError
from potstill.metrics import Interval
from potstill.models.classifier import load, load_info
from potstill.run.files import read_toml_text, remove_sealed
from potstill.run.folder import Run, Stage
from potstill.run.integrity import require_whole
from potstill.run.layout import comparison_path, control_folder, controls_path, model_folder, views_path
from potstill.run.results import (
    ControlResult,
    Controls,
    StudentControls,
    read_comparison,
    read_controls,
    write_controls,
)
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.soft_labels.stage import store_soft_labels
from potstill.students.recipe import Job
from potstill.students.runner import JobRunner
from potstill.students.stage import render_views


def run_controls(context: Context, *, labels: Path | None = None, student: str | None = None) -> Controls:
    """Train and score the controls of one student, and write `controls/controls.json`.

    Args:
        context: with a finished run that has photos without labels.
        labels: a table of their true classes, see `read_labels`; those that the run has hidden are known without it.
        student: its name; the one chosen on val when None.
    Raises:
        DataError: there are no photos without labels, no such student, or one that was trained without the teacher.
        StaleError: finished controls were made from other labels or models, and the run's `redo` is off.
    """
    run = context.run
    with run.only_here():
        require_whole(run.path, large=True)
        context.reporter.log_to(run.path / "log.txt")
        work = _Controls.of(context, read_toml(run.path / "config.toml"), student)
        truth = work.true_labels(labels)
        work.train(truth)
        return work.score(truth.missing)


@dataclass(frozen=True, slots=True)
class _TwinAsTeacher(Run):
    """The run, with a student's twin in the teacher's place and soft labels of its own."""

    student: str = ""

    @property
    def teacher(self) -> Path:
        return model_folder(self, self.student, 0, "alone")

    @property
    def soft_labels(self) -> Path:
        return self.path / "controls" / self.student / "soft_labels"

    def stage(self, name: str) -> Stage:
        own = name == "3_soft_labels"
        return Stage(self.soft_labels, name, self.redo) if own else Run.stage(self, name)


@dataclass(frozen=True, slots=True)
class _Controls:
    """The controls of one student."""

    context: Context
    config: Config
    name: str
    seeds: int
    store: PixelStore

    @classmethod
    def of(cls, context: Context, config: Config, name: str | None) -> "_Controls":
        run = context.run
        comparison, store = read_comparison(comparison_path(run)), PixelStore(run.images)
        names = [student.name for student in comparison.students]
        name = name or comparison.chosen.name
        if name not in names:
            raise DataError(f"{run.path} has no student {name!r}. It has: {', '.join(names)}.")
        if not len(store.rows("unlabeled")):
            raise DataError(f"{run.path} has no photos without labels: its twin was given every label already.")
        self = cls(context, config, name, comparison.seeds, store)
        self.job("distilled", 0).require_starting_weights("What made the student better")
        if self.job("distilled", 0).recipe.arm == "alone":
            raise DataError(f"{name} was trained without the teacher: nothing that it learned needs a control.")
        return self

    def job(self, arm: str, seed: int) -> Job:
        """How the student or its twin was trained."""
        return Job.read(model_folder(self.context.run, self.name, seed, arm))

    def true_labels(self, path: Path | None) -> TrueLabels:
        """Of all photos, as far as the photo folder and the table name them."""
        run, report = self.context.run, self.context.reporter.info
        data = Path(tomllib.loads(read_toml_text(run.path / "config.toml"))["data"])
        hidden = hidden_labels(data, self.config.images, run.path.parent) if self.config.images.per_class else {}
        given = read_labels(path, run.classes()) if path else {}
        truth = true_labels(run, self.store, hidden, given)
        if truth.unused:
            report(
                f"{len(truth.unused):,} of {len(given):,} names in {path} stand for no photo of this run, or for "
                f"several, such as {truth.unused[0]}"
            )
        if truth.missing:
            report(f"No labeled twin: {truth.missing}. Name the classes of all in --labels FILE.csv.")
        return truth

    def train(self, truth: TrueLabels) -> None:
        """All trainings that are not finished yet."""
        run, context = self.context.run, self.context
        jobs = self._self_taught()
        if not truth.missing:
            jobs += self._labeled_twins(truth.labels)
        size = load_info(model_folder(run, self.name, 0, "alone")).size
        if any(not (job.folder / "done.json").is_file() for job in jobs):
            render_views(size, context.machine.requested.cache_gb, SoftLabels.open(run), context)
        measured = Measured.read(run.students / self.name) or Measured(dtype="float32", photos_per_second={})
        JobRunner(context).run(jobs, f"{self.name}: controls", measured.threads)
        remove_sealed(views_path(run, size))

    def _self_taught(self) -> list[Job]:
        """The student's trainings, with the soft labels that the twin of seed 0 gives for the same views."""
        run = _TwinAsTeacher(self.context.run.path, self.context.run.redo, student=self.name)
        count = SoftLabels.open(self.context.run).views.shape[1]
        store_soft_labels(SoftLabelsPlan((self.name,), self.config.views, count), replace(self.context, run=run))
        return self._jobs("self-taught", "distilled", Stage(run.soft_labels, "the twin's soft labels"))

    def _labeled_twins(self, labels: np.ndarray) -> list[Job]:
        """The twin's trainings, with labels for all photos and so for as many steps as the student takes."""
        run = self.context.run
        stage = Stage(run.path / "controls" / "labels", "the labels of all photos", run.redo)
        if stage.begin({"images": run.stage("1_images").digest(), "labels": sha256(labels.tobytes()).hexdigest()}):
            save_array(stage.path / "labels.npy", labels)
            stage.finish()
        epochs = self.job("distilled", 0).recipe.epochs
        jobs = self._jobs("labeled-twin", "alone", stage)
        return [replace(job, recipe=replace(job.recipe, epochs=epochs)) for job in jobs]

    def _jobs(self, control: str, arm: str, targets: Stage) -> list[Job]:
        """The trainings of an arm, with other targets."""
        run = self.context.run
        return [
            replace(
                job,
                folder=control_folder(run, self.name, seed, control),
                recipe=replace(job.recipe, soft_labels=targets.digest()),
                targets=targets.path.relative_to(run.path).as_posix(),
            )
            for seed in range(self.seeds)
            for job in [self.job(arm, seed)]
        ]

    def score(self, missing: str) -> Controls:
        """Run the trained models on the test photos, and write controls.json.

        Args:
            missing: why there is no labeled twin; "" where there is one.
        """
        run, comparison = self.context.run, self.context.run.stage("5_comparison").digest()
        found = StudentControls(
            name=self.name,
            labeled_twin=None if missing else self._result("labeled-twin"),
            self_taught=self._result("self-taught"),
            missing=missing,
        )
        path = controls_path(run)
        earlier = read_controls(path) if path.is_file() else None
        others = earlier.students if earlier and earlier.comparison == comparison else ()
        controls = Controls(
            comparison=comparison,
            seeds=self.seeds,
            confidence=self.config.comparison.confidence,
            students=(*(student for student in others if student.name != self.name), found),
        )
        write_controls(path, controls)
        return controls

    def _result(self, control: str) -> ControlResult:
        with open_arrays(self.context.run.comparison / "predictions.npz") as stored:
            labels, rows = stored["labels"], stored["rows"]
            twin, distilled = (stored[f"{self.name}/{arm}"].argmax(-1) == labels for arm in ("alone", "distilled"))
        logits = np.stack([self._test_logits(seed, control, rows) for seed in range(self.seeds)])
        correct = (logits.argmax(-1) == labels).astype(float)
        return ControlResult(
            accuracy=self._interval(correct, rows),
            accuracy_per_seed=tuple(correct.mean(-1).tolist()),
            to_twin=self._interval(correct - twin, rows),
            to_distilled=self._interval(correct - distilled, rows),
        )

    def _test_logits(self, seed: int, control: str, rows: np.ndarray) -> np.ndarray:
        """(n, C) of one trained control."""
        machine = self.context.machine
        precision = Precision(torch.device(machine.device))
        model = load(control_folder(self.context.run, self.name, seed, control)).to(machine.device)
        return plain_outputs(model, self.store, rows, precision, threads=machine.cores)[1]

    def _interval(self, values: np.ndarray, rows: np.ndarray) -> Interval:
        """Of the mean of (S, n) values of these photos."""
        plan, groups = self.config.comparison, self.store.groups_of(rows)
        return metrics.bootstrap_mean(values, resamples=plan.resamples, confidence=plan.confidence, groups=groups)
