"""Running a model over views: features and logits, on whatever device, without keeping them in memory."""

from collections.abc import Callable

import numpy as np
import torch

from potstill.compute.memory import keep_freed_memory
from potstill.compute.precision import Precision
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, plain_views
from potstill.models.classifier import Classifier, normalize

Batch = tuple[np.ndarray, np.ndarray]

BATCH = 32


def outputs(model: Classifier, pixels: np.ndarray, precision: Precision) -> Batch:
    """Features (B, D) and logits (B, C), float32, of (B, S, S, 3) uint8 pixels. The head is computed in float32."""
    with torch.inference_mode():
        with precision.autocast():
            features = model.features(normalize(torch.from_numpy(pixels).to(precision.device), model.info))
        features = features.float()
        logits = model.head(features)
    return features.cpu().numpy(), logits.cpu().numpy()


def plain_outputs(
    model: Classifier, store: PixelStore, rows: np.ndarray, precision: Precision, *, threads: int = 1
) -> Batch:
    """Features (n, D) and logits (n, C) of the plain view of the photos `rows`, at the model's crop."""
    views = plain_views(store, rows, model.info.crop_pct)[:, None]
    renderer = Renderer(store, rows, views, model.info.size, threads=threads)
    parts = [
        outputs(model, renderer(block, np.zeros(len(block), int)), precision)
        for block in (np.arange(i, min(i + BATCH, len(rows))) for i in range(0, len(rows), BATCH))
    ]
    return np.concatenate([f for f, _ in parts]), np.concatenate([z for _, z in parts])


def store_features(
    model: Classifier,
    renderer: Renderer,
    writer: RowWriter,
    precision: Precision,
    update: Callable[[int], None] = lambda photos: None,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda features, photos: features,
    *,
    first: int = 0,
) -> None:
    """Write the features of all views of the renderer's photos, photo by photo: (V, D) per row of the writer.

    Resumes after the last batch that the writer holds. `update` gets the number of finished photos. `transform` turns
    features (n, V, D) and the positions (n,) of their photos into what is written. `first` is the photo that the
    writer's first row is of, a multiple of `photos_per_batch`.
    """
    keep_freed_memory()
    _, count = renderer.shape
    block = photos_per_batch(precision, count)
    writer.rewind(writer.done // block * block)  # in other batches the same photo may be rounded otherwise
    stop = first + writer.shape[0]
    for start in range(first + writer.done, stop, block):
        numbers = np.arange(start, min(start + block, stop))
        pixels = renderer(np.repeat(numbers, count), np.tile(np.arange(count), len(numbers)))
        features, _ = outputs(model, pixels, precision)
        writer.write(transform(features.reshape(len(numbers), count, -1), numbers))
        update(int(numbers[-1]) + 1 - first)


def photos_per_batch(precision: Precision, views: int) -> int:
    """Photos of so many views that are computed together."""
    return max(1, precision.batch // max(views, 1))
