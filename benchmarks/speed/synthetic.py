"""A run folder with any number of photos that are all black: sparse files, as large as real ones but for the disk."""

from pathlib import Path

import numpy as np

from potstill.config.schema import ViewsConfig
from potstill.data.pixels import PHOTO, PixelStore
from potstill.data.splits import SPLITS
from potstill.data.views import draw_views
from potstill.run.files import write_json
from potstill.run.folder import Run

CLASSES = ("cat", "dog", "bird")
VAL = 96


def synthetic_run(folder: Path, photos: int, *, side: int = 148, views: int = 2, width: int = 1280) -> Run:
    """Stages 1 and 3 of a run: `photos` train photos of `side` pixels, `views` labeled views with `width` features."""
    run = Run(folder)
    run.images.mkdir(parents=True)
    index = np.zeros(photos + VAL, PHOTO)
    size = side * side * 3
    index["offset"], index["bytes"] = np.arange(len(index), dtype=np.uint64) * size, size
    index["height"] = index["width"] = side
    index["split"] = np.where(np.arange(len(index)) < photos, SPLITS.index("train"), SPLITS.index("val"))
    index["label"] = np.arange(len(index)) % len(CLASSES)
    index["id"] = np.random.default_rng(0).integers(1, 2**63, len(index))
    np.save(run.images / "index.npy", index)
    with (run.images / "pixels.bin").open("wb") as file:
        file.truncate(len(index) * size)
    (run.images / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    run.stage("1_images").record({"photos": photos})

    run.soft_labels.mkdir()
    rows = np.arange(photos)
    np.save(run.soft_labels / "photos.npy", rows)
    np.save(run.soft_labels / "views.npy", draw_views(PixelStore(run.images), rows, views, ViewsConfig()))
    _sparse(run.soft_labels / "logits.npy", (photos, views, len(CLASSES)), np.float16)
    _sparse(run.soft_labels / "features.npy", (photos, views, width), np.float16)
    np.savez(run.soft_labels / "statistics.npz", mean=np.zeros(width, np.float32), std=np.ones(width, np.float32))
    write_json(run.soft_labels / "meta.json", {})
    run.stage("3_soft_labels").record({"images": run.stage("1_images").digest()}, photos=photos)
    return run


def _sparse(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
