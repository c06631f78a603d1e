"""Heads of a frozen backbone: trained on stored features in seconds, one for all photos or one per fold."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig
from potstill.data.arrays import RowReader
from potstill.models.classifier import HEAD_STD, Classifier
from potstill.training.loop import Callbacks, Schedule, Task, fit
from potstill.training.losses import multilabel_task_loss

PROBE_BATCH = 256
MAX_VALUES = 40_000_000
"""Stored numbers from which the scale of the features is estimated: 160 MB."""


@dataclass(frozen=True)
class HeadData:
    """What a head is trained on."""

    features: RowReader
    """(N, V, D)."""
    targets: np.ndarray
    """(N, V, C) soft targets."""
    allowed: np.ndarray
    """(N, V) bool: the views that take part."""
    several_labels: bool = False
    """Whether the targets are 0 and 1 for each class, instead of shares of the classes."""

    @cached_property
    def photos(self) -> np.ndarray:
        """(n,) positions of the photos that take part with any view."""
        return np.flatnonzero(self.allowed.any(1))

    @cached_property
    def views(self) -> np.ndarray:
        """(m,) those of all views, counted photo by photo, that take part."""
        return np.flatnonzero(self.allowed)

    @cached_property
    def shares(self) -> np.ndarray:
        """(C,) share of each class in the targets that take part; above 0 for classes without any."""
        flat = self.targets.reshape(-1, self.targets.shape[-1])
        sums = self.allowed.ravel().astype(flat.dtype) @ flat
        sums = np.maximum(sums, 0.5)
        return sums / sums.sum()

    @property
    def start(self) -> np.ndarray:
        """(C,) logits that predict the shares of the classes; with several labels, the share of photos with each."""
        if not self.several_labels:
            logs = np.log(self.shares)
            return np.asarray(logs - logs.mean())
        found = self.targets[self.allowed]
        share = np.clip(found.mean(0), 0.5 / len(found), 1 - 0.5 / len(found))
        return np.asarray(np.log(share / (1 - share)), np.float32)

    def batch(self, step: int, mean: np.ndarray, std: np.ndarray) -> tuple[Tensor, Tensor]:
        """The standardized features (B, D) and targets (B, C) of a step."""
        draw = np.random.default_rng([1, step])
        photo, view = np.divmod(self.views[draw.integers(len(self.views), size=PROBE_BATCH)], self.allowed.shape[1])
        values = (self.features(photo, view).astype(np.float32) - mean) / std
        return torch.from_numpy(values), torch.from_numpy(self.targets[photo, view])


def fit_head(
    data: HeadData, config: TeacherConfig, checkpoint: Path, *, max_steps: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a head on stored features.

    Args:
        checkpoint: where to keep the state while training; removed at the end.
    Returns:
        The head, with the standardization of the features folded in, and its steps and last loss.
    """
    mean, std = moments(data.features, data.photos)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head, last = _new_head(data.features.shape[-1], data.start, config)
        several = data.several_labels
        steps = _steps(data, config, max_steps)
        task = Task(
            trained=nn.ModuleDict({"head": head}),
            batch=lambda step: data.batch(step, mean, std),
            loss=lambda batch: (
                (
                    multilabel_task_loss(head(batch[0]), batch[1])
                    if several
                    else nn.functional.cross_entropy(head(batch[0]), batch[1], reduction="none")
                )
                + config.head_l2 * last.weight.square().sum()
            ),
        )
        fit(
            task,
            Schedule(steps=steps, lr=config.probe_lr, weight_decay=0.0),
            Precision(torch.device("cpu")),
            checkpoint=checkpoint,
            callbacks=Callbacks(after_step=lambda step, loss: losses.append(loss)),
        )
    checkpoint.unlink(missing_ok=True)
    facts = {"steps": steps, "loss": float(np.mean(losses[-50:])) if losses else None}
    return _with_standardization(head, mean, std), facts


def _new_head(inputs: int, start: np.ndarray, config: TeacherConfig) -> tuple[nn.Sequential, nn.Linear]:
    """A fresh head, and its last layer.

    It starts by predicting the shares of the classes (`HeadData.start`). From equal ones, a head for very unequal
    classes spends its steps on learning them, with weights that the rare classes then lack.
    """
    width = config.head_width
    last = nn.Linear(width or inputs, len(start))
    nn.init.normal_(last.weight, std=HEAD_STD)
    with torch.no_grad():
        last.bias.copy_(torch.from_numpy(start))
    layers = [nn.Linear(inputs, width), nn.ReLU()] if width else []
    return nn.Sequential(*layers, nn.Dropout(config.dropout), last), last


def _steps(data: HeadData, config: TeacherConfig, max_steps: int | None) -> int:
    if not config.probe_epochs:
        return 0
    steps = max(config.probe_min_steps, config.probe_epochs * len(data.views) // PROBE_BATCH)
    return min(steps, max_steps or steps)


def moments(features: RowReader, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per dimension, (D,) each, over the vectors of as many photos as MAX_VALUES allows."""
    draw = np.random.default_rng(2)
    count = features.shape[1]
    most = max(1, MAX_VALUES // (count * features.shape[2]))
    picked = photos if len(photos) <= most else draw.choice(photos, most, replace=False)
    values = features(np.repeat(picked, count), np.tile(np.arange(count), len(picked))).astype(np.float32)
    return values.mean(0), values.std(0) + 1e-3


def _with_standardization(head: nn.Sequential, mean: np.ndarray, std: np.ndarray) -> nn.Module:
    """Fold (f − mean) / std into the first linear layer, and drop the dropout."""
    layers = [layer for layer in head if not isinstance(layer, nn.Dropout)]
    first = layers[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.div_(torch.from_numpy(std))
        first.bias.sub_(first.weight @ torch.from_numpy(mean))
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def put_head(model: Classifier, head: nn.Module) -> None:
    """Copy the learned weights into the model's own head, layer by layer."""
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    own = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)]
    for target, source in zip(own, linear, strict=True):
        target.load_state_dict(source.state_dict())


def apply_head(head: nn.Module, features: np.ndarray) -> np.ndarray:
    """(n, D) features → (n, C) logits."""
    device = next(head.parameters()).device
    with torch.inference_mode():
        return head.eval()(torch.from_numpy(features.astype(np.float32)).to(device)).cpu().numpy()
