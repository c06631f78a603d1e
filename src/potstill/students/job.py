"""One training of one student: distilled or alone, one seed."""

import functools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill import metrics
from potstill.compute.inference import BATCH, answers, plain_answers
from potstill.compute.precision import Precision
from potstill.config.schema import Auto
from potstill.data.arrays import RowReader
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, mixed_labels, plain_views
from potstill.models.classifier import Classifier, build, describe, normalize, save
from potstill.run.files import read_json, write_json, write_text
from potstill.run.folder import Run, Stage
from potstill.run.layout import ARMS
from potstill.training import losses
from potstill.training.loop import Schedule, fit

EVALUATIONS = 10
"""Times that val is measured while a student trains."""

CROPS = (1.0, 0.875)
"""Shares of the center square's side to choose from: all of it, and what ImageNet's models are usually shown. Objects
look larger in training views than in plain photos (Touvron et al. 2019, arXiv:1906.06423, section 3)."""

UNSURE_SHARE = 0.05
"""The threshold of "not one of these classes": this share of val photos is less sure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one model learns, everything decided. All zero distillation weights: a twin."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    ema: float
    dtype: str
    soft_labels: str
    """Digest of the soft labels it learns from."""
    method: str = "kl"
    temperature: float = 1.0
    distill_weight: float = 0.0
    feature_weight: float = 0.0
    task_weight: float = 1.0
    label_smoothing: float = 0.0
    crop: float | Auto = "auto"
    """Of the trained model; "auto": one of `CROPS`, by val."""
    compile: bool = False
    """By `torch.compile`: the same model up to rounding, so a finished one does not depend on it."""

    @property
    def arm(self) -> str:
        """Whether a teacher takes part. A distilled student whose pilots chose "no teacher" learns as a twin does."""
        return "distilled" if self.distill_weight or self.feature_weight else "alone"

    def steps(self, photos: int) -> int:
        """Training steps, the same for student and twin: `photos` counts the unlabeled ones too."""
        return self.epochs * max(1, photos // self.batch_size)


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train, and the folder that it ends up in."""

    folder: Path
    model: str
    size: int | None
    weights: str
    seed: int
    recipe: Recipe

    @property
    def arm(self) -> str:
        """What its folder says it is; a pilot is what its recipe makes it."""
        return self.folder.name if self.folder.name in ARMS else self.recipe.arm

    def inputs(self) -> dict[str, Any]:
        """What the result depends on."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if name != "compile"}
        return {"model": self.model, "size": self.size, "weights": self.weights, "seed": self.seed} | recipe

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "folder"}

    @classmethod
    def read(cls, folder: Path) -> "Job":
        values = read_json(folder / "job.json")
        return cls(folder=folder, **{**values, "recipe": Recipe(**values["recipe"])})


@dataclass(frozen=True, slots=True)
class _Batch:
    pixels: Tensor
    """(B, S, S, 3) uint8."""
    targets: Tensor
    """(B, C), zero rows for unlabeled photos."""
    teacher_logits: Tensor
    teacher_features: Tensor
    """(B, D) standardized; empty without feature loss."""


def train_job(job: Job, run: Run, device: str, update: Callable[[int], None]) -> None:
    """Train the job's model and write `model.safetensors`, `model.json`, `metrics.jsonl`, `val_predictions.npz`."""
    started = time.monotonic()
    store, soft = PixelStore(run.images), SoftLabels.open(run)
    recipe = job.recipe
    precision = Precision(torch.device(device), getattr(torch, recipe.dtype))
    torch.manual_seed(job.seed)
    info = describe(job.model, run.classes(), size=job.size)
    model = build(info, weights=job.weights, seed=job.seed).to(precision.device)
    model.to(memory_format=torch.channels_last)
    trained = nn.ModuleDict({"model": model})
    if recipe.feature_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)  # after the model, so that the twin starts from the same weights
            trained["projector"] = nn.Linear(model.num_features, soft.features.shape[-1]).to(precision.device)
    if recipe.compile:  # of training only: val is measured by the plain model
        model.both = torch.compile(model.both)  # type: ignore[method-assign]
    batch = batches(job, run, store, soft, info.size)
    val = store.rows("val")
    crops = CROPS if recipe.crop == "auto" else (recipe.crop,)
    val_pixels = Renderer(store, val, plain_views(store, val, crops[0])[:, None], info.size)(
        np.arange(len(val)), np.zeros(len(val), int)
    )
    val_labels = store.labels(val)
    steps = recipe.steps(len(soft.photos))
    log = _Log(job.folder)
    recent: list[float] = []

    def after_step(step: int, loss: float) -> None:
        recent.append(loss)
        update(step)

    def evaluate(step: int) -> None:
        logits = _logits(model, val_pixels, precision)
        log.add(
            step=step,
            epoch=round(step / steps * recipe.epochs, 2),
            loss=float(np.mean(recent)) if recent else None,
            val_accuracy=metrics.accuracy(logits, val_labels),
            val_nll=metrics.nll(logits, val_labels),
        )
        recent.clear()

    fit(
        trained,
        batch,
        lambda data: loss_of(data, recipe, model, trained, precision),
        Schedule(steps=steps, lr=recipe.lr, weight_decay=recipe.weight_decay, ema=recipe.ema),
        precision,
        checkpoint=job.folder / "checkpoint.safetensors",
        after_step=after_step,
        evaluate=evaluate,
        evaluate_at=frozenset(round(steps * (k + 1) / EVALUATIONS) for k in range(EVALUATIONS)),
    )
    val_logits = _cut_to_the_surest(model, _logits(model, val_pixels, precision), store, val, crops, precision)
    temperature = metrics.fit_temperature(val_logits, val_labels)
    scaled = val_logits / temperature
    np.savez(job.folder / "val_predictions.npz", logits=val_logits, labels=val_labels)
    save(
        model,
        job.folder,
        role="student",
        arm=job.arm,
        seed=job.seed,
        recipe=asdict(recipe),
        temperature=temperature,
        threshold=float(np.quantile(metrics.softmax(scaled).max(-1), UNSURE_SHARE)),
    )
    log.close()
    (job.folder / "checkpoint.safetensors").unlink(missing_ok=True)
    (job.folder / "step.txt").unlink(missing_ok=True)
    Stage(job.folder, job.folder.name).finish(
        val_accuracy=metrics.accuracy(val_logits, val_labels),
        val_nll_scaled=metrics.nll(scaled, val_labels),
        steps=steps,
        seconds=round(time.monotonic() - started, 1),
    )


def copy_job(first: Job, job: Job) -> None:
    """Write what training the job would have written again: `first` is finished, and the same training."""
    for name in ("model.safetensors", "metrics.jsonl", "val_predictions.npz"):
        shutil.copyfile(first.folder / name, job.folder / name)
    described = read_json(first.folder / "model.json")
    described["trained"]["arm"] = job.arm
    write_json(job.folder / "model.json", described)
    facts = Stage(first.folder, first.folder.name).facts()
    facts.pop("inputs")
    Stage(job.folder, job.folder.name).finish(**facts)


def batches(job: Job, run: Run, store: PixelStore, soft: SoftLabels, size: int) -> Callable[[int], _Batch]:
    """The batch of each step. The order of photos depends on seed and epoch only, so student and twin share it."""
    recipe = job.recipe
    count = soft.views.shape[1]
    labeled = store.labels(soft.photos) >= 0
    # The twin knows labels only. With unlabeled photos about, it passes over the labeled ones more often instead.
    mine = np.arange(len(soft.photos)) if recipe.arm == "distilled" else np.flatnonzero(labeled)
    per_epoch = max(1, len(mine) // recipe.batch_size)
    rendered = run.students / f"views-{size}px.npy"
    pixels = RowReader(rendered, leading=2) if rendered.is_file() else Renderer(store, soft.photos, soft.views, size)
    classes = soft.logits.shape[-1]
    mean, std = soft.feature_mean, soft.feature_std

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([job.seed, epoch]).permutation(mine)

    def batch(step: int) -> _Batch:
        epoch, position = divmod(step, per_epoch)
        photo = order(epoch)[position * recipe.batch_size :][: recipe.batch_size]
        view = np.full(len(photo), epoch % count)
        features = np.empty((len(photo), 0), np.float32)
        if recipe.feature_weight:
            features = (soft.features(photo, view).astype(np.float32) - mean) / std
        targets = mixed_labels(store, soft.photos[photo], np.asarray(soft.views[photo, view])[:, None], classes)[:, 0]
        return _Batch(
            torch.from_numpy(pixels(photo, view)),
            torch.from_numpy(targets.astype(np.float32)),
            torch.from_numpy(soft.logits(photo, view).astype(np.float32)),
            torch.from_numpy(features),
        )

    return batch


def loss_of(batch: _Batch, recipe: Recipe, model: Classifier, trained: nn.ModuleDict, precision: Precision) -> Tensor:
    """(B,) the weighted sum of task, distillation and feature loss."""
    device = precision.device
    features, logits = model.both(normalize(batch.pixels.to(device), model.info))
    logits = logits.float()
    targets, teacher_logits = batch.targets.to(device), batch.teacher_logits.to(device)
    total = torch.zeros(len(logits), device=device)
    if recipe.task_weight:
        total = total + recipe.task_weight * losses.task_loss(logits, targets, label_smoothing=recipe.label_smoothing)
    if recipe.distill_weight:
        total = total + recipe.distill_weight * _distill(recipe, logits, teacher_logits, targets)
    if recipe.feature_weight:
        projected = trained["projector"](features).float()
        total = total + recipe.feature_weight * losses.feature_loss(projected, batch.teacher_features.to(device))
    return total


def _distill(recipe: Recipe, logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    labels = torch.where(targets.sum(-1) > 0, targets.argmax(-1), -1)
    return losses.find_method(recipe.method).loss(logits, teacher_logits, labels, recipe.temperature)


def _cut_to_the_surest(
    model: Classifier,
    logits: np.ndarray,
    store: PixelStore,
    val: np.ndarray,
    crops: Sequence[float],
    precision: Precision,
) -> np.ndarray:
    """Give the model the crop with the lowest val NLL after temperature scaling, the first of equals.

    Args:
        logits: (n, C) of the val photos at the first crop.
    Returns:
        (n, C) at the crop that was taken.
    """
    labels = store.labels(val)
    found = {crops[0]: logits}
    for crop in crops[1:]:
        model.info = replace(model.info, crop=crop)
        found[crop] = plain_answers(model, store, val, precision)[1]
    best = min(found, key=lambda crop: metrics.nll(found[crop] / metrics.fit_temperature(found[crop], labels), labels))
    model.info = replace(model.info, crop=best)
    return found[best]


def _logits(model: Classifier, pixels: np.ndarray, precision: Precision) -> np.ndarray:
    return np.concatenate([answers(model, pixels[i : i + BATCH], precision)[1] for i in range(0, len(pixels), BATCH)])


class _Log:
    """`metrics.jsonl`, one line per measurement. A resumed training measures some steps twice: the later counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"

    def add(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        lines = {json.loads(line)["step"]: line for line in self.path.read_text("utf-8").splitlines()}
        write_text(self.path, "".join(lines[step] + "\n" for step in sorted(lines)))
