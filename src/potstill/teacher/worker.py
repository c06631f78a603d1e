"""One shard of what a teacher's backbone sees, as a task of an engine."""

from pathlib import Path

import numpy as np
import torch

from potstill.compute.backends import inference_model
from potstill.compute.inference import store_features
from potstill.compute.precision import Precision
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer
from potstill.models.classifier import load
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.shards import RESULT


def work(job: Path) -> None:
    """Store features as a JSON file of `potstill.shards.write_in_shards` says."""
    values = read_json(job)
    threads, device, folder = values["threads"], torch.device(values["device"]), Path(values["folder"])
    torch.set_num_threads(threads)
    precision = Precision(device, getattr(torch, values["dtype"]), values["runtime"], values["batch"])
    model = load(folder).to(device).eval()
    model.to(memory_format=torch.channels_last)
    backbone = inference_model(model, precision, folder.parent, threads=threads)
    store = PixelStore(Run(Path(values["run"])).images)
    photos, views = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("photos", "views"))
    renderer = Renderer(store, photos, views, model.info.size, threads=threads)
    rows = values["stop"] - values["start"]
    writer = RowWriter(job.with_name(RESULT), (rows, views.shape[1], model.num_features), np.float16)
    store_features(backbone, renderer, writer, precision, first=values["start"])
    writer.close()
