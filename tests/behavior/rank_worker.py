"""A training in a child process that computes in float64, so that rounding is not amplified, saves after each step, and
fails where it is told to."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from potstill.errors import DataError
from potstill.processes.group import run_together
from potstill.run.files import read_json
from potstill.students import job as student_job
from potstill.students import together, worker
from potstill.training import loop

FAILURE = "failure.json"
"""Beside the training's job.json: the `rank` that fails, in which of its `step`s, and `how`."""


def work(job: Path) -> None:
    """As `potstill.students.together` or `potstill.students.worker`, whichever the job is for."""
    values = read_json(job)
    if values.get("processes", 1) > 1 and "rank" not in values:
        together.run_together = lambda module, jobs, **options: run_together(__name__, jobs, **options)
        together.work(job)
        return
    loop.CHECKPOINT_SECONDS = 0.0
    failure = Path(values["folder"]) / FAILURE
    if failure.is_file() and read_json(failure)["rank"] == values["rank"]:
        fail(read_json(failure)["step"], read_json(failure)["how"])
    in_float64()
    worker.work(job)


def in_float64() -> None:
    """All that is computed from here on."""
    batches = student_job.batches

    def doubled(*given: Any, **options: Any) -> Callable[[int], student_job.Batch]:
        batch = batches(*given, **options)

        def exact(step: int) -> student_job.Batch:
            made = batch(step)
            names = ("targets", "teacher_logits", "teacher_features")
            return made._replace(**{name: getattr(made, name).double() for name in names})

        return exact

    student_job.batches = doubled
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)


def fail(step: int, how: str) -> None:
    """In the middle of a step."""
    loss_terms, steps = student_job.loss_terms, 0

    def failing(*given: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > step and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if steps > step and how == "refuses":
            raise DataError("It says why.")
        return loss_terms(*given, **options)

    student_job.loss_terms = failing
