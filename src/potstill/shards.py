"""What a model says of many photos, spread over an engine: shards of photos, each a file that one task writes.

A shard's result depends on the model, the photos and the size of a batch only, and batches begin where they would
without shards. So the arrays are the same bytes whatever the number of workers, a shard that was lost with its worker
is made again by another, and what is done is what is there.
"""

import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from potstill.context import Context
from potstill.data.arrays import RowReader, RowWriter
from potstill.engines.engine import run_all
from potstill.errors import DamageError
from potstill.run.files import is_sealed, write_json

MOST = 4096
"""Photos in a shard, at most and up to a batch: what is lost with a worker, and made again."""

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
    machine = context.machine
    threads = 1 if machine.device == "cpu" else machine.spare_threads(machine.jobs)  # those that render views
    values = {**values, "run": str(context.run.path), "device": machine.device, "threads": threads}
    jobs = {}
    for rows in shards(photos, machine.tasks, batch):
        shard = folder / f"{rows.start:08d}-{len(rows)}"
        shard.mkdir(parents=True, exist_ok=True)
        write_json(shard / "worker.json", {**values, "start": rows.start, "stop": rows.stop})
        jobs[shard / "worker.json"] = len(rows)

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


def shards(photos: int, at_once: int, batch: int) -> list[range]:
    """The photos of each shard: whole batches, as equal as they can be, and as many shards for each task."""
    batches = -(-photos // batch)
    wanted = max(ROUNDS * at_once, -(-photos // MOST))
    count = min(batches, -(-wanted // at_once) * at_once)
    starts = [batch * (batches * number // count) for number in range(count)]
    return [range(start, stop) for start, stop in pairwise([*starts, photos])]


def _append(writer: RowWriter, path: Path, count: int) -> None:
    rows = RowReader(path)
    if rows.shape != (count, *writer.shape[1:]) or rows.dtype != writer.dtype:
        raise DamageError(f"{path} is not the shard that was asked for. Remove {path.parent} and run again.")
    for start in range(0, count, 256):
        writer.write(rows(np.arange(start, min(start + 256, count))))
