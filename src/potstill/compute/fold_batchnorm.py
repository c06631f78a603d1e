"""The fastest version of a model for inference: norms folded into the convolutions before them, weights in bfloat16.

Folding: a convolution followed by batch norm in evaluation mode is one convolution (Jacob et al. 2018,
arXiv:1712.05877, section 3.2). Which norm follows which convolution is read off the order in which a model registers
its layers, and then proved: the folded model must give the same features.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from potstill import metrics
from potstill.compute.precision import Precision
from potstill.models.classifier import Classifier

SAME = 1e-3
"""Largest difference of features, relative to their standard deviation, that is still rounding."""

MIN_AGREEMENT = 0.999
MIN_MARGIN = 0.05
"""Photos whose two most likely classes are closer in probability change class with any rounding: they do not count."""


def fold(model: Classifier, precision: Precision) -> Classifier:
    """A copy for inference only, in evaluation mode; the model itself stays as it is.

    Args:
        precision: with bfloat16 the backbone's matrices are kept in it.
    """
    folded = copy.deepcopy(model).eval()
    _fold_norms(folded.net)
    if not same_features(model, folded, precision.device):
        folded = copy.deepcopy(model).eval()
    if precision.dtype != torch.float32:  # what autocast would do at every call
        for module in set(folded.net.modules()) - set(folded.head.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(precision.dtype)
    return folded


def agreement(exact: np.ndarray, quick: np.ndarray, *, several_labels: bool = False) -> float:
    """Share of photos with the same class in float32 and in another arithmetic, of those with a margin in float32.
    Where photos may have several labels, every class of a photo counts as a photo with two classes, yes and no.

    Args:
        exact, quick: (n, C) logits.
    """
    if several_labels:
        exact, quick = (np.stack([0 * logits.ravel(), logits.ravel()], axis=-1) for logits in (exact, quick))
    likely = np.sort(metrics.softmax(exact), axis=-1)
    decided = likely[:, -1] - likely[:, -2] > MIN_MARGIN
    return metrics.agreement(quick[decided], exact[decided]) if decided.any() else 1.0


def _fold_norms(module: nn.Module) -> None:
    """Replace every batch norm that is registered right after a convolution by what it does besides scaling."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d) and _fits(before, child):
            mean, var = child.running_mean, child.running_var
            assert mean is not None
            assert var is not None
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, mean, var, child.eps, child.weight, child.bias
            )
            setattr(module, name, _rest_of(child))
        else:
            _fold_norms(child)
        before = child


def _fits(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None and convolution.out_channels == norm.num_features


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """timm's norms have the activation inside (BatchNormAct2d)."""
    parts = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


@torch.inference_mode()
def same_features(model: Classifier, other: Classifier, device: torch.device) -> bool:
    """Whether two versions of a model give the same features, up to rounding, on random pixels."""
    was_training = model.training
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, model.info.size, model.info.size, generator=generator).to(device)
    try:
        exact, folded = model.eval().features(pixels), other.features(pixels)
    except (RuntimeError, TypeError, AttributeError):  # the model uses other attributes of its norms
        return False
    finally:
        model.train(was_training)
    scale: Tensor = exact.std() + 1e-6
    return bool(((exact - folded).abs().max() / scale) < SAME)
