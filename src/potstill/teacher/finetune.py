"""Fine-tuning: the whole network learns, once per fold of the train photos, each time without that fold.

A network that has seen a photo a dozen times is far too sure of it, so no model labels the photos that it learned
from: each fold gets its soft labels from the model that was trained without it, all other photos from the mean of all
models, an ensemble that is better than each of them.

Where the probe has learned from photos without labels, these take part with what it believes of them. What a network
then predicts for a photo that it was not shown is more often right than the belief that it was not shown either: errors
of single photos do not repeat themselves in others, as in self-training with noise (Xie et al. 2020, "Self-training
with Noisy Student improves ImageNet classification", arXiv:1911.04252, section 2).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.backends import inference_model
from potstill.compute.inference import leaves_cores_free, plain_outputs
from potstill.compute.measured import Measured
from potstill.context import Context
from potstill.data.arrays import open_arrays, save_array, save_arrays
from potstill.data.folds import fold_of
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, blended, draw_views
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, build, describe, normalize, save
from potstill.run.layout import fold_folder, tuned_on_path
from potstill.run.trained import Trained
from potstill.teacher.plan import TeacherPlan
from potstill.training.loop import Callbacks, Schedule, Task, fit
from potstill.training.losses import multilabel_task_loss

BATCH = 32
EMA = 0.99
_PREDICTIONS = "predictions.npz"


def remove_tuned(folder: Path) -> None:
    """Remove the models of all folds from the folder of one of the teacher's models."""
    tuned_on_path(folder).unlink(missing_ok=True)
    for path in folder.glob("fold-*"):
        if path.is_dir():
            shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class FineTuned:
    """One model per fold, together."""

    val_logits: np.ndarray
    """(n, C) of the mean of all models."""
    out_of_fold: dict[str, np.ndarray]
    """row (N,) of the train photos, logits (N, C) of each by the model that was trained without it; empty with one
    fold."""


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Fine-tuning one of the teacher's models."""

    name: str
    size: int
    """Input side in pixels."""
    folder: Path
    """Of the model in the teacher's stage; each fold has a folder in it."""
    plan: TeacherPlan
    context: Context
    store: PixelStore
    photos: np.ndarray
    """(N,) rows of the store to learn from: the train photos, and perhaps some without labels."""
    beliefs: np.ndarray
    """(N, C) their labels, and what the probe believes of the others."""
    measured: Measured
    log: list[dict[str, Any]]
    """Gets one entry per step."""

    def run(self, worthwhile: Callable[[np.ndarray], bool]) -> FineTuned | None:
        """Train the model of every fold that is not there yet.

        Args:
            worthwhile: asked with the val logits (n, C) of the first model. No: the others are not trained.
        Returns:
            None where it is not worthwhile.
        """
        val, rows, logits = [], [], []
        unlabeled = self.photos[~self.store.is_labeled(self.photos)]
        if len(unlabeled):
            save_array(tuned_on_path(self.folder), unlabeled)
        for fold, (learned, held) in enumerate(self._folds()):
            folder = fold_folder(self.folder, fold)
            if not (folder / "model.json").is_file():
                self._train_fold(fold, learned, held)
            with open_arrays(folder / _PREDICTIONS) as stored:
                val.append(stored["val"])
                rows.append(self._with_labels(held))
                logits.append(stored["held"])
            if fold == 0 and not worthwhile(val[0]):
                return None
        row = np.concatenate(rows)
        order = np.argsort(row)
        out_of_fold = {"row": row[order], "logits": np.concatenate(logits)[order]} if len(row) else {}
        return FineTuned(self._classification.mean_logits(val), out_of_fold)

    @property
    def _classification(self) -> Classification:
        return Classification.of(self.store.several_labels)

    def _folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions of the photos that each model learns from, and of those that it must not see: none with one
        fold."""
        folds = self.plan.config.finetune_folds
        fold = fold_of(self.store, self.photos, folds) if folds > 1 else np.full(len(self.photos), -1)
        return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)]

    def _with_labels(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the store of those photos at the positions (n,) that have labels."""
        rows = self.photos[positions]
        return rows[self.store.is_labeled(rows)]

    def _train_fold(self, fold: int, learned: np.ndarray, held: np.ndarray) -> None:
        """Train the model of a fold and store it with what it predicts for val and the held-back labeled photos."""
        folder, machine = fold_folder(self.folder, fold), self.context.machine
        folder.mkdir(exist_ok=True)
        title = f"Teacher: fine-tuning {self.name}" + (
            f", fold {fold + 1} of {len(self._folds())}" if len(held) else ""
        )
        model = self._train(learned, folder / "checkpoint.safetensors", title, (fold, len(self._folds())))
        precision, threads = self.measured.precision(machine.device), machine.cores
        tuned = inference_model(model, precision, folder, threads=threads)
        val = self.store.rows("val")
        _, val_logits = plain_outputs(tuned, self.store, val, precision, threads=threads)
        held_logits = np.empty((0, val_logits.shape[1]), np.float32)
        if len(held):
            _, held_logits = plain_outputs(tuned, self.store, self._with_labels(held), precision, threads=threads)
        save_arrays(folder / _PREDICTIONS, val=val_logits, held=held_logits)
        trained = Trained(
            role="teacher",
            method="finetune",
            temperature=self._classification.fit_temperature(val_logits, self.store.labels(val)),
            precision=self.measured.dtype,
            gray_levels=self.context.run.gray_levels(),
            runtime=self.measured.runtime,
            batch=self.measured.batch,
        )
        save(model, folder, trained)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def _train(self, positions: np.ndarray, checkpoint: Path, title: str, of: tuple[int, int]) -> Classifier:
        """A new model, trained on the photos at the positions (n,), on the kind of views that students see: one `of` so
        many."""
        config, store = self.plan.config, self.store
        precision = self.measured.precision(self.context.machine.device)
        several = store.several_labels
        info = describe(self.name, self.context.run.classes(), size=self.size, several_labels=several)
        model = build(info, weights=config.weights).to(precision.device)
        model.to(memory_format=torch.channels_last)
        rows = self.photos[positions]
        epochs = self.plan.finetune_epochs(len(rows))
        drawn = draw_views(store, rows, epochs, self.plan.views)
        threads = self.context.machine.cores if leaves_cores_free(precision.device) else 1
        renderer = Renderer(store, rows, drawn, model.info.size, threads=threads)
        targets = blended(self.beliefs[positions], rows, drawn)
        per_epoch = max(1, len(rows) // BATCH)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            epoch, position = divmod(step, per_epoch)
            photo = np.random.default_rng([3, epoch]).permutation(len(rows))[position * BATCH :][:BATCH]
            view = np.full(len(photo), epoch)
            return torch.from_numpy(renderer(photo, view)), torch.from_numpy(targets[photo, view])

        def loss(data: tuple[Tensor, Tensor]) -> Tensor:
            pixels, target = data
            logits = model(normalize(pixels, model.info)).float()
            if several:
                return multilabel_task_loss(logits, target)
            return nn.functional.cross_entropy(logits, target, reduction="none")

        steps = epochs * per_epoch
        with self.context.reporter.bar(title, steps, unit="step", part="fine-tuning", of=of) as update:

            def after_step(step: int, value: float) -> None:
                self.log.append({"phase": "finetune", "step": step, "loss": round(value, 5)})
                update(step)

            fit(
                Task(trained=nn.ModuleDict({"model": model}), batch=batch, loss=loss),
                Schedule(steps=steps, lr=config.finetune_lr, weight_decay=config.weight_decay, ema=EMA),
                precision,
                checkpoint=checkpoint,
                callbacks=Callbacks(after_step=after_step),
            )
        return model
