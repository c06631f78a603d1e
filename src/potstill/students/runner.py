"""Trainings as jobs: several at the same time where there are cores, each then a task of the engine."""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.compute.timing import torch_threads
from potstill.context import Context
from potstill.engines.engine import Task, run_all
from potstill.errors import PotstillError
from potstill.processes.child import OUTPUT, ChildCrashError
from potstill.run.files import write_json
from potstill.run.folder import Stage
from potstill.students.job import copy_job, train_job
from potstill.students.recipe import Job

_WORK = "worker.json"
"""In a job's folder while a task of the engine trains it."""


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Runs jobs, several at a time where the machine, or the cluster, has the cores."""

    context: Context
    prepare: Callable[[], None] | None = None
    """Called before a training, and not where nothing is left to train."""

    def run(self, jobs: Sequence[Job], label: str, threads: int, *, part: str = "") -> None:
        """Run what is not finished yet, with so many threads each. Raises StaleError for a finished job with other
        settings. `part` is that of the whole run, where there is one.

        Of jobs that are the same training, as student and twin are where the student learns without a teacher, one is
        run, and the others get its files.
        """
        todo = [job for job in jobs if Stage(job.folder, _title(job), self.context.run.redo).begin(job.inputs())]
        for job in jobs:
            _clear(job)
        for job in todo:
            write_json(job.folder / "job.json", job.to_json())
        firsts = dict[str, Job]()
        for job in jobs:
            firsts.setdefault(_training(job), job)
        training = [job for job in todo if firsts[_training(job)] is job]
        total = sum(job.recipe.steps(self._photos()) for job in training)
        if training:
            if self.prepare is not None:
                self.prepare()
            with self.context.reporter.bar(label, total, unit="step", part=part) as update:
                self._train(training, threads, update)
        for job in todo:
            if firsts[_training(job)] is not job:
                copy_job(firsts[_training(job)], job)

    def _train(self, todo: Sequence[Job], threads: int, update: Callable[[int], None]) -> None:
        machine = self.context.machine
        alone = (machine.jobs == 1 or len(todo) == 1) and machine.processes == 1
        if self.context.engine.has_one_device and alone:
            self._one_by_one(todo, threads, update)
        else:
            self._side_by_side(todo, threads, update)

    def _photos(self) -> int:
        return int(self.context.run.stage("3_soft_labels").facts()["photos"])

    def _one_by_one(self, jobs: Sequence[Job], threads: int, update: Callable[[int], None]) -> None:
        before = 0
        with torch_threads(threads):
            for job in jobs:
                train_job(job, self.context.run, self.context.machine.device, functools.partial(_add, update, before))
                before += job.recipe.steps(self._photos())

    def _side_by_side(self, jobs: Sequence[Job], threads: int, update: Callable[[int], None]) -> None:
        """One task per job."""
        work = {self._written(job, threads): job for job in jobs}
        run_all(
            self.context.engine,
            "potstill.students.worker",
            list(work),
            threads=threads,
            processes=self.context.machine.processes,
            at_once=self.context.machine.jobs,
            ended=lambda path, task: _finish(task, work[path]),
            watch=lambda: update(sum(_steps_done(job, self._photos()) for job in jobs)),
        )

    def _written(self, job: Job, threads: int) -> Path:
        """The file that tells the task what to do."""
        run, machine = self.context.run, self.context.machine
        values = {"run": str(run.path), "folder": str(job.folder), "threads": threads, "device": machine.device}
        write_json(job.folder / _WORK, values)
        return job.folder / _WORK


def _finish(task: Task, job: Job) -> None:
    """Check that a training ended well, and clear up. Raises PotstillError."""
    try:
        task.check()
    except ChildCrashError as error:
        raise PotstillError(f"Training {_title(job)} stopped unexpectedly:\n{error}") from None
    _clear(job)


def _clear(job: Job) -> None:
    """Remove what tells a task what to do, and what it printed. A task leaves it when the command that started it is
    killed; whether the training had ended or not, since what is left of it may be done in this process."""
    for name in (_WORK, OUTPUT):
        (job.folder / name).unlink(missing_ok=True)
    for folder in job.folder.glob("rank-*"):
        shutil.rmtree(folder)


def _training(job: Job) -> str:
    return json.dumps(job.inputs(), sort_keys=True)


def _add(update: Callable[[int], None], before: int, step: int) -> None:
    update(before + step)


def _steps_done(job: Job, photos: int) -> int:
    if (job.folder / "done.json").is_file():
        return job.recipe.steps(photos)
    try:
        return int((job.folder / "step.txt").read_text())
    except (OSError, ValueError):
        return 0


def _title(job: Job) -> str:
    return "/".join(job.folder.parts[-4:])
