"""One shard of the soft labels, as a task of an engine."""

import functools
from pathlib import Path

import numpy as np
import torch

from potstill.compute.machine import Machine
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import weights_path
from potstill.soft_labels.stage import Labeling, StoredNetwork


def work(job: Path) -> None:
    """Label as a JSON file of `potstill.shards.write_in_shards` says."""
    values = read_json(job)
    device, threads = values["device"], values["threads"]
    torch.set_num_threads(threads)
    run, machine = Run(Path(values["run"])), Machine(device, threads, 1)
    photos, views = (np.load(run.soft_labels / f"{name}.npy", allow_pickle=False) for name in ("photos", "views"))
    context = Context(run, machine, Reporter(quiet=True))

    def load(folder: Path) -> StoredNetwork:
        return _loaded(folder, weights_path(folder).stat().st_mtime_ns, device, threads)

    Labeling(PixelStore(run.images), photos, views, context, networks=1).label_shard(job, load)


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, changed: int, device: str, threads: int) -> StoredNetwork:
    """Kept for the next shard, where the engine gives it to the same process."""
    return StoredNetwork.load(folder, device, threads)
