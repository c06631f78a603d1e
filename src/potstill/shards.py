"""What a model says of many photos, spread over an engine: shards of photos, each a file that one task writes.

A shard's result depends on the model, the photos and the size of a batch only, and batches begin where they would
without shards. So the arrays are the same bytes whatever the number of workers, a shard that was lost with its worker
is made again by another, and what is done is what is there.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from potstill.context import Context
from potstill.data.arrays import RowReader, RowWriter
from potstill.engines.engine import run_all
from potstill.errors import DamageError
from potstill.run.files import is_sealed, write_json

MOST = 4096
"""Photos in a shard, at most: what is lost with a worker, and made again."""

ROUNDS = 4
"""Shards for each task that runs at the same time, so that fast nodes do more than slow ones."""

RESULT = "outputs.npy"
"""A finished shard, in a folder of its own."""


def write_in_shards(
    writer: RowWriter, module: str, values: Mapping[str, Any], context: Context, *, batch: int, label: str, part: str
) -> None:
    """Fill a writer by the tasks of the engine, and close it.

    Args:
        writer: of one row per photo.
        module: its `work(job)` writes `RESULT` beside the job, for the photos from `start` to `stop`.
        values: what else a task is told.
        batch: photos that are computed together; shards begin at multiples of it.
        label, part: of the progress bar.
    """
    photos, folder = writer.shape[0], writer.path.with_suffix(".shards")
    size = shard_size(photos, context.machine.tasks, batch)
    machine = context.machine
    threads = 1 if machine.device == "cpu" else machine.spare_threads(machine.jobs)  # those that render views
    values = {**values, "run": str(context.run.path), "device": machine.device, "threads": threads}
    jobs = {}
    for start in range(0, photos, size):
        shard = folder / f"{start:08d}-{size}"
        shard.mkdir(parents=True, exist_ok=True)
        stop = min(start + size, photos)
        write_json(shard / "worker.json", {**values, "start": start, "stop": stop})
        jobs[shard / "worker.json"] = stop - start

    def done() -> int:
        return sum(photos for job, photos in jobs.items() if (job.with_name(RESULT)).is_file())

    with context.reporter.bar(label, photos, unit="photo", part=part) as update:
        todo = [job for job in jobs if not is_sealed(job.with_name(RESULT))]
        run_all(
            context.engine,
            module,
            todo,
            threads=threads,
            at_once=machine.tasks,
            ended=lambda job, task: task.check(),
            watch=lambda: update(done()),
        )
        for job, count in jobs.items():
            _append(writer, job.with_name(RESULT), count)
        update(photos)
    writer.close()
    shutil.rmtree(folder)


def shard_size(photos: int, at_once: int, batch: int) -> int:
    """Photos in each shard, a multiple of `batch`."""
    wanted = min(MOST, -(-photos // (ROUNDS * at_once)))
    return max(1, -(-wanted // batch)) * batch


def _append(writer: RowWriter, path: Path, count: int) -> None:
    rows = RowReader(path)
    if rows.shape != (count, *writer.shape[1:]) or rows.dtype != writer.dtype:
        raise DamageError(f"{path} is not the shard that was asked for. Remove {path.parent} and run again.")
    for start in range(0, count, 256):
        writer.write(rows(np.arange(start, min(start + 256, count))))
