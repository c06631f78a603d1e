"""Photos, labels and a frozen teacher's features: made once for each set, so that drawing labels costs only heads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from potstill.compute.device import decide
from potstill.compute.inference import store_features
from potstill.compute.precision import Precision
from potstill.compute.quick_resize import quick_bicubic
from potstill.config.schema import ImagesConfig, MachineConfig, TeacherConfig
from potstill.context import Context
from potstill.data.arrays import RowReader, RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.splits import Split
from potstill.data.views import Renderer, plain_views
from potstill.images.plan import ImagesPlan
from potstill.images.selection import read_for_training
from potstill.images.stage import collect_images
from potstill.models.classifier import Classifier, build, describe
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run

TEACHER = TeacherConfig(model=("efficientnet_lite0",), weights="package", train="probe", probe_views=0)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A set of photos as a frozen backbone sees it."""

    store: PixelStore
    classes: tuple[str, ...]
    model: Classifier
    features: RowReader
    """(N, 1, D): of the plain view of every photo of the store."""

    def rows(self, *splits: Split) -> np.ndarray:
        """(n,) positions of the photos of these splits."""
        return self.store.rows(*splits)

    def plain(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32."""
        return self.features(rows, np.zeros(len(rows), int)).astype(np.float32)


def prepare(photos: Path, classes: tuple[str, ...], folder: Path) -> Prepared:
    """Pack the photos and store their features in `folder`; what is there already is kept. One core is used."""
    context = Context(Run(folder), decide(MachineConfig(device="cpu")), Reporter())
    config = ImagesConfig(classes=classes, val_share=0.3)
    found = read_for_training(photos, config)
    (name,) = TEACHER.model
    info = describe(name, found.classes, feature_stages=TEACHER.feature_stages)
    store = collect_images(ImagesPlan(found, config, info.size), context, resize=quick_bicubic)
    model = build(info, weights=TEACHER.weights).eval()
    path, rows = folder / "features.npy", np.arange(len(store))
    if not path.is_file():
        views = plain_views(store, rows)[:, None]
        writer = RowWriter(path, (len(rows), 1, model.num_features), np.float16)
        with context.reporter.bar("Features", len(rows), unit="photo") as update:
            store_features(
                model, Renderer(store, rows, views, info.size), writer, Precision(torch.device("cpu")), update
            )
        writer.close()
    return Prepared(store, found.classes, model, RowReader(path, leading=2))
