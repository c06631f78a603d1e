"""One shard of the soft labels, as a task of an engine."""

from pathlib import Path

import numpy as np
import torch

from potstill.compute.machine import Machine
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.soft_labels.stage import Labeling


def work(job: Path) -> None:
    """Label as a JSON file of `potstill.shards.write_in_shards` says."""
    values = read_json(job)
    torch.set_num_threads(values["threads"])
    run, machine = Run(Path(values["run"])), Machine(values["device"], values["threads"], 1)
    photos, views = (np.load(run.soft_labels / f"{name}.npy", allow_pickle=False) for name in ("photos", "views"))
    context = Context(run, machine, Reporter(quiet=True))
    Labeling(PixelStore(run.images), photos, views, context, networks=1).label_shard(job)
