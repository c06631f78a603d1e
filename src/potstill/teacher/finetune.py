"""Fine-tuning: the teacher's backbone is trained together with its head, after the probe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.precision import Precision
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, draw_views, mixed_labels
from potstill.models.classifier import Classifier, normalize
from potstill.monitoring.progress import Reporter
from potstill.teacher.plan import TeacherPlan
from potstill.training.loop import Callbacks, Schedule, Task, fit

BATCH = 32
HEAD_LR_FACTOR = 10.0
"""The head's learning rate over the backbone's."""


@dataclass(frozen=True, slots=True)
class Photos:
    """What fine-tuning reads, and where it reports."""

    store: PixelStore
    reporter: Reporter
    log: list[dict[str, Any]]
    """Gets one entry per step."""


def fine_tune(model: Classifier, folder: Path, plan: TeacherPlan, precision: Precision, photos: Photos) -> None:
    """Train backbone and head in place, on the kind of views that students will see.

    Batch norms keep the statistics that they came with. The head was trained on features made with these; with the
    statistics of a batch of photos unlike ImageNet's, the first loss is a hundred times as large and what the head has
    learned is lost.
    """
    config, store = plan.config, photos.store
    train = store.rows("train")
    drawn = draw_views(store, train, config.finetune_epochs, plan.views)
    renderer = Renderer(store, train, drawn, model.info.size)
    per_epoch = max(1, len(train) // BATCH)
    targets = mixed_labels(store, train, drawn, len(model.info.classes))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch = step // per_epoch
        order = np.random.default_rng([3, epoch]).permutation(len(train))
        photo = order[step % per_epoch * BATCH :][:BATCH]
        view = np.full(len(photo), epoch)
        return torch.from_numpy(renderer(photo, view)), torch.from_numpy(targets[photo, view])

    def loss(data: tuple[Tensor, Tensor]) -> Tensor:
        pixels, target = (part.to(precision.device) for part in data)
        return nn.functional.cross_entropy(model(normalize(pixels, model.info)).float(), target, reduction="none")

    steps = config.finetune_epochs * per_epoch
    checkpoint = folder / "finetune.checkpoint"
    with photos.reporter.bar("Fine-tuning the teacher", steps, unit="steps") as update:

        def after_step(step: int, value: float) -> None:
            photos.log.append({"phase": "finetune", "step": step, "loss": round(value, 5)})
            update(step)

        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        fit(
            Task(trained=nn.ModuleDict({"model": model}), batch=batch, loss=loss, frozen=norms),
            Schedule(
                steps=steps,
                lr=config.finetune_lr,
                weight_decay=config.weight_decay,
                lr_factors={f"model.net.{model.head_name}": HEAD_LR_FACTOR},
            ),
            precision,
            checkpoint=checkpoint,
            callbacks=Callbacks(after_step=after_step),
        )
    checkpoint.unlink(missing_ok=True)
