"""`python -m potstill.students.worker RUN JOB PARENT THREADS`: one training in its own process.

It dies with its parent. Only the standard library is imported before the watch begins: a parent that is killed while
torch is being imported must not leave a child that trains on, beside the next command in the same folder.
"""

import json
import sys
import time
from pathlib import Path

from potstill.processes.watch import end_with

TOLD = "POTSTILL "
"""Begins the line that has the message of a PotstillError, as JSON."""


def main(run_folder: str, job_folder: str, parent: str, threads: str) -> int:
    """Train the job of a folder that has job.json. `parent` is the process id of whoever waits for it."""
    end_with(int(parent))
    import torch

    from potstill.errors import PotstillError
    from potstill.run.folder import Run
    from potstill.students.job import train_job
    from potstill.students.recipe import Job

    torch.set_num_threads(int(threads))
    job = Job.read(Path(job_folder))
    told = 0.0

    def update(step: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            told = time.monotonic()
            (job.folder / "step.txt").write_text(str(step))

    try:
        train_job(job, Run(Path(run_folder)), "cpu", update)
    except PotstillError as error:
        print(TOLD + json.dumps(str(error)))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
