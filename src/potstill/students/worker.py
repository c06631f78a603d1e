"""One training as a task of an engine, started by `runner`."""

import time
from pathlib import Path

import torch

from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.students.job import train_job
from potstill.students.recipe import Job


def work(job: Path) -> None:
    """Train as a JSON file says: `run` and `folder` (which holds the training's job.json), `threads`, `device`."""
    values = read_json(job)
    torch.set_num_threads(values["threads"])
    training = Job.read(Path(values["folder"]))
    written = 0.0

    def update(step: int) -> None:
        nonlocal written
        if time.monotonic() - written > 1:
            written = time.monotonic()
            (training.folder / "step.txt").write_text(str(step))

    train_job(training, Run(Path(values["run"])), values["device"], update)
