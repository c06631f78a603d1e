"""The loss of a student or twin: labels, distillation and features, each with its weight."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from potstill import metrics
from potstill.data.soft_labels import SoftLabels
from potstill.models.classifier import Classifier, normalize
from potstill.students.batches import Batch, shown_views
from potstill.students.recipe import Job, Recipe
from potstill.training import losses
from potstill.training.ranks import Part

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels (B, 3, S, S) → features (B, D) and logits (B, C)."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of the classes in what a model learns from, (C,) each, above 0."""

    labels: Tensor
    teacher: Tensor
    """In the teacher's probabilities."""

    @classmethod
    def of(cls, job: Job, soft: SoftLabels, labels: np.ndarray) -> "Shares":
        """Of the photos that the job learns from.

        Args:
            labels: (N,) of all photos of the soft labels; -1 for those without.
        """
        learned = np.flatnonzero(shown_views(job, soft, labels)[:, 0] >= 0)
        classes = soft.logits.shape[-1]
        given = labels[learned]
        counts = np.bincount(given[given >= 0], minlength=classes)
        first = soft.logits(learned, np.zeros(len(learned), int)).astype(np.float32)
        return cls(*(_shares(sums) for sums in (counts, metrics.softmax(first).sum(0))))

    def to(self, device: torch.device) -> "Shares":
        """The same on a device."""
        return Shares(self.labels.to(device), self.teacher.to(device))


def _shares(sums: np.ndarray) -> Tensor:
    """(C,) of sum 1; a class without any counts as half a photo."""
    sums = np.maximum(sums, 0.5)
    return torch.from_numpy((sums / sums.sum()).astype(np.float32))


def loss_of(batch: Batch, recipe: Recipe, trained: nn.ModuleDict) -> Tensor:
    """(B,) the weighted sum of the loss terms."""
    model = trained["model"]
    assert isinstance(model, Classifier)
    return total(loss_terms(batch, recipe, trained, model.both))


def loss_terms(
    batch: Batch,
    recipe: Recipe,
    trained: nn.ModuleDict,
    forward: Forward,
    shares: Shares | None = None,
    part: Part | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the loss by name, (B,) each: labels, distillation, features; those with weight 0 are not
    computed.

    Args:
        batch: on the device.
        trained: `model`, and `projector` where there is a feature loss.
        forward: the model's `both`, perhaps compiled.
        shares: of the classes, unless `recipe.class_balance` is "none".
        part: of which the batch is, where other processes have the rest.
    """
    model = trained["model"]
    assert isinstance(model, Classifier)
    features, logits = forward(normalize(batch.pixels, model.info))
    logits = logits.float()
    terms: dict[str, Tensor] = {}
    if recipe.task_weight:
        if shares is None:
            task_loss = losses.task_loss_of(model.info.several_labels)
            task = task_loss(logits, batch.targets, label_smoothing=recipe.label_smoothing)
        else:
            task = balanced_task_loss(logits, batch.targets, recipe, shares.labels)
        terms["labels"] = recipe.task_weight * task
    if recipe.distill_weight:
        distill = functools.partial(_distillation, recipe, model.info.several_labels, shares)
        if part is not None and losses.find_method(recipe.method).needs_whole_batch:
            logits, teacher_logits, targets = map(part.whole, (logits, batch.teacher_logits, batch.targets))
            distilled = distill(logits, teacher_logits, targets)[part.rows]
        else:
            distilled = distill(logits, batch.teacher_logits, batch.targets)
        terms["distillation"] = recipe.distill_weight * distilled
    if recipe.feature_weight:
        projected = trained["projector"](features).float()
        terms["features"] = recipe.feature_weight * losses.feature_loss(projected, batch.teacher_features)
    return terms


def total(terms: dict[str, Tensor]) -> Tensor:
    """(B,) their sum."""
    return functools.reduce(torch.add, terms.values())


def _distillation(
    recipe: Recipe,
    several_labels: bool,
    shares: Shares | None,
    logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
) -> Tensor:
    """(B,) the distillation loss that the recipe names, for the kind of labels that there are."""
    if several_labels:
        several = losses.find_method(recipe.method).several_labels
        assert several is not None
        return several(logits, teacher_logits, recipe.temperature)
    if shares is None:
        return _distill(recipe, logits, teacher_logits, targets)
    return _balanced_distill(recipe, logits, teacher_logits, targets, shares.teacher)


def _distill(recipe: Recipe, logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    labels = torch.where(targets.sum(-1) > 0, targets.argmax(-1), -1)
    return losses.find_method(recipe.method).loss(logits, teacher_logits, labels, recipe.temperature)


def balanced_task_loss(logits: Tensor, targets: Tensor, recipe: Recipe, shares: Tensor) -> Tensor:
    """(B,) the task loss as `recipe.class_balance` says, for labels with these shares (C,) of the classes."""
    smoothing = recipe.label_smoothing
    if recipe.class_balance == "logit-adjusted":
        return losses.task_loss(losses.adjusted(logits, shares), targets, label_smoothing=smoothing)
    return losses.weights_of(targets, shares) * losses.task_loss(logits, targets, label_smoothing=smoothing)


def _balanced_distill(
    recipe: Recipe, logits: Tensor, teacher_logits: Tensor, targets: Tensor, shares: Tensor
) -> Tensor:
    """The same for distillation: the teacher's probabilities, at the shares that the classes have, are the targets."""
    if recipe.class_balance == "logit-adjusted":
        return _distill(recipe, losses.adjusted(logits, shares), teacher_logits, targets)
    weights = losses.weights_of(teacher_logits.softmax(-1), shares)
    return weights * _distill(recipe, logits, teacher_logits, targets)
