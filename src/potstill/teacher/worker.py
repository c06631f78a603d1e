"""One shard of what a teacher's backbone sees, as a task of an engine."""

import functools
from pathlib import Path

import numpy as np
import torch

from potstill.compute.backends import inference_model
from potstill.compute.inference import store_features
from potstill.compute.precision import Precision
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer
from potstill.models.classifier import Classifier, load
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import weights_path
from potstill.shards import RESULT


def work(job: Path) -> None:
    """Store features as a JSON file of `potstill.shards.write_in_shards` says."""
    values = read_json(job)
    threads, folder = values["threads"], Path(values["folder"])
    torch.set_num_threads(threads)
    dtype, device = getattr(torch, values["dtype"]), torch.device(values["device"])
    precision = Precision(device, dtype, values["runtime"], values["batch"])
    backbone = _loaded(folder, weights_path(folder).stat().st_mtime_ns, precision, threads)
    store = PixelStore(Run(Path(values["run"])).images)
    photos, views = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("photos", "views"))
    renderer = Renderer(store, photos, views, backbone.info.size, threads=threads)
    rows = values["stop"] - values["start"]
    writer = RowWriter(job.with_name(RESULT), (rows, views.shape[1], backbone.num_features), np.float16)
    store_features(backbone, renderer, writer, precision, first=values["start"])
    writer.close()


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, changed: int, precision: Precision, threads: int) -> Classifier:
    """The backbone. It is kept for the next shard, where the engine gives it to the same process."""
    model = load(folder).to(precision.device).eval()
    model.to(memory_format=torch.channels_last)
    return inference_model(model, precision, folder.parent, threads=threads)
