"""Running a model over views: features and logits, on whatever device, without keeping them in memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from potstill.compute.memory import keep_freed_memory
from potstill.compute.precision import Precision
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, plain_pixels
from potstill.models.classifier import Classifier, normalize

Batch = tuple[np.ndarray, np.ndarray]
Item = TypeVar("Item")

BATCH = 32


def outputs(model: Classifier, pixels: np.ndarray, precision: Precision) -> Batch:
    """Features (B, D) and logits (B, C), float32, of (B, S, S, 3) uint8 pixels. The head is computed in float32."""
    with torch.inference_mode():
        features = _features(model, torch.from_numpy(pixels), precision)
        logits = model.head(features)
    return features.cpu().numpy(), logits.cpu().numpy()


def _features(model: Classifier, pixels: Tensor, precision: Precision) -> Tensor:
    """(B, D) float32 on the device, which may still be computing them."""
    with torch.inference_mode(), precision.autocast():
        features = model.features(normalize(pixels.to(precision.device, non_blocking=True), model.info))
    return features.float()


def plain_outputs(
    model: Classifier, store: PixelStore, rows: np.ndarray, precision: Precision, *, threads: int = 1
) -> Batch:
    """Features (n, D) and logits (n, C) of the photos `rows` as the deployed model is shown them, at its crop."""
    if not len(rows):
        return np.empty((0, model.num_features), np.float32), np.empty((0, len(model.info.classes)), np.float32)
    parts = [
        outputs(model, plain_pixels(store, block, model.info.size, model.info.crop_pct, threads=threads), precision)
        for block in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))
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

    def read(start: int) -> tuple[np.ndarray, Tensor]:
        photos = np.arange(start, min(start + block, stop))
        pixels = renderer(np.repeat(photos, count), np.tile(np.arange(count), len(photos)))
        return photos, pinned(torch.from_numpy(pixels), precision.device)

    def write(photos: np.ndarray, features: Tensor) -> None:
        values = features.cpu().numpy().reshape(len(photos), count, -1)
        writer.write(transform(values, photos))
        update(int(photos[-1]) + 1 - first)

    # A GPU never waits: while it computes a batch, the next one is rendered and the one before is written.
    blocks = range(first + writer.done, stop, block)
    computed: tuple[np.ndarray, Tensor] | None = None
    for photos, pixels in one_ahead(read, blocks) if leaves_cores_free(precision.device) else map(read, blocks):
        features = _features(model, pixels, precision)
        if computed is not None:
            write(*computed)
        computed = photos, features
    if computed is not None:
        write(*computed)


def one_ahead(read: Callable[[int], Item], numbers: Iterable[int]) -> Iterator[Item]:
    """What `read` returns for each number, in order. It reads the next one, in a thread, while the caller works."""
    with ThreadPoolExecutor(1) as reader:
        ahead: Future[Item] | None = None
        for number in numbers:
            ready, ahead = ahead, reader.submit(read, number)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()


def leaves_cores_free(device: torch.device) -> bool:
    """Whether the processor has nothing to do while a model is computed."""
    return device.type != "cpu"


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Where a GPU copies it from by itself, while the processor goes on."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def photos_per_batch(precision: Precision, views: int) -> int:
    """Photos of so many views that are computed together."""
    return max(1, precision.batch // max(views, 1))
