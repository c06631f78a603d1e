"""A training in a child process that computes in float64, so that rounding is not amplified, saves after each step, and
fails where it is told to."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.engines.job import mark_node

from potstill.errors import DataError
from potstill.run.files import read_json
from potstill.students import job as student_job
from potstill.students import worker
from potstill.training import loop

FAILURE = "failure.json"
"""Beside the training's job.json: the `rank` that fails, in which of its `step`s, and `how`."""


def work(job: Path) -> None:
    """As `potstill.students.worker`."""
    values = read_json(job)
    loop.CHECKPOINT_SECONDS = 0.0
    mark_node(job.parent)
    failure = Path(values["folder"]) / FAILURE
    if failure.is_file() and read_json(failure)["rank"] == values.get("rank", 0):
        fail(**read_json(failure))
    if values.get("rank"):
        loop._read_checkpoint = _another
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


def _another(path: Path) -> Any:
    """What a node may see of a file that another one has replaced a moment ago."""
    raise AssertionError("Only the first process reads checkpoints.")


def fail(rank: int, step: int, how: str, once: str = "") -> None:
    """In the middle of a step; only the first time, where there is a file `once` to leave as a mark of it."""
    loss_terms, steps = student_job.loss_terms, 0
    if once and Path(once).exists():
        return

    def failing(*given: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > step and once:
            Path(once).touch()
        if steps > step and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if steps > step and how == "refuses":
            raise DataError("It says why.")
        return loss_terms(*given, **options)

    student_job.loss_terms = failing
