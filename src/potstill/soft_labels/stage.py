"""Stage 3: the teacher speaks once. Its logits and features for every view of every photo, stored.

    views.npy        (N, V) of VIEW: what each view is
    logits.npy       (N, V, C) float16, raw: temperature belongs to the loss
    features.npy     (N, V, D) float16, pooled: the backbone's last, whatever else the head sees
    photos.npy       (N,) rows of the pixel store: train, then unlabeled
    val_logits.npy   (n, C) float32 of the plain val photos
    statistics.npz   feature mean and std (D,), for the feature loss
    meta.json        what made them, and how sure the teacher is

Train photos are labeled by the head that never saw them where the teacher has out-of-fold heads. With several
teachers the logits are the logarithms of their mean probabilities, and the features stand side by side.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from potstill import metrics
from potstill.compute.device import Machine
from potstill.compute.inference import BATCH, plain_answers, store_features
from potstill.compute.onnx_backbone import FILE, form_for
from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.arrays import RowWriter
from potstill.data.folds import fold_of
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, draw_views
from potstill.models.classifier import load
from potstill.models.fold_heads import load_fold_heads
from potstill.monitoring.progress import Reporter
from potstill.run.files import check_space, replacing, sha256_of, write_json
from potstill.run.folder import Run
from potstill.run.layout import member_folders

_BLOCK = 256


def store_soft_labels(
    config: TeacherConfig,
    views: ViewsConfig,
    count: int,
    store: PixelStore,
    run: Run,
    machine: Machine,
    reporter: Reporter,
) -> None:
    """Label `count` views of every train and unlabeled photo, and the plain val photos. Writes `3_soft_labels/`."""
    stage = run.stage("3_soft_labels")
    members = member_folders(run.teacher, config.model)
    inputs = {
        "images": run.stage("1_images").digest(),
        "teacher": [sha256_of(folder / "model.safetensors") for folder in members],
        "views": {**asdict(views), "count": count},
    }
    if not stage.begin(inputs):
        return
    folder = run.soft_labels
    photos = np.concatenate([store.rows("train"), store.rows("unlabeled")])
    drawn = draw_views(store, photos, count, views)
    _save(folder / "photos.npy", photos)
    _save(folder / "views.npy", drawn)
    targets = [folder / f"said-{number}.npy" for number in range(len(members))]
    said = [
        _ask(m, target, store, photos, drawn, machine, reporter) for m, target in zip(members, targets, strict=True)
    ]
    val_logits = metrics.mean_probability_logits([member.val_logits for member in said])
    _save(folder / "val_logits.npy", val_logits)
    _merge(said, folder, len(photos), count)
    write_json(folder / "meta.json", {"members": len(members), **_sureness(folder, store, photos, val_logits)})
    for leftover in [*targets, *(member / FILE for member in members)]:
        leftover.unlink(missing_ok=True)
    stage.finish(photos=len(photos), views=count)


@dataclass(frozen=True, slots=True)
class _Voice:
    """How one of the teacher's models says what it sees."""

    heads: list[nn.Module]
    """One, or one per fold."""
    folds: np.ndarray
    """(N,) of every photo; -1 for those without a label."""
    width: int
    """How many of the features students learn from: the backbone's last."""

    def __call__(self, features: np.ndarray, photos: np.ndarray) -> np.ndarray:
        """(n, V, D) features of the photos at the positions `photos` (n,) → (n, V, W + C): last features, logits."""
        values, folds = torch.from_numpy(features.astype(np.float32)), self.folds[photos]
        with torch.inference_mode():
            said = torch.stack([head(values) for head in self.heads])
            # Nobody has seen the photos without labels: the mean of all heads answers for them.
            logits = said.mean(0)
            labeled = np.flatnonzero(folds >= 0)
            logits[labeled] = said[folds[labeled], labeled]
        return torch.cat([values[..., : self.width], logits], dim=-1).numpy()


@dataclass(frozen=True, slots=True)
class _Member:
    """What one of the teacher's models said of all views."""

    voice: _Voice
    known: np.ndarray | None
    """(N, P, D) features of the first views, from the teacher's stage."""
    labeled: np.ndarray | None
    """(N, V − P, W + C) of the others."""
    val_logits: np.ndarray

    def block(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Last features (n, V, W) and logits (n, V, C) of the photos at the positions (n,)."""
        parts = [] if self.known is None else [self.voice(self.known[photos], photos)]
        parts += [] if self.labeled is None else [self.labeled[photos].astype(np.float32)]
        said = np.concatenate(parts, axis=1)
        return said[..., : self.voice.width], said[..., self.voice.width :]


def _ask(
    folder: Path,
    target: Path,
    store: PixelStore,
    photos: np.ndarray,
    drawn: np.ndarray,
    machine: Machine,
    reporter: Reporter,
) -> _Member:
    """Have one model look at all views. What its own stage stored of the first views is not computed again."""
    model = load(folder).to(machine.torch_device())
    model.to(memory_format=torch.channels_last)
    how = model.info.trained
    batch = how.get("batch", BATCH)
    precision = Precision(machine.torch_device(), getattr(torch, how["precision"]), how["runtime"], batch)
    form = form_for(model, precision, folder, threads=machine.cores)
    heads = load_fold_heads(folder) or [model.head.cpu()]
    folds = np.where(store.labels(photos) >= 0, fold_of(store, photos, len(heads)), -1)
    voice = _Voice(heads, folds, model.num_last_features)
    known = _known_features(folder, how["method"], len(photos))
    if known is not None:
        known = known[:, : drawn.shape[1]]
    todo = drawn[:, known.shape[1] if known is not None else 0 :]
    labeled = None
    if todo.shape[1]:
        width = voice.width + len(model.info.classes)
        check_space(target.parent, float(np.prod(drawn.shape)) * 4 * width, "Soft labels")
        if not target.is_file():
            writer = RowWriter(target, (*todo.shape, width), np.float16)
            renderer = Renderer(store, photos, todo, model.info.size, threads=machine.cores)
            with reporter.bar(f"Soft labels, {todo.shape[1]} views each", len(photos), unit="photos") as update:
                store_features(form, renderer, writer, precision, update, voice)
            writer.close()
        labeled = np.load(target, mmap_mode="r", allow_pickle=False)
    _, val_logits = plain_answers(form, store, store.rows("val"), precision, threads=machine.cores)
    return _Member(voice, known, labeled, val_logits)


def _known_features(folder: Path, method: str, photos: int) -> np.ndarray | None:
    """(N, P, D) features of the first views that the teacher's stage stored, when they are still the model's own."""
    path = folder / "features.npy"
    if method != "probe" or not path.is_file():
        return None
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    # Photos without labels are not in it where the teacher ignored them.
    return stored[:, 1:] if len(stored) == photos else None


def _merge(members: list[_Member], folder: Path, photos: int, count: int) -> None:
    """`logits.npy`, `features.npy` and `statistics.npz` of all members together, block by block."""
    width = sum(m.voice.width for m in members)
    classes = members[0].val_logits.shape[-1]
    for growing in folder.glob("*.growing"):
        growing.unlink()
    features = RowWriter(folder / "features.npy", (photos, count, width), np.float16)
    logits = RowWriter(folder / "logits.npy", (photos, count, classes), np.float16)
    total, square, n = np.zeros(width), np.zeros(width), 0
    for start in range(0, photos, _BLOCK):
        positions = np.arange(start, min(start + _BLOCK, photos))
        said = [m.block(positions) for m in members]
        values = np.concatenate([f for f, _ in said], axis=-1)
        features.write(values)
        logits.write(metrics.mean_probability_logits([z for _, z in said]))
        flat = values.reshape(-1, width).astype(np.float64)
        total, square, n = total + flat.sum(0), square + np.square(flat).sum(0), n + len(flat)
    features.close()
    logits.close()
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0)) + 1e-3
    with replacing(folder / "statistics.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, mean=mean.astype(np.float32), std=std.astype(np.float32))


def _sureness(folder: Path, store: PixelStore, photos: np.ndarray, val_logits: np.ndarray) -> dict[str, Any]:
    """How saturated the teacher is: on unmixed train views, or val where there are none, and on val; and the
    temperature that val asks for."""
    logits = np.load(folder / "logits.npy", mmap_mode="r", allow_pickle=False)
    views = np.load(folder / "views.npy", mmap_mode="r", allow_pickle=False)
    picked = np.random.default_rng(0).permutation(len(photos))[:2000]
    unmixed = views[picked]["partner"] < 0
    sample = logits[picked][unmixed].astype(np.float32)
    labels = np.repeat(store.labels(photos[picked])[:, None], views.shape[1], 1)[unmixed]
    sample, labels = sample[labels >= 0], labels[labels >= 0]
    val_labels = store.labels(store.rows("val"))
    if not len(sample):  # with views.mix = 1 every view is a blend
        sample, labels = val_logits, val_labels
    return {
        "train_top_probability": float(metrics.softmax(sample).max(-1).mean()),
        "train_accuracy": metrics.accuracy(sample, labels),
        "train_temperature": metrics.fit_temperature(sample, labels),
        "val_top_probability": float(metrics.softmax(val_logits).max(-1).mean()),
        "val_accuracy": metrics.accuracy(val_logits, val_labels),
        "val_temperature": metrics.fit_temperature(val_logits, val_labels),
    }


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
