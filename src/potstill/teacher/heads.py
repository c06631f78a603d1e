"""Heads of a frozen backbone: learned on stored features in seconds, one for all photos or one per fold."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig
from potstill.data.arrays import RowReader
from potstill.models.classifier import HEAD_STD, Classifier
from potstill.training.loop import Schedule, fit

PROBE_BATCH = 256
MOMENTS = 40_000_000
"""Stored numbers from which the scale of the features is read: 160 MB."""
MIN_STEPS = 500
"""Of few photos, or a head has not learned them yet: with 20 per class 60 passes are 120 steps."""


def fit_head(
    model: Classifier,
    features: RowReader,
    targets: np.ndarray,
    allowed: np.ndarray,
    config: TeacherConfig,
    name: Path,
    log: list[dict[str, Any]],
    *,
    most_steps: int | None = None,
) -> nn.Module:
    """Learn a head on the stored features of the `allowed` photos (N,) bool. Returns it with standardization inside."""
    photos = np.flatnonzero(allowed)
    count = features.shape[1]
    mean, std = moments(features, photos)
    classes = targets.shape[-1]
    width = config.head_width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        last = nn.Linear(width or features.shape[-1], classes)
        nn.init.normal_(last.weight, std=HEAD_STD)
        nn.init.zeros_(last.bias)
        layers = [nn.Linear(features.shape[-1], width), nn.ReLU()] if width else []
        head = nn.Sequential(*layers, nn.Dropout(config.dropout), last)
        steps = max(MIN_STEPS, config.probe_epochs * len(photos) * count // PROBE_BATCH) if config.probe_epochs else 0
        steps = min(steps, most_steps or steps)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            draw = np.random.default_rng([1, step])
            photo, view = photos[draw.integers(len(photos), size=PROBE_BATCH)], draw.integers(count, size=PROBE_BATCH)
            values = (features(photo, view).astype(np.float32) - mean) / std
            return torch.from_numpy(values), torch.from_numpy(targets[photo, view])

        losses: list[float] = []
        fit(
            nn.ModuleDict({"head": head}),
            batch,
            lambda data: (
                nn.functional.cross_entropy(head(data[0]), data[1], reduction="none")
                + config.probe_penalty * last.weight.square().sum()
            ),
            Schedule(steps=steps, lr=config.probe_lr, weight_decay=0.0),
            Precision(torch.device("cpu")),
            checkpoint=name.with_suffix(".checkpoint"),
            after_step=lambda step, loss: losses.append(loss),
        )
    name.with_suffix(".checkpoint").unlink(missing_ok=True)
    log.append({"phase": name.name, "steps": steps, "loss": float(np.mean(losses[-50:])) if losses else None})
    return _with_standardization(head, mean, std)


def moments(features: RowReader, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per dimension, (D,) each, over the vectors of all photos, or as many as MOMENTS."""
    draw = np.random.default_rng(2)
    count = features.shape[1]
    most = max(1, MOMENTS // (count * features.shape[2]))
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
