"""The batches of a training: which photos, views, labels and soft labels each step sees."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from potstill.data.arrays import RowReader
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, mixed_labels
from potstill.models.classifier import describe
from potstill.run.folder import Run
from potstill.run.layout import views_path
from potstill.students.recipe import Job
from potstill.students.subset import draw_photos, views_within

Pixels = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Photos (B,) by position and the view of each (B,) → (B, S, S, 3) uint8."""


class Batch(NamedTuple):
    """What one step of student or twin is trained on."""

    pixels: Tensor
    """(B, S, S, 3) uint8."""
    targets: Tensor
    """(B, C), see `PixelStore.targets`: zero rows, or NaN, for unlabeled photos."""
    teacher_logits: Tensor
    """(B, C)."""
    teacher_features: Tensor
    """(B, D) standardized; empty without feature loss."""


def learned_from(job: Job, run: Run) -> tuple[PixelStore, SoftLabels]:
    """The photos with their labels and the soft labels that the job learns from: the run's, or the job's own."""
    store, folder = PixelStore(run.images), run.path / job.targets
    if not job.targets:
        return store, SoftLabels.open(run)
    if (folder / "labels.npy").is_file():
        return store.relabeled(np.load(folder / "labels.npy", allow_pickle=False)), SoftLabels.open(run)
    return store, SoftLabels.open(run, folder)


def batches(
    job: Job, run: Run, store: PixelStore, soft: SoftLabels, *, threads: int = 1, rows: slice = slice(None)
) -> Callable[[int], Batch]:
    """The batch of each step. The order of photos depends on seed and epoch only, so student and twin share it.

    Args:
        threads: that render views.
        rows: of each batch, to make these only.
    """
    recipe = job.recipe
    count = soft.views.shape[1]
    labels = store.labels(soft.photos)
    shown = shown_views(job, soft, labels)
    mine = _learned_photos(job, store, shown, soft.photos)
    per_epoch = max(1, len(mine) // recipe.batch_size)
    pixels = pixels_of(job, run, store, soft, threads)
    classes = soft.logits.shape[-1]
    mean, std = soft.feature_mean, soft.feature_std

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([job.seed, epoch]).permutation(mine)

    def batch(step: int) -> Batch:
        epoch, position = divmod(step, per_epoch)
        photo = order(epoch)[position * recipe.batch_size :][: recipe.batch_size][rows]
        view = shown[photo, epoch % count]
        features = np.empty((len(photo), 0), np.float32)
        if recipe.feature_weight:
            features = (soft.features(photo, view).astype(np.float32) - mean) / std
        targets = mixed_labels(store, soft.photos[photo], np.asarray(soft.views[photo, view])[:, None], classes)[:, 0]
        return Batch(
            torch.from_numpy(pixels(photo, view)),
            torch.from_numpy(targets.astype(np.float32)),
            torch.from_numpy(soft.logits(photo, view).astype(np.float32)),
            torch.from_numpy(features),
        )

    return batch


def photos_per_step(job: Job, store: PixelStore, soft: SoftLabels) -> int:
    """Photos in every batch of a training."""
    shown = shown_views(job, soft, store.labels(soft.photos))
    return min(job.recipe.batch_size, len(_learned_photos(job, store, shown, soft.photos)))


def _learned_photos(job: Job, store: PixelStore, shown: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """(n,) positions of the photos that it learns from, among the `photos` of the soft labels."""
    # The twin has labels only. Where there are unlabeled photos, it gets more passes over the labeled ones instead.
    return np.flatnonzero((shown[:, 0] >= 0) & ((job.recipe.arm == "distilled") | store.is_labeled(photos)))


def shown_views(job: Job, soft: SoftLabels, labels: np.ndarray) -> np.ndarray:
    """(N, V) which view of each photo is shown in each epoch, in turn; -1 for photos that it does not learn from."""
    if job.learns_from_all:
        return np.broadcast_to(np.arange(soft.views.shape[1]), soft.views.shape)
    chosen = draw_photos(labels, job.labeled_share, job.unlabeled_share, job.seed)
    return views_within(soft.views, soft.photos, chosen)


def pixels_of(job: Job, run: Run, store: PixelStore, soft: SoftLabels, threads: int = 1) -> Pixels:
    """The stored views at the student's size: rendered before, or now, by so many threads."""
    size = describe(job.model, run.classes(), size=job.size).size
    rendered = views_path(run, size)
    if rendered.is_file():
        return RowReader(rendered, leading=2)
    return Renderer(store, soft.photos, soft.views, size, threads=threads)


@dataclass(frozen=True, slots=True)
class LabeledViews:
    """The stored views of labeled photos that are not blended with another photo."""

    photo: np.ndarray
    """(M,) positions."""
    view: np.ndarray
    """(M,) the view of each."""
    label: np.ndarray
    """(M,), or (M, C) where a photo may have several."""
    photos: int
    """How many photos they are of; an epoch has one view of each."""
    seed: int

    @classmethod
    def of(cls, job: Job, soft: SoftLabels, store: PixelStore) -> "LabeledViews":
        labels = store.labels(soft.photos)
        learned = (shown_views(job, soft, labels)[:, 0] >= 0) & store.is_labeled(soft.photos)
        photo, view = np.nonzero(learned[:, None] & (soft.views["partner"] < 0))
        return cls(photo, view, labels[photo], len(np.unique(photo)), job.seed)

    def __len__(self) -> int:
        return self.photos

    def of_step(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Photos, views and labels (B,) of a step."""
        drawn = np.random.default_rng([self.seed, 7, step]).integers(len(self.photo), size=min(batch_size, self.photos))
        return self.photo[drawn], self.view[drawn], self.label[drawn]
