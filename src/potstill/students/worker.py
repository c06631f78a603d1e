"""One training, or one process of it, as a task of an engine, started by `runner`."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from potstill.processes.group import Meeting
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.students.job import train_job
from potstill.students.recipe import Job
from potstill.training.ranks import joined


def work(job: Path) -> None:
    """Train as a JSON file says: `run` and `folder` (which holds the training's job.json), `threads`, `device`; and
    where several processes train together, each of which sees one GPU only, what `potstill.engines.engine.write_jobs`
    adds."""
    values = read_json(job)
    torch.set_num_threads(values["threads"])
    run, training, device = Run(Path(values["run"])), Job.read(Path(values["folder"])), values["device"]
    update = _progress(training.folder / "step.txt")
    if "meeting" not in values:
        train_job(training, run, device, update)
        return
    meeting = Meeting(**values["meeting"])
    with joined(meeting, values["rank"], values["processes"], torch.device(device)) as ranks:
        train_job(training, run, device, update, ranks)


def _progress(path: Path) -> Callable[[int], None]:
    """Writes the number of finished steps to a file, once a second."""
    written = 0.0

    def update(step: int) -> None:
        nonlocal written
        if time.monotonic() - written > 1:
            written = time.monotonic()
            path.write_text(str(step))

    return update
